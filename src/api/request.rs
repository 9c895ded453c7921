//! Bodies of requests. Fields that are left out take the receiver's configured defaults.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use crate::decision::{self, MarkKind};

/// A version: a text, or the whole number that other registries have.
struct AnyVersion(String);

impl<'de> Deserialize<'de> for AnyVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = AnyVersion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version: a string or a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AnyVersion, E> {
                Ok(AnyVersion(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<AnyVersion, E> {
                Ok(AnyVersion(number.to_string()))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    AnyVersion::deserialize(deserializer).map(|version| version.0)
}

fn maybe_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<AnyVersion>::deserialize(deserializer)?.map(|version| version.0))
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    #[serde(deserialize_with = "version")]
    #[cfg_attr(test, schemars(schema_with = "versions"))]
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
    #[serde(deserialize_with = "version")]
    #[cfg_attr(test, schemars(schema_with = "versions"))]
    pub version: String,
    pub percent: Option<u8>,
    #[serde(default)]
    pub canary: bool,
    pub stages: Option<Vec<u8>>,
    pub hold: Option<HoldDurations>,
    /// How long a stage waits for evidence before the receiver asks people.
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
    #[serde(default, deserialize_with = "maybe_version")]
    #[cfg_attr(test, schemars(schema_with = "maybe_versions"))]
    pub target_version: Option<String>,
    #[serde(default, deserialize_with = "maybe_version")]
    #[cfg_attr(test, schemars(schema_with = "maybe_versions"))]
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
#[serde(untagged, expecting = "expected a duration such as \"10m\", or a list of them")]
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
    /// The incident in which the mark was made; its history then contains the mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    pub decision: DecisionKind,
    /// Optional with a named token, which is then the operator.
    #[serde(default)]
    pub operator: String,
    /// The version to roll back to. For `undo`, the version to serve again: the undo is refused if it would activate another version.
    /// A coordinating incident takes none: each of its prompts has its own target.
    #[serde(default, deserialize_with = "maybe_version")]
    #[cfg_attr(test, schemars(schema_with = "maybe_versions"))]
    pub target_version: Option<String>,
    /// Roll back even to a version that is quarantined or not known-good. Not for a coordinating incident.
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
    /// For an outage: end the hold of its prompts.
    Release,
}

/// Has no fields; an empty body is accepted as well.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {}

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

#[cfg(test)]
fn versions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["string", "integer"], "minimum": 0 })
}

#[cfg(test)]
fn maybe_versions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["string", "integer", "null"], "minimum": 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_be_written_as_a_whole_number() {
        let read = |text: &str| serde_json::from_str::<RollbackRequest>(text).map_err(|error| error.to_string());
        let request = read(r#"{"prompt":"p","target_version":3,"from_version":"4"}"#).expect("both are versions");
        assert_eq!((request.target_version.as_deref(), request.from_version.as_deref()), (Some("3"), Some("4")));
        assert_eq!(read(r#"{"prompt":"p","target_version":null}"#).expect("no version").target_version, None);
        for wrong in ["1.10", "-1", "true", "[3]", "18446744073709551616"] {
            let why = read(&format!(r#"{{"prompt":"p","target_version":{wrong}}}"#)).expect_err(wrong);
            assert!(why.contains("expected a version: a string or a whole number"), "{wrong}: {why}");
        }
        let registered: RegisterRequest = serde_json::from_str(r#"{"version":3}"#).expect("a version");
        assert_eq!(registered.version, "3");
        let decided: DecideRequest =
            serde_json::from_str(r#"{"decision":"approve","operator":"mia","target_version":2}"#).expect("a version");
        assert_eq!(decided.target_version.as_deref(), Some("2"));
    }
}
