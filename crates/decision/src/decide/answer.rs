//! The answer of a decision, for the sender of the event.

use super::super::encoding::words;
use super::super::names::{IncidentId, VersionName};
use super::super::phase::PhaseKind;
use super::super::state::MarkKind;
use super::super::switch::SwitchMode;

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
    /// In snake_case; also a metric label.
    pub reason: &'static str,
    pub incident: Option<IncidentId>,
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

/// Why a person's request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum RefusalCode {
        UnknownPrompt = "unknown_prompt",
        UnknownIncident = "unknown_incident",
        UnknownVersion = "unknown_version",
        Moved = "moved",
        RecentlyRolledBack = "recently_rolled_back",
        NeedsForce = "needs_force",
        NoKnownGood = "no_known_good",
        AlreadyDecided = "already_decided",
        Stale = "stale",
        Differs = "differs",
        /// Invalid stages or percentages.
        BadStages = "bad_stages",
        SplitUnderWay = "split_under_way",
        /// The content is in the archive.
        Archived = "archived",
        /// The version has no content.
        NoText = "no_text",
        /// A promotion gate is closed.
        GateClosed = "gate_closed",
    }
}

impl RefusalCode {
    /// Whether the subject of the request does not exist (404). Otherwise its state forbids the request (409).
    pub fn is_not_found(self) -> bool {
        matches!(self, RefusalCode::UnknownPrompt | RefusalCode::UnknownIncident)
    }
}

impl Refusal {
    pub(super) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
