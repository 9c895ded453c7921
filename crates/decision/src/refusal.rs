//! Why a person's request is refused.

use super::encoding::words;

/// The result of a person's request.
pub type OrRefusal<T> = Result<T, Refusal>;

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
        /// The share of the canary stays until someone changes it.
        NoNextStage = "no_next_stage",
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
    /// Whether the request could never be carried out (400), whatever the state of its subject.
    pub fn is_bad_input(self) -> bool {
        self == RefusalCode::BadStages
    }

    /// Whether the subject of the request does not exist (404). Otherwise its state forbids the request (409).
    pub fn is_not_found(self) -> bool {
        matches!(self, RefusalCode::UnknownPrompt | RefusalCode::UnknownIncident)
    }
}

impl Refusal {
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
