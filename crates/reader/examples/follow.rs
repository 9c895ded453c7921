//! Prints the versions of some prompts, now and after each change:
//! `cargo run --example follow -- redis://127.0.0.1:6379 customer-support`

use std::env;
use std::error::Error;

use prompt_rollback_reader::{Reader, Settings};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("expected the URL of Redis, then the names of prompts")?;
    let reader = Reader::start(url, arguments, Settings::default())?;
    let mut followed = JoinSet::new();
    for (name, prompt) in reader.prompts() {
        let (name, mut changes) = (name.to_owned(), prompt.changes());
        followed.spawn(async move {
            while let Some(versions) = changes.next().await {
                println!("{name}: {}", versions.join(" and "));
            }
        });
    }
    drop(followed.join_all().await);
    Ok(())
}
