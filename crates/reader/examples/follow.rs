//! Prints the versions of some prompts, now and after each change, and what is wrong while something is:
//! `cargo run --example follow -- redis://127.0.0.1:6379 customer-support`

use std::env;
use std::error::Error;
use std::time::Duration;

use prompt_rollback_reader::{Prompt, Reader, Settings, key_of};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("expected the URL of Redis, then the names of prompts")?;
    // a name may contain any characters; Redis, and so the reader, has its encoded form
    let names = arguments.map(|name| Ok((key_of(&name)?, name))).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let reader = Reader::start(url, names.iter().map(|(key, _)| key.as_str()), Settings::default())?;
    let mut followed = JoinSet::new();
    for (key, name) in names {
        let prompt = reader.prompt(&key).ok_or("not followed")?.clone();
        followed.spawn(follow(name, prompt));
    }
    drop(followed.join_all().await);
    Ok(())
}

async fn follow(name: String, prompt: Prompt) {
    let (mut changes, mut problem) = (prompt.changes(), None);
    loop {
        if let Ok(Some(versions)) = timeout(Duration::from_secs(1), changes.next()).await {
            println!("{name}: {}", versions.join(" and "));
        }
        if problem != prompt.error() {
            problem = prompt.error();
            println!("{name}: {}", problem.as_ref().map_or("all is well".to_owned(), ToString::to_string));
        }
    }
}
