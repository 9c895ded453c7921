//! One message: posted once, whatever happens in between, and kept up to date.
//!
//! Between Slack's answer and our record of it a message may double; before posting, a marker says what is about to be
//! posted, and after a crash it is looked for first.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::time::Instant;

use super::{Announcer, Halt, PATIENCE};
use crate::slack::client::{Mark, Place, Posted, SlackError};
use crate::slack::render::{self, Message};
use crate::store::StoreError;
use crate::store::schedule::Claim;
use crate::store::sync::Sync;

/// One message that is kept up to date.
pub(super) struct Kept<'a> {
    /// `root` or `overview`: prefix of its fields in the sync record.
    pub what: &'a str,
    pub channel: &'a str,
}

/// What Slack refuses for good is no reason to halt: there is the refusal.
pub(super) type Taken<T> = Result<Result<T, SlackError>, Halt>;

impl Announcer {
    /// Posts `message`, or updates it if it was posted and reads differently.
    pub(super) async fn keep(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        kept: &Kept<'_>,
        message: &Message,
    ) -> Taken<Posted> {
        let Kept { what, channel } = *kept;
        let [channel_field, ts_field, hash_field] = ["channel", "ts", "hash"].map(|part| format!("{what}_{part}"));
        let hash = digest(message);
        if let (Some(id), Some(ts)) = (sync.get(&channel_field), sync.get(&ts_field)) {
            let posted = Posted { channel: id.to_owned(), ts: ts.to_owned() };
            if sync.get(&hash_field) == Some(&hash) {
                return Ok(Ok(posted));
            }
            match self.update(claim, sync, &posted, message).await? {
                Ok(()) => {
                    self.note(claim, sync, &[(&hash_field, &hash)]).await?;
                    return Ok(Ok(posted));
                }
                // someone deleted it: what is to be decided must be seen all the same
                Err(SlackError::Missing) => self.note(claim, sync, &[(&ts_field, "")]).await?,
                Err(error) => {
                    tracing::error!(incident = %claim.incident, what, %error, "slack refuses an update for good");
                    return Ok(Err(error));
                }
            }
        }
        let (posted, is_new) = match self.post(claim, sync, what, Place::channel(channel), message).await? {
            Ok(posted) => posted,
            Err(error) => return Ok(Err(error)),
        };
        // one that is found may say what was so then: without a hash it is updated next
        let mut fields = vec![
            (channel_field.as_str(), posted.channel.as_str()),
            (&ts_field, &posted.ts),
            (&hash_field, if is_new { &hash } else { "" }),
            ("posting", ""),
        ];
        if what == "root" {
            fields.push(("replied", "")); // a new thread gets all replies: who comes to it knows none
        }
        self.note(claim, sync, &fields).await?;
        if !is_new && self.update(claim, sync, &posted, message).await?.is_ok() {
            self.note(claim, sync, &[(&hash_field, &hash)]).await?;
        }
        Ok(Ok(posted))
    }

    /// Brings a message up to date, as plain text if Slack refuses its blocks.
    async fn update(&self, claim: &Claim, sync: &mut Sync, posted: &Posted, message: &Message) -> Taken<()> {
        self.turn(&posted.channel).await?;
        let mut result = self.count("chat.update", self.slack.update(&posted.channel, &posted.ts, message).await);
        if let Err(SlackError::Message { code }) = &result {
            tracing::error!(incident = %claim.incident, code, "slack refuses the blocks for good: updated as plain text");
            self.note(claim, sync, &[]).await?;
            self.turn(&posted.channel).await?;
            let plain = Message { text: render::plain(message), blocks: Vec::new() };
            result = self.count("chat.update", self.slack.update(&posted.channel, &posted.ts, &plain).await);
        }
        self.for_good(&posted.channel, result).await
    }

