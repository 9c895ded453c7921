//! Requests and answers of the API. The server, the command line and the published description share these types.
//!
//! Times are RFC 3339 in UTC; absent values are null. A client ignores fields that it does not know, and takes a field that
//! an older receiver does not send as empty.

/// Declares types of responses.
macro_rules! answers {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )*};
}

mod explain;
mod incident;
mod prompt;
mod request;

pub use explain::{ExplainView, ForeseenAlertView, ForeseenGuardView, ForeseenTargetView};
pub use incident::{
    AlertView, AnyIncident, CheckView, GuardView, HeldBack, IncidentEvent, IncidentList, IncidentView, MarkedBad,
    OutageExecution, OutageMember, OutageView, SharedLabel, SwitchView, TrafficView, VerificationView,
};
pub use prompt::{
    AlsoChanged, AnyPrompt, CanaryEndView, CanaryView, CoverageView, DeploymentLog, DeploymentView, LogEntryView,
    MarkView, OtherChange, PromptList, PromptSummary, PromptView, SplitView, VersionView,
};
pub use request::{
    ActivateRequest, DecideRequest, DecisionKind, DrillRequest, HoldDurations, ImportRequest, MarkRequest,
    PauseRequest, RegisterRequest, RestoreRequest, RollbackRequest, SteerRequest, Strategy,
};

use serde::{Deserialize, Serialize};

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Body of every answer that is not a success.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refused {
    pub error: Reason,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reason {
    /// Stable identifier in snake_case.
    pub code: String,
    /// For people; names the field and what was expected.
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
        /// Share of the traffic that this version serves.
        pub percent: u8,
        pub rollback_target: Option<String>,
        pub timestamp: String,
        #[serde(skip_serializing_if = "is_false")]
        pub unchanged: bool,
        /// What is left to do, if anything.
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

    /// The promotion gates of a version.
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

/// Answer to a request that changes the active version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangeResponse {
    #[serde(default)]
    pub success: bool,
    /// The rollback waits for an answer from Prometheus.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirming: bool,
    #[serde(default)]
    pub prompt: String,
    pub from_version: Option<String>,
    pub to_version: String,
    pub timestamp: Option<String>,
    pub incident: Option<String>,
    /// The version was active already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unchanged: bool,
    /// Share of the traffic on `to_version`, while traffic is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// Answer to a decision.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum DecideResponse {
    /// The decision changed the active version, or will.
    Changed(ChangeResponse),
    Answered(Answered),
}

answers! {
    pub struct Answered {
        pub success: bool,
        pub incident: String,
        /// The decision, if the incident is an outage.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub decision: Option<String>,
        pub phase: String,
        /// Number of prompts on which the decision is carried out, if the incident is an outage.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub prompts: Option<usize>,
        pub timestamp: String,
    }

    pub struct PauseResponse {
        pub paused: bool,
        /// Null for all prompts.
        pub prompt: Option<String>,
        pub changed: bool,
        /// The prompt has no version, neither registered nor active: its name may be misspelled.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub unknown: bool,
        /// Why automatic rollbacks stay off after a resumption, if they do.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub message: Option<String>,
    }

    pub struct ReloadResponse {
        pub success: bool,
        pub changed: Vec<KeyChange>,
        pub needs_restart: Vec<KeyChange>,
    }

    /// A changed config key. The values of secrets are null.
    pub struct KeyChange {
        pub key: String,
        pub from: Option<String>,
        pub to: Option<String>,
    }

    /// Result of importing one batch of keys.
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

    /// A drill and its steps, in the order in which an alert passes them.
    pub struct DrillView {
        pub id: String,
        pub prompt: String,
        pub version: String,
        pub operator: String,
        pub started_at: String,
        /// The drill includes a message to Slack.
        pub slack: bool,
        pub done: bool,
        pub hops: Vec<DrillStepView>,
    }

    pub struct DrillStepView {
        pub hop: String,
        /// Time at which the test alert passed this step; null if it has not.
        pub at: Option<String>,
        /// Last error at this step.
        pub error: Option<String>,
        /// Address of Alertmanager, in the step `alertmanager`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub url: Option<Option<String>>,
        /// In the step `decided`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub decision: Option<Option<RehearsalView>>,
        /// Channel, in the step `slack`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub channel: Option<Option<String>>,
    }

    /// What the receiver would have done about an alert like this.
    pub struct RehearsalView {
        pub outcome: String,
        pub reason: String,
        pub text: String,
    }

    /// What automatic rollbacks would have done during a dry run.
    pub struct DryRunReportView {
        pub since: String,
        pub until: String,
        pub dry_run: bool,
        pub total: TallyView,
        pub triggers: Vec<TriggerTally>,
        pub cases: Vec<CaseView>,
        /// Number of cases that are counted but not listed in `cases`.
        pub left_out: usize,
        /// Whether there were more incidents than the report covers.
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
        /// What happened instead: identifier in snake_case; `text` explains it.
        pub instead: String,
        pub text: String,
        pub after_seconds: Option<u64>,
    }
}
