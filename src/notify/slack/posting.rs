//! Single messages: each is posted once, whatever happens, and kept up to date.
//!
//! If a worker dies between Slack's answer and the record of it, the message could be posted twice. So a marker is
//! stored before each post. After a crash, or an ambiguous answer, the message is searched for first.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use slack_morphism::prelude::SlackBlock;
use tokio::time::Instant;

use super::{Halt, PATIENCE, SlackNotifier, TARGET};
use crate::decision::Timestamp;
use crate::slack::client::{MessageTag, Place, Posted, SlackError, search_method};
use crate::slack::render::{self, Message};
use crate::store::schedule::Claim;
use crate::store::sync::Sync;

/// A message that is kept up to date.
pub(super) struct Kept<'a> {
    /// `root`, `overview` or `decider NAME`: the prefix of its fields in the sync record.
    pub what: &'a str,
    pub channel: &'a str,
}

/// A permanent rejection does not stop the rest: it is the inner error.
pub(super) type Taken<T> = Result<Result<T, SlackError>, Halt>;

/// A claim, and its progress.
pub(super) struct ThreadProgress<'a> {
    pub claim: &'a Claim,
    pub sync: Sync,
    /// Slack shows every update from before this time; `None` if that is not known.
    pub since: Option<Timestamp>,
    /// Whether Slack accepted a call.
    taken: bool,
    /// Whether Slack did not accept a part, perhaps temporarily.
    untaken: bool,
    /// How long a part waits for its slot.
    wait: Option<Duration>,
}

impl<'a> ThreadProgress<'a> {
    pub fn new(claim: &'a Claim, sync: Sync) -> Self {
        Self { claim, sync, since: None, taken: false, untaken: false, wait: None }
    }

    pub fn get(&self, field: &str) -> Option<&str> {
        self.sync.get(field)
    }

    /// Postpones a part that Slack does not accept now, so that the rest continues. `None`: it was postponed.
    pub fn put_off<T>(&mut self, notified: Result<T, Halt>) -> Result<Option<T>, Halt> {
        match notified {
            Ok(notified) => return Ok(Some(notified)),
            Err(Halt::Untaken) => self.untaken = true,
            Err(Halt::Later(wait)) => self.wait = Some(self.wait.map_or(wait, |before| before.min(wait))),
            Err(halt) => return Err(halt),
        }
        Ok(None)
    }

    /// Ends the turn with `left` to do. `behind`: the root is outdated as well.
    pub fn give_way(&mut self, left: Left, behind: bool) -> Result<(), Halt> {
        let (since, result) = match left {
            Left::Nothing => return Ok(()),
            Left::More(at) => (at, Err(Halt::GiveWay)),
            Left::PutOff(at) => (at, Ok(())),
        };
        self.since = Some(since).filter(|_| !behind);
        result
    }

    pub fn has_taken(&self) -> bool {
        self.taken
    }

    pub fn is_untaken(&self) -> bool {
        self.untaken
    }

    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Whether a part was postponed.
    pub fn is_behind(&self) -> bool {
        self.untaken || self.wait.is_some()
    }

    /// How often in a row Slack did not accept everything.
    pub fn tries(&self) -> u32 {
        self.get("tries").and_then(|tries| tries.parse().ok()).unwrap_or_default()
    }
}

/// The remaining replies, and when the first of them was created.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// They come after more urgent incidents.
    More(Timestamp),
    /// Slack did not accept the first of them.
    PutOff(Timestamp),
}

/// The field that holds since when a message may have been posted.
pub(super) fn posting(what: &str) -> String {
    format!("posting {what}")
}

