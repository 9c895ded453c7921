//! What a decision writes.

use std::time::Duration;

use crate::encoding::words;
use crate::{Incident, IncidentId, Operator, PhaseKind, PromptState, Timestamp, VersionName};

/// All that one script writes, at once or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub state: PromptState,
    /// The new value of `active`.
    pub active: Option<VersionName>,
    pub routing: Routing,
    pub incidents: Vec<IncidentWrite>,
    pub log: Vec<LogEntry>,
    pub changes: Vec<ChangeMessage>,
    pub wakes: Vec<Wake>,
    /// Set if this switches without a person: refused if automation is paused or the budget spent in the meantime.
    pub automatic: Option<Automatic>,
    /// Content to keep (`Some`) or to drop (`None`).
    pub content: Vec<(VersionName, Option<String>)>,
    /// All that has traffic after this commit, for the metrics.
    pub served: Vec<Served>,
    pub canary: Rollout,
    /// When something is to be done about the prompt's texts, if that is new.
    pub chores: Option<Timestamp>,
    /// When a soak is looked at next, if that is new.
    pub soak: Option<Timestamp>,
}

/// A version with traffic, and where a rollback of it would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub version: VersionName,
    /// The rollback target; never a quarantined version.
    pub previous: Option<VersionName>,
    /// The version's first activation, which a rollback to it does not reset.
    pub first_active: Timestamp,
}

/// What the prompt's canary needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rollout {
    /// When its next stage is due, if that is new.
    pub wake: Option<Timestamp>,
    /// People are to be told how it stands.
    pub changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    Keep,
    Drop,
    /// Percent of each version, sorted by version; together 100.
    Set(Vec<(VersionName, u8)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentWrite {
    pub incident: Incident,
    /// Its phase before; `None` for a new one.
    pub was: Option<PhaseKind>,
    /// The incident that coordinates many prompts must take notice.
    pub coordinate: bool,
}

/// An entry of the deployment log: what was served changed, or what may be gone back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub event: LogEvent,
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: String,
    pub operator: Operator,
    pub incident: Option<IncidentId>,
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum LogEvent {
        Rollback = "rollback",
        /// A stage of a gradual rollback.
        Gradual = "gradual",
        Activate = "activate",
        /// A stage of a canary.
        Canary = "canary",
        External = "external",
        /// A person marked version `to`, which changes nothing that is served.
        MarkBad = "mark_bad",
        MarkGood = "mark_good",
        /// Version `to` has become known-good by serving, which changes nothing that is served.
        Soaked = "soaked",
    }
}

impl LogEvent {
    /// What is served changed.
    pub fn is_change(self) -> bool {
        !matches!(self, LogEvent::MarkBad | LogEvent::MarkGood | LogEvent::Soaked)
    }
}

/// What is told to prompt servers on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMessage {
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    pub incident: IncidentId,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Automatic {
    pub max: u32,
    pub window: Duration,
}
