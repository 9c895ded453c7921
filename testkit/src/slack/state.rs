//! The state of the workspace: one lock over plain data.

use super::clock::Clock;
use super::faults::Fault;
use super::rate_limits::Buckets;
use super::records::{Ack, Call, Channel, Click, File, Group, Message, User};
use super::socket::Sockets;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A stand-alone double may run for days; tests never reach the limit.
const MAX_CALLS: usize = 100_000;

/// The setup of the workspace and its app; constant while the double runs.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub base: String,
    pub team: String,
    pub team_name: String,
    pub app_id: String,
    pub bot_id: String,
    pub bot_user: String,
    pub bot_name: String,
    pub bot_token: String,
    pub app_token: String,
    pub signing_secret: String,
    pub redeliveries: u32,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub setup: Setup,
    pub clock: Clock,
    state: Mutex<State>,
}

impl Shared {
    pub fn new(setup: Setup, clock: Clock, state: State) -> Self {
        Self { setup, clock, state: Mutex::new(state) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records a call when it arrives, so that one that hangs is visible; its number completes it later.
    pub fn arrived(&self, call: Call) -> u64 {
        let mut state = self.lock();
        if state.calls.len() == MAX_CALLS {
            state.calls.pop_first();
        }
        state.last_id += 1;
        let number = state.last_id;
        state.calls.insert(number, call);
        number
    }

    /// Completes a recorded call.
    pub fn answered(&self, number: u64, status: u16, result: Value, applied: bool) {
        if let Some(call) = self.lock().calls.get_mut(&number) {
            (call.status, call.result, call.applied) = (status, result, applied);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub users: BTreeMap<String, User>,
    pub groups: BTreeMap<String, Group>,
    pub channels: BTreeMap<String, Channel>,
    /// By channel and `ts`. A `ts` has a fixed width, so the map is sorted by time.
    pub messages: BTreeMap<(String, String), Message>,
    pub ephemeral: Vec<Message>,
    pub files: BTreeMap<String, File>,
    pub views: Vec<Value>,
    pub scopes: BTreeSet<String>,
    pub app_scopes: BTreeSet<String>,
    pub revoked: bool,
    pub request_url: Option<String>,
    pub calls: BTreeMap<u64, Call>,
    pub faults: Vec<Fault>,
    pub rate_limits: Option<Buckets>,
    pub triggers: HashMap<String, Trigger>,
    pub responses: HashMap<String, ResponseUrl>,
    pub sockets: Sockets,
    pub acks: Vec<Ack>,
    pub clicks: Vec<Click>,
    /// Increases with every change that the web page shows.
    pub version: u64,
    last_ts: u128,
    last_id: u64,
}

/// A trigger that opens a modal: for three seconds, once.
#[derive(Debug)]
pub(super) struct Trigger {
    pub since_epoch: Duration,
    pub used: bool,
}

/// A URL where an app answers an interaction: five times within half an hour.
#[derive(Debug, Clone)]
pub(super) struct ResponseUrl {
    pub since_epoch: Duration,
    pub uses: u32,
    pub channel: String,
    pub message_ts: String,
    pub user: String,
}

impl State {
    /// A `ts` later than every other one.
    pub fn next_ts(&mut self, clock: &Clock) -> String {
        self.last_ts = clock.since_epoch().as_micros().max(self.last_ts + 1);
        format!("{}.{:06}", self.last_ts / 1_000_000, self.last_ts % 1_000_000)
    }

    /// A new id such as `C0000001A`: opaque, like Slack's.
    pub fn next_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}0{:07X}", self.last_id)
    }

    /// A channel by id.
    pub fn channel(&self, id: &str) -> Option<&Channel> {
        self.channels.get(id)
    }

    /// A channel by id, `#name` or name.
    pub fn find_channel(&self, id_or_name: &str) -> Option<&Channel> {
        let name = id_or_name.strip_prefix('#').unwrap_or(id_or_name);
        self.channels.get(id_or_name).or_else(|| self.channels.values().find(|channel| channel.name == name))
    }

    pub fn message(&self, channel: &str, ts: &str) -> Option<&Message> {
        self.messages.get(&(channel.to_owned(), ts.to_owned()))
    }

    pub fn message_mut(&mut self, channel: &str, ts: &str) -> Option<&mut Message> {
        self.messages.get_mut(&(channel.to_owned(), ts.to_owned()))
    }

    /// All messages of a channel, replies included, oldest first.
    pub fn in_channel(&self, channel: &str) -> impl DoubleEndedIterator<Item = &Message> {
        let first = (channel.to_owned(), String::new());
        let last = (channel.to_owned(), "~".to_owned());
        self.messages.range(first..last).map(|(_, message)| message)
    }

    /// The replies to a root, oldest first.
    pub fn replies(&self, channel: &str, root: &str) -> impl Iterator<Item = &Message> {
        let first = (channel.to_owned(), root.to_owned());
        let last = (channel.to_owned(), "~".to_owned());
        let later = self.messages.range(first..last).map(|(_, message)| message);
        later.filter(move |message| message.thread_ts.as_deref() == Some(root))
    }

    pub fn keep(&mut self, message: Message) {
        self.version += 1;
        match message.ephemeral_to {
            Some(_) => self.ephemeral.push(message),
            None => {
                self.messages.insert((message.channel.clone(), message.ts.clone()), message);
            }
        }
    }

    /// The message as the Web API and interactions show it.
    pub fn show(&self, message: &Message, setup: &Setup) -> Value {
        let mut shown = json!({
            "type": "message", "user": message.user, "ts": message.ts, "text": message.text, "team": setup.team,
            "bot_id": setup.bot_id, "app_id": setup.app_id,
        });
        if !message.blocks.is_empty() {
            shown["blocks"] = message.blocks.clone().into();
        }
        if let Some(ts) = &message.edited {
            shown["edited"] = json!({"user": setup.bot_user, "ts": ts});
        }
        if let Some(root) = &message.thread_ts {
            shown["thread_ts"] = root.clone().into();
        } else if message.ephemeral_to.is_none() {
            let replies = self.replies(&message.channel, &message.ts);
            let (count, latest) = replies.fold((0, None), |(count, _), reply| (count + 1, Some(&reply.ts)));
            if let Some(latest) = latest {
                shown["thread_ts"] = message.ts.clone().into();
                shown["reply_count"] = count.into();
                shown["latest_reply"] = latest.clone().into();
            }
        }
        if message.broadcast {
            shown["subtype"] = "thread_broadcast".into();
        }
        if !message.files.is_empty() {
            let files = message.files.iter().filter_map(|id| self.files.get(id));
            shown["files"] = files.map(|file| show_file(file, setup)).collect();
        }
        shown
    }
}

pub(super) fn show_file(file: &File, setup: &Setup) -> Value {
    json!({
        "id": file.id, "name": file.name, "title": file.title, "size": file.announced,
        "url_private": format!("{}/files/{}/{}", setup.base, file.id, crate::http::encode(&file.name)),
    })
}

/// Completes blocks as Slack does before it stores them.
pub(super) fn complete_blocks(state: &mut State, mut blocks: Vec<Value>) -> Vec<Value> {
    fn complete_texts(value: &mut Value) {
        match value {
            Value::Object(map) => {
                match map.get("type").and_then(Value::as_str) {
                    Some("plain_text") => drop(map.entry("emoji").or_insert(true.into())),
                    Some("mrkdwn") => drop(map.entry("verbatim").or_insert(false.into())),
                    _ => (),
                }
                map.values_mut().for_each(complete_texts);
            }
            Value::Array(items) => items.iter_mut().for_each(complete_texts),
            _ => (),
        }
    }
    fn complete_element(element: &mut Value, state: &mut State) {
        let is_text = matches!(element["type"].as_str(), Some("plain_text" | "mrkdwn" | "image"));
        if !is_text && element.get("action_id").is_none() {
            element["action_id"] = state.next_id("a").into();
        }
    }
    for block in &mut blocks {
        if block.get("block_id").is_none() {
            block["block_id"] = state.next_id("b").into();
        }
        if block["type"] == "actions" {
            block["elements"].as_array_mut().into_iter().flatten().for_each(|element| complete_element(element, state));
        }
        if let Some(accessory) = block.get_mut("accessory") {
            complete_element(accessory, state);
        }
        complete_texts(block);
    }
    blocks
}
