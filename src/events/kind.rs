//! The kinds of events.

/// What happened. Its name is the `type` of the event, behind [`Kind::PREFIX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A version has all traffic, because somebody activated it here or SET `active`.
    VersionActivated,
    /// `active` was deleted, or SET to what is no version.
    VersionRemoved,
    /// A person said that a version may never, or may always be gone back to.
    VersionMarked,
    /// A version has become known-good by serving.
    VersionKnownGood,
    /// A new version has another share of the traffic.
    CanaryProgressed,
    /// A gradual rollback has begun.
    RollbackStarted,
    /// It has gone a step further.
    RollbackProgressed,
    /// The rollback target has all traffic.
    RollbackDone,
    /// A guard, the kill switch or dry run has kept a rollback from happening by itself.
    RollbackHeld,
    IncidentOpened,
    IncidentReopened,
    /// Nobody decided in time, or the rollback did not help.
    IncidentEscalated,
    IncidentClosed,
    DecisionRequested,
    DecisionMade,
    /// The rollback has helped.
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
    /// What the `type` of each event begins with.
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

    /// By its name, with or without the prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(Self::PREFIX).unwrap_or(text);
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
