//! The fields of Slack's answers that are needed.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct OkResponse<A> {
    pub ok: bool,
    #[serde(flatten)]
    pub answer: A,
}

#[derive(Deserialize)]
pub struct Nothing {}

#[derive(Deserialize)]
pub struct MessageAddress {
    pub channel: String,
    pub ts: String,
}

#[derive(Deserialize)]
pub struct Permalink {
    pub permalink: String,
}

#[derive(Deserialize)]
pub struct Members {
    pub users: Vec<String>,
}

#[derive(Deserialize)]
pub struct Messages {
    pub messages: Vec<ListedMessage>,
    #[serde(default, rename = "response_metadata")]
    pub more: More,
}

#[derive(Deserialize)]
pub struct ListedMessage {
    pub ts: String,
    pub metadata: Option<Value>,
    pub files: Option<Vec<ListedFile>>,
}

#[derive(Deserialize)]
pub struct ListedFile {
    pub name: Option<String>,
}

#[derive(Deserialize)]
pub struct Channels {
    pub channels: Vec<Channel>,
    #[serde(default, rename = "response_metadata")]
    pub more: More,
}

#[derive(Clone, Deserialize)]
pub struct Channel {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub is_member: bool,
    #[serde(default)]
    pub is_archived: bool,
}

/// Where the next page begins.
#[derive(Default, Deserialize)]
pub struct More {
    pub next_cursor: Option<String>,
}

impl More {
    pub fn next(self) -> Option<String> {
        self.next_cursor.filter(|cursor| !cursor.is_empty())
    }
}
