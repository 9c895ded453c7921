//! Why an alert had its outcome: a label of metrics, and part of the answer to a delivery.

use std::fmt;

use super::guards::Guard;
use super::severity::Action;

macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident = $word:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum OutcomeReason {
            /// It opened an incident, and asks for this action.
            Action(Action),
            /// This guard keeps the rollback from happening by itself.
            Guard(Guard),
            $($(#[$meta])* $variant),+
        }

        impl OutcomeReason {
            pub fn all() -> impl Iterator<Item = Self> {
                let plain = [$(Self::$variant),+].into_iter();
                plain.chain(Action::ALL.map(Self::Action)).chain(Guard::ALL.map(Self::Guard))
            }

            pub fn as_str(self) -> &'static str {
                match self {
                    Self::Action(action) => action.as_str(),
                    Self::Guard(guard) => guard.as_str(),
                    $(Self::$variant => $word),+
                }
            }
        }
    };
}

reasons! {
    /// It asked for a rollback, which was made.
    Alert = "alert",
    /// Prometheus is asked again before the rollback.
    Confirming = "confirming",
    /// Nothing about it is new.
    Duplicate = "duplicate",
    /// Another alert of an open incident.
    Joined = "joined",
    /// It asks for more than before.
    Worse = "worse",
    FiringAgain = "firing_again",
    /// Its incident was closed a short while ago.
    Reopened = "reopened",
    Resolved = "resolved",
    /// A person dismissed it.
    Dismissed = "dismissed",
    /// A late copy: the alert has ended meanwhile.
    AlreadyResolved = "already_resolved",
    /// Its version has no traffic.
    NotActive = "not_active",
    /// Its prompt never had this version.
    UnknownVersion = "unknown_version",
    /// It has ended, and no record mentions it.
    UnknownAlert = "unknown_alert",
    Malformed = "malformed",
    InvalidName = "invalid_name",
    NotMeasured = "not_measured",
    /// Its sender may not speak of this prompt.
    NotAllowed = "not_allowed",
    /// One of our own, routed back to us.
    OwnAlert = "own_alert",
    Heartbeat = "heartbeat",
    Drill = "drill",
    UnknownDrill = "unknown_drill",
    DrillOver = "drill_over",
    /// The record of its prompt can't be read.
    BrokenState = "broken_state",
}

impl fmt::Display for OutcomeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
