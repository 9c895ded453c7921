//! All traffic moves from one version to another.

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, words};
use super::ids::CommitId;
use super::names::VersionName;
use super::operator::Operator;
use super::time::Timestamp;
use super::verification::Verification;

words! {
    /// Who started a switch.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum SwitchMode {
        Auto = "auto",
        Approved = "approved",
        Manual = "manual",
        /// Approved or manual, and finished step by step.
        Gradual = "gradual",
        /// No rollback: another version was shipped while the incident was open.
        Shipped = "shipped",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The commit that made it: a switch is undone only while it is the last change of traffic. Empty in older records.
    #[serde(default, skip_serializing_if = "is_default")]
    pub commit: CommitId,
    pub at: Timestamp,
    /// When a person decided, if Prometheus was asked before it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    pub from: VersionName,
    pub to: VersionName,
    pub mode: SwitchMode,
    pub operator: Operator,
    /// How far the check of it is; `None`: there is no Prometheus to ask.
    #[serde(skip)]
    pub verification: Option<Verification>,
}

/// The rollback that only `guards.mode = "dry-run"` has kept from happening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunRollback {
    pub at: Timestamp,
    pub from: VersionName,
    pub to: VersionName,
    /// The alert's name.
    pub trigger: String,
}
