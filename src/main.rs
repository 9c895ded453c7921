use std::process::ExitCode;

use clap::Parser;
use prompt_rollback::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse(), async |_| anyhow::bail!("no receiver in this build"), async |_| cli::check::StoreReport::default()).await
}
