//! What came of checking a rollback.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::encoding::is_default;
use super::finding::Check;
use super::time::Timestamp;

/// Some of the prompt servers, by the name that Prometheus has for them.
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

/// In a record: the names, with the count after them where there are more. The version before wrote at most ten names.
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

/// Requests since the switch, by the counters of the prompt servers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Served by the version rolled back to.
    pub target: u64,
    /// So many of these failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u64,
    /// Failures are not counted where requests are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uncounted: bool,
    /// Served by the bad version.
    pub bad: u64,
    /// When the bad version was last seen to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_last_seen: Option<Timestamp>,
    /// Percent of the latest requests that the bad version served.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bad_percent: u64,
    /// Instances that serve the version rolled back to, or have stopped serving the bad one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub following: usize,
    /// Instances that serve the bad version still.
    #[serde(default, skip_serializing_if = "is_default")]
    pub still: Instances,
    /// Instances that may serve either: too few requests came since.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unknown: Instances,
}

impl Traffic {
    /// Every instance that serves follows the key.
    pub fn all_follow(&self) -> bool {
        self.still.is_empty() && self.unknown.is_empty()
    }

    /// `9 of 10 instances follow`, and which do not.
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

/// How far the check of a rollback is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Checks made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: u32,
    /// The last so many found it healthy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub healthy: u32,
    /// When the first of these was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Timestamp>,
    /// The last so many that measured anything found it bad.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unhealthy: u32,
    pub next: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Too little was measured by the deadline: the checks go on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub late: bool,
    /// It was said that instances do not follow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stale: bool,
    /// It was said that the target, or most prompts, fail too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub blamed: bool,
}

impl Verification {
    pub fn starting(now: Timestamp, every: Duration) -> Self {
        Self {
            checks: 0,
            healthy: 0,
            healthy_since: None,
            unhealthy: 0,
            next: now.plus(every),
            last: None,
            traffic: None,
            late: false,
            stale: false,
            blamed: false,
        }
    }

    /// Since when users are known to be served well: the target healthy, and the bad version not seen any more.
    pub fn well_since(&self) -> Option<Timestamp> {
        let bad_last_seen = self.traffic.as_ref().and_then(|traffic| traffic.bad_last_seen);
        self.healthy_since.map(|since| bad_last_seen.map_or(since, |seen| since.max(seen)))
    }
}

/// What was measured of a version against the one that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "is_default")]
    pub passed: bool,
    pub text: String,
}

impl Evidence {
    /// Older figures say nothing of now.
    pub const FRESH: Duration = Duration::from_secs(300);
}
