//! Parses interactions, which Slack sends over HTTP or in an envelope of Socket Mode. Pure.
//!
//! Reads only the few fields that are needed, and leniently: the library's types reject whole clicks because of fields
//! that are absent, null or new.

use std::time::{Duration, SystemTime};

use percent_encoding::percent_decode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use slack_morphism::signature_verifier::SlackEventSignatureVerifier;

use crate::decision::Operator;
use crate::visible::is_hidden;

/// Slack allows 80 characters for a name.
const MAX_NAME: usize = 80;

/// Someone pressed a button or chose from a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click {
    /// Id of the user.
    pub user: String,
    /// Their name, if Slack sent one; otherwise the id.
    pub name: String,
    /// Id of the channel.
    pub channel: Option<String>,
    /// `ts` of the thread's root.
    pub thread: Option<String>,
    pub action_id: String,
    /// The value of the button, or of the chosen option; empty if it has none, such as a link.
    pub value: String,
    /// Slack's time of the click. The same if the click is delivered again.
    pub action_ts: String,
    pub response_url: Option<String>,
    /// The workspace and the app that it comes from, if Slack says so.
    pub team: Option<String>,
    pub app: Option<String>,
}

impl Click {
    /// The user, as verified by Slack.
    pub fn operator(&self) -> Operator {
        Operator::slack(&self.user, &self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interaction {
    Clicks(Vec<Click>),
    /// An interaction of this type, which only needs an acknowledgement.
    Other(String),
}

/// The payload is not an interaction. Reveals nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadInteraction {
    #[error("the form has no payload")]
    NoPayload,
    #[error("the payload is not JSON")]
    NotJson,
    #[error("the payload has no {0}")]
    Lacks(&'static str),
}

/// A message of Socket Mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    /// Slack is about to close the connection, permanently if Socket Mode is `disabled` for the app.
    Goodbye { disabled: bool },
    /// To be acknowledged with `id`, whatever it contains.
    Delivery { id: String, interaction: Option<Result<Interaction, BadInteraction>> },
    /// Needs no action.
    Other,
}

/// Parses a message of Socket Mode.
pub fn parse_envelope(text: &str) -> Result<SocketMessage, BadInteraction> {
    let message: Value = serde_json::from_str(text).map_err(|_| BadInteraction::NotJson)?;
    if message["type"] == "disconnect" {
        return Ok(SocketMessage::Goodbye { disabled: message["reason"] == "link_disabled" });
    }
    let Some(id) = message["envelope_id"].as_str() else { return Ok(SocketMessage::Other) };
    let interaction = (message["type"] == "interactive").then(|| read(&message["payload"]));
    Ok(SocketMessage::Delivery { id: id.to_owned(), interaction })
}

/// Parses the form that Slack posts.
pub fn parse_form(body: &[u8]) -> Result<Interaction, BadInteraction> {
    let payload = body.split(|&b| b == b'&').find_map(|field| field.strip_prefix(b"payload="));
    let spaced: Vec<u8> =
        payload.ok_or(BadInteraction::NoPayload)?.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    parse(&percent_decode(&spaced).collect::<Vec<u8>>())
}

/// Parses the payload itself.
pub fn parse(json: &[u8]) -> Result<Interaction, BadInteraction> {
    read(&serde_json::from_slice(json).map_err(|_| BadInteraction::NotJson)?)
}

fn read(payload: &Value) -> Result<Interaction, BadInteraction> {
    let kind = text(payload, &["type"]).ok_or(BadInteraction::Lacks("type"))?;
    if kind != "block_actions" {
        return Ok(Interaction::Other(kind));
    }
    let actions = payload["actions"].as_array().ok_or(BadInteraction::Lacks("actions"))?;
    actions.iter().map(|action| click(payload, action)).collect::<Result<_, _>>().map(Interaction::Clicks)
}

fn click(payload: &Value, action: &Value) -> Result<Click, BadInteraction> {
    let first = |paths: &[&[&str]]| paths.iter().find_map(|path| text(payload, path));
    let user = first(&[&["user", "id"]]).ok_or(BadInteraction::Lacks("user"))?;
    let name = first(&[&["user", "name"], &["user", "username"]]);
    Ok(Click {
        name: name.as_deref().and_then(plain).unwrap_or_else(|| user.clone()),
        user,
        channel: first(&[&["channel", "id"], &["container", "channel_id"]]),
        // a reply names its root; otherwise the message is the root
        thread: first(&[
            &["message", "thread_ts"],
            &["container", "thread_ts"],
            &["message", "ts"],
            &["container", "message_ts"],
        ]),
        action_id: text(action, &["action_id"]).ok_or(BadInteraction::Lacks("action_id"))?,
        value: text(action, &["value"]).or_else(|| text(action, &["selected_option", "value"])).unwrap_or_default(),
        action_ts: text(action, &["action_ts"]).ok_or(BadInteraction::Lacks("action_ts"))?,
        response_url: first(&[&["response_url"]]),
        team: first(&[&["team", "id"]]),
        app: first(&[&["api_app_id"]]),
    })
}

/// The text at this path, unless it is empty.
fn text(value: &Value, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(value, |value, key| value.get(key))?;
    found.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A name that fits on one line.
fn plain(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !is_hidden(*c)).take(MAX_NAME).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Whether these headers can be from a request that Slack signed within the last five minutes. [`verify`] checks the
/// signature itself.
pub fn may_be_signed(signature: Option<&str>, timestamp: Option<&str>) -> bool {
    const WINDOW: Duration = Duration::from_secs(5 * 60);
    let digits = signature.and_then(|signature| signature.strip_prefix("v0="));
    let is_one = digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let at = timestamp.and_then(|timestamp| timestamp.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    is_one && at.is_some_and(|at| now.as_secs().abs_diff(at) <= WINDOW.as_secs())
}

/// Whether Slack signed this body with the app's secret within the last five minutes. The same body stays valid that
/// long, so the caller must recognize replays.
pub fn verify(secret: &SecretString, signature: Option<&str>, timestamp: Option<&str>, body: &[u8]) -> bool {
    let (Some(signature), Some(timestamp), Ok(body)) = (signature, timestamp, std::str::from_utf8(body)) else {
        return false;
    };
    let verifier = SlackEventSignatureVerifier::new(&secret.expose_secret().into());
    verifier.verify(signature, body, timestamp).is_ok()
}

#[cfg(test)]
mod tests;
