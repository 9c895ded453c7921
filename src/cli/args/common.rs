//! Arguments that several commands take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::client::Token;

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Config file (TOML) [default: built-in defaults and PROMPT_ROLLBACK_SECTION__KEY variables].
    #[arg(long, value_name = "FILE", env = "PROMPT_ROLLBACK_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct OperatorArg {
    /// Your name, for the deployment log.
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true)]
    operator: Option<String>,
}

impl OperatorArg {
    /// `None` also for an empty name, because the variable may be empty.
    pub fn name(self) -> Option<String> {
        self.operator.filter(|name| !name.trim().is_empty())
    }
}

/// How to reach the receiver.
#[derive(Debug, Args)]
pub struct ReceiverArgs {
    /// The receiver's address.
    // parsed later: an error of the argument parser would show a password in it
    #[arg(long, env = "PROMPT_ROLLBACK_URL", hide_env_values = true, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// API token (server.api_token) [env: PROMPT_ROLLBACK_TOKEN]. Prefer --token-file or the variable: other users can
    /// see arguments.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: Token,
    /// File that holds the API token [default: the file in PROMPT_ROLLBACK_TOKEN_FILE].
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CA to trust for https:// instead of the system's.
    #[arg(long, value_name = "FILE", env = "PROMPT_ROLLBACK_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Format {
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}
