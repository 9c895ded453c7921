//! The stored form of an incident: flat, with the name of its phase beside the fields of that phase.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Incident, Never};
use crate::alert::AlertRecord;
use crate::encoding::{is_default, millis};
use crate::guards::Held;
use crate::ids::IncidentId;
use crate::names::{PromptName, VersionName};
use crate::note::{Note, NoteKind};
use crate::operator::Operator;
use crate::phase::{Confirming, Objection, Pending, Phase, PhaseKind, Question, Recheck, RollbackFailure};
use crate::policy::Policy;
use crate::severity::{Action, Severity};
use crate::split::TrafficSplit;
use crate::switch::{DryRunRollback, Switch};
use crate::time::Timestamp;
use crate::trace::Trace;
use crate::verification::Verification;

impl Serialize for Incident {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Record::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Incident {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Record::deserialize(deserializer)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Incident")]
struct Record {
    id: IncidentId,
    prompt: PromptName,
    version: VersionName,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<VersionName>,
    #[serde(default, skip_serializing_if = "is_default")]
    choices: Vec<VersionName>,
    #[serde(default, skip_serializing_if = "is_default")]
    never: Vec<Never>,
    #[serde(getter = "kind")]
    phase: PhaseKind,
    opened_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<Timestamp>,
    severity: Severity,
    action: Action,
    decider: String,
    #[serde(with = "millis")]
    time_limit: Duration,
    #[serde(getter = "Incident::deadline", skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<Timestamp>,
    #[serde(rename = "flip", skip_serializing_if = "Option::is_none")]
    switch: Option<Switch>,
    #[serde(rename = "would", skip_serializing_if = "Option::is_none")]
    dry_run: Option<DryRunRollback>,
    #[serde(getter = "successor", skip_serializing_if = "Option::is_none")]
    successor: Option<VersionName>,
    #[serde(getter = "gradual", skip_serializing_if = "Option::is_none")]
    gradual: Option<TrafficSplit>,
    #[serde(getter = "pending", skip_serializing_if = "Option::is_none")]
    pending: Option<Pending>,
    #[serde(getter = "is_not_followed", default, skip_serializing_if = "is_default")]
    not_followed: bool,
    #[serde(getter = "before", skip_serializing_if = "Option::is_none")]
    before: Option<PhaseBefore>,
    #[serde(getter = "objection", skip_serializing_if = "Option::is_none")]
    objection: Option<Objection>,
    #[serde(getter = "verification", skip_serializing_if = "Option::is_none")]
    verification: Option<Verification>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<Operator>,
    #[serde(rename = "ask", default, skip_serializing_if = "is_default")]
    question_number: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    escalations: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    paged: bool,
    #[serde(rename = "unheard", default, skip_serializing_if = "is_default")]
    undeliverable: bool,
    #[serde(rename = "mass", default, skip_serializing_if = "is_default")]
    outage: bool,
    // the previous release derived it from the notes
    #[serde(getter = "Incident::is_overdue", default, skip_serializing_if = "is_default")]
    overdue: bool,
    #[serde(getter = "recheck", skip_serializing_if = "Option::is_none")]
    recheck: Option<Recheck>,
    #[serde(getter = "hold", skip_serializing_if = "Option::is_none")]
    hold: Option<Operator>,
    #[serde(default, skip_serializing_if = "is_default")]
    alerts: Vec<AlertRecord>,
    #[serde(default, skip_serializing_if = "is_default")]
    notes: Vec<Note>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Box<Trace>>,
}

fn kind(incident: &Incident) -> PhaseKind {
    incident.phase.kind()
}

fn successor(incident: &Incident) -> Option<VersionName> {
    match &incident.phase {
        Phase::Superseded { by } => by.clone(),
        _ => None,
    }
}

fn gradual(incident: &Incident) -> Option<TrafficSplit> {
    incident.gradual().cloned()
}

fn pending(incident: &Incident) -> Option<Pending> {
    incident.pending().cloned()
}

fn is_not_followed(incident: &Incident) -> bool {
    incident.failure() == Some(RollbackFailure::NotFollowed)
}

fn before(incident: &Incident) -> Option<PhaseBefore> {
    match &incident.phase {
        Phase::Confirming(confirming) => Some(PhaseBefore::of(&confirming.before)),
        _ => None,
    }
}

fn objection(incident: &Incident) -> Option<Objection> {
    incident.objection().cloned()
}

fn verification(incident: &Incident) -> Option<Verification> {
    incident.verification().cloned()
}

fn recheck(incident: &Incident) -> Option<Recheck> {
    incident.recheck().cloned()
}

fn hold(incident: &Incident) -> Option<Operator> {
    incident.hold().cloned()
}

/// The phase that the incident returns to if the pending rollback does not happen.
#[derive(Serialize, Deserialize)]
struct PhaseBefore {
    phase: PhaseKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    not_followed: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    overdue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recheck: Option<Recheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Operator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    objection: Option<Objection>,
}

impl PhaseBefore {
    fn of(phase: &Phase) -> Self {
        let question = match phase {
            Phase::AwaitingDecision(question) => question.clone(),
            _ => Question { deadline: phase.deadline(), ..Question::default() },
        };
        let Question { deadline, overdue, recheck, hold, objection } = question;
        let not_followed = matches!(phase, Phase::Escalated { reason: RollbackFailure::NotFollowed, .. });
        Self { phase: phase.kind(), deadline, not_followed, overdue, recheck, hold, objection }
    }

