//! A double of Slack: a workspace on a loopback port that validates like Slack and fails on demand.
//!
//! It accepts the Web API calls, sends signed interactions or Socket Mode envelopes, and shows its channels on a web
//! page at [`Slack::url`], where the buttons work. It runs on a thread of its own, so it answers even while a test
//! blocks.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use prompt_rollback_testkit::slack::Slack;
//! use std::time::Duration;
//! let slack = Slack::builder().user("U1", "maya", "Maya Lind").channel("C1", "on-call").start()?;
//! slack.set_request_url("http://127.0.0.1:8000/slack/interactions");
//! // … the app under test posts to slack.api_url() with slack.bot_token() …
//! let root = slack.wait_for("a root", Duration::from_secs(5), |slack| slack.roots("on-call").pop()).await?;
//! let delivery = slack.click("U1", &root, "approve").send().await?;
//! assert!(delivery.acknowledged);
//! # Ok(()) }
//! ```
//!
//! If Slack's documentation and its behavior differ, or a limit is undocumented, the double is the stricter one.

mod api;
mod blocks;
mod clock;
mod faults;
mod interact;
mod methods;
mod page;
mod rate_limits;
mod records;
mod server;
mod setup;
mod socket;
mod state;

pub use clock::Clock;
pub use faults::Fault;
pub use interact::{Delivery, Interaction, Signature, Via, sign};
pub use rate_limits::RateLimits;
pub use records::{Ack, Call, Channel, Click, File, Group, Message, User};
pub use setup::SlackBuilder;

use crate::Port;
use anyhow::{Context, Result};
use serde_json::Value;
use socket::Order;
use state::Shared;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A running double; stops when dropped.
#[derive(Debug)]
pub struct Slack {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _port: Option<Port>,
}

impl Drop for Slack {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Addresses and secrets for the app under test.
impl Slack {
    /// A builder for a workspace.
    pub fn builder() -> SlackBuilder {
        SlackBuilder::default()
    }

    /// `http://127.0.0.1:port`: the web page.
    pub fn url(&self) -> &str {
        &self.shared.setup.base
    }

    /// `http://127.0.0.1:port/api`: the Web API.
    pub fn api_url(&self) -> String {
        format!("{}/api", self.url())
    }

    /// `xoxb-…`.
    pub fn bot_token(&self) -> &str {
        &self.shared.setup.bot_token
    }

    /// `xapp-…`, for Socket Mode.
    pub fn app_token(&self) -> &str {
        &self.shared.setup.app_token
    }

    /// The workspace's id.
    pub fn team(&self) -> &str {
        &self.shared.setup.team
    }

    /// The app's id.
    pub fn app_id(&self) -> &str {
        &self.shared.setup.app_id
    }

    /// The secret that signs interactions.
    pub fn signing_secret(&self) -> &str {
        &self.shared.setup.signing_secret
    }

    /// The user id that the app's messages carry.
    pub fn bot_user(&self) -> &str {
        &self.shared.setup.bot_user
    }

    /// The double's own time.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Sends interactions to this URL from now on.
    pub fn set_request_url(&self, url: impl Into<String>) {
        self.shared.lock().request_url = Some(url.into());
    }
}

/// Changes of the workspace.
impl Slack {
    /// Makes calls fail.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// Ends the faults of this method.
    pub fn heal_method(&self, method: &str) {
        self.shared.lock().faults.retain(|fault| !fault.is_on(method));
    }

    /// Sets the rate limits, or none.
    pub fn set_rate_limits(&self, rate_limits: Option<RateLimits>) {
        self.shared.lock().rate_limits = rate_limits.map(rate_limits::Buckets::of);
    }

    /// Revokes the app's tokens: every call is refused with `token_revoked`; `false` restores them.
    pub fn revoke(&self, revoked: bool) {
        self.shared.lock().revoked = revoked;
    }

    /// Removes a scope from the bot's token.
    pub fn remove_scope(&self, scope: &str) {
        self.shared.lock().scopes.remove(scope);
    }

    /// Changes a channel, given by id or name: archives it, removes the bot, renames it, ….
    pub fn change_channel(&self, channel: &str, change: impl FnOnce(&mut Channel)) -> Result<()> {
        let mut state = self.shared.lock();
        let id = state.find_channel(channel).with_context(|| format!("no channel {channel}"))?.id.clone();
        state.version += 1;
        state.channels.get_mut(&id).map(change).context("the channel was found just now")
    }

    /// Sets the members of a user group.
    pub fn set_group_members(&self, group: &str, members: &[&str]) -> Result<()> {
        let mut state = self.shared.lock();
        let group = state.groups.get_mut(group).with_context(|| format!("no group {group}"))?;
        group.members = members.iter().map(|&member| member.to_owned()).collect();
        Ok(())
    }

    /// Posts a message of a person, as a reply if there is a root.
    pub fn say(&self, user: &str, channel: &str, text: &str, root: Option<&Message>) -> Result<Message> {
        let mut state = self.shared.lock();
        let id = state.find_channel(channel).with_context(|| format!("no channel {channel}"))?.id.clone();
        let ts = state.next_ts(&self.shared.clock);
        let mut message = Message::new(&id, &ts, user, text);
        message.thread_ts = root.map(|root| root.ts.clone());
        state.keep(message.clone());
        Ok(message)
    }

