//! The stages of a split: how much traffic moves, and how long each is held.

use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::encoding::{is_default, millis};

/// The stages of a split, and how long each lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The percentage of the version that gains traffic, in each stage; rising.
    #[serde(deserialize_with = "percents")]
    pub stages: Vec<u8>,
    /// How long each stage lasts; the last value applies to all that follow.
    #[serde(with = "millis::list", default, skip_serializing_if = "is_default")]
    pub holds: Vec<Duration>,
    /// For a canary: how long a stage may lack evidence before people are asked; `None`: the policy's default.
    #[serde(with = "millis::option", default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Duration>,
}

impl Plan {
    pub const MAX_STAGES: usize = 20;
    /// The longest time of one stage.
    pub const MAX_HOLD: Duration = Duration::from_secs(30 * 24 * 3_600);

    /// A gradual rollback. `left`: the percentage left on the bad version in each stage, falling to 0.
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

    /// A canary: the percentage of the new version in each stage, rising to 100.
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

    /// A single share that stays until someone changes it.
    pub fn fixed(percent: u8) -> Result<Self, String> {
        match percent {
            1..=99 => Ok(Self { stages: vec![percent], holds: Vec::new(), limit: None }),
            _ => Err(format!("percent: expected 1 to 99, or 0 to end a running canary of this version, got {percent}")),
        }
    }

    /// Validates times and number of stages.
    pub fn checked(self) -> Result<Self, String> {
        if self.stages.len() > Self::MAX_STAGES {
            return Err(format!("stages: expected at most {}, got {}", Self::MAX_STAGES, self.stages.len()));
        }
        if self.holds.is_empty() || self.holds.len() > self.stages.len() {
            return Err(format!("hold: expected 1 to {} durations, got {}", self.stages.len(), self.holds.len()));
        }
        if let Some(hold) = self.holds.iter().find(|hold| !Self::may_hold(**hold)) {
            return Err(format!("hold: expected more than 0 and at most 30 days, got {} s", hold.as_secs()));
        }
        if self.limit.is_some_and(|limit| limit.is_zero()) {
            return Err("hold_limit: expected more than 0, got 0 s".to_owned());
        }
        Ok(self)
    }

    /// Whether a stage may last this long.
    pub fn may_hold(hold: Duration) -> bool {
        !hold.is_zero() && hold <= Self::MAX_HOLD
    }

    pub(crate) fn hold(&self, stage: usize) -> Option<Duration> {
        self.holds.get(stage).or(self.holds.last()).copied()
    }
}

/// Rejects percentages above 100.
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
