//! What commands print, and how they fail.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use super::client::ClientError;
use crate::http_client::OutgoingError;
use crate::visible::escape_hidden;

/// Why a command failed.
pub enum CommandError {
    /// Refused or failed: exit code 1.
    Failed(String),
    /// Invalid command line or config: exit code 2.
    Misused(String),
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::NoAnswer(OutgoingError::Unreachable { reason, .. }) if reason.contains("UnknownIssuer") => {
                "\nhint: set --ca-file or PROMPT_ROLLBACK_CA_FILE to the authority that signed its certificate"
            }
            ClientError::NoAnswer(OutgoingError::Unreachable { .. }) => {
                "\nhint: is the receiver running there? set --url or PROMPT_ROLLBACK_URL"
            }
            ClientError::Refused { status, .. } if status.as_u16() == 401 => {
                "\nhint: give the receiver's server.api_token by --token-file, PROMPT_ROLLBACK_TOKEN_FILE or PROMPT_ROLLBACK_TOKEN"
            }
            _ => "",
        };
        Self::Failed(format!("{error}{hint}"))
    }
}

pub fn print_json(value: &Value) -> Result<(), CommandError> {
    print(&format!("{value:#}\n"))
}

/// Responses contain external text, in JSON as well.
pub fn print(text: &str) -> Result<(), CommandError> {
    // a patch needs the lines of its file as they are, also with line breaks of Windows
    let text = text.split("\r\n").map(escape_hidden).collect::<Vec<_>>().join("\r\n");
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `status | head` closes the pipe
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::Failed(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}

pub fn color() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