    /// Deletes a message as a person; later edits do not find it.
    pub fn delete(&self, message: &Message) {
        let mut state = self.shared.lock();
        state.version += 1;
        state.messages.remove(&(message.channel.clone(), message.ts.clone()));
    }

    /// Clicks as a person on a button or, with [`Interaction::option`], in a menu of this message.
    ///
    /// The message is what their screen shows: one from before an edit makes a late click.
    pub fn click(&self, user: &str, message: &Message, action_id: &str) -> Interaction {
        Interaction::new(self.shared.clone(), self.runtime.clone(), user, message, action_id)
    }

    /// Posts any body to the request URL, as Slack would.
    pub async fn post_interaction(&self, body: impl Into<String>, signature: Signature) -> Result<Delivery> {
        let (shared, body) = (self.shared.clone(), body.into());
        let at = match signature {
            Signature::At(at) => at,
            _ => shared.clock.now(),
        };
        self.runtime.spawn(async move { interact::over_http(&shared, body, &signature, at).await }).await?
    }

    /// `X-Slack-Request-Timestamp` and `X-Slack-Signature` for a body that is sent now.
    pub fn sign(&self, body: &str) -> (String, String) {
        let seconds = self.shared.clock.since_epoch().as_secs();
        (seconds.to_string(), interact::sign(self.signing_secret(), seconds, body))
    }

    /// Sends any payload in an envelope over one of the sockets.
    pub async fn send_envelope(&self, payload: Value) -> Result<Delivery> {
        let shared = self.shared.clone();
        self.runtime.spawn(async move { socket::deliver(&shared, &payload).await }).await?
    }

    /// How many sockets are open.
    pub fn sockets(&self) -> usize {
        self.shared.lock().sockets.open.len()
    }

    /// Announces on all sockets that they will close soon, and leaves them open.
    pub fn warn_sockets(&self) {
        self.order(&[socket::goodbye("warning")]);
    }

    /// Announces on all sockets that they close now, and closes them.
    pub fn refresh_sockets(&self) {
        self.order(&[socket::goodbye("refresh_requested"), Order::Close]);
    }

    /// Closes all sockets without an announcement.
    pub fn cut_sockets(&self) {
        self.order(&[Order::Cut]);
    }

    /// Leaves all sockets open, but dead: nothing is read or sent, not even pings.
    pub fn freeze_sockets(&self) {
        self.order(&[Order::Freeze]);
    }

    fn order(&self, orders: &[Order]) {
        for link in &self.shared.lock().sockets.open {
            orders.iter().for_each(|order| link.order(order.clone()));
        }
    }
}

/// The content of the workspace.
impl Slack {
    /// A channel by id or name.
    pub fn channel(&self, channel: &str) -> Option<Channel> {
        self.shared.lock().find_channel(channel).cloned()
    }

    /// All channels.
    pub fn channels(&self) -> Vec<Channel> {
        self.shared.lock().channels.values().cloned().collect()
    }

    /// All messages of a channel, given by id or name: roots and replies, oldest first.
    pub fn messages(&self, channel: &str) -> Vec<Message> {
        let state = self.shared.lock();
        let id = state.find_channel(channel).map(|channel| channel.id.clone());
        id.map(|id| state.in_channel(&id).cloned().collect()).unwrap_or_default()
    }

    /// The messages of a channel that are not replies, oldest first.
    pub fn roots(&self, channel: &str) -> Vec<Message> {
        self.messages(channel).into_iter().filter(|message| message.thread_ts.is_none()).collect()
    }

    /// The replies in a root's thread, oldest first.
    pub fn replies(&self, root: &Message) -> Vec<Message> {
        self.shared.lock().replies(&root.channel, &root.ts).cloned().collect()
    }

    /// The current state of a message.
    pub fn message(&self, channel: &str, ts: &str) -> Option<Message> {
        let state = self.shared.lock();
        let id = state.find_channel(channel)?.id.clone();
        state.message(&id, ts).cloned()
    }

    /// The messages that only this person sees, oldest first.
    pub fn ephemeral(&self, user: &str) -> Vec<Message> {
        let state = self.shared.lock();
        state.ephemeral.iter().filter(|message| message.ephemeral_to.as_deref() == Some(user)).cloned().collect()
    }

    /// All files.
    pub fn files(&self) -> Vec<File> {
        self.shared.lock().files.values().cloned().collect()
    }

    /// The modals that were opened.
    pub fn views(&self) -> Vec<Value> {
        self.shared.lock().views.clone()
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.values().cloned().collect()
    }

    /// The calls of one method, oldest first.
    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        self.shared.lock().calls.values().filter(|call| call.method == method).cloned().collect()
    }

    /// Clears the record of calls.
    pub fn forget_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// The acknowledgements of envelopes, oldest first.
    pub fn acks(&self) -> Vec<Ack> {
        self.shared.lock().acks.clone()
    }

    /// The clicks on the web page, oldest first.
    pub fn clicks(&self) -> Vec<Click> {
        self.shared.lock().clicks.clone()
    }

    /// Calls `probe` every 20 ms until it returns something; fails with `what` after `within`.
    pub async fn wait_for<T>(&self, what: &str, within: Duration, probe: impl Fn(&Self) -> Option<T>) -> Result<T> {
        crate::eventually(what, within, async || probe(self)).await
    }
}
