//! The command line. `init` writes a config; `serve`, `check`, `backup` and `restore-backup` read it; all other commands call
//! a running receiver.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

pub mod args;
mod backup;
mod check;
mod client;
mod drill;
mod import;
mod init;
mod operations;
mod output;
mod probe;
mod receiver;
pub mod stack;
mod table;
mod terminal;
mod versions;

pub use args::Cli;

use crate::app::{self, AppError, Signals};
use crate::config::{self, LoadedConfig};
use crate::store::StoreError;
use args::{Command, ConfigFile, Output};
use check::StoreReport;
use stack::StackFiles;
use terminal::{CommandError, color, print, print_json};

/// Runs the command that the arguments name.
///
/// The runtime is created here instead of in `main.rs`, which would compile every async function of the library again.
/// It has one thread: it only waits for Redis, and moving small work to other threads costs more than the work.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(cli));
    // a read of a file that hangs must not keep the process alive
    runtime.shutdown_background();
    code
}

/// Runs one command.
async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(file) => serve(&file).await,
        Command::Check {
            config,
            connect,
            alertmanager_config,
            receiver_url,
            alert_label,
            prometheus_config,
            prompt_job,
            format,
        } => {
            let receiver_url = receiver_url.map(|url| url.to_string());
            let files = StackFiles {
                alertmanager: alertmanager_config.as_deref(),
                receiver_url: receiver_url.as_deref(),
                alert_labels: &alert_label,
                prometheus: prometheus_config.as_deref(),
                prompt_jobs: &prompt_job,
            };
            check(&config, connect, &files, format.output).await
        }
        Command::Backup { file, config } => {
            let config = load(&config).map(|loaded| loaded.config);
            copied(async { backup::backup(&config?.redis, &file).await.map_err(CommandError::Failed) }, "saved").await
        }
        Command::RestoreBackup { file, config } => {
            let config = load(&config).map(|loaded| loaded.config);
            copied(async { backup::restore(&config?.redis, &file).await.map_err(CommandError::Failed) }, "restored")
                .await
        }
        Command::Init(args) => init::run(&args).and_then(|text| print(&text)),
        Command::Version(command) => versions::run(command).await,
        Command::Operation(command) => operations::run(command).await,
    };
    let (code, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CommandError::Failed(message)) => (1, message),
        Err(CommandError::Misused(message)) => (2, message),
    };
    // responses contain external text; the line breaks are the program's own
    for (at, line) in message.lines().enumerate() {
        let prefix = if at == 0 || code == 2 { "error: " } else { "" };
        // stderr may be closed
        let _ = writeln!(std::io::stderr(), "{prefix}{}", table::clean(line));
    }
    ExitCode::from(code)
}

fn load(file: &ConfigFile) -> Result<LoadedConfig, CommandError> {
    let config = LoadedConfig::load(file.config.as_deref(), config::environment());
    config.map_err(|error| CommandError::Misused(error.to_string()))
}

async fn serve(file: &ConfigFile) -> Result<(), CommandError> {
    let failure = |error| match error {
        AppError::Store(StoreError::Config(_)) => CommandError::Misused(error.to_string()),
        error => CommandError::Failed(error.to_string()),
    };
    // before everything else: a SIGHUP must not end the process
    let mut signals = Signals::listen().map_err(failure)?;
    let path = file.config.clone();
    let load = tokio::task::spawn_blocking(move || LoadedConfig::load(path.as_deref(), config::environment()));
    let settings = tokio::select! {
        settings = load => settings.map_err(|error| CommandError::Failed(error.to_string()))?,
        () = signals.ended() => return Ok(()), // the disk hangs
    };
    let settings = settings.map_err(|error| CommandError::Misused(error.to_string()))?;
    app::serve(&settings, signals).await.map_err(failure)
}

async fn check(file: &ConfigFile, connect: bool, stack: &StackFiles<'_>, format: Output) -> Result<(), CommandError> {
    let loaded = load(file)?;
    let (warnings, config) = (loaded.warnings(), loaded.config);
    let report = stack::review(stack, &config).map_err(CommandError::Misused)?;
    let StoreReport { mut probes, without_target } =
        if connect { probe::probe(&config).await } else { StoreReport::default() };
    if connect {
        probes.extend(check::probe_http(&config).await);
        probes.extend(probe::probe_slack(&config).await);
        probes.extend(probe::probe_deciders(&config));
        probes.extend(probe::probe_schedules(&config).await);
        probes.extend(probe::probe_webhooks(&config).await);
        probes.extend(probe::probe_collector(&config).await);
        probes.extend(probe::probe_archive(&config));
    }
    let looked = !probes.is_empty() || !report.probes.is_empty();
    probes.extend(report.probes.iter().cloned());
    match format {
        Output::Json => {
            let mut result = check::json(&warnings, &probes, &without_target);
            if stack.alertmanager.is_some() {
                result["alertmanager"] = report.json();
            }
            print_json(&result)?;
        }
        Output::Text => {
            print("config: ok\n")?;
            for warning in &warnings {
                print(&format!("warning: {warning}\n"))?;
            }
            if looked {
                print(&check::table_of(&probes, color()))?;
            }
            if connect {
                print(&check::hints(&config, &without_target))?;
            }
            print(&report.text())?;
        }
    }
    match probes.iter().filter(|probe| probe.failed()).count() {
        0 => Ok(()),
        failed => Err(CommandError::Failed(format!("{failed} of {} checks failed", probes.len()))),
    }
}

/// Says how many keys were copied.
async fn copied(copy: impl Future<Output = Result<usize, CommandError>>, done: &str) -> Result<(), CommandError> {
    let keys = copy.await?;
    print(&format!("{keys} keys {done}\n"))
}
