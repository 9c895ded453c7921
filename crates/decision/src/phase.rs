//! The phases of an incident.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, words};
use super::names::VersionName;
use super::operator::Operator;
use super::plan::Plan;
use super::split::TrafficSplit;
use super::switch::SwitchMode;
use super::time::Timestamp;

words! {
    /// The name of a [`Phase`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum PhaseKind {
        /// A rollback waits for Prometheus' answer.
        Confirming = "confirming",
        Observing = "observing",
        AwaitingDecision = "awaiting_decision",
        Investigating = "investigating",
        /// A gradual rollback is in progress.
        RollingBack = "rolling_back",
        Verifying = "verifying",
        /// The rollback failed: open until a person closes it.
        Escalated = "escalated",
        Recovered = "recovered",
        Unverified = "unverified",
        Dismissed = "dismissed",
        Resolved = "resolved",
        Superseded = "superseded",
    }
}

impl PhaseKind {
    pub fn is_open(self) -> bool {
        self <= PhaseKind::Escalated
    }

    /// Whether a decision is still open.
    pub fn is_undecided(self) -> bool {
        self <= PhaseKind::Investigating
    }
}

/// The phase of an incident, with the data that ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Confirming(Box<Confirming>),
    /// `until` is `None` when the time is over and nothing fires any more.
    Observing {
        until: Option<Timestamp>,
    },
    AwaitingDecision(Question),
    Investigating {
        until: Timestamp,
    },
    RollingBack(TrafficSplit),
    /// [`super::Switch::verification`] holds its progress.
    Verifying {
        until: Timestamp,
    },
    Escalated {
        /// When to check whether the prompt was retired; only while `active` holds no version.
        until: Option<Timestamp>,
        reason: RollbackFailure,
    },
    Recovered,
    Unverified,
    Dismissed,
    Resolved,
    Superseded {
        /// The version that serves instead.
        by: Option<VersionName>,
    },
}

words! {
    /// Why a rollback counts as failed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum RollbackFailure {
        /// The version rolled back to is unhealthy.
        NotRecovered = "not_recovered",
        /// Prompt servers keep serving the bad version.
        NotFollowed = "not_followed",
    }
}

/// A rollback that waits for Prometheus' answer, or for its target's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirming {
    pub pending: Pending,
    /// After this, a missing answer counts as no data.
    pub until: Timestamp,
    /// The phase to return to without a rollback.
    pub before: Phase,
}

/// A question to people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// When it escalates; `None`: not any more.
    pub deadline: Option<Timestamp>,
    /// Its deadline has passed at least once.
    pub overdue: bool,
    /// Automation may still act.
    pub recheck: Option<Recheck>,
    /// Who put it on hold together with other prompts: no automatic action, no escalation.
    pub hold: Option<Operator>,
    /// The objection to the rollback that a person requested; a second approval overrules it.
    pub objection: Option<Objection>,
}

/// The alert began before the version got traffic: the requests since then decide whether automation may act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recheck {
    /// When the version got traffic.
    pub since: Timestamp,
    /// When Prometheus is asked next.
    pub next: Timestamp,
}

impl Question {
    pub fn until(deadline: Timestamp) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }
}

impl Phase {
    pub fn kind(&self) -> PhaseKind {
        match self {
            Phase::Confirming(_) => PhaseKind::Confirming,
            Phase::Observing { .. } => PhaseKind::Observing,
            Phase::AwaitingDecision(_) => PhaseKind::AwaitingDecision,
            Phase::Investigating { .. } => PhaseKind::Investigating,
            Phase::RollingBack(_) => PhaseKind::RollingBack,
            Phase::Verifying { .. } => PhaseKind::Verifying,
            Phase::Escalated { .. } => PhaseKind::Escalated,
            Phase::Recovered => PhaseKind::Recovered,
            Phase::Unverified => PhaseKind::Unverified,
            Phase::Dismissed => PhaseKind::Dismissed,
            Phase::Resolved => PhaseKind::Resolved,
            Phase::Superseded { .. } => PhaseKind::Superseded,
        }
    }

    pub fn is_open(&self) -> bool {
        self.kind().is_open()
    }

    pub fn is_undecided(&self) -> bool {
        self.kind().is_undecided()
    }

