//! What would happen if alerts fired now.

use serde::{Deserialize, Serialize};

answers! {
    pub struct ExplainView {
        pub prompt: String,
        pub at: String,
        /// Where the alert rules come from: `prometheus`, or `shipped`.
        pub rules: String,
        /// Why the rules of Prometheus are not known, although Prometheus is configured.
        pub rules_fault: Option<String>,
        /// Number of rules that are left out.
        pub left_out: usize,
        /// Number of alerts that a person dismissed: their repeats are ignored until they resolve or get worse.
        pub dismissed: usize,
        /// For each version with traffic, each rule.
        pub alerts: Vec<ForeseenAlertView>,
    }

    /// What an alert would do.
    pub struct ForeseenAlertView {
        pub alert: String,
        pub version: String,
        /// Share of the traffic that the version serves.
        pub percent: u8,
        pub severity: Option<String>,
        pub action: Option<String>,
        /// Labels of the rule that were not understood, and how they are read.
        pub remarks: Vec<String>,
        /// As in the answer of the webhook.
        pub outcome: String,
        pub reason: String,
        /// Completes "the alert would …".
        pub text: String,
        /// Where the rollback would go: at once, or once people approve it.
        pub target: Option<ForeseenTargetView>,
        /// All guards that would hold the rollback.
        pub guards: Vec<ForeseenGuardView>,
        /// The open incident that the alert would join.
        pub incident: Option<String>,
        /// Phase of the incident afterwards.
        pub phase: Option<String>,
        /// The decider of that incident.
        pub decider: Option<String>,
        /// When the incident would next ask, escalate or end.
        pub deadline_at: Option<String>,
    }

    pub struct ForeseenTargetView {
        pub version: String,
        pub known_good_at: Option<String>,
        /// `mark`, `evidence` or `time`.
        pub known_good_by: Option<String>,
    }

    pub struct ForeseenGuardView {
        pub reason: String,
        pub detail: String,
        /// How long it still holds, if time alone ends it.
        pub left_seconds: Option<u64>,
    }
}
