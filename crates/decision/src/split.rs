//! Splits: traffic that two versions share, in a gradual rollback or a canary.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, millis};
use super::finding::Check;
use super::ids::IncidentId;
use super::names::VersionName;
use super::operator::Operator;
use super::plan::Plan;
use super::policy::Policy;
use super::time::Timestamp;

/// Two versions that share the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSplit {
    /// The version that loses traffic.
    pub leaving: VersionName,
    pub arriving: VersionName,
    pub plan: Plan,
    /// When its first stage began.
    #[serde(default)]
    pub began: Timestamp,
    /// The current stage of the plan.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stage: u32,
    /// When the current stage began.
    pub since: Timestamp,
    /// When the next stage begins automatically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// When to ask next whether the next stage may begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Timestamp>,
    pub operator: Operator,
    pub reason: String,
    /// Why it does not advance automatically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// The last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Check>,
    /// Whether `arriving` is the rollback target: `active` holds the target if both shares are equal, here `arriving`,
    /// otherwise `leaving`.
    #[serde(rename = "tie_to_arriving", default, skip_serializing_if = "is_default")]
    pub is_rollback: bool,
}

impl TrafficSplit {
    /// How often to ask whether the split may continue.
    pub const CHECK_EVERY: Duration = Duration::from_secs(60);

    /// How long the current stage lasts, if it ends automatically.
    pub fn hold(&self) -> Option<Duration> {
        self.next_percent().and_then(|_| self.plan.hold(self.stage as usize))
    }

    /// The percentage of `arriving`.
    pub fn percent(&self) -> u8 {
        self.plan.stages.get(self.stage as usize).copied().unwrap_or(100)
    }

    /// The percentage of `arriving` in the next stage, if there is one.
    pub fn next_percent(&self) -> Option<u8> {
        self.plan.stages.get(self.stage as usize + 1).copied()
    }

    /// Begins with the first stage, now.
    pub fn begin(
        is_rollback: bool,
        (leaving, arriving): (VersionName, VersionName),
        plan: Plan,
        operator: Operator,
        reason: String,
        now: Timestamp,
    ) -> Self {
        let mut split = Self {
            leaving,
            arriving,
            plan,
            began: now,
            stage: 0,
            since: now,
            next: None,
            check: None,
            operator,
            reason,
            paused: None,
            last: None,
            is_rollback,
        };
        split.enter(0, now);
        split
    }

    /// Starts `stage` now: it lasts its full time, however late it starts.
    pub fn enter(&mut self, stage: u32, now: Timestamp) {
        self.stage = stage;
        self.since = now;
        self.paused = None;
        self.next = self.hold().map(|hold| now.plus(hold));
        // a canary is checked when its stage ends, because alerts stop it earlier
        self.check = self.next.filter(|_| self.is_rollback).map(|_| now.plus(Self::CHECK_EVERY));
    }

    /// The version with the larger share, which `active` holds.
    pub fn major(&self) -> &VersionName {
        let arriving = match self.percent() {
            50 => self.is_rollback,
            percent => percent > 50,
        };
        if arriving { &self.arriving } else { &self.leaving }
    }

    /// The fields of `routing`, sorted.
    pub fn routing(&self) -> Vec<(VersionName, u8)> {
        let percent = self.percent();
        let mut shares = vec![(self.leaving.clone(), 100 - percent), (self.arriving.clone(), percent)];
        shares.sort();
        shares
    }

    pub fn has(&self, version: &VersionName) -> bool {
        self.leaving == *version || self.arriving == *version
    }

    /// The other version.
    pub fn other(&self, version: &VersionName) -> &VersionName {
        if self.leaving == *version { &self.arriving } else { &self.leaving }
    }

    pub fn wake(&self) -> Option<Timestamp> {
        [self.next, self.check].into_iter().flatten().min()
    }
}

/// A new version that gets its traffic in stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Its id, for notifications.
    pub id: IncidentId,
    pub split: TrafficSplit,
    pub started: Timestamp,
    /// How long the base had soaked when the new version got the larger share. Its soak continues from there.
    #[serde(with = "millis::option", default, skip_serializing_if = "Option::is_none")]
    pub soaked: Option<Duration>,
    /// Set once the time of the current stage is over and it still waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<CanaryWait>,
    /// A person paused it at its stage. Kept when it ends, in case the end is undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<CanaryPause>,
    /// Whether its stages end by time alone, whatever is measured.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by_time: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<CanaryEnd>,
}

/// What a canary waits for, beyond the time of its stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryWait {
    /// Since when the current stage could have ended.
    pub since: Timestamp,
    /// The incident that asks people about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<IncidentId>,
    /// Whether it asks because the new version does harm. Older records do not say it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub harm: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPause {
    pub at: Timestamp,
    pub operator: Operator,
}

impl fmt::Display for CanaryPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paused by {}", self.operator)
    }
}

impl Canary {
    pub fn new(id: IncidentId, split: TrafficSplit, started: Timestamp, by_time: bool) -> Self {
        Self { id, split, started, soaked: None, waiting: None, pause: None, by_time, end: None }
    }

    /// Counts from `now` what was written before the clock went back.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        let TrafficSplit { began, since, next, last, .. } = &mut self.split;
        let last = last.as_mut().map(|check| &mut check.at);
        let waiting = self.waiting.as_mut().map(|waiting| &mut waiting.since);
        let mut written: Vec<_> = [began, since].into_iter().chain(last).chain(waiting).collect();
        let back = written.iter().map(|at| at.since(now)).max().unwrap_or_default();
        if back < Policy::CLOCK_STEP {
            return;
        }
        written.iter_mut().for_each(|at| **at = (**at).min(now));
        *next = next.map(|at| at.minus(back));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryEnd {
    pub at: Timestamp,
    /// Whether the new version got all traffic.
    #[serde(default, skip_serializing_if = "is_default")]
    pub promoted: bool,
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(600);

    #[test]
    fn stages_move_one_way_to_their_end() {
        let gradual = |left: &[u8]| Plan::gradual(left, vec![HOLD]).map(|plan| plan.stages);
        assert_eq!(gradual(&[75, 50, 25, 0]), Ok(vec![25, 50, 75, 100]));
        assert_eq!(gradual(&[0]), Ok(vec![100]));
        for wrong in [&[][..], &[75, 80, 0], &[50, 50, 0], &[75, 50], &[100, 50, 0], &[255, 0]] {
            assert!(gradual(wrong).unwrap_err().starts_with("stages: expected"), "{wrong:?}");
        }
        let canary = |stages: &[u8]| Plan::canary(stages, vec![HOLD]).map(|plan| plan.stages);
        assert_eq!(canary(&[1, 5, 25, 100]), Ok(vec![1, 5, 25, 100]));
        for wrong in [&[][..], &[5, 1, 100], &[0, 100], &[1, 101], &[1, 50]] {
            assert!(canary(wrong).unwrap_err().starts_with("stages: expected"), "{wrong:?}");
        }
        assert!(Plan::canary(&[1, 100], vec![]).unwrap_err().starts_with("hold: expected"));
        assert!(Plan::canary(&[1, 100], vec![Duration::ZERO]).unwrap_err().starts_with("hold: expected"));
        assert!(Plan::fixed(30).is_ok() && Plan::fixed(0).is_err() && Plan::fixed(100).is_err());
    }
}
