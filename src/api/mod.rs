//! Requests and responses of the API: the only declaration of its JSON, used by the server, the command line and its
//! description.
//!
//! Times are RFC 3339 in UTC; absent values are null. Readers ignore unknown fields, and treat fields that an older
//! receiver does not send as empty.

/// Declares types of responses.
macro_rules! answers {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )*};
}

mod incident;
mod prompt;
mod request;

pub use incident::{
    AlertView, AnyIncident, CheckView, GuardView, HeldBack, IncidentEvent, IncidentList, IncidentView, MarkedBad,
    OutageExecution, OutageMember, OutageView, SharedLabel, SwitchView, TrafficView, VerificationView,
};
pub use prompt::{
    AlsoChanged, AnyPrompt, CanaryEndView, CanaryView, DeploymentLog, DeploymentView, LogEntryView, MarkView,
    OtherChange, PromptList, PromptSummary, PromptView, SplitView, VersionView,
};
pub use request::{
    ActivateRequest, DecideRequest, DecisionKind, DrillRequest, HoldDurations, ImportRequest, MarkRequest,
    PauseRequest, RegisterRequest, RollbackRequest, SteerRequest, Strategy,
};

use serde::{Deserialize, Serialize};

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Why a request was refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    pub error: Reason,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Reason {
    /// In snake_case, for programs.
    pub code: String,
    pub message: String,
}

answers! {
    pub struct RegisterResponse {
        pub prompt: String,
        pub version: String,
        pub created: bool,
        pub known_good: bool,
    }

    pub struct MarkResponse {
        pub success: bool,
        pub prompt: String,
        pub version: String,
        pub mark: String,
        /// The version's share of the traffic.
        pub percent: u8,
        pub rollback_target: Option<String>,
        pub timestamp: String,
        #[serde(skip_serializing_if = "is_false")]
        pub unchanged: bool,
        /// What to do about it, if anything is needed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub message: Option<String>,
    }

    pub struct RestoreResponse {
        pub prompt: String,
        pub version: String,
        pub restored: bool,
        #[serde(skip_serializing_if = "is_false")]
        pub unchanged: bool,
    }

    /// The requirements for a version before it gets all traffic.
    pub struct GatesResponse {
        pub prompt: String,
        pub version: String,
        pub replaces: Option<String>,
        pub may_have_all_traffic: bool,
        pub gates: Vec<GateView>,
    }

    pub struct GateView {
        pub gate: String,
        pub on: bool,
        pub passed: bool,
        pub figures: String,
    }
}

/// The response to a change of the active version.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ChangeResponse {
    #[serde(default)]
    pub success: bool,
    /// The rollback waits for Prometheus' answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirming: bool,
    #[serde(default)]
    pub prompt: String,
    pub from_version: Option<String>,
    pub to_version: String,
    pub timestamp: Option<String>,
    pub incident: Option<String>,
    /// Nothing had to be changed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unchanged: bool,
    /// The share of `to_version`, while traffic is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// The response to a decision.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DecideResponse {
    /// Another version is active now, or will be.
    Changed(ChangeResponse),
    Answered(Answered),
}

answers! {
    pub struct Answered {
        pub success: bool,
        pub incident: String,
        /// For an outage.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub decision: Option<String>,
        pub phase: String,
        /// For an outage: the number of prompts for which it is carried out.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub prompts: Option<usize>,
        pub timestamp: String,
    }

    pub struct PauseResponse {
        pub paused: bool,
        /// Null: all prompts.
        pub prompt: Option<String>,
        pub changed: bool,
    }

    pub struct ReloadResponse {
        pub success: bool,
        pub changed: Vec<KeyChange>,
        pub needs_restart: Vec<KeyChange>,
    }

    /// A key of the config. Values of secrets are null.
    pub struct KeyChange {
        pub key: String,
        pub from: Option<String>,
        pub to: Option<String>,
    }

    /// Some of the keys that already hold a version; `next` is the cursor for the next request.
    pub struct ImportResponse {
        pub dry_run: bool,
        pub adopted: Vec<Adopted>,
        pub known: u64,
        pub skipped: Vec<Skipped>,
        pub next: Option<String>,
    }

    pub struct Adopted {
        pub prompt: String,
        pub version: String,
        pub known_good: bool,
    }

    pub struct Skipped {
        pub key: String,
        pub reason: String,
    }

    /// A drill, with its steps in order.
    pub struct DrillView {
        pub id: String,
        pub prompt: String,
        pub version: String,
        pub operator: String,
        pub started_at: String,
        /// Whether Slack is one of the steps.
        pub slack: bool,
        pub done: bool,
        pub hops: Vec<DrillStepView>,
    }

    pub struct DrillStepView {
        pub hop: String,
        /// Null: not completed.
        pub at: Option<String>,
        /// Why the last attempt failed.
        pub error: Option<String>,
        /// For the step `alertmanager`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub url: Option<Option<String>>,
        /// For the step `decided`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub decision: Option<Option<RehearsalView>>,
        /// For the step `slack`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub channel: Option<Option<String>>,
    }

    /// What the drill's alert would have caused.
    pub struct RehearsalView {
        pub outcome: String,
        pub reason: String,
        pub text: String,
    }

    /// What a dry run would have done.
    pub struct DryRunReportView {
        pub since: String,
        pub until: String,
        pub dry_run: bool,
        pub total: TallyView,
        pub triggers: Vec<TriggerTally>,
        pub cases: Vec<CaseView>,
        /// Counted, but not listed in `cases`.
        pub left_out: usize,
        /// Whether there were too many incidents to read.
        pub partial: bool,
    }

    pub struct TriggerTally {
        pub trigger: String,
        #[serde(flatten)]
        pub tally: TallyView,
    }

    pub struct TallyView {
        pub right: u32,
        pub wrong: u32,
        pub unclear: u32,
        pub minutes_saved: u64,
    }

    pub struct CaseView {
        pub incident: String,
        pub prompt: String,
        pub from: String,
        pub to: String,
        pub at: String,
        pub trigger: String,
        pub verdict: String,
        /// What happened instead, as an identifier and as text.
        pub instead: String,
        pub text: String,
        pub after_seconds: Option<u64>,
    }
}
