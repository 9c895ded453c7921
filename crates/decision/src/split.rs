//! Traffic that two versions share for a while: a gradual rollback, or a canary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::is_default;
use super::finding::Check;
use super::ids::IncidentId;
use super::names::VersionName;
use super::operator::Operator;
use super::plan::Plan;
use super::time::Timestamp;

/// Two versions share the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSplit {
    /// Loses traffic with each stage.
    pub leaving: VersionName,
    pub arriving: VersionName,
    pub plan: Plan,
    /// When its first stage began.
    #[serde(default)]
    pub began: Timestamp,
    /// The present stage of the plan.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stage: u32,
    /// When it began.
    pub since: Timestamp,
    /// When the next one begins by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// When it is asked next whether that may happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Timestamp>,
    pub operator: Operator,
    pub reason: String,
    /// Why it does not go on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// What was found when it was last asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Check>,
    /// `arriving` is the rollback target: what `active` holds at the same share on both sides. Else `leaving` is.
    #[serde(rename = "tie_to_arriving", default, skip_serializing_if = "is_default")]
    pub is_rollback: bool,
}

impl TrafficSplit {
    /// How often it is asked whether the split may go on.
    pub const CHECK_EVERY: Duration = Duration::from_secs(60);

    /// How long its present stage lasts, if it ends by itself.
    pub fn hold(&self) -> Option<Duration> {
        self.next_percent().and_then(|_| self.plan.hold(self.stage as usize))
    }

    /// Percent on `arriving`.
    pub fn percent(&self) -> u8 {
        self.plan.stages.get(self.stage as usize).copied().unwrap_or(100)
    }

    /// Percent on `arriving` in the next stage, if there is one.
    pub fn next_percent(&self) -> Option<u8> {
        self.plan.stages.get(self.stage as usize + 1).copied()
    }

    /// With its first stage, from now on.
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

    /// Enters `stage` now: held from now on, however late this is.
    pub fn enter(&mut self, stage: u32, now: Timestamp) {
        self.stage = stage;
        self.since = now;
        self.paused = None;
        self.next = self.hold().map(|hold| now.plus(hold));
        // a canary is asked about when its stage ends: alerts stop it before
        self.check = self.next.filter(|_| self.is_rollback).map(|_| now.plus(Self::CHECK_EVERY));
    }

    /// What `active` holds: the version with the larger share.
    pub fn major(&self) -> &VersionName {
        let arriving = match self.percent() {
            50 => self.is_rollback,
            percent => percent > 50,
        };
        if arriving { &self.arriving } else { &self.leaving }
    }

    /// What `routing` holds, sorted.
    pub fn routing(&self) -> Vec<(VersionName, u8)> {
        let percent = self.percent();
        let mut shares = vec![(self.leaving.clone(), 100 - percent), (self.arriving.clone(), percent)];
        shares.sort();
        shares
    }

    pub fn has(&self, version: &VersionName) -> bool {
        self.leaving == *version || self.arriving == *version
    }

    /// The other side.
    pub fn other(&self, version: &VersionName) -> &VersionName {
        if self.leaving == *version { &self.arriving } else { &self.leaving }
    }

    pub fn wake(&self) -> Option<Timestamp> {
        [self.next, self.check].into_iter().flatten().min()
    }
}

/// A new version that gets its traffic step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Names it for whoever tells of it.
    pub id: IncidentId,
    pub split: TrafficSplit,
    pub started: Timestamp,
    /// The present stage could have ended but for what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<CanaryWait>,
    /// A person keeps it at its stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<CanaryPause>,
    /// Its stages end by time alone, whatever is measured.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by_time: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<CanaryEnd>,
}

/// What a canary waits for, beyond the time of its stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryWait {
    /// Since when the present stage could have ended.
    pub since: Timestamp,
    /// The question that people were asked about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<IncidentId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPause {
    pub at: Timestamp,
    pub operator: Operator,
}

impl Canary {
    pub fn new(id: IncidentId, split: TrafficSplit, started: Timestamp, by_time: bool) -> Self {
        Self { id, split, started, waiting: None, pause: None, by_time, end: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryEnd {
    pub at: Timestamp,
    /// The new version has all traffic.
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
