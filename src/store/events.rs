//! The events of a prompt, for notification targets that show them in order. Commits write them.

use super::schedule::{Claim, Work};
use super::{Store, StoreError};
use crate::decision::{PromptName, Timestamp};

/// The number of events kept of each prompt, the latest ones: a target that is down for long must not fill Redis.
pub(super) const EVENTS_KEPT: usize = 1_000;

/// Some events of one prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Each with its position, in order.
    pub items: Vec<(i64, String)>,
    /// Whether events between the requested position and these were dropped, because too many were written since.
    pub incomplete: bool,
}

impl Store {
    /// Up to `most` events of `prompt` after the position `after`.
    pub async fn events(&self, prompt: &PromptName, after: i64, most: usize) -> Result<Events, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZRANGEBYSCORE").arg(self.keys.events(prompt)).arg(format!("({after}")).arg("+inf");
        pipeline.arg("WITHSCORES").arg("LIMIT").arg(0).arg(most);
        pipeline.cmd("HGET").arg(self.keys.state(prompt)).arg("dropped");
        let (found, dropped): (Vec<(String, i64)>, Option<i64>) = self.link.read(&pipeline).await?;
        let items = found.into_iter().map(|(event, place)| (place, event)).collect();
        Ok(Events { items, incomplete: dropped.is_some_and(|place| place > after) })
    }

    /// Since when the target of this claim has pending updates; `None`: it has none.
    pub async fn unsent_since(&self, claim: &Claim) -> Result<Option<Timestamp>, StoreError> {
        let Work::Notify(target) = claim.work else { return Ok(None) };
        let mut command = redis::cmd("ZSCORE");
        command.arg(self.keys.unsent(target)).arg(claim.member());
        Ok(self.link.read::<Option<i64>>(&command).await?.map(Timestamp))
    }
}
