//! Bodies of requests. The receiver's config gives defaults for omitted fields.

use serde::{Deserialize, Serialize};

use crate::decision::{self, MarkKind};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    pub version: String,
    pub content: Option<String>,
    pub contact: Option<String>,
    pub staged_at: Option<String>,
    #[serde(default)]
    pub known_good: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    pub version: String,
    pub percent: Option<u8>,
    #[serde(default)]
    pub canary: bool,
    pub stages: Option<Vec<u8>>,
    pub hold: Option<HoldDurations>,
    /// How long a stage may lack evidence before people are asked.
    pub hold_limit: Option<String>,
    pub operator: Option<String>,
    pub reason: Option<String>,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    pub prompt: String,
    pub target_version: Option<String>,
    pub from_version: Option<String>,
    pub reason: Option<String>,
    pub operator: Option<String>,
    pub strategy: Option<Strategy>,
    pub stages: Option<Vec<u8>>,
    pub hold: Option<HoldDurations>,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    Instant,
    Gradual,
}

/// One duration for all stages, or one for each; the last one applies to all that follow.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HoldDurations {
    All(String),
    Each(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteerRequest {
    pub action: decision::Steer,
    pub operator: Option<String>,
    pub reason: Option<String>,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRequest {
    pub mark: MarkKind,
    pub reason: Option<String>,
    pub operator: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    pub decision: DecisionKind,
    pub operator: String,
    pub target_version: Option<String>,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    Approve,
    ApproveGradual,
    Investigate,
    Dismiss,
    Undo,
    /// For an outage: end the hold.
    Release,
}

/// Pause and resume. Without a prompt: for all prompts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    pub prompt: Option<String>,
    pub operator: Option<String>,
    pub reason: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    pub pattern: Option<String>,
    #[serde(default)]
    pub known_good: bool,
    #[serde(default)]
    pub dry_run: bool,
    pub operator: Option<String>,
    /// `next` of the previous response.
    pub cursor: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    pub prompt: String,
    pub operator: Option<String>,
}
