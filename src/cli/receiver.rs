//! Requests to a running receiver, and how their answers are shown.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{Output, ReceiverArgs};
use super::client::{ApiClient, Token};
use super::terminal::{CommandError, print, print_json};
use crate::config::{self, bare, decode};
use crate::http_client::BaseUrl;
use crate::tls;

const TOKEN: &str = "PROMPT_ROLLBACK_TOKEN";
/// Names the file with the token, for shells.
const TOKEN_FILE: &str = "PROMPT_ROLLBACK_TOKEN_FILE";

pub fn connect(receiver: &ReceiverArgs) -> Result<ApiClient, CommandError> {
    let roots = receiver.ca_file.as_deref().map(tls::trusted).transpose();
    let roots = roots.map_err(|error| CommandError::Misused(format!("--ca-file: {error}")))?;
    let url: BaseUrl = receiver.url.parse().map_err(|why| CommandError::Misused(format!("--url: {why}")))?;
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let by_variable = Token::new(&variable(TOKEN).unwrap_or_default().to_string_lossy());
    // arguments have priority over variables, and both over the one that is always set in the image
    let (token, from) =
        if receiver.token.is_none() { (by_variable, TOKEN) } else { (receiver.token.clone(), "--token") };
    let file = match &receiver.token_file {
        Some(path) => Some((path.clone(), "--token-file")),
        None if token.is_none() => variable(TOKEN_FILE).map(|path| (PathBuf::from(path), TOKEN_FILE)),
        None => None,
    };
    let (token, from) = match file {
        None => (token, from.to_owned()),
        Some((path, named)) => {
            let from = format!("{named}: {}", path.display());
            let text = config::read_file(&path).map_err(|error| error.to_string());
            let text = text.and_then(|bytes| Ok(decode(&bytes)?.to_owned()));
            let text = text.map_err(|why| CommandError::Misused(format!("{from}: {why}")))?;
            if bare(&text).is_empty() {
                return Err(CommandError::Misused(format!("{from}: expected a token, but the file is empty")));
            }
            (Token::new(&text), from)
        }
    };
    let token = token.header().map_err(|why| CommandError::Misused(format!("{from}: {why}")))?;
    Ok(ApiClient::new(url, token, roots)?)
}

/// A JSON object with the given arguments; the receiver chooses the rest. An empty argument counts as given: a script
/// whose variable is not set must not act on all prompts.
pub fn body<T: Serialize>(request: &T) -> Value {
    let mut body = serde_json::to_value(request).unwrap_or_default();
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !(value.is_null() || *value == false));
    }
    body
}

/// Fails unless the response has the `expected` fields: another server may answer `{}` to anything, and fields that are
/// absent count as empty.
pub fn recognize(receiver: &ReceiverArgs, answer: &Value, expected: &[&str]) -> Result<(), CommandError> {
    let Some(missing) = expected.iter().find(|field| answer.get(**field).is_none()) else { return Ok(()) };
    let found: String = answer.to_string().chars().take(200).collect();
    let url = &receiver.url;
    Err(CommandError::Failed(format!("{url} is not a receiver: expected a response with {missing:?}, found {found}")))
}

/// Prints the whole response for scripts, or a summary for people. `expected`: fields that every receiver sends in it.
pub fn show<T: DeserializeOwned>(
    receiver: &ReceiverArgs,
    answer: Value,
    expected: &[&str],
    text: impl FnOnce(T) -> String,
) -> Result<(), CommandError> {
    recognize(receiver, &answer, expected)?;
    match receiver.format.output {
        Output::Json => print_json(&answer),
        Output::Text => {
            let view = serde_json::from_value(answer).map_err(|error| {
                CommandError::Failed(format!("cannot parse the answer of {}: {error}", receiver.url))
            })?;
            print(&text(view))
        }
    }
}
