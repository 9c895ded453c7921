//! The notification progress of incidents, and small items with a time to live: rate limits, actions done once, members
//! of user groups. None of them changes a prompt's revision.

use std::collections::HashMap;
use std::time::Duration;

use super::schedule::{Claim, LEASE, LONGEST_HOLD};
use super::{INCIDENT_RETENTION, Store, StoreError, millis};
use crate::decision::Timestamp;

/// The progress of one incident, field → value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sync(pub HashMap<String, String>);

impl Sync {
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }
}

impl Store {
    /// The progress of this claim's work.
    pub async fn progress(&self, claim: &Claim) -> Result<Sync, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.progress(claim.work, &claim.item));
        Ok(Sync(self.link.read(&command).await?))
    }

    /// Writes `fields` (an empty text removes one) and renews the lease. Returns false if the lease was lost to another
    /// worker.
    pub async fn note(&self, claim: &Claim, fields: &[(&str, &str)]) -> Result<bool, StoreError> {
        let keys = &self.keys;
        let progress = keys.progress(claim.work, &claim.item);
        let mut call = self.scripts.sync.call(&[keys.tokens(), progress, keys.leased(claim.work)]);
        call.cmd.arg(claim.member()).arg(&claim.token).arg(millis(INCIDENT_RETENTION));
        call.cmd.arg(millis(LEASE)).arg(self.clock.ahead());
        for (field, value) in fields {
            call.cmd.arg(field).arg(value);
        }
        let noted: i64 = self.link.run(&call).await?;
        Ok(noted == 1)
    }

    /// Renews the lease. Returns false if it was lost to another worker.
    pub async fn renew(&self, claim: &Claim) -> Result<bool, StoreError> {
        self.note(claim, &[]).await
    }

    /// Takes the next slot, unless `what` is on hold; otherwise returns the time until there is one. Shared by all
    /// replicas.
    pub async fn acquire(&self, what: &str, every: Duration) -> Result<Option<Duration>, StoreError> {
        self.rate_limit(&[self.keys.rate_limit(what)], every).await
    }

    /// Like [`Store::pace`], but refuses also while `held` is on hold.
    pub async fn acquire_unless_held(
        &self,
        held: &str,
        what: &str,
        every: Duration,
    ) -> Result<Option<Duration>, StoreError> {
        self.rate_limit(&[self.keys.rate_limit(what), self.keys.rate_limit(held)], every).await
    }

    /// How long `what` is on hold. Takes no slot.
    pub async fn held(&self, what: &str) -> Result<Option<Duration>, StoreError> {
        self.rate_limit(&[self.keys.rate_limit(what)], Duration::ZERO).await
    }

    /// Puts `what` on hold for this long, as the other side requested.
    pub async fn hold(&self, what: &str, wait: Duration) -> Result<(), StoreError> {
        let wait = millis(wait.min(LONGEST_HOLD)).max(1);
        let mut command = redis::cmd("SET");
        command.arg(self.keys.rate_limit(what)).arg(wait).arg("PX").arg(wait);
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    async fn rate_limit(&self, names: &[String], every: Duration) -> Result<Option<Duration>, StoreError> {
        let mut call = self.scripts.rate_limit.call(names);
        call.cmd.arg(millis(every)).arg(millis(LONGEST_HOLD));
        let (wait, shortened): (u64, u32) = self.link.run(&call).await?;
        if shortened > 0 {
            let what = &names[0];
            tracing::warn!(what, wait, "a wait was too long (did Redis' clock go back?): shortened");
        }
        Ok((wait > 0).then(|| Duration::from_millis(wait)))
    }

    /// Returns true for the first caller within `ttl`.
    pub async fn claim_once(&self, what: &str, ttl: Duration) -> Result<bool, StoreError> {
        let ttl = ttl.max(Duration::from_millis(1));
        Ok(self.rate_limit(&[self.keys.claimed_once(what)], ttl).await?.is_none())
    }

    /// Allows the action again.
    pub async fn release_once(&self, what: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(self.keys.claimed_once(what));
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// Redis TIME.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let (seconds, micros): (i64, i64) = self.link.read(&redis::cmd("TIME")).await?;
        Ok(Timestamp(seconds * 1_000 + micros / 1_000 + self.clock.ahead()))
    }

    /// Members of a user group, if they were resolved recently.
    pub async fn group(&self, group: &str) -> Result<Option<Vec<String>>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.group(group));
        let members: Option<String> = self.link.read(&command).await?;
        Ok(members.map(|text| text.split(' ').map(str::to_owned).collect()))
    }

    pub async fn set_group(&self, group: &str, members: &[String], ttl: Duration) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.group(group)).arg(members.join(" ")).arg("PX").arg(millis(ttl));
        self.link.run::<redis::Value>(&command).await.map(drop)
    }
}