impl SlackNotifier {
    /// Posts `message`, or updates it if it was posted and has changed. An edit that Slack does not accept now is
    /// postponed.
    pub(super) async fn keep(
        &self,
        progress: &mut ThreadProgress<'_>,
        kept: &Kept<'_>,
        message: &Message,
    ) -> Taken<Posted> {
        let Kept { what, channel } = *kept;
        let [channel_field, ts_field, hash_field, frozen_field, reposted_field] =
            ["channel", "ts", "hash", "frozen", "reposted"].map(|part| format!("{what}_{part}"));
        let hash = digest(message);
        if let (Some(id), Some(ts)) = (progress.get(&channel_field), progress.get(&ts_field)) {
            let posted = Posted { channel: id.to_owned(), ts: ts.to_owned() };
            if progress.get(&hash_field) == Some(&hash) || progress.get(&frozen_field).is_some() {
                return Ok(Ok(posted));
            }
            let updated = self.update(progress, &posted, message, &hash_field).await;
            match progress.put_off(updated)? {
                None => return Ok(Ok(posted)),
                Some(Ok(())) => {
                    self.note(progress, &[(&hash_field, &hash), (&reposted_field, "")]).await?;
                    return Ok(Ok(posted));
                }
                Some(Err(SlackError::Missing)) => {
                    let reposted = progress.get(&reposted_field).is_some();
                    if reposted || self.is_there(progress, &posted).await? {
                        self.freeze(progress, what, "message_not_found").await?;
                        return Ok(Ok(posted));
                    }
                    // someone deleted it: the question must be visible anyway
                    self.note(progress, &[(&ts_field, ""), (&reposted_field, "1")]).await?;
                }
                Some(Err(SlackError::Uneditable { code })) => {
                    self.freeze(progress, what, &code).await?;
                    return Ok(Ok(posted));
                }
                Some(Err(error @ SlackError::Message { .. })) => {
                    let incident = &progress.claim.item;
                    tracing::error!(%incident, what, %error, "Slack permanently rejects an edit: message unchanged");
                    self.note(progress, &[(&hash_field, &hash)]).await?; // the next state may be accepted
                    return Ok(Ok(posted));
                }
                // the config names another channel by now
                Some(Err(SlackError::Channel { .. })) if posted.channel != self.slack.known_id(channel) => {
                    self.note(progress, &[(&channel_field, ""), (&ts_field, ""), (&frozen_field, "")]).await?;
                }
                Some(Err(error)) => {
                    let incident = &progress.claim.item;
                    tracing::error!(%incident, what, %error, "Slack permanently rejects an update");
                    return Ok(Err(error));
                }
            }
        }
        let (posted, is_new) = match self.post(progress, what, Place::channel(channel), message).await? {
            Ok(posted) => posted,
            Err(error) => return Ok(Err(error)),
        };
        // a message that is found may be outdated: without a hash it is updated next
        let marker = posting(what);
        let mut fields = vec![
            (channel_field.as_str(), posted.channel.as_str()),
            (&ts_field, &posted.ts),
            (&hash_field, if is_new { &hash } else { "" }),
            (&frozen_field, ""),
            (&marker, ""),
        ];
        if what == "root" {
            // a new thread gets all replies, because its readers have seen none
            fields.extend([("replied", ""), ("said_frozen", ""), ("asked", ""), ("root_decider", "")]);
        }
        self.note(progress, &fields).await?;
        if !is_new {
            let updated = self.update(progress, &posted, message, &hash_field).await;
            if let Some(Ok(())) = progress.put_off(updated)? {
                self.note(progress, &[(&hash_field, &hash)]).await?;
            }
        }
        Ok(Ok(posted))
    }

    /// Keeps a message unchanged from now on: updates follow as replies.
    async fn freeze(&self, progress: &mut ThreadProgress<'_>, what: &str, code: &str) -> Result<(), Halt> {
        let incident = &progress.claim.item;
        tracing::error!(%incident, what, code, "Slack does not allow an edit of a message: it stays unchanged");
        self.note(progress, &[(&format!("{what}_frozen"), code)]).await
    }

    /// Whether a message exists that Slack could not find when editing it.
    async fn is_there(&self, progress: &mut ThreadProgress<'_>, posted: &Posted) -> Result<bool, Halt> {
        let method = Method::Other("chat.getPermalink");
        Ok(self.call(progress, method, &[], self.slack.permalink(&posted.channel, &posted.ts)).await?.is_ok())
    }

    /// Updates a message, as plain text if Slack rejects its blocks. Clears `hash_field` first: an edit whose answer is
    /// lost may be visible, and the next one must not be skipped because the incident is in its earlier state again.
    async fn update(
        &self,
        progress: &mut ThreadProgress<'_>,
        posted: &Posted,
        message: &Message,
        hash_field: &str,
    ) -> Taken<()> {
        let Posted { channel, ts } = posted;
        let edit = self.slack.update(channel, ts, message);
        let updated = self.call(progress, Method::Update { channel }, &[(hash_field, "")], edit).await?;
        let Err(SlackError::Message { code }) = &updated else { return Ok(updated) };
        let incident = &progress.claim.item;
        tracing::error!(%incident, code, "Slack permanently rejects the blocks: updated as plain text");
        let plain = Message { text: render::plain(message), blocks: Vec::new() };
        self.call(progress, Method::Update { channel }, &[], self.slack.update(channel, ts, &plain)).await
    }

    /// Posts once. Returns whether the message was posted now or found. The caller clears [`posting`] together with its
    /// next fields.
    pub(super) async fn post(
        &self,
        progress: &mut ThreadProgress<'_>,
        what: &str,
        place: Place<'_>,
        message: &Message,
    ) -> Taken<(Posted, bool)> {
        let channel = place.channel;
        // a prompt has a message for each of its canaries
        let of_canary = progress.get("canary").map(|canary| format!("{what}-{canary}"));
        let what_for = of_canary.unwrap_or_else(|| what.to_owned());
        let mark = MessageTag { incident: progress.claim.item.to_string(), what: what_for };
        let marker = posting(what);
        if let Some(oldest) = progress.get(&marker) {
            // a worker died during a post, or its answer was ambiguous: the message may have arrived
            let oldest = oldest.parse().unwrap_or_default();
            let search = self.slack.find(channel, place.thread, &mark, oldest);
            match self.call(progress, Method::Other(search_method(place.thread)), &[], search).await? {
                Ok(Some(posted)) => return Ok(Ok((posted, false))),
                Ok(None) => {}
                // the search is impossible, for example because of a missing scope: a doubled message is better than
                // none
                Err(error) => {
                    tracing::warn!(incident = %progress.claim.item, %error, "cannot search for an earlier message");
                }
            }
        }
        let now = self.engine.store.now().await?.0.to_string();
        let method = Method::Post { channel };
        let mut posted =
            self.call(progress, method, &[(&marker, &now)], self.slack.post(place, message, &mark)).await?;
        if let Err(SlackError::Message { code }) = &posted {
            let incident = &progress.claim.item;
            tracing::error!(%incident, what, code, "Slack permanently rejects the blocks: sent as plain text");
            let text = render::plain(message);
            posted = self.call(progress, method, &[], self.slack.post_plain(place, &text, &mark)).await?;
        }
        if let Err(error) = &posted {
            let incident = &progress.claim.item;
            tracing::error!(%incident, what, channel, %error, "Slack permanently rejects a message");
        }
        Ok(posted.map(|posted| (posted, true)))
    }

