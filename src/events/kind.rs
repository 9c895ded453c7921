//! The kinds of events.

/// A kind of event. Its name, after [`Kind::PREFIX`], is the event's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A version got all traffic: someone activated it, or SET `active`.
    VersionActivated,
    /// `active` was deleted, or SET to a value that is not a version.
    VersionRemoved,
    /// A person marked a version as bad or good.
    VersionMarked,
    /// A version became known-good by soaking.
    VersionKnownGood,
    /// The traffic share of a new version changed.
    CanaryProgressed,
    /// A gradual rollback began.
    RollbackStarted,
    /// A gradual rollback reached its next stage.
    RollbackProgressed,
    /// The rollback target got all traffic.
    RollbackDone,
    /// A guard, the kill switch or a dry run held an automatic rollback.
    RollbackHeld,
    IncidentOpened,
    IncidentReopened,
    /// A deadline was missed, the question cannot be shown, or a rollback paused or did not help.
    IncidentEscalated,
    IncidentClosed,
    DecisionRequested,
    DecisionMade,
    /// The rollback helped.
    RecoveryVerified,
}

impl Kind {
    pub const ALL: [Kind; 16] = [
        Kind::VersionActivated,
        Kind::VersionRemoved,
        Kind::VersionMarked,
        Kind::VersionKnownGood,
        Kind::CanaryProgressed,
        Kind::RollbackStarted,
        Kind::RollbackProgressed,
        Kind::RollbackDone,
        Kind::RollbackHeld,
        Kind::IncidentOpened,
        Kind::IncidentReopened,
        Kind::IncidentEscalated,
        Kind::IncidentClosed,
        Kind::DecisionRequested,
        Kind::DecisionMade,
        Kind::RecoveryVerified,
    ];
    /// The prefix of each event's `type`.
    pub const PREFIX: &str = "io.prompt-rollback.";

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::VersionActivated => "version.activated",
            Kind::VersionRemoved => "version.removed",
            Kind::VersionMarked => "version.marked",
            Kind::VersionKnownGood => "version.known_good",
            Kind::CanaryProgressed => "canary.progressed",
            Kind::RollbackStarted => "rollback.started",
            Kind::RollbackProgressed => "rollback.progressed",
            Kind::RollbackDone => "rollback.done",
            Kind::RollbackHeld => "rollback.held",
            Kind::IncidentOpened => "incident.opened",
            Kind::IncidentReopened => "incident.reopened",
            Kind::IncidentEscalated => "incident.escalated",
            Kind::IncidentClosed => "incident.closed",
            Kind::DecisionRequested => "decision.requested",
            Kind::DecisionMade => "decision.made",
            Kind::RecoveryVerified => "recovery.verified",
        }
    }

    /// Parses a name, with or without the prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(Self::PREFIX).unwrap_or(text);
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
