//! All traffic moves from one version to another.

use super::names::{CommitId, VersionName};
use super::operator::Operator;
use super::time::Timestamp;
use super::verification::Verification;

/// Who started a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlipMode {
    Auto,
    Approved,
    Manual,
    /// Approved or manual, and finished step by step.
    Gradual,
    /// No rollback: another version was shipped while the incident was open.
    Shipped,
}

impl FlipMode {
    pub const ALL: [FlipMode; 5] =
        [FlipMode::Auto, FlipMode::Approved, FlipMode::Manual, FlipMode::Gradual, FlipMode::Shipped];

    pub fn as_str(self) -> &'static str {
        match self {
            FlipMode::Auto => "auto",
            FlipMode::Approved => "approved",
            FlipMode::Manual => "manual",
            FlipMode::Gradual => "gradual",
            FlipMode::Shipped => "shipped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// The commit that made it: a flip is undone only while it is the last change of traffic. Empty in older records.
    pub commit: CommitId,
    pub at: Timestamp,
    /// When a person decided, if Prometheus was asked before it was done.
    pub decided_at: Option<Timestamp>,
    pub from: VersionName,
    pub to: VersionName,
    pub mode: FlipMode,
    pub operator: Operator,
    /// How far the check of it is; `None`: there is no Prometheus to ask.
    pub verification: Option<Verification>,
}

/// The rollback that only `guards.mode = "dry-run"` has kept from happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldFlip {
    pub at: Timestamp,
    pub from: VersionName,
    pub to: VersionName,
    /// The alert's name.
    pub trigger: String,
}