    /// Waits for the method's slot, stores `fields`, which renews the lease, and makes the call.
    pub(super) async fn call<T>(
        &self,
        progress: &mut ThreadProgress<'_>,
        method: Method<'_>,
        fields: &[(&str, &str)],
        call: impl Future<Output = Result<T, SlackError>>,
    ) -> Taken<T> {
        self.acquire(method).await?;
        self.note(progress, fields).await?;
        match self.count(method.name(), call.await) {
            Ok(taken) => {
                progress.taken = true;
                Ok(Ok(taken))
            }
            Err(SlackError::RateLimited { retry_after }) => {
                self.engine.store.hold(&self.on_hold(method), retry_after).await?;
                Err(Halt::Later(retry_after))
            }
            Err(error) if error.is_final() => Ok(Err(error)),
            Err(error) => {
                tracing::warn!(incident = %progress.claim.item, %error, "Slack does not accept this now: trying again");
                Err(Halt::Untaken)
            }
        }
    }

    /// Waits until the method may be called.
    async fn acquire(&self, method: Method<'_>) -> Result<(), Halt> {
        let start = Instant::now();
        let store = &self.engine.store;
        let held = self.on_hold(method);
        loop {
            let wait = match method {
                Method::Post { .. } => store.acquire(&held, self.message_interval).await?,
                // replies must not wait for edits, nor edits for replies
                Method::Update { channel } => {
                    store.acquire_unless_held(&held, &format!("edit:{channel}"), self.message_interval).await?
                }
                Method::Other(_) => store.held(&held).await?,
            };
            match wait {
                None => return Ok(()),
                Some(wait) if start.elapsed() + wait > PATIENCE => return Err(Halt::Later(wait)),
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Slack limits messages by channel, and other calls by method.
    fn on_hold(&self, method: Method<'_>) -> String {
        match method {
            Method::Post { channel } => self.slack.known_id(channel),
            Method::Update { .. } | Method::Other(_) => method.name().to_owned(),
        }
    }

    /// Stores progress, which renews the lease; without fields it only renews the lease.
    pub(super) async fn note(&self, progress: &mut ThreadProgress<'_>, fields: &[(&str, &str)]) -> Result<(), Halt> {
        if !self.engine.store.note(progress.claim, fields).await? {
            return Err(Halt::Lost);
        }
        for (field, value) in fields {
            progress.sync.0.insert((*field).to_owned(), (*value).to_owned());
            if value.is_empty() {
                progress.sync.0.remove(*field);
            }
        }
        Ok(())
    }

    pub(super) fn count<T>(&self, method: &'static str, result: Result<T, SlackError>) -> Result<T, SlackError> {
        let outcome = result.as_ref().err().map_or("ok", SlackError::kind);
        self.engine.metrics.slack_request(method, outcome);
        if ["chat.postMessage", "chat.update"].contains(&method) {
            self.engine.metrics.notification(TARGET, outcome);
        }
        result
    }
}

/// A method of Slack, and what its rate limit depends on.
#[derive(Clone, Copy)]
pub(super) enum Method<'a> {
    Post { channel: &'a str },
    Update { channel: &'a str },
    Other(&'static str),
}

impl Method<'_> {
    fn name(self) -> &'static str {
        match self {
            Method::Post { .. } => "chat.postMessage",
            Method::Update { .. } => "chat.update",
            Method::Other(name) => name,
        }
    }
}

/// Changes if the message does.
fn digest(message: &Message) -> String {
    let mut hasher = DefaultHasher::new();
    message.text.hash(&mut hasher);
    serde_json::to_string(&message.blocks).unwrap_or_default().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The question of a message: its buttons, with their values. `None`: it asks nothing.
pub(super) fn question(message: &Message) -> Option<String> {
    let buttons = message.blocks.iter().filter(|block| matches!(block, SlackBlock::Actions(_)));
    let blocks: Vec<_> = buttons.cloned().collect();
    (!blocks.is_empty()).then(|| digest(&Message { text: String::new(), blocks }))
}