    fn into_phase(self, since: Timestamp) -> Phase {
        match self.phase {
            PhaseKind::Observing => Phase::Observing { until: self.deadline },
            PhaseKind::Investigating => Phase::Investigating { until: self.deadline.unwrap_or(since) },
            PhaseKind::Escalated => Phase::Escalated { until: self.deadline, reason: failure(self.not_followed) },
            PhaseKind::Verifying => Phase::Verifying { until: self.deadline.unwrap_or(since) },
            // in any other case, people can answer a question
            _ => Phase::AwaitingDecision(Question {
                deadline: self.deadline,
                overdue: self.overdue,
                recheck: self.recheck,
                hold: self.hold,
                objection: self.objection,
            }),
        }
    }
}

fn failure(not_followed: bool) -> RollbackFailure {
    if not_followed { RollbackFailure::NotFollowed } else { RollbackFailure::NotRecovered }
}

impl From<Record> for Incident {
    /// Reads a record. If the fields of its phase are missing, it becomes a question to people.
    fn from(record: Record) -> Self {
        let since = record.updated_at;
        let Record { deadline, overdue, recheck, hold, objection, verification, .. } = record;
        let asked = Question { deadline, overdue, recheck, hold, objection };
        let phase = match (record.phase, record.pending, record.gradual) {
            (PhaseKind::Confirming, Some(pending), _) => {
                let until = deadline.unwrap_or(pending.at.plus(Policy::CONFIRM));
                // the previous release wrote none
                let before = match record.before {
                    Some(before) => before.into_phase(since),
                    None if record.switch.is_some() => {
                        Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered }
                    }
                    None => Phase::AwaitingDecision(Question { deadline: Some(until), ..asked }),
                };
                Phase::Confirming(Box::new(Confirming { pending, until, before }))
            }
            (PhaseKind::RollingBack, _, Some(split)) => {
                // the previous release wrote only when the current stage began
                let began = if split.began == Timestamp::default() { split.since } else { split.began };
                Phase::RollingBack(TrafficSplit { began, ..split })
            }
            (PhaseKind::Confirming | PhaseKind::RollingBack | PhaseKind::AwaitingDecision, ..) => {
                Phase::AwaitingDecision(asked)
            }
            (PhaseKind::Observing, ..) => Phase::Observing { until: deadline },
            (PhaseKind::Investigating, ..) => Phase::Investigating { until: deadline.unwrap_or(since) },
            (PhaseKind::Verifying, ..) => Phase::Verifying { until: deadline.unwrap_or(since) },
            (PhaseKind::Escalated, ..) => Phase::Escalated { until: deadline, reason: failure(record.not_followed) },
            (PhaseKind::Recovered, ..) => Phase::Recovered,
            (PhaseKind::Unverified, ..) => Phase::Unverified,
            (PhaseKind::Dismissed, ..) => Phase::Dismissed,
            (PhaseKind::Resolved, ..) => Phase::Resolved,
            (PhaseKind::Superseded, ..) => Phase::Superseded { by: record.successor },
        };
        Self {
            id: record.id,
            prompt: record.prompt,
            version: record.version,
            target: record.target,
            choices: record.choices,
            never: record.never,
            phase,
            opened_at: record.opened_at,
            updated_at: record.updated_at,
            closed_at: record.closed_at,
            severity: record.severity,
            action: record.action,
            decider: record.decider,
            time_limit: record.time_limit,
            quiet_since: record.quiet_since,
            held: record.held,
            confirmed_at: record.confirmed_at,
            switch: record.switch.map(|switch| Switch { verification, ..switch }),
            dry_run: record.dry_run,
            decided_by: record.decided_by,
            question_number: record.question_number,
            escalations: record.escalations,
            // the previous release derived it from the notes
            paged: record.paged || record.notes.iter().any(|note| note.kind == NoteKind::Escalated),
            undeliverable: record.undeliverable,
            outage: record.outage,
            alerts: record.alerts,
            notes: record.notes,
            trace: record.trace,
        }
    }
}
