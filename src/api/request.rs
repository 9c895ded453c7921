//! Bodies of requests. Fields that are left out take the receiver's configured defaults.

use serde::{Deserialize, Serialize};

use crate::decision::{self, MarkKind};

#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    pub version: String,
    pub percent: Option<u8>,
    #[serde(default)]
    pub canary: bool,
    pub stages: Option<Vec<u8>>,
    pub hold: Option<HoldDurations>,
    /// How long a stage waits for evidence before people are asked.
    pub hold_limit: Option<String>,
    pub operator: Option<String>,
    pub reason: Option<String>,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    Instant,
    Gradual,
}

/// One duration for all stages, or one for each stage; the last one applies to the remaining stages.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum HoldDurations {
    All(String),
    Each(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SteerRequest {
    #[cfg_attr(test, schemars(schema_with = "actions"))]
    pub action: decision::Steer,
    pub operator: Option<String>,
    pub reason: Option<String>,
    #[serde(default)]
    pub force: bool,
    /// The canary and its stage that the person saw: a request about another one is refused. Both, or neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MarkRequest {
    #[cfg_attr(test, schemars(schema_with = "marks"))]
    pub mark: MarkKind,
    pub reason: Option<String>,
    pub operator: Option<String>,
    /// The incident that the mark is made about, whose history then tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    pub decision: DecisionKind,
    pub operator: String,
    pub target_version: Option<String>,
    #[serde(default)]
    pub force: bool,
    /// The number of the question that the person saw: an answer to an earlier question is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<u32>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    Approve,
    ApproveGradual,
    Investigate,
    Dismiss,
    Undo,
    /// For an outage: stop holding its prompts back.
    Release,
}

/// For pause and resume. Without a prompt, all prompts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    pub prompt: Option<String>,
    pub operator: Option<String>,
    pub reason: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    pub pattern: Option<String>,
    #[serde(default)]
    pub known_good: bool,
    #[serde(default)]
    pub dry_run: bool,
    pub operator: Option<String>,
    /// `next` of the previous answer.
    pub cursor: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    pub prompt: String,
    pub operator: Option<String>,
}

/// The core knows no JSON Schema.
#[cfg(test)]
fn actions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": decision::Steer::ALL.map(decision::Steer::as_str) })
}

#[cfg(test)]
fn marks(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": MarkKind::ALL.map(MarkKind::as_str) })
}
