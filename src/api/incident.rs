//! Incidents: of one prompt, and outages, each of which coordinates the incidents of many prompts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::prompt::SplitView;

answers! {
    pub struct IncidentList {
        pub incidents: Vec<AnyIncident>,
        pub next: Option<String>,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnyIncident {
    /// Distinguished by its `kind`.
    Outage(Box<OutageView>),
    OfPrompt(Box<IncidentView>),
}

answers! {
    pub struct IncidentView {
        pub id: String,
        pub prompt: String,
        /// The version that misbehaves.
        pub version: String,
        /// The rollback target, also after the rollback.
        pub target: Option<String>,
        /// Versions that people marked as bad.
        pub marked_bad: Vec<MarkedBad>,
        pub phase: String,
        pub severity: String,
        pub action: String,
        pub decider: String,
        pub opened_at: String,
        pub updated_at: String,
        pub closed_at: Option<String>,
        pub deadline: Option<String>,
        /// The objection to the requested rollback.
        pub objection: Option<String>,
        /// Why the incident is escalated.
        pub reason: Option<String>,
        pub verification: Option<VerificationView>,
        /// The guard that held the automatic rollback.
        pub guard: Option<GuardView>,
        /// The progress of a gradual rollback.
        pub gradual: Option<SplitView>,
        pub summary: String,
        pub decided_by: Option<String>,
        #[serde(rename = "flip")]
        pub switch: Option<SwitchView>,
        /// Absent in a list.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub events: Option<Vec<IncidentEvent>>,
        /// Absent in a list.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub alerts: Option<Vec<AlertView>>,
    }

    pub struct MarkedBad {
        pub version: String,
        pub operator: String,
        pub reason: String,
    }

    pub struct VerificationView {
        /// The number of checks.
        pub checks: u32,
        pub last: Option<CheckView>,
        pub traffic: Option<TrafficView>,
    }

    /// One check of a rollback or a canary.
    pub struct CheckView {
        pub at: String,
        pub verdict: String,
        pub text: String,
    }

    /// Requests since the switch.
    pub struct TrafficView {
        pub target_requests: u64,
        pub target_failures: u64,
        pub bad_requests: u64,
        pub bad_last_seen_at: Option<String>,
        pub bad_percent: u64,
        /// How many instances follow the key `active`, and the names of those that do not, or may not.
        pub following: usize,
        pub still_serving: Vec<String>,
        pub unknown: Vec<String>,
    }

    pub struct GuardView {
        pub reason: String,
        pub detail: String,
    }

    pub struct SwitchView {
        pub at: String,
        pub from: String,
        pub to: String,
        pub mode: String,
        pub operator: String,
    }

    pub struct IncidentEvent {
        pub at: String,
        pub kind: String,
        pub text: String,
    }

    pub struct AlertView {
        pub fingerprint: String,
        pub alertname: String,
        pub severity: String,
        pub action: String,
        pub decider: String,
        pub time_limit_seconds: u64,
        pub firing: bool,
        pub starts_at: Option<String>,
        pub first_seen_at: String,
        pub last_seen_at: String,
        pub summary: String,
        pub description: String,
        pub value: String,
        pub verify: String,
        pub runbook_url: String,
        pub dashboard_url: String,
        pub generator_url: String,
    }
}

/// Many prompts that fail together. Fields of [`Incident`] that do not apply are null.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutageView {
    pub id: String,
    /// `outage`.
    pub kind: String,
    pub prompt: (),
    pub version: (),
    pub target: (),
    pub phase: String,
    pub severity: String,
    pub action: String,
    pub decider: String,
    pub opened_at: String,
    pub updated_at: String,
    pub closed_at: Option<String>,
    pub deadline: (),
    pub guard: (),
    #[serde(rename = "flip")]
    pub switch: (),
    pub summary: String,
    /// How many prompts there are, and how many of them wait for a decision.
    pub prompts: usize,
    pub waiting: usize,
    pub shared: Vec<SharedLabel>,
    pub hold: Option<HeldBack>,
    pub carrying_out: Option<OutageExecution>,
    /// The possible decisions.
    pub choices: Vec<String>,
    /// Absent in a list, like all fields below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<IncidentEvent>>,
    /// Those that wait come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<OutageMember>>,
    /// Empty: each member has its own alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Vec<AlertView>>,
}

answers! {
    /// A label with a value that some of the prompts have in common.
    pub struct SharedLabel {
        pub label: String,
        pub value: String,
        pub prompts: usize,
    }

    pub struct HeldBack {
        pub by: String,
        pub at: String,
    }

    /// A decision that is being carried out prompt by prompt.
    pub struct OutageExecution {
        pub decision: String,
        pub by: String,
        pub at: String,
    }

    pub struct OutageMember {
        pub incident: String,
        pub prompt: String,
        pub version: String,
        pub target: Option<String>,
        pub phase: String,
        pub began: String,
        /// Rolled back automatically before the outage was opened.
        #[serde(rename = "flipped_before")]
        pub rolled_back_before: bool,
        pub held_back: bool,
        pub labels: BTreeMap<String, String>,
        /// Why it was not rolled back.
        pub failed: Option<String>,
    }
}
