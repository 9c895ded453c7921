//! The command line as a user types it.

mod common;
mod operations;
mod versions;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::client::BaseUrl;

pub use common::{ConfigFile, Output, ReceiverArgs};
pub use operations::{DecisionArg, OperationCommand};
pub use versions::VersionCommand;

use common::Format;

/// Rolls a misbehaving LLM prompt back to its last known-good version.
///
/// `serve` runs the receiver, which accepts alerts from Alertmanager and switches the active version in Redis.
/// `init` writes the receiver's files, `check` checks its config, and `backup` and `restore-backup` use the Redis that the
/// config names. Every other command calls the receiver's HTTP API.
#[derive(Debug, Parser)]
#[command(
    name = "prompt-rollback",
    version,
    after_help = "\
A first session:
  prompt-rollback serve &                         # Redis on 127.0.0.1:6379
  prompt-rollback register customer-support v1.9.0 --known-good
  prompt-rollback activate customer-support v1.9.0
  prompt-rollback register customer-support v2.0.0
  prompt-rollback activate customer-support v2.0.0 # an alert can roll it back
  prompt-rollback rollback customer-support --reason 'too many refusals'
  prompt-rollback status

Exit codes: 0 success, 1 refused or failed, 2 invalid usage or config."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the receiver: Alertmanager webhook, HTTP API and metrics.
    #[command(after_help = "\
Examples:
  prompt-rollback serve
  prompt-rollback serve --config /etc/prompt-rollback/prompt-rollback.toml
  PROMPT_ROLLBACK_REDIS__URL=redis://redis:6379 prompt-rollback serve

Each config key can also be set by an environment variable: [guards] cooldown
is PROMPT_ROLLBACK_GUARDS__COOLDOWN. SIGHUP reloads the config, secrets and
certificates. SIGTERM shuts down after requests in flight have finished.")]
    Serve(ConfigFile),

    /// Validate the config, and with --connect test every connection in it.
    #[command(after_help = "\
Examples:
  prompt-rollback check --config prompt-rollback.toml
  prompt-rollback check --config prompt-rollback.toml --connect
  prompt-rollback check --config prompt-rollback.toml \\
    --alertmanager-config alertmanager.yml --prometheus-config prometheus.yml
  prompt-rollback check --alertmanager-config alertmanager.yml \\
    --receiver-url http://receiver:8000 | patch alertmanager.yml
  prompt-rollback check --alertmanager-config alertmanager.yml \\
    --alert-label namespace=prompts

--connect tests Redis (permissions, memory policy), Prometheus, each
Alertmanager, Slack, webhooks and on-call schedules, and prints one line for
each. It warns if Redis can lose data or accepts writes from anyone, and lists
the prompts that have no rollback target.
--alertmanager-config follows every alert of the shipped rules through your
routes and inhibit rules, and prints the missing lines as a patch.
--receiver-url is the address in that patch. Alerts carry the labels of
--alert-label and, with --prometheus-config, those of its rule files.
--prometheus-config checks scrapes, rule files and labels.
Exit 2: the config or a file is invalid. Exit 1: a test failed.")]
    #[command(group = clap::ArgGroup::new("stack").multiple(true).args(["alertmanager_config", "prometheus_config"]))]
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Connect to every service in the config.
        #[arg(long)]
        connect: bool,
        /// Check that this Alertmanager config delivers our alerts, and print the missing lines.
        #[arg(long, value_name = "FILE")]
        alertmanager_config: Option<PathBuf>,
        /// Address at which Alertmanager reaches the receiver, for the missing lines [default: from server.listen].
        #[arg(long, value_name = "URL", requires = "alertmanager_config")]
        receiver_url: Option<BaseUrl>,
        /// Label that all alerts carry, such as namespace=prompts from the Prometheus operator; repeatable.
        #[arg(long, value_name = "NAME=VALUE", value_parser = label, requires = "stack")]
        alert_label: Vec<(String, String)>,
        /// Check that this Prometheus config measures prompts and loads the rules.
        #[arg(long, value_name = "FILE")]
        prometheus_config: Option<PathBuf>,
        /// Scrape job of prompt servers; repeatable [default: jobs that look like one].
        #[arg(long, value_name = "JOB", requires = "prometheus_config")]
        prompt_job: Vec<String>,
        #[command(flatten)]
        format: Format,
    },

    /// Copy the data in Redis to a new file, without CONFIG or access to Redis' files.
    #[command(after_help = "\
Examples:
  prompt-rollback backup prompts.backup --config backup.toml

The section [redis] of backup.toml names the Redis user for backups.

Reads all keys until two passes agree, so that the copy is consistent.
Receivers may run, unless they write continuously. The Redis user needs +scan
+dump +pexpiretime, which the receiver's own user lacks. The file contains
prompts, so its mode is 0600.")]
    Backup {
        /// The file, which must not exist.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },

    /// Write a backup to an empty Redis.
    #[command(after_help = "\
Examples:
  prompt-rollback restore-backup prompts.backup --config backup.toml

The section [redis] of backup.toml names the Redis user for backups.

Stop all receivers first. Keys of other namespaces do not change. If the
command is interrupted, run it again. The Redis user needs +scan +get +set
+del +restore. Redis must have the version of the backed-up Redis, or a newer
one.")]
    RestoreBackup {
        /// The file that `backup` wrote.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },

    /// Write the files that connect a receiver to your Redis, Prometheus and Alertmanager.
    #[command(after_help = "\
Examples:
  prompt-rollback init                              # asks five questions
  prompt-rollback init --dir receiver --platform systemd \\
    --redis-url redis://127.0.0.1:6379 \\
    --prometheus-url http://127.0.0.1:9090 \\
    --alertmanager-url http://127.0.0.1:9093 \\
    --receiver-url http://127.0.0.1:8000

Writes a config with only the settings that you need, new tokens and
passwords, the Redis users, the routes and the receiver for Alertmanager, and
a systemd unit or values for the Helm chart. Then prints the next steps in
order. The command opens no connections and overwrites no files. Only you can
read the files with secrets. With all five flags, it asks no questions.
Without a terminal, all five flags are required.")]
    Init(InitArgs),

    // the commands that call a receiver
    #[command(flatten)]
    Version(VersionCommand),
    #[command(flatten)]
    Operation(OperationCommand),
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as namespace=prompts".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// What runs the receiver.
    #[arg(long, value_enum)]
    pub platform: Option<Platform>,
    /// Address at which the receiver reaches Redis, without user and password, such as redis://127.0.0.1:6379.
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Address at which the receiver reaches Prometheus, such as http://127.0.0.1:9090.
    #[arg(long, value_name = "URL")]
    pub prometheus_url: Option<String>,
    /// Address at which the receiver reaches Alertmanager; for several Alertmanagers, all addresses, comma-separated.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub alertmanager_url: Option<Vec<String>>,
    /// Address at which Alertmanager reaches the receiver: http://127.0.0.1:8000 on the same machine, otherwise with a
    /// host name, such as http://receiver:8000.
    #[arg(long, value_name = "URL")]
    pub receiver_url: Option<String>,
    /// Directory to write to; the command creates it.
    #[arg(long, value_name = "DIR", default_value = "prompt-rollback")]
    pub dir: PathBuf,
    /// Overwrite existing files, except secrets, which are kept.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// A service on a host.
    Systemd,
    /// A Deployment, from the Helm chart.
    Kubernetes,
}
