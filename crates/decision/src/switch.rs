//! Switches: all traffic moves from one version to another.

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
        /// Approved or manual, completed in stages.
        Gradual = "gradual",
        /// Not a rollback: another version was activated while the incident was open.
        Shipped = "shipped",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The commit that made it: a switch can be undone only while it is the last change of the traffic. Empty in older
    /// records.
    #[serde(default, skip_serializing_if = "is_default")]
    pub commit: CommitId,
    pub at: Timestamp,
    /// When a person decided, if Prometheus was asked before the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    pub from: VersionName,
    pub to: VersionName,
    pub mode: SwitchMode,
    pub operator: Operator,
    /// The state of its verification; `None` if no Prometheus is configured.
    #[serde(skip)]
    pub verification: Option<Verification>,
}

/// The rollback that only `guards.mode = "dry-run"` prevented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunRollback {
    pub at: Timestamp,
    pub from: VersionName,
    pub to: VersionName,
    /// The alert's name.
    pub trigger: String,
}
