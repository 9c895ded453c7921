//! What happened to a prompt, event by event, for the targets that show it so. Commits write it.

use super::schedule::{Claim, Work};
use super::{Store, StoreError};
use crate::decision::{PromptName, Timestamp};

/// Events kept of each prompt, the latest ones: a target that is away for long must not fill Redis.
pub(super) const EVENTS_KEPT: usize = 1_000;

/// Some events of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Each with its place, in order.
    pub items: Vec<(i64, String)>,
    /// So many events have been written since that some before these were dropped.
    pub incomplete: bool,
}

impl Store {
    /// Up to `most` events of `prompt` from behind the place `after`.
    pub async fn events(&self, prompt: &PromptName, after: i64, most: usize) -> Result<Events, StoreError> {
        let key = self.keys.events(prompt);
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZRANGEBYSCORE").arg(&key).arg(format!("({after}")).arg("+inf").arg("WITHSCORES");
        pipeline.arg("LIMIT").arg(0).arg(most);
        pipeline.cmd("ZCARD").arg(&key).cmd("ZRANGE").arg(&key).arg(0).arg(0).arg("WITHSCORES");
        type Scored = Vec<(String, i64)>;
        let (found, kept, first): (Scored, usize, Scored) = self.link.read(&pipeline).await?;
        let cut = kept >= EVENTS_KEPT && first.first().is_some_and(|(_, place)| *place > after);
        Ok(Events { items: found.into_iter().map(|(event, place)| (place, event)).collect(), incomplete: cut })
    }

    /// Since when the target of this claim has something to show that it does not show yet.
    pub async fn unsent_since(&self, claim: &Claim) -> Result<Option<Timestamp>, StoreError> {
        let Work::Notify(target) = claim.work else { return Ok(None) };
        let mut command = redis::cmd("ZSCORE");
        command.arg(self.keys.unsent(target)).arg(claim.member());
        Ok(self.link.read::<Option<i64>>(&command).await?.map(Timestamp))
    }
}
