//! The answer of a decision, for the sender of the event.

use crate::encoding::words;
use crate::{IncidentId, MarkKind, OutcomeReason, PhaseKind, Refusal, SwitchMode, VersionName};

/// The answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One outcome for each alert, in the order of the event.
    Alerts(Vec<AlertOutcome>),
    Changed {
        from: Option<String>,
        to: VersionName,
        incident: Option<IncidentId>,
        /// Whether the target was already active.
        unchanged: bool,
        mode: Option<SwitchMode>,
    },
    /// Two versions now share the traffic.
    Shared {
        from: VersionName,
        to: VersionName,
        /// The share of `to`.
        percent: u8,
        incident: Option<IncidentId>,
    },
    /// The rollback waits for Prometheus' answer.
    Confirming {
        incident: IncidentId,
        to: VersionName,
    },
    Registered {
        created: bool,
        known_good: bool,
    },
    Decided(PhaseKind),
    Marked(Marked),
    Adopted(Adoption),
    /// `ready`: the content is in Redis; otherwise it is being restored.
    Restoring {
        ready: bool,
    },
    Refused(Refusal),
    Noted,
}

/// What a person's mark changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub kind: MarkKind,
    /// Whether the same mark, with the same reason, was already there.
    pub unchanged: bool,
    /// The version's share of the traffic. A mark does not change it.
    pub percent: u8,
    /// The rollback target now: of the version if it serves, otherwise of the active version.
    pub target: Option<VersionName>,
}

/// The result of adopting a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// The version was registered, activated or trusted by this request.
    Adopted { version: VersionName, known_good: bool },
    /// Nothing had to be done.
    Known { version: VersionName, known_good: bool },
    /// Left unchanged, with the reason.
    Skipped(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertOutcome {
    pub outcome: Outcome,
    pub reason: OutcomeReason,
    pub incident: Option<IncidentId>,
}

impl AlertOutcome {
    pub fn new(outcome: Outcome, reason: OutcomeReason, incident: Option<IncidentId>) -> Self {
        Self { outcome, reason, incident }
    }
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Outcome {
        RolledBack = "rolled_back",
        IncidentOpened = "incident_opened",
        IncidentUpdated = "incident_updated",
        Duplicate = "duplicate",
        Held = "held",
        Resolved = "resolved",
        Ignored = "ignored",
    }
}
