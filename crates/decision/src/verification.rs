//! What Prometheus says about a version, and what came of checking a rollback.

use std::time::Duration;

use super::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Healthy,
    Unhealthy,
    /// Nothing was measured.
    NoData,
    /// Prometheus can't say: it is away, or the expression is wrong.
    Unknown,
}

impl Verdict {
    pub const ALL: [Verdict; 4] = [Verdict::Healthy, Verdict::Unhealthy, Verdict::NoData, Verdict::Unknown];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Unhealthy => "unhealthy",
            Verdict::NoData => "no_data",
            Verdict::Unknown => "unknown",
        }
    }
}

/// A verdict with its figures, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    pub text: String,
}

impl Finding {
    pub fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, text: text.into() }
    }
}

/// Requests since the flip, by the counters of the prompt servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Served by the version rolled back to.
    pub target: u64,
    /// Served by the bad version.
    pub bad: u64,
    /// When the bad version was last seen to serve.
    pub bad_last_seen: Option<Timestamp>,
    /// Instances that serve the bad version still. Sorted, at most [`Traffic::MAX_INSTANCES`].
    pub still: Vec<String>,
}

impl Traffic {
    pub const MAX_INSTANCES: usize = 10;

    /// Percent of the requests since the flip that the bad version served.
    pub fn bad_percent(&self) -> u64 {
        let [bad, target] = [self.bad, self.target].map(u128::from); // whatever counters say
        let all = (bad + target).max(1);
        u64::try_from((bad * 100).div_ceil(all)).unwrap_or(100)
    }
}

/// One look at a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub at: Timestamp,
    pub finding: Finding,
}

/// How far the check of a rollback is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Checks made.
    pub checks: u32,
    /// The last so many found it healthy.
    pub healthy: u32,
    /// When the first of these was.
    pub healthy_since: Option<Timestamp>,
    /// A check has measured something.
    pub measured: bool,
    pub next: Timestamp,
    pub last: Option<Check>,
    pub traffic: Option<Traffic>,
    /// It was said that servers keep serving the bad version.
    pub stale: bool,
    /// It was said that the target, or most prompts, fail too.
    pub blamed: bool,
}

impl Verification {
    pub fn starting(now: Timestamp, every: Duration) -> Self {
        Self {
            checks: 0,
            healthy: 0,
            healthy_since: None,
            measured: false,
            next: now.plus(every),
            last: None,
            traffic: None,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub at: Timestamp,
    pub passed: bool,
    pub text: String,
}

impl Evidence {
    /// Older figures say nothing of now.
    pub const FRESH: Duration = Duration::from_secs(300);
}