    /// Posts once; tells whether it was posted just now or found.
    pub(super) async fn post(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        what: &str,
        place: Place<'_>,
        message: &Message,
    ) -> Taken<(Posted, bool)> {
        let channel = place.channel;
        let mark = Mark { incident: claim.incident.0.clone(), what: what.to_owned() };
        if let Some(oldest) = sync.get("posting").and_then(|p| p.strip_prefix(&format!("{what}@"))) {
            // a worker died around a post: it may have arrived
            let oldest = oldest.parse().unwrap_or_default();
            match self.count("conversations.history", self.slack.find(channel, place.thread, &mark, oldest).await) {
                Ok(Some(posted)) => return Ok(Ok((posted, false))),
                Ok(None) => {}
                Err(error @ (SlackError::RateLimited { .. } | SlackError::Retry { .. })) => {
                    return Err(self.halt(channel, error).await?);
                }
                // can't look (a missing scope, say): a doubled message is better than none
                Err(error) => tracing::warn!(incident = %claim.incident, %error, "can't look for an earlier message"),
            }
        }
        self.turn(channel).await?;
        let now = self.engine.store.now().await?;
        self.note(claim, sync, &[("posting", &format!("{what}@{}", now.0))]).await?;
        let mut result = self.count("chat.postMessage", self.slack.post(place, message, &mark).await);
        if let Err(SlackError::Message { code }) = &result {
            tracing::error!(incident = %claim.incident, what, code, "slack refuses the blocks for good: sent as plain text");
            self.note(claim, sync, &[]).await?;
            self.turn(channel).await?;
            let text = render::plain(message);
            result = self.count("chat.postMessage", self.slack.post_plain(place, &text, &mark).await);
        }
        let taken = self.for_good(channel, result).await?;
        if let Err(error) = &taken {
            tracing::error!(incident = %claim.incident, what, channel, %error, "slack refuses a message for good");
        }
        Ok(taken.map(|posted| (posted, true)))
    }

    /// Tells apart what is refused for good and what may pass.
    async fn for_good<T>(&self, channel: &str, result: Result<T, SlackError>) -> Taken<T> {
        match result {
            Ok(taken) => Ok(Ok(taken)),
            Err(error @ (SlackError::Channel { .. } | SlackError::Message { .. } | SlackError::Missing)) => {
                Ok(Err(error))
            }
            Err(error) => Err(self.halt(channel, error).await?),
        }
    }

    /// Waits for the channel's turn.
    pub(super) async fn turn(&self, channel: &str) -> Result<(), Halt> {
        let start = Instant::now();
        while let Some(wait) = self.engine.store.pace(&self.slack.known_id(channel), self.pace).await? {
            if start.elapsed() + wait > PATIENCE {
                return Err(Halt::Later(wait));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// What an error that may pass means for the rest.
    pub(super) async fn halt(&self, channel: &str, error: SlackError) -> Result<Halt, StoreError> {
        match error {
            SlackError::RateLimited { retry_after } => {
                self.engine.store.hold_channel(&self.slack.known_id(channel), retry_after).await?;
                Ok(Halt::Later(retry_after))
            }
            error => {
                tracing::warn!(%error, "slack does not take messages; they wait");
                Ok(Halt::Down)
            }
        }
    }

    /// Notes progress, which renews the lease; without fields it does only that.
    pub(super) async fn note(&self, claim: &Claim, sync: &mut Sync, fields: &[(&str, &str)]) -> Result<(), Halt> {
        if !self.engine.store.note(claim, fields).await? {
            return Err(Halt::Lost);
        }
        for (field, value) in fields {
            sync.0.insert((*field).to_owned(), (*value).to_owned());
            if value.is_empty() {
                sync.0.remove(*field);
            }
        }
        Ok(())
    }

    pub(super) fn count<T>(&self, method: &'static str, result: Result<T, SlackError>) -> Result<T, SlackError> {
        self.engine.metrics.slack_request(method, result.as_ref().err().map_or("ok", SlackError::kind));
        result
    }
}

/// Tells whether a message reads differently from what was sent.
fn digest(message: &Message) -> String {
    let mut hasher = DefaultHasher::new();
    message.text.hash(&mut hasher);
    serde_json::to_string(&message.blocks).unwrap_or_default().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
