//! An incident's phase in its record: the name, and what belongs to it in fields beside it.

use super::*;
use crate::decision::incident::{Confirming, Phase, Question};
use crate::decision::policy::Policy;

pub fn is_unknown(commit: &CommitId) -> bool {
    commit.0.is_empty()
}

pub fn kind(incident: &Incident) -> PhaseKind {
    incident.phase.kind()
}

pub fn successor(incident: &Incident) -> Option<VersionName> {
    match &incident.phase {
        Phase::Superseded { by } => by.clone(),
        _ => None,
    }
}

pub fn gradual(incident: &Incident) -> Option<Split> {
    incident.gradual().cloned()
}

pub fn pending(incident: &Incident) -> Option<Pending> {
    incident.pending().cloned()
}

pub fn before(incident: &Incident) -> Option<Before> {
    match &incident.phase {
        Phase::Confirming(confirming) => Some(Before::of(&confirming.before)),
        _ => None,
    }
}

pub fn objection(incident: &Incident) -> Option<Objection> {
    incident.objection().cloned()
}

pub fn verification(incident: &Incident) -> Option<Verification> {
    incident.verification().cloned()
}

pub fn hold(incident: &Incident) -> Option<String> {
    incident.hold().map(str::to_owned)
}

/// Where an incident goes back to if what waits is not done.
#[derive(Serialize, Deserialize)]
pub struct Before {
    #[serde(with = "phase")]
    phase: PhaseKind,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    #[serde(with = "super::objection::option", default, skip_serializing_if = "Option::is_none")]
    objection: Option<Objection>,
}

impl Before {
    fn of(phase: &Phase) -> Self {
        let (hold, objection) = match phase {
            Phase::AwaitingDecision(question) => (question.hold.clone(), question.objection.clone()),
            _ => (None, None),
        };
        Self { phase: phase.kind(), deadline: phase.deadline(), hold, objection }
    }

    fn into_phase(self, since: Timestamp) -> Phase {
        match self.phase {
            PhaseKind::Observing => Phase::Observing { until: self.deadline },
            PhaseKind::Investigating => Phase::Investigating { until: self.deadline.unwrap_or(since) },
            PhaseKind::Escalated => Phase::Escalated,
            // whatever else it was, people can answer this
            _ => Phase::AwaitingDecision(Question {
                deadline: self.deadline,
                hold: self.hold,
                objection: self.objection,
            }),
        }
    }
}

impl From<IncidentRecord> for Incident {
    /// A record whose phase lacks what belongs to it is read as a question to people.
    fn from(record: IncidentRecord) -> Self {
        let since = record.updated_at;
        let asked = Question { deadline: record.deadline, hold: record.hold, objection: record.objection };
        let phase = match (record.phase, record.pending, record.gradual) {
            (PhaseKind::Confirming, Some(pending), _) => {
                let until = record.deadline.unwrap_or(pending.at.plus(Policy::CONFIRM));
                // the version before wrote none
                let before = match record.before {
                    Some(before) => before.into_phase(since),
                    None if record.flip.is_some() => Phase::Escalated,
                    None => Phase::AwaitingDecision(Question { deadline: Some(until), ..asked }),
                };
                Phase::Confirming(Box::new(Confirming { pending, until, before }))
            }
            (PhaseKind::RollingBack, _, Some(split)) => {
                // the version before wrote only when the present stage began
                let began = if split.began == Timestamp::default() { split.since } else { split.began };
                Phase::RollingBack(Split { began, ..split })
            }
            (PhaseKind::Confirming | PhaseKind::RollingBack | PhaseKind::AwaitingDecision, ..) => {
                Phase::AwaitingDecision(asked)
            }
            (PhaseKind::Observing, ..) => Phase::Observing { until: record.deadline },
            (PhaseKind::Investigating, ..) => Phase::Investigating { until: record.deadline.unwrap_or(since) },
            (PhaseKind::Verifying, ..) => Phase::Verifying { until: record.deadline.unwrap_or(since) },
            (PhaseKind::Escalated, ..) => Phase::Escalated,
            (PhaseKind::Recovered, ..) => Phase::Recovered,
            (PhaseKind::Unverified, ..) => Phase::Unverified,
            (PhaseKind::Dismissed, ..) => Phase::Dismissed,
            (PhaseKind::Resolved, ..) => Phase::Resolved,
            (PhaseKind::Superseded, ..) => Phase::Superseded { by: record.successor },
        };
        let verification = record.verification;
        Self {
            id: record.id,
            prompt: record.prompt,
            version: record.version,
            target: record.target,
            choices: record.choices,
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
            flip: record.flip.map(|flip| Flip { verification, ..flip }),
            would: record.would,
            decided_by: record.decided_by,
            ask: record.ask,
            escalations: record.escalations,
            // the version before told by its notes
            paged: record.paged || record.notes.iter().any(|note| note.kind == NoteKind::Escalated),
            unheard: record.unheard,
            mass: record.mass,
            alerts: record.alerts,
            notes: record.notes,
        }
    }
}
