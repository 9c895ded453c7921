//! An incident's phase in its record: the name, and what belongs to it in fields beside it.

use super::*;
use crate::decision::phase::{Confirming, Failure, Phase, Question};
use crate::decision::policy::Policy;
use crate::decision::trigger::Trigger;

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

pub fn is_not_followed(incident: &Incident) -> bool {
    incident.failure() == Some(Failure::NotFollowed)
}

pub fn objection(incident: &Incident) -> Option<Objection> {
    incident.objection().cloned()
}

pub fn verification(incident: &Incident) -> Option<Verification> {
    incident.verification().cloned()
}

pub fn recheck(incident: &Incident) -> Option<Recheck> {
    incident.recheck().cloned()
}

pub fn hold(incident: &Incident) -> Option<Operator> {
    incident.hold().cloned()
}

/// Where an incident goes back to if what waits is not done.
#[derive(Serialize, Deserialize)]
pub struct Before {
    #[serde(with = "phase")]
    phase: PhaseKind,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    not_followed: bool,
    #[serde(with = "super::recheck::option", default, skip_serializing_if = "Option::is_none")]
    recheck: Option<Recheck>,
    #[serde(with = "operator::option", default, skip_serializing_if = "Option::is_none")]
    hold: Option<Operator>,
    #[serde(with = "super::objection::option", default, skip_serializing_if = "Option::is_none")]
    objection: Option<Objection>,
}

impl Before {
    fn of(phase: &Phase) -> Self {
        let question = match phase {
            Phase::AwaitingDecision(question) => question.clone(),
            _ => Question { deadline: phase.deadline(), ..Question::default() },
        };
        let Question { deadline, recheck, hold, objection } = question;
        let not_followed = matches!(phase, Phase::Escalated { reason: Failure::NotFollowed, .. });
        Self { phase: phase.kind(), deadline, not_followed, recheck, hold, objection }
    }

    fn into_phase(self, since: Timestamp) -> Phase {
        match self.phase {
            PhaseKind::Observing => Phase::Observing { until: self.deadline },
            PhaseKind::Investigating => Phase::Investigating { until: self.deadline.unwrap_or(since) },
            PhaseKind::Escalated => Phase::Escalated { until: self.deadline, reason: failure(self.not_followed) },
            // whatever else it was, people can answer this
            _ => Phase::AwaitingDecision(Question {
                deadline: self.deadline,
                recheck: self.recheck,
                hold: self.hold,
                objection: self.objection,
            }),
        }
    }
}

fn failure(not_followed: bool) -> Failure {
    if not_followed { Failure::NotFollowed } else { Failure::NotRecovered }
}

impl From<IncidentRecord> for Incident {
    /// A record whose phase lacks what belongs to it is read as a question to people.
    fn from(record: IncidentRecord) -> Self {
        let since = record.updated_at;
        let IncidentRecord { deadline, recheck, hold, objection, .. } = record;
        let asked = Question { deadline, recheck, hold, objection };
        let phase = match (record.phase, record.pending, record.gradual) {
            (PhaseKind::Confirming, Some(pending), _) => {
                let until = record.deadline.unwrap_or(pending.at.plus(Policy::CONFIRM));
                // the version before wrote none
                let before = match record.before {
                    Some(before) => before.into_phase(since),
                    None if record.flip.is_some() => Phase::Escalated { until: None, reason: Failure::NotRecovered },
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
            (PhaseKind::Escalated, ..) => {
                Phase::Escalated { until: record.deadline, reason: failure(record.not_followed) }
            }
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

pub fn fingerprint(stray: &Stray) -> String {
    stray.alert.fingerprint.clone()
}

pub fn alertname(stray: &Stray) -> String {
    stray.alert.alertname.clone()
}

pub fn severity_of(stray: &Stray) -> Severity {
    stray.alert.severity
}

pub fn last_seen(stray: &Stray) -> Timestamp {
    stray.alert.last_seen
}

pub fn whole(stray: &Stray) -> Option<AlertRecord> {
    Some(stray.alert.clone())
}

impl From<StrayRecord> for Stray {
    fn from(record: StrayRecord) -> Self {
        let StrayRecord { version, fingerprint, alertname, severity, last_seen, alert } = record;
        // the version before kept no more than this: people are asked, whoever they are
        let action = Action::Page;
        let alert = alert.unwrap_or_else(|| AlertRecord {
            fingerprint,
            alertname,
            severity,
            action,
            decider: Trigger::SYSTEM.to_owned(),
            time_limit: action.default_time_limit(),
            firing: true,
            starts_at: None,
            first_seen: last_seen,
            last_seen,
            listed: false,
            absent_since: None,
            summary: String::new(),
            description: String::new(),
            value: String::new(),
            verify: String::new(),
            runbook_url: String::new(),
            dashboard_url: String::new(),
            generator_url: String::new(),
            alertmanager_url: String::new(),
            shares: Shares::default(),
        });
        Self { version, alert: AlertRecord { last_seen, ..alert } }
    }
}
