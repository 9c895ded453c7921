//! Traffic that two versions share for a while: a gradual rollback, or a canary.

use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::encoding::{is_default, millis};
use super::names::{IncidentId, VersionName};
use super::operator::Operator;
use super::time::Timestamp;
use super::verification::Check;

/// The stages of a split, and how long each is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Percent on the version that traffic moves to: rises.
    #[serde(deserialize_with = "percents")]
    pub stages: Vec<u8>,
    /// Of each stage; the last one holds for all that follow.
    #[serde(with = "millis::list", default, skip_serializing_if = "is_default")]
    pub holds: Vec<Duration>,
    /// Of a canary: how long a stage waits for figures before people are asked; `None`: as the policy says.
    #[serde(with = "millis::option", default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Duration>,
}

impl Plan {
    pub const MAX_STAGES: usize = 20;
    /// Longest time that one stage is held.
    pub const MAX_HOLD: Duration = Duration::from_secs(30 * 24 * 3_600);

    /// Of a gradual rollback. `left`: percent left on the bad version after each step, falling to 0.
    pub fn gradual(left: &[u8], holds: Vec<Duration>) -> Result<Self, String> {
        let falls = left.is_sorted_by(|a, b| a > b) && left.iter().all(|percent| *percent < 100);
        if !falls || left.last() != Some(&0) {
            return Err(format!(
                "stages: expected percents left on the bad version that fall from below 100 to 0, got {}",
                listed(left)
            ));
        }
        Self { stages: left.iter().map(|left| 100 - left).collect(), holds, limit: None }.checked()
    }

    /// Of a canary: percent on the new version in each step, rising to 100.
    pub fn canary(stages: &[u8], holds: Vec<Duration>) -> Result<Self, String> {
        let rises = stages.is_sorted_by(|a, b| a < b) && stages.iter().all(|percent| (1..=100).contains(percent));
        if !rises || stages.last() != Some(&100) {
            return Err(format!(
                "stages: expected percents on the new version that rise from at least 1 to 100, got {}",
                listed(stages)
            ));
        }
        Self { stages: stages.to_vec(), holds, limit: None }.checked()
    }

    /// One share that stays until someone changes it.
    pub fn fixed(percent: u8) -> Result<Self, String> {
        match percent {
            1..=99 => Ok(Self { stages: vec![percent], holds: Vec::new(), limit: None }),
            _ => Err(format!("percent: expected 0 to 100, got {percent}")),
        }
    }

    /// For a plan whose stages are right.
    pub fn checked(self) -> Result<Self, String> {
        if self.stages.len() > Self::MAX_STAGES {
            return Err(format!("stages: expected at most {}, got {}", Self::MAX_STAGES, self.stages.len()));
        }
        if self.holds.is_empty() || self.holds.len() > self.stages.len() {
            return Err(format!("hold: expected 1 to {} durations, got {}", self.stages.len(), self.holds.len()));
        }
        if let Some(hold) = self.holds.iter().find(|hold| hold.is_zero() || **hold > Self::MAX_HOLD) {
            return Err(format!("hold: expected more than 0 and at most 30 days, got {} s", hold.as_secs()));
        }
        if self.limit.is_some_and(|limit| limit.is_zero()) {
            return Err("hold_limit: expected more than 0, got 0 s".to_owned());
        }
        Ok(self)
    }

    fn hold(&self, stage: usize) -> Option<Duration> {
        self.holds.get(stage).or(self.holds.last()).copied()
    }
}

/// Routing adds up to a hundred.
fn percents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let percents = Vec::deserialize(deserializer)?;
    if percents.iter().any(|percent| *percent > 100) {
        return Err(D::Error::custom("more than 100 percent"));
    }
    Ok(percents)
}

fn listed(percents: &[u8]) -> String {
    let texts: Vec<_> = percents.iter().take(Plan::MAX_STAGES).map(u8::to_string).collect();
    format!("[{}]", texts.join(", "))
}

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
