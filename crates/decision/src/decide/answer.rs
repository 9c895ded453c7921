//! What a decision says.

use crate::encoding::words;
use crate::{IncidentId, MarkKind, OutcomeReason, PhaseKind, Refusal, SwitchMode, VersionName};

/// What is said to whoever sent the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One for each alert, in the order of the event.
    Alerts(Vec<AlertOutcome>),
    Changed {
        from: Option<String>,
        to: VersionName,
        incident: Option<IncidentId>,
        /// The target was active already.
        unchanged: bool,
        mode: Option<SwitchMode>,
    },
    /// Two versions share the traffic now.
    Shared {
        from: VersionName,
        to: VersionName,
        /// On `to`.
        percent: u8,
        incident: Option<IncidentId>,
    },
    /// The rollback waits until Prometheus has been asked.
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
    /// `ready`: the text is in Redis; otherwise it is being brought back.
    Restoring {
        ready: bool,
    },
    Refused(Refusal),
    Noted,
}

/// What a person's mark has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub kind: MarkKind,
    /// It was marked so already, for the same reason.
    pub unchanged: bool,
    /// How much of the traffic the version has: a mark takes none of it.
    pub percent: u8,
    /// Where a rollback goes now: from the version if it serves, else from what does.
    pub target: Option<VersionName>,
}

/// What became of a prompt that was to be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// Noticed, served or trusted only now.
    Adopted { version: VersionName, known_good: bool },
    /// Nothing was left to do.
    Known { version: VersionName, known_good: bool },
    /// Left as it is, and why.
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
