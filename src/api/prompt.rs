//! Prompts, their versions and their deployment log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::CheckView;
use super::incident::IncidentView;

/// An entry of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnyPrompt {
    /// The record of the prompt is unreadable.
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
        /// When its soak ends, if nothing happens.
        pub soak_ends_at: Option<String>,
        /// When time alone makes it known-good, if nothing is measured before.
        pub soak_limit_at: Option<String>,
        pub paused: bool,
        /// The running canary.
        pub canary: Option<CanaryView>,
        pub open_incidents: Vec<String>,
    }

    pub struct PromptView {
        pub prompt: String,
        pub active: Option<String>,
        /// Why no version is active although one was.
        pub active_fault: Option<String>,
        /// Version to percentage, while traffic is split. Null: someone wrote a value that is not a percentage.
        pub routing: Option<BTreeMap<String, Option<u8>>>,
        /// Each version with traffic.
        pub in_service: Vec<DeploymentView>,
        pub also_changed: AlsoChanged,
        pub rollback_target: Option<String>,
        pub paused: bool,
        /// The last canary, which is over if it has an end.
        pub canary: Option<CanaryView>,
        pub versions: Vec<VersionView>,
        /// The open incidents.
        pub incidents: Vec<IncidentView>,
    }

    /// How a version got its traffic.
    pub struct DeploymentView {
        pub version: String,
        pub percent: u8,
        pub since: Option<String>,
        pub operator: Option<String>,
        pub event: Option<String>,
    }

    /// Other prompts that changed shortly before; those of the same group come first.
    pub struct AlsoChanged {
        pub within_seconds: u64,
        pub prompts: Vec<OtherChange>,
        /// How many are not listed, or the least number.
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
        /// What its soak was missing at the last check.
        pub soak_note: Option<String>,
        /// When it lost its traffic with an incident open, and the incident.
        pub left_at: Option<String>,
        pub left_with_incident: Option<String>,
        pub quarantined_at: Option<String>,
        pub mark: Option<MarkView>,
        pub contact: Option<String>,
        pub staged_at: Option<String>,
        pub has_content: bool,
        /// When its content was archived.
        pub archived_at: Option<String>,
        /// Why its content was not restored.
        pub archive_fault: Option<String>,
    }

    /// A person's verdict on a version.
    pub struct MarkView {
        /// `bad` or `good`.
        pub kind: String,
        pub at: String,
        pub operator: String,
        pub reason: String,
    }

    /// Traffic that two versions share, in stages.
    pub struct SplitView {
        pub from: String,
        pub to: String,
        /// The share of `to`, like all percentages here.
        pub percent: u8,
        pub stages: Vec<u8>,
        pub hold_seconds: Vec<u64>,
        pub stage: u32,
        pub stage_since: String,
        pub next_stage_at: Option<String>,
        /// Why it does not advance.
        pub waits: Option<String>,
        pub last_check: Option<CheckView>,
        pub operator: String,
    }

    pub struct CanaryView {
        #[serde(flatten)]
        pub split: SplitView,
        pub started_at: String,
        pub hold_limit_seconds: Option<u64>,
        /// `off` if its stages end by time alone.
        pub analysis: Option<String>,
        pub paused_by: Option<String>,
        /// The incident that asks people about it.
        pub question: Option<String>,
        /// Null while it is running.
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
    }

    pub struct LogEntryView {
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
