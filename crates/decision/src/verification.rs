//! Verification: the results of checking a rollback.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::encoding::is_default;
use super::finding::Check;
use super::names::VersionName;
use super::time::Timestamp;

/// Some prompt servers, by their `instance` in Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instances {
    /// How many there are.
    pub count: usize,
    /// Sorted, at most [`Instances::NAMED`].
    pub names: Vec<String>,
}

impl Instances {
    pub const NAMED: usize = 10;

    pub fn of(mut names: Vec<String>) -> Self {
        let count = names.len();
        names.sort();
        names.truncate(Self::NAMED);
        Self { count, names }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.count.saturating_sub(self.names.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// In a record: the names, followed by the count if there are more. The previous release wrote at most ten names.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredInstance {
    Name(String),
    All(usize),
}

impl Serialize for Instances {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.names.iter().cloned().map(StoredInstance::Name);
        let more = (self.count > self.names.len()).then_some(StoredInstance::All(self.count));
        serializer.collect_seq(names.chain(more))
    }
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut instances = Self::default();
        for instance in Vec::deserialize(deserializer)? {
            match instance {
                StoredInstance::Name(name) => instances.names.push(name),
                StoredInstance::All(count) => instances.count = count,
            }
        }
        instances.count = instances.count.max(instances.names.len());
        Ok(instances)
    }
}

/// Requests since the switch, from the counters of the prompt servers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests served by the version rolled back to.
    pub target: u64,
    /// How many of these failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u64,
    /// Whether requests are counted, but failures are not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uncounted: bool,
    /// Requests served by the bad version.
    pub bad: u64,
    /// When the bad version was last seen to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_last_seen: Option<Timestamp>,
    /// The bad version's percentage of the latest requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bad_percent: u64,
    /// Instances that serve the version rolled back to, or have stopped serving the bad one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub following: usize,
    /// Instances that still serve the bad version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub still: Instances,
    /// Instances that may serve either, because they had too few requests since the switch, or that serve a third version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unknown: Instances,
}

impl Traffic {
    /// Whether every instance that serves follows the key. False if nothing is known of any.
    pub fn all_follow(&self) -> bool {
        self.following > 0 && self.still.is_empty() && self.unknown.is_empty()
    }

    /// Whether no instance is left that may serve the bad version: all follow, or those that served it have gone.
    pub fn none_is_left(&self) -> bool {
        (self.following > 0 || self.bad > 0) && self.still.is_empty() && self.unknown.is_empty()
    }

    /// `9 of 10 instances follow`, and the names of the others.
    pub fn followers(&self) -> String {
        let Self { following, still, unknown, .. } = self;
        let all = following + still.count + unknown.count;
        let mut text = format!("{following} of {all} instances follow");
        for (what, instances) in [("not", still), ("unknown", unknown)] {
            if !instances.is_empty() {
                text.push_str(&format!(", {what}: {instances}"));
            }
        }
        text
    }
}

/// The state of a rollback's verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Checks made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: u32,
    /// How many checks in a row, up to the last one, were healthy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub healthy: u32,
    /// When the first of these checks was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Timestamp>,
    /// How many of the last checks with measurements found it unhealthy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unhealthy: u32,
    /// What the last one of these found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_bad: Option<String>,
    pub next: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// When `traffic` was measured. An earlier release did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_at: Option<Timestamp>,
    /// In how many of the latest checks that measured traffic, in a row, no instance was left that may serve the bad version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub followed: u32,
    /// Whether too little was measured by the deadline, so that the checks continue.
    #[serde(default, skip_serializing_if = "is_default")]
    pub late: bool,
    /// Whether people were told that instances do not follow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stale: bool,
    /// Whether people were told that the target, or most prompts, fail too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub blamed: bool,
}

impl Verification {
    /// Another version is the target now: what was measured of the earlier one, or is being measured, does not count.
    pub fn begin_anew(&mut self) {
        self.checks += 1;
        (self.healthy, self.healthy_since, self.unhealthy, self.found_bad, self.followed) = (0, None, 0, None, 0);
    }

    pub fn starting(now: Timestamp, every: Duration) -> Self {
        Self {
            checks: 0,
            healthy: 0,
            healthy_since: None,
            unhealthy: 0,
            found_bad: None,
            next: now.plus(every),
            last: None,
            traffic: None,
            traffic_at: None,
            followed: 0,
            late: false,
            stale: false,
            blamed: false,
        }
    }

    /// Whether the last check measured `traffic`.
    pub fn traffic_is_latest(&self) -> bool {
        self.traffic_at.is_none_or(|at| self.last.as_ref().is_none_or(|last| last.at == at))
    }

    /// Since when users have been served well: the target is healthy, and the bad version was not seen any more.
    pub fn well_since(&self) -> Option<Timestamp> {
        let bad_last_seen = self.traffic.as_ref().and_then(|traffic| traffic.bad_last_seen);
        self.healthy_since.map(|since| bad_last_seen.map_or(since, |seen| since.max(seen)))
    }
}

/// A version's measurements against the version that it would replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub at: Timestamp,
    /// The other version. The previous release did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<VersionName>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub passed: bool,
    pub text: String,
}

impl Evidence {
    /// Older measurements are not used.
    pub const FRESH: Duration = Duration::from_secs(300);
}
