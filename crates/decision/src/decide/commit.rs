//! What a decision writes.

use std::time::Duration;

use crate::encoding::words;
use crate::{Incident, IncidentId, Operator, PhaseKind, PromptState, Timestamp, Trace, VersionName};

/// All writes of one script: applied at once or not at all.
#[must_use = "nothing is done until it is written"]
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
    /// Set if this is an automatic switch: refused if automation was paused, or the budget spent, in the meantime.
    pub automatic: Option<Automatic>,
    /// Content to write (`Some`) or to delete (`None`).
    pub content: Vec<(VersionName, Option<String>)>,
    /// All versions with traffic after this commit, for the metrics.
    pub served: Vec<Served>,
    pub canary: Rollout,
    /// When the prompt's content needs work, if that changed.
    pub chores: Option<Timestamp>,
    /// When the soak is checked next, if that changed.
    pub soak: Option<Timestamp>,
}

impl Commit {
    /// Notes in each incident that this writes which request it came from.
    pub fn traced(&mut self, trace: &Trace) {
        for IncidentWrite { incident, .. } in &mut self.incidents {
            incident.trace = Some(Box::new(trace.clone()));
            let kept = self.state.incidents.iter_mut().find(|kept| kept.id == incident.id);
            kept.into_iter().for_each(|kept| kept.trace.clone_from(&incident.trace));
        }
    }
}

/// A version with traffic, and where a rollback of it would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub version: VersionName,
    /// The rollback target; never a quarantined version.
    pub previous: Option<VersionName>,
    /// The version's first activation, or when it was last shipped again after a rollback of it. A rollback to it resets
    /// neither.
    pub new_since: Timestamp,
}

/// Work for the prompt's canary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rollout {
    /// When its next stage is due, if that changed.
    pub wake: Option<Timestamp>,
    /// Whether its Slack message must be updated.
    pub changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    Keep,
    Drop,
    /// The percentage of each version, sorted by version; the sum is 100.
    Set(Vec<(VersionName, u8)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentWrite {
    pub incident: Incident,
    /// The previous phase; `None` for a new incident.
    pub was: Option<PhaseKind>,
    /// Whether the coordinating incident must process it.
    pub coordinate: bool,
}

/// An entry of the deployment log: a change of the active version, or of the possible rollback targets.
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
        /// A person marked version `to`. Moves no traffic.
        MarkBad = "mark_bad",
        MarkGood = "mark_good",
        /// Version `to` became known-good by soaking. Moves no traffic.
        Soaked = "soaked",
    }
}

impl LogEvent {
    /// Whether the traffic moved.
    pub fn is_change(self) -> bool {
        !matches!(self, LogEvent::MarkBad | LogEvent::MarkGood | LogEvent::Soaked)
    }
}

/// The message to prompt servers on the channel.
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