    pub fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }

    /// When the phase must have ended: with an answer, a decision, another question, or the end of the observation or
    /// verification.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Phase::Confirming(confirming) => Some(confirming.until),
            Phase::Observing { until } | Phase::Escalated { until, .. } => *until,
            Phase::AwaitingDecision(question) => question.deadline,
            Phase::Investigating { until } | Phase::Verifying { until } => Some(*until),
            _ => None,
        }
    }

    /// Moves the deadline of a wait for people to `until`, if it is earlier.
    pub fn postpone(&mut self, until: Timestamp) {
        match self {
            Phase::Observing { until: Some(at) } | Phase::Investigating { until: at } => *at = until.max(*at),
            Phase::AwaitingDecision(Question { deadline: Some(at), .. }) => *at = until.max(*at),
            _ => {}
        }
    }

    /// Moves its deadlines forward by `back`.
    pub(crate) fn rewind(&mut self, back: Duration) {
        match self {
            Phase::Confirming(confirming) => {
                confirming.until = confirming.until.minus(back);
                confirming.before.rewind(back);
            }
            Phase::Observing { until } | Phase::Escalated { until, .. } => *until = until.map(|at| at.minus(back)),
            Phase::AwaitingDecision(question) => {
                question.deadline = question.deadline.map(|at| at.minus(back));
                if let Some(recheck) = &mut question.recheck {
                    recheck.next = recheck.next.minus(back);
                }
            }
            Phase::Investigating { until } | Phase::Verifying { until } => *until = until.minus(back),
            Phase::RollingBack(split) => {
                for at in [&mut split.next, &mut split.check] {
                    *at = at.map(|at| at.minus(back));
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rollback that waits for Prometheus' answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// `Auto`: only an alert asked for it.
    pub by: SwitchMode,
    /// The version that serves and is to be rolled back.
    pub from: VersionName,
    pub to: VersionName,
    pub operator: Operator,
    pub reason: String,
    /// In stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradual: Option<Plan>,
    /// Prometheus is not asked: the rollback only waits for the content of `to`.
    #[serde(rename = "sure", default, skip_serializing_if = "is_default")]
    pub skip_confirmation: bool,
    /// When it was requested; an answer to an earlier question does not count.
    pub at: Timestamp,
}

/// The objection to a rollback that a person requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ObjectionRecord", into = "ObjectionRecord")]
pub struct Objection {
    pub kind: ObjectionKind,
    /// The target of that rollback. An older receiver recorded none.
    pub to: Option<VersionName>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectionKind {
    /// The version looks healthy again, or `active` has lost its version since.
    Changed,
    /// The target fails the team's own test.
    TargetFails,
    /// The target's content was not restored from the archive.
    ContentMissing,
}

impl Objection {
    /// Whether a second approval, of a rollback to `to`, overrules it. Another target has not been tested.
    pub fn is_overruled_by(&self, to: &VersionName) -> bool {
        self.kind != ObjectionKind::ContentMissing && self.to.as_ref().is_none_or(|asked| asked == to)
    }

    /// What a second approval does. Completes the sentence "approve again to …".
    pub fn remedy(&self) -> &'static str {
        match self.kind {
            ObjectionKind::Changed | ObjectionKind::TargetFails => "roll back anyway",
            ObjectionKind::ContentMissing => "try again",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ObjectionRecord {
    #[serde(default, skip_serializing_if = "is_default")]
    baseline: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    text_missing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<VersionName>,
    text: String,
}

impl From<ObjectionRecord> for Objection {
    fn from(ObjectionRecord { baseline, text_missing, to, text }: ObjectionRecord) -> Self {
        let kind = match (text_missing, baseline) {
            (true, _) => ObjectionKind::ContentMissing,
            (false, true) => ObjectionKind::TargetFails,
            (false, false) => ObjectionKind::Changed,
        };
        Self { kind, to, text }
    }
}

impl From<Objection> for ObjectionRecord {
    fn from(Objection { kind, to, text }: Objection) -> Self {
        let (baseline, text_missing) = (kind == ObjectionKind::TargetFails, kind == ObjectionKind::ContentMissing);
        Self { baseline, text_missing, to, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receivers of the release before read and write the same.
    #[test]
    fn an_objection_is_read_as_it_was_written() {
        let of = |kind, to: Option<&str>| Objection {
            kind,
            to: to.map(|to| VersionName::parse(to).unwrap()),
            text: "why".to_owned(),
        };
        for (objection, json) in [
            (of(ObjectionKind::Changed, None), r#"{"text":"why"}"#),
            (of(ObjectionKind::Changed, Some("v1")), r#"{"to":"v1","text":"why"}"#),
            (of(ObjectionKind::TargetFails, None), r#"{"baseline":true,"text":"why"}"#),
            (of(ObjectionKind::ContentMissing, None), r#"{"text_missing":true,"text":"why"}"#),
        ] {
            assert_eq!(serde_json::to_string(&objection).unwrap(), json);
            assert_eq!(serde_json::from_str::<Objection>(json).unwrap(), objection);
        }
    }
}
