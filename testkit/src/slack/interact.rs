//! Interactions: what Slack sends when a person clicks, and how the app may answer later.

use super::api::{Args, Refusal, under_faults};
use super::methods::{Content, content, whisper};
use super::records::Message;
use super::server::{Answer, Closed, post_to_app};
use super::socket;
use super::state::{ResponseUrl, Shared, State, Trigger};
use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) const USER_AGENT: &str = "Slackbot 1.0 (+https://api.slack.com/robots)";

/// The app's time limit; after it, the person sees an error.
pub(super) const ACK_WITHIN: Duration = Duration::from_secs(3);
const RESPONSE_LIFE: Duration = Duration::from_secs(30 * 60);
const RESPONSE_USES: u32 = 5;

/// How an interaction is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// As Slack signs, at the double's time.
    Valid,
    /// Correctly, but at another time.
    At(SystemTime),
    /// With another secret.
    Wrong,
    /// Without the two headers.
    Missing,
}

/// How an interaction reaches the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A signed request to the request URL.
    Http,
    /// An envelope over one of the app's sockets.
    Socket,
}

/// The result of an interaction.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Whether the app acknowledged it in time: HTTP 200, or an ack of the envelope, within 3 s.
    pub acknowledged: bool,
    /// The HTTP status; 0 over a socket, or without an answer.
    pub status: u16,
    /// The body of the HTTP answer, the ack's payload, or why there was none.
    pub body: String,
    /// From sending to the answer.
    pub latency: Duration,
    /// The envelope, over a socket.
    pub envelope_id: Option<String>,
}

/// An interaction to be sent.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is sent"]
pub struct Interaction {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    user: String,
    message: Message,
    action_id: String,
    option: Option<String>,
    org_wide: bool,
    without_message: bool,
    extra: Map<String, Value>,
    signature: Signature,
    via: Option<Via>,
}

impl Interaction {
    pub(super) fn new(
        shared: Arc<Shared>,
        runtime: tokio::runtime::Handle,
        user: &str,
        message: &Message,
        action: &str,
    ) -> Self {
        Self {
            shared,
            runtime,
            user: user.to_owned(),
            message: message.clone(),
            action_id: action.to_owned(),
            option: None,
            org_wide: false,
            without_message: false,
            extra: Map::new(),
            signature: Signature::Valid,
            via: None,
        }
    }

    /// Chooses this value of a menu.
    pub fn option(mut self, value: impl Into<String>) -> Self {
        self.option = Some(value.into());
        self
    }

    /// As from an app that is installed for a whole organization: `team` is null.
    pub fn org_wide(mut self) -> Self {
        self.org_wide = true;
        self
    }

    /// Omits `message` from the payload.
    pub fn without_message(mut self) -> Self {
        self.without_message = true;
        self
    }

    /// Sets a field of the payload, known or unknown; `null` included.
    pub fn field(mut self, name: impl Into<String>, value: Value) -> Self {
        self.extra.insert(name.into(), value);
        self
    }

    /// Signs it differently from Slack.
    pub fn signature(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Sets the way; by default over HTTP if there is a request URL, otherwise over a socket.
    pub fn via(mut self, via: Via) -> Self {
        self.via = Some(via);
        self
    }

    /// The payload as it would be sent now. Each call creates a new trigger and response URL.
    pub fn payload(&self) -> Result<Value> {
        let mut state = self.shared.lock();
        let mut payload = build(&self.shared, &mut state, &self.user, &self.message, &self.action_id, &self.option)?;
        if self.org_wide {
            payload["team"] = Value::Null;
            payload["enterprise"] = json!({"id": "E0ORG", "name": "The organisation"});
            payload["is_enterprise_install"] = true.into();
        }
        let map = payload.as_object_mut().context("a payload is an object")?;
        if self.without_message {
            map.remove("message");
        }
        map.extend(self.extra.clone());
        Ok(payload)
    }

    /// Clicks. A confirmation dialog, if there is one, is accepted.
    pub async fn send(self) -> Result<Delivery> {
        self.send_times(1).await?.pop().context("one delivery")
    }

    /// Delivers the same interaction this often at the same time, with the same signature, like retries.
    pub async fn send_times(self, times: usize) -> Result<Vec<Delivery>> {
        let payload = self.payload()?;
        let body = form(&payload);
        let at = match self.signature {
            Signature::At(at) => at,
            _ => self.shared.clock.now(),
        };
        let via = self.via.unwrap_or_else(|| way(&self.shared));
        let mut sent = Vec::new();
        for _ in 0..times {
            let (shared, payload, body, signature) =
                (self.shared.clone(), payload.clone(), body.clone(), self.signature.clone());
            // on the double's own runtime, because the caller's may be paused or busy
            sent.push(self.runtime.spawn(async move {
                match via {
                    Via::Http => over_http(&shared, body, &signature, at).await,
                    Via::Socket => socket::deliver(&shared, &payload).await,
                }
            }));
        }
        let mut deliveries = Vec::new();
        for delivery in sent {
            deliveries.push(delivery.await??);
        }
        Ok(deliveries)
    }
}

/// Clicks from the web page.
pub(super) async fn click(
    shared: &Shared,
    user: &str,
    message: &Message,
    action: &str,
    option: &Option<String>,
) -> Result<Delivery> {
    let payload = build(shared, &mut shared.lock(), user, message, action, option)?;
    match way(shared) {
        Via::Http => over_http(shared, form(&payload), &Signature::Valid, shared.clock.now()).await,
        Via::Socket => socket::deliver(shared, &payload).await,
    }
}

fn way(shared: &Shared) -> Via {
    if shared.lock().request_url.is_some() { Via::Http } else { Via::Socket }
}

fn form(payload: &Value) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish()
}

