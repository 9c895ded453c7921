//! Incidents of one prompt, and outages, which coordinate the incidents of many prompts.

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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AnyIncident {
    /// Has a `kind`; the incident of one prompt has none.
    Outage(Box<OutageView>),
    OfPrompt(Box<IncidentView>),
}

answers! {
    pub struct IncidentView {
        pub id: String,
        pub prompt: String,
        /// The failing version.
        pub version: String,
        /// The version that a rollback would activate, or did.
        pub target: Option<String>,
        /// Versions that are not rollback targets because people marked them as bad.
        pub marked_bad: Vec<MarkedBad>,
        /// `confirming`, `observing`, `awaiting_decision`, `investigating`, `rolling_back`, `verifying`, `escalated`, or
        /// closed: `recovered`, `unverified`, `dismissed`, `resolved`, `superseded`.
        pub phase: String,
        /// `critical`, `high` or `medium`.
        pub severity: String,
        /// `rollback`, `page`, `recommend` or `observe`.
        pub action: String,
        pub decider: String,
        pub opened_at: String,
        pub updated_at: String,
        pub closed_at: Option<String>,
        /// By when a person must decide, or when the next step is due.
        pub deadline: Option<String>,
        /// Why the requested rollback waits for another confirmation.
        pub objection: Option<String>,
        /// Why the incident is escalated.
        pub reason: Option<String>,
        pub verification: Option<VerificationView>,
        /// The guard that held the automatic rollback.
        pub guard: Option<GuardView>,
        /// Progress of a gradual rollback.
        pub gradual: Option<SplitView>,
        pub summary: String,
        pub decided_by: Option<String>,
        #[serde(rename = "flip")]
        pub switch: Option<SwitchView>,
        /// Absent in lists.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub events: Option<Vec<IncidentEvent>>,
        /// Absent in lists.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub alerts: Option<Vec<AlertView>>,
    }

    pub struct MarkedBad {
        pub version: String,
        pub operator: String,
        pub reason: String,
    }

    pub struct VerificationView {
        /// Number of checks so far.
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

    /// Requests since the rollback.
    pub struct TrafficView {
        pub target_requests: u64,
        pub target_failures: u64,
        pub bad_requests: u64,
        pub bad_last_seen_at: Option<String>,
        pub bad_percent: u64,
        /// Number of instances that serve the target.
        pub following: usize,
        /// Instances that still serve the failing version.
        pub still_serving: Vec<String>,
        /// Instances about which too little was measured.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutageView {
    pub id: String,
    /// `outage`; receivers of the previous release send `mass`.
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
    /// Number of prompts.
    pub prompts: usize,
    /// Number of prompts that wait for a decision.
    pub waiting: usize,
    pub shared: Vec<SharedLabel>,
    pub hold: Option<HeldBack>,
    pub carrying_out: Option<OutageExecution>,
    /// Decisions that are accepted now.
    pub choices: Vec<String>,
    /// Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<IncidentEvent>>,
    /// Absent in lists. Those that wait for a decision come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<OutageMember>>,
    /// Absent in lists, otherwise empty: each member has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Vec<AlertView>>,
}

answers! {
    /// A label value that some of the prompts share.
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
        /// Whether it was rolled back automatically before the outage was recognized.
        #[serde(rename = "flipped_before")]
        pub rolled_back_before: bool,
        pub held_back: bool,
        pub labels: BTreeMap<String, String>,
        /// Why the rollback failed.
        pub failed: Option<String>,
    }
}
