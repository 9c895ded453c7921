//! What the API is asked and answers: the one declaration of its JSON, for the server, the command line and whoever
//! describes it.
//!
//! Times are RFC 3339 in UTC; what is absent is null. A reader leaves out fields that it does not know, and takes what an
//! older receiver does not send as empty.

/// Types of answers.
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
        /// Of the traffic, on the version.
        pub percent: u8,
        pub rollback_target: Option<String>,
        pub timestamp: String,
        #[serde(skip_serializing_if = "is_false")]
        pub unchanged: bool,
        /// What to do about it, if anything.
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

    /// What a version has to show before it gets all traffic.
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

/// The answer to what changes the version that is served.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ChangeResponse {
    #[serde(default)]
    pub success: bool,
    /// The rollback waits until Prometheus has been asked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirming: bool,
    #[serde(default)]
    pub prompt: String,
    pub from_version: Option<String>,
    pub to_version: String,
    pub timestamp: Option<String>,
    pub incident: Option<String>,
    /// It was so already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unchanged: bool,
    /// Of the traffic, on `to_version`, while it is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// The answer to a decision.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DecideResponse {
    /// Another version is served by now, or will be.
    Changed(ChangeResponse),
    Answered(Answered),
}

answers! {
    pub struct Answered {
        pub success: bool,
        pub incident: String,
        /// Of an outage.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub decision: Option<String>,
        pub phase: String,
        /// Of an outage: on how many prompts it is carried out.
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

    /// A key of the config. Its values are null where they are secrets.
    pub struct KeyChange {
        pub key: String,
        pub from: Option<String>,
        pub to: Option<String>,
    }

    /// Some of the keys that hold a version already; `next` says where to go on.
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

    /// A drill, with its hops in the order of the way.
    pub struct DrillView {
        pub id: String,
        pub prompt: String,
        pub version: String,
        pub operator: String,
        pub started_at: String,
        /// Slack is a part of the way.
        pub slack: bool,
        pub done: bool,
        pub hops: Vec<DrillStepView>,
    }

    pub struct DrillStepView {
        pub hop: String,
        /// Null: it has not come yet.
        pub at: Option<String>,
        /// Why it last did not come.
        pub error: Option<String>,
        /// Of the hop `alertmanager`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub url: Option<Option<String>>,
        /// Of the hop `decided`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub decision: Option<Option<RehearsalView>>,
        /// Of the hop `slack`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub channel: Option<Option<String>>,
    }

    /// What would have been done about the drill's alert.
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
        /// Counted, but not among `cases`.
        pub left_out: usize,
        /// There were more incidents than were looked at.
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
        /// What happened instead, as a word and for people.
        pub instead: String,
        pub text: String,
        pub after_seconds: Option<u64>,
    }
}
