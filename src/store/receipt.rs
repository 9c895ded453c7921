//! Receipts of requests that must be handled once, such as clicks. The commit of a request writes its receipt, with the
//! outcome. A request whose reply was lost finds its outcome, one that failed before its commit leaves nothing, and a
//! repeated one does nothing more.

use std::time::Duration;

use super::{Store, StoreError, millis};
use crate::decision::Timestamp;

/// How long a receipt is kept: the same request may come again, because Slack delivers twice and signatures stay valid
/// for five minutes.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// A similar request this soon is a double click.
const REPEATED: Duration = Duration::from_secs(3);

/// The keys of a request: its own, and one that it shares with similar requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    own: String,
    like: String,
}

/// The outcome of a request that was handled before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandledRequest {
    Done,
    Refused(String),
}

impl Store {
    /// `own` identifies the request, `like` all requests that differ only in time.
    pub fn receipt(&self, own: &str, like: &str) -> Receipt {
        Receipt { own: self.keys.receipt(own), like: self.keys.receipt(like) }
    }

    /// Returns the outcome of this request, if it was handled before. Call it after loading what the request is about:
    /// then a commit in between is noticed here or by its revision.
    pub async fn handled_before(
        &self,
        receipt: &Receipt,
        now: Timestamp,
    ) -> Result<Option<HandledRequest>, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(&receipt.own).cmd("GET").arg(&receipt.like);
        let (own, like): (Option<String>, Option<String>) = self.link.read(&pipeline).await?;
        if let Some((_, before)) = own.as_deref().and_then(read) {
            return Ok(Some(before));
        }
        // its expiry is not trusted, because a new master's clock may be behind
        let soon = |(at, _): &(Timestamp, HandledRequest)| (*at..=at.plus(REPEATED)).contains(&now);
        Ok(like.as_deref().and_then(read).filter(soon).map(|(_, before)| before))
    }

    /// Stores a refusal, which has no commit.
    pub async fn remember_refused(&self, receipt: &Receipt, now: Timestamp, why: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        let refused = HandledRequest::Refused(why.to_owned());
        command.arg(&receipt.own).arg(refused.written(now)).arg("PX").arg(millis(KEPT)).arg("NX");
        self.link.run::<redis::Value>(&command).await.map(drop)
    }
}

impl Receipt {
    /// What a commit writes: key, value and time to live in ms.
    pub(super) fn written(&self, before: &HandledRequest, now: Timestamp) -> [(&str, String, u64); 2] {
        [(&self.own, KEPT), (&self.like, REPEATED)].map(|(key, kept)| (key.as_str(), before.written(now), millis(kept)))
    }
}

impl HandledRequest {
    fn written(&self, now: Timestamp) -> String {
        match self {
            HandledRequest::Done => format!("{} done", now.0),
            HandledRequest::Refused(why) => format!("{} refused {why}", now.0),
        }
    }
}

fn read(text: &str) -> Option<(Timestamp, HandledRequest)> {
    let (at, what) = text.split_once(' ')?;
    let before =
        what.strip_prefix("refused ").map_or(HandledRequest::Done, |why| HandledRequest::Refused(why.to_owned()));
    Some((Timestamp(at.parse().ok()?), before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        for before in [HandledRequest::Done, HandledRequest::Refused("v2 is no longer active".to_owned())] {
            assert_eq!(read(&before.written(Timestamp(7))), Some((Timestamp(7), before)));
        }
        assert_eq!(read("scribble"), None);
    }
}