/// Posts a body to the app, signed; the body may be anything.
pub(super) async fn over_http(shared: &Shared, body: String, how: &Signature, at: SystemTime) -> Result<Delivery> {
    let url = shared.lock().request_url.clone().context("the double has no request URL")?;
    let mut headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
    if *how != Signature::Missing {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let secret = if *how == Signature::Wrong { "another secret" } else { &shared.setup.signing_secret };
        headers.push(("x-slack-request-timestamp", seconds.to_string()));
        headers.push(("x-slack-signature", sign(secret, seconds, &body)));
    }
    let start = Instant::now();
    let answer = tokio::time::timeout(ACK_WITHIN, post_to_app(&url, headers, body)).await;
    let latency = start.elapsed();
    let (status, body) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => (0, format!("{error:#}")),
        Err(_) => (0, "no answer within 3 s".to_owned()),
    };
    Ok(Delivery { acknowledged: status == 200, status, body, latency, envelope_id: None })
}

/// The `v0` signature over time and body.
pub fn sign(secret: &str, seconds: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("v0:{seconds}:{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("v0=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn build(
    shared: &Shared,
    state: &mut State,
    user: &str,
    message: &Message,
    action_id: &str,
    option: &Option<String>,
) -> Result<Value> {
    let setup = &shared.setup;
    let person = state.users.get(user).with_context(|| format!("no user {user}"))?.clone();
    let channel = state.channel(&message.channel).context("the message's channel is gone")?.clone();
    // the message as given: a person clicks on what their screen shows, which may be older than the channel
    let (block_id, element) = message
        .elements()
        .into_iter()
        .find(|(_, element)| element["action_id"] == action_id)
        .with_context(|| format!("no element {action_id}, but {:?}", message.action_ids()))?;
    let now = shared.clock.since_epoch();
    let action = action(&element, &block_id, option, now)?;
    let ephemeral = message.ephemeral_to.is_some();
    let trigger = format!("{}.{}.{}", now.as_micros(), state.next_id("9"), state.next_id("t"));
    state.triggers.insert(trigger.clone(), Trigger { since_epoch: now, used: false });
    let response = state.next_id("R");
    let url = ResponseUrl {
        since_epoch: now,
        uses: 0,
        channel: channel.id.clone(),
        message_ts: message.ts.clone(),
        user: user.to_owned(),
    };
    state.responses.insert(response.clone(), url);
    let mut container = json!({
        "type": "message", "message_ts": message.ts, "channel_id": channel.id, "is_ephemeral": ephemeral,
    });
    if let Some(root) = &message.thread_ts {
        container["thread_ts"] = root.clone().into();
    }
    let mut payload = json!({
        "type": "block_actions",
        "user": {"id": person.id, "username": person.name, "name": person.name, "team_id": setup.team},
        "api_app_id": setup.app_id,
        "token": "deprecated-verification-token",
        "container": container,
        "trigger_id": trigger,
        "team": {"id": setup.team, "domain": setup.team_name},
        "enterprise": null,
        "is_enterprise_install": false,
        "channel": {"id": channel.id, "name": channel.name},
        "state": {"values": menu_state(message, action_id, &action)},
        "response_url": format!("{}/response/{response}", setup.base),
        "actions": [action],
    });
    if !ephemeral {
        let current = state.message(&channel.id, &message.ts).unwrap_or(message);
        payload["message"] = state.show(current, setup);
    }
    Ok(payload)
}

/// The entry in `actions`: the element's own fields, and what was chosen.
fn action(element: &Value, block_id: &str, option: &Option<String>, now: Duration) -> Result<Value> {
    let kind = element["type"].as_str().unwrap_or_default();
    let mut action = json!({
        "type": kind, "action_id": element["action_id"], "block_id": block_id,
        "action_ts": format!("{}.{:06}", now.as_secs(), now.subsec_micros()),
    });
    for field in ["text", "value", "style", "url", "confirm", "placeholder", "initial_option"] {
        if let Some(value) = element.get(field) {
            action[field] = value.clone();
        }
    }
    match (kind, option) {
        ("button", None) => (),
        ("static_select" | "overflow", Some(value)) => {
            let groups = element["option_groups"].as_array().into_iter().flatten();
            let lists = groups.map(|group| &group["options"]).chain([&element["options"]]);
            let mut options = lists.filter_map(Value::as_array).flatten();
            let chosen = options.find(|option| option["value"] == **value);
            action["selected_option"] = chosen.with_context(|| format!("no option {value}"))?.clone();
        }
        ("users_select", Some(value)) => action["selected_user"] = value.clone().into(),
        ("button", Some(_)) => bail!("a button has no options"),
        (_, None) => bail!("{kind}: say which option"),
        (other, _) => bail!("the double can't operate a {other}"),
    }
    Ok(action)
}

/// What the message's menus show, by block and action.
fn menu_state(message: &Message, action_id: &str, action: &Value) -> Value {
    let mut values = json!({});
    for (block_id, element) in message.elements() {
        let id = element["action_id"].as_str().unwrap_or_default();
        if element["type"] == "static_select" {
            let chosen = if id == action_id { &action["selected_option"] } else { &element["initial_option"] };
            values[&block_id][id] = json!({"type": "static_select", "selected_option": chosen});
        }
    }
    values
}

/// A reply to a `response_url`: visible to one person by default, or it replaces or deletes the message.
pub(super) async fn reply_to_interaction(shared: &Shared, id: &str, body: &[u8]) -> Result<Answer, Closed> {
    let args = match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Args(map),
        _ => Args::default(),
    };
    let shown = Value::from(args.0.clone());
    let channel = shared.lock().responses.get(id).map(|url| url.channel.clone()).unwrap_or_default();
    under_faults(shared, "response_url", shown, &channel, || match apply_reply(shared, id, &args) {
        Ok(()) => Answer::of_json(200, &json!({"ok": true})),
        Err(refusal) => Answer::of_json(404, &json!({"ok": false, "error": refusal.error})),
    })
    .await
}

fn apply_reply(shared: &Shared, id: &str, args: &Args) -> Result<(), Refusal> {
    let mut state = shared.lock();
    let state = &mut *state;
    let now = shared.clock.since_epoch();
    let url = state.responses.get_mut(id).ok_or("invalid_url")?;
    if now.saturating_sub(url.since_epoch) > RESPONSE_LIFE {
        return Err("expired_url".into());
    }
    if url.uses == RESPONSE_USES {
        return Err("used_url".into());
    }
    url.uses += 1;
    let url = url.clone();
    let key = (url.channel.clone(), url.message_ts.clone());
    if args.flag("delete_original") {
        state.version += 1;
        state.messages.remove(&key);
        state.ephemeral.retain(|message| (&message.channel, &message.ts) != (&key.0, &key.1));
        return Ok(());
    }
    let Content { text, blocks } = content(state, args, 40_000)?;
    if args.flag("replace_original") {
        let edited = state.next_ts(&shared.clock);
        state.version += 1;
        let whispered = state.ephemeral.iter_mut().find(|message| (&message.channel, &message.ts) == (&key.0, &key.1));
        let original = whispered.or(state.messages.get_mut(&key)).ok_or("message_not_found")?;
        original.history.push(original.version());
        original.text = text;
        original.blocks = blocks.unwrap_or_default();
        original.edited = Some(edited);
        return Ok(());
    }
    let thread = args.text("thread_ts");
    let blocks = blocks.unwrap_or_default();
    let ts = whisper(shared, state, &url.channel, thread, &url.user, text, blocks);
    if args.text("response_type").as_deref() == Some("in_channel") {
        let place = state.ephemeral.iter().position(|message| message.ts == ts).ok_or("internal_error")?;
        let mut message = state.ephemeral.remove(place);
        message.ephemeral_to = None;
        state.keep(message);
    }
    Ok(())
}
