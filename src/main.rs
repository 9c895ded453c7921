use std::process::ExitCode;

use clap::Parser;
use prompt_rollback::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
