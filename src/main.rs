use std::process::ExitCode;

use clap::Parser;
use prompt_rollback::cli::{self, Cli};

// One thread: waiting for Redis is all it does, and handing work to other threads costs more than the work.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
