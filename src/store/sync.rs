//! What the outside world knows of an incident, and small things with a time to live: the pace of channels, what was
//! done once, who is in a user group. None of it bumps a prompt's revision.

use std::collections::HashMap;
use std::time::Duration;

use redis::Pipeline;

use super::schedule::{Claim, LEASE};
use super::{INCIDENT_RETENTION, Store, StoreError, millis};
use crate::decision::{IncidentId, Timestamp};

/// Progress of one incident, field → value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sync(pub HashMap<String, String>);

impl Sync {
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }
}

impl Store {
    pub async fn sync(&self, incident: &IncidentId) -> Result<Sync, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.sync(incident));
        Ok(Sync(self.link.read(&command).await?))
    }

    /// Notes `fields` (empty text removes one) and renews the lease; false if it was lost and another worker goes on.
    pub async fn note(&self, claim: &Claim, fields: &[(&str, &str)]) -> Result<bool, StoreError> {
        let mut call =
            self.scripts.sync.call(&[self.keys.tokens(), self.keys.sync(&claim.incident), self.keys.leased()]);
        call.cmd.arg(&claim.member).arg(&claim.token).arg(millis(INCIDENT_RETENTION));
        call.cmd.arg(millis(LEASE)).arg(self.clock.ahead());
        for (field, value) in fields {
            call.cmd.arg(field).arg(value);
        }
        let noted: i64 = self.link.run(&call).await?;
        Ok(noted == 1)
    }

    /// Takes the channel's next turn; otherwise tells how long until there is one. Shared by all replicas.
    pub async fn pace(&self, channel: &str, every: Duration) -> Result<Option<Duration>, StoreError> {
        let key = self.keys.pace(channel);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(&key).arg(1).arg("NX").arg("PX").arg(millis(every)).cmd("PTTL").arg(&key);
        let (taken, left): (Option<String>, i64) = self.link.run(&pipeline).await?;
        if taken.is_some() {
            return Ok(None);
        }
        Ok(Some(Duration::from_millis(left.max(1).unsigned_abs())))
    }

    /// Nobody posts to the channel for this long: Slack said so.
    pub async fn hold_channel(&self, channel: &str, wait: Duration) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.pace(channel)).arg(1).arg("PX").arg(millis(wait).max(1));
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// True for the first caller within `ttl`.
    pub async fn once(&self, what: &str, ttl: Duration) -> Result<bool, StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.once(what)).arg(1).arg("NX").arg("PX").arg(millis(ttl).max(1));
        let first: Option<String> = self.link.run(&command).await?;
        Ok(first.is_some())
    }

    /// Lets it be done again.
    pub async fn forget_once(&self, what: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(self.keys.once(what));
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// Redis TIME.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let (seconds, micros): (i64, i64) = self.link.read(&redis::cmd("TIME")).await?;
        Ok(Timestamp(seconds * 1_000 + micros / 1_000 + self.clock.ahead()))
    }

    /// Members of a user group, if they were resolved a short while ago.
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
