//! The records of the double, for tests: users, channels, messages, files, calls.

use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// A person.
#[derive(Debug, Clone)]
pub struct User {
    /// `U…`.
    pub id: String,
    /// The handle.
    pub name: String,
    /// The displayed name.
    pub real_name: String,
}

/// A user group.
#[derive(Debug, Clone)]
pub struct Group {
    /// `S…`.
    pub id: String,
    /// The handle.
    pub handle: String,
    /// Ids of its members.
    pub members: Vec<String>,
    /// Disabled groups are listed only on request.
    pub disabled: bool,
}

/// A channel, or a direct message (`D…`).
#[derive(Debug, Clone)]
pub struct Channel {
    /// `C…` or `D…`.
    pub id: String,
    /// Without `#`.
    pub name: String,
    /// Private channels do not exist for a bot that is not a member.
    pub private: bool,
    /// Nothing can be posted to an archived channel.
    pub archived: bool,
    /// Whether the bot is a member.
    pub bot_is_member: bool,
    /// For a direct message, with whom.
    pub with: Option<String>,
}

/// A message: in a channel, a reply in a thread, or visible to one person only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Id of the channel.
    pub channel: String,
    /// Slack's id of the message in its channel, and its time.
    pub ts: String,
    /// The root's `ts`, for a reply.
    pub thread_ts: Option<String>,
    /// Who posted it.
    pub user: String,
    /// The text; with blocks, what notifications show.
    pub text: String,
    /// The blocks, completed as Slack does (`block_id`, `action_id`, `emoji`, `verbatim`).
    pub blocks: Vec<Value>,
    /// `event_type` and `event_payload`.
    pub metadata: Option<Value>,
    /// The `ts` of the last edit.
    pub edited: Option<String>,
    /// Its content before each edit, oldest first: `{"text","blocks","metadata"}`.
    pub history: Vec<Value>,
    /// Ids of its files.
    pub files: Vec<String>,
    /// The only person who sees it, if ephemeral.
    pub ephemeral_to: Option<String>,
    /// Whether a reply is shown in the channel too.
    pub broadcast: bool,
    /// Whether links in it show previews of pages.
    pub unfurl_links: bool,
    /// Whether links in it show previews of images.
    pub unfurl_media: bool,
}

impl Message {
    pub(super) fn new(channel: &str, ts: &str, user: &str, text: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            ts: ts.to_owned(),
            user: user.to_owned(),
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// When it was posted, by the double's clock: `ts` as a time.
    pub fn posted_at(&self) -> SystemTime {
        let (seconds, micros) = self.ts.split_once('.').unwrap_or((&self.ts, "0"));
        let number = |text: &str| text.parse().unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(number(seconds)) + Duration::from_micros(number(micros))
    }

    /// The interactive elements, with the id of the block each one is in.
    pub fn elements(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for block in &self.blocks {
            let id = block["block_id"].as_str().unwrap_or_default().to_owned();
            let inner = block["elements"].as_array().into_iter().flatten();
            let all = inner.chain(block.get("accessory")).filter(|element| element.get("action_id").is_some());
            found.extend(all.map(|element| (id.clone(), element.clone())));
        }
        found
    }

    /// The action ids of its buttons and menus, in order.
    pub fn action_ids(&self) -> Vec<String> {
        self.elements().iter().filter_map(|(_, element)| element["action_id"].as_str().map(str::to_owned)).collect()
    }

    /// The element with this action id.
    pub fn element(&self, action_id: &str) -> Option<Value> {
        self.elements().into_iter().map(|(_, element)| element).find(|element| element["action_id"] == action_id)
    }

    /// Every visible text, one per line: the blocks', or the plain text if there are none.
    pub fn visible_text(&self) -> String {
        fn collect(value: &Value, texts: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(text)) = map.get("text") {
                        texts.push(text.clone());
                    }
                    let inner = ["text", "fields", "elements", "accessory"];
                    inner.iter().filter_map(|key| map.get(*key)).for_each(|value| collect(value, texts));
                }
                Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
                _ => (),
            }
        }
        if self.blocks.is_empty() {
            return self.text.clone();
        }
        let mut texts = Vec::new();
        self.blocks.iter().for_each(|block| collect(block, &mut texts));
        texts.join("\n")
    }

    pub(super) fn version(&self) -> Value {
        json!({"text": self.text, "blocks": self.blocks, "metadata": self.metadata})
    }
}

/// An uploaded file.
#[derive(Debug, Clone)]
pub struct File {
    /// `F…`.
    pub id: String,
    /// As announced.
    pub name: String,
    /// Shown instead of the name.
    pub title: String,
    /// Its bytes; none until uploaded.
    pub content: Option<Vec<u8>>,
    /// Where it was shared: channel and message.
    pub shared: Vec<(String, String)>,
    pub(super) announced: usize,
}

/// One call of the Web API.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it arrived, by the double's clock.
    pub at: SystemTime,
    /// `chat.postMessage`, …; a reply to a `response_url` is `response_url`.
    pub method: String,
    /// Its arguments; structured ones parsed.
    pub args: Value,
    /// HTTP status of the answer; 0 if there was none yet.
    pub status: u16,
    /// The answer; if the reply was dropped, what it would have been.
    pub result: Value,
    /// Whether the call took effect.
    pub applied: bool,
}

/// A click on the web page.
#[derive(Debug, Clone)]
pub struct Click {
    /// When, by the double's clock.
    pub at: SystemTime,
    /// Who.
    pub user: String,
    /// Id of the message's channel.
    pub channel: String,
    /// The message.
    pub ts: String,
    /// What was clicked.
    pub action_id: String,
}

/// The app's acknowledgement of a Socket Mode envelope.
#[derive(Debug, Clone)]
pub struct Ack {
    /// The envelope.
    pub envelope_id: String,
    /// The time since it was last sent; `None` if no such envelope was sent.
    pub after: Option<Duration>,
    /// The response payload, if there was one.
    pub payload: Option<Value>,
}
