//! Prompts, their versions and their deployment log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::CheckView;
use super::incident::IncidentView;

/// A prompt in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AnyPrompt {
    /// The record of this prompt cannot be read.
    Unreadable {
        prompt: String,
        error: String,
    },
    Row(Box<PromptSummary>),
}

answers! {
    pub struct PromptList {
        pub prompts: Vec<AnyPrompt>,
        pub next: Option<String>,
    }

    /// A prompt in a list.
    pub struct PromptSummary {
        pub prompt: String,
        pub active: Option<String>,
        /// Why no version is active although one was.
        pub active_fault: Option<String>,
        pub rollback_target: Option<String>,
        pub activated_at: Option<String>,
        /// Whether the active version is known-good.
        pub known_good: bool,
        /// `mark`, `evidence` or `time`.
        pub known_good_by: Option<String>,
        /// End of the soak, if nothing happens before.
        pub soak_ends_at: Option<String>,
        /// When the version becomes known-good by time alone, if nothing is measured before.
        pub soak_limit_at: Option<String>,
        pub paused: bool,
        /// The canary that is under way.
        pub canary: Option<CanaryView>,
        pub open_incidents: Vec<String>,
        /// What the alert rules can judge of the active version. Null if Prometheus did not say.
        pub coverage: Option<CoverageView>,
    }

    /// For each signal `measured`, `no_baseline`, `slow` (scrapes are further apart than 15 s), `too_little` (traffic) or
    /// `blind`. Null for quality if the prompt has no scores, and for p99 and quality if no requests are measured.
    pub struct CoverageView {
        pub errors: Option<String>,
        pub p99: Option<String>,
        pub quality: Option<String>,
    }

    pub struct PromptView {
        pub prompt: String,
        pub active: Option<String>,
        /// Why no version is active although one was.
        pub active_fault: Option<String>,
        /// Percent by version, while traffic is split. Null where the stored value is not a percentage.
        pub routing: Option<BTreeMap<String, Option<u8>>>,
        /// Versions that have traffic.
        pub in_service: Vec<DeploymentView>,
        pub also_changed: AlsoChanged,
        pub rollback_target: Option<String>,
        pub paused: bool,
        /// The latest canary; finished if it has an `end`.
        pub canary: Option<CanaryView>,
        pub versions: Vec<VersionView>,
        /// Open incidents.
        pub incidents: Vec<IncidentView>,
        /// What the alert rules can judge of the active version. Null if Prometheus did not say.
        pub coverage: Option<CoverageView>,
    }

    /// How a version got its traffic.
    pub struct DeploymentView {
        pub version: String,
        pub percent: u8,
        pub since: Option<String>,
        pub operator: Option<String>,
        pub event: Option<String>,
    }

    /// Other prompts that changed shortly before, those of the same group first.
    pub struct AlsoChanged {
        pub within_seconds: u64,
        pub prompts: Vec<OtherChange>,
        /// Number of prompts that are not listed; a lower bound if `at_least` is true.
        pub more: usize,
        pub at_least: bool,
    }

    pub struct OtherChange {
        pub prompt: String,
        pub event: String,
        pub from: Option<String>,
        pub to: Option<String>,
        pub operator: String,
        pub at: String,
        pub same_group: bool,
    }

    pub struct VersionView {
        pub version: String,
        pub registered_at: Option<String>,
        pub first_activated_at: Option<String>,
        pub last_active_at: Option<String>,
        pub active: bool,
        pub known_good: bool,
        pub known_good_at: Option<String>,
        pub known_good_by: Option<String>,
        pub soak_ends_at: Option<String>,
        pub soak_limit_at: Option<String>,
        /// What the soak still needs.
        pub soak_note: Option<String>,
        /// When the version lost its traffic while an incident was open.
        pub left_at: Option<String>,
        pub left_with_incident: Option<String>,
        pub quarantined_at: Option<String>,
        pub mark: Option<MarkView>,
        pub contact: Option<String>,
        pub staged_at: Option<String>,
        pub has_content: bool,
        /// When the content was moved to the archive.
        pub archived_at: Option<String>,
        /// Why restoring the content failed.
        pub archive_fault: Option<String>,
    }

    /// A person's mark on a version.
    pub struct MarkView {
        /// `bad` or `good`.
        pub kind: String,
        pub at: String,
        pub operator: String,
        pub reason: String,
    }

    /// Traffic that moves from one version to another in stages.
    pub struct SplitView {
        pub from: String,
        pub to: String,
        /// Share of the traffic on `to`.
        pub percent: u8,
        pub stages: Vec<u8>,
        pub hold_seconds: Vec<u64>,
        pub stage: u32,
        pub stage_since: String,
        pub next_stage_at: Option<String>,
        /// Why the next stage waits.
        pub waits: Option<String>,
        pub last_check: Option<CheckView>,
        pub operator: String,
    }

    pub struct CanaryView {
        #[serde(flatten)]
        pub split: SplitView,
        pub started_at: String,
        pub hold_limit_seconds: Option<u64>,
        /// `off` if stages end by time alone.
        pub analysis: Option<String>,
        pub paused_by: Option<String>,
        /// The incident that asks people about this canary.
        pub question: Option<String>,
        /// Null while the canary is under way.
        pub end: Option<CanaryEndView>,
    }

    pub struct CanaryEndView {
        pub at: String,
        /// Whether the new version got all traffic.
        pub promoted: bool,
        pub text: String,
    }

    pub struct DeploymentLog {
        pub entries: Vec<LogEntryView>,
        pub next: Option<String>,
        /// Prompts whose log cannot be read, because its key holds the wrong type.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub unreadable: Vec<String>,
    }

    pub struct LogEntryView {
        pub prompt: String,
        pub id: String,
        pub event: Option<String>,
        pub from: Option<String>,
        pub to: Option<String>,
        pub reason: Option<String>,
        pub operator: Option<String>,
        pub at: Option<String>,
        pub incident: Option<String>,
    }
}
