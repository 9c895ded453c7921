//! Why an alert had its outcome: a label of metrics, and part of the answer to a delivery.

use std::fmt;

use super::guards::Guard;
use super::severity::Action;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeReason {
    /// It asked for a rollback, which was made.
    Alert,
    /// It opened an incident, and asks for this action.
    Action(Action),
    /// This guard keeps the rollback from happening by itself.
    Guard(Guard),
    /// Prometheus is asked again before the rollback.
    Confirming,
    /// Nothing about it is new.
    Duplicate,
    /// Another alert of an open incident.
    Joined,
    /// It asks for more than before.
    Worse,
    FiringAgain,
    /// Its incident was closed a short while ago.
    Reopened,
    Resolved,
    /// A person dismissed it.
    Dismissed,
    /// A late copy: the alert has ended meanwhile.
    AlreadyResolved,
    /// Its version has no traffic.
    NotActive,
    /// Its prompt never had this version.
    UnknownVersion,
    /// It has ended, and no record mentions it.
    UnknownAlert,
    Malformed,
    InvalidName,
    NotMeasured,
    /// Its sender may not speak of this prompt.
    NotAllowed,
    /// One of our own, routed back to us.
    OwnAlert,
    Heartbeat,
    Drill,
    UnknownDrill,
    DrillOver,
    /// The record of its prompt can't be read.
    BrokenState,
}

impl OutcomeReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Action(action) => action.as_str(),
            Self::Guard(guard) => guard.as_str(),
            Self::Confirming => "confirming",
            Self::Duplicate => "duplicate",
            Self::Joined => "joined",
            Self::Worse => "worse",
            Self::FiringAgain => "firing_again",
            Self::Reopened => "reopened",
            Self::Resolved => "resolved",
            Self::Dismissed => "dismissed",
            Self::AlreadyResolved => "already_resolved",
            Self::NotActive => "not_active",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownAlert => "unknown_alert",
            Self::Malformed => "malformed",
            Self::InvalidName => "invalid_name",
            Self::NotMeasured => "not_measured",
            Self::NotAllowed => "not_allowed",
            Self::OwnAlert => "own_alert",
            Self::Heartbeat => "heartbeat",
            Self::Drill => "drill",
            Self::UnknownDrill => "unknown_drill",
            Self::DrillOver => "drill_over",
            Self::BrokenState => "broken_state",
        }
    }
}

impl fmt::Display for OutcomeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
