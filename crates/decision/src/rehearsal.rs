//! Rehearsals: what an alert would do, without doing it.

use super::alert::Alert;
use super::decide::{Answer, LogEvent, Outcome, Snapshot, decide};
use super::event::Event;
use super::policy::Policy;
use super::reason::OutcomeReason;
use super::time::Timestamp;

/// What an alert would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    pub outcome: Outcome,
    /// As in the answer to a webhook, for example the guard that would have held it.
    pub reason: OutcomeReason,
    /// For people, to complete "a critical alert would …".
    pub text: String,
}

/// Decides about `alert` as [`decide`] does, and keeps only the answer.
pub fn rehearse(policy: &Policy, snapshot: &Snapshot, alert: &Alert, now: Timestamp) -> Rehearsed {
    let decision = decide(policy, snapshot, &Event::Alerts(vec![alert.clone()]), now);
    let answer = match &decision.answer {
        Answer::Alerts(outcomes) => outcomes.first(),
        _ => None,
    };
    let (outcome, reason) =
        answer.map_or((Outcome::Ignored, OutcomeReason::NotActive), |answer| (answer.outcome, answer.reason));
    let id = answer.and_then(|answer| answer.incident.as_ref());
    let commit = decision.commit.as_ref();
    let incident = || commit?.incidents.iter().map(|write| &write.incident).find(|incident| Some(&incident.id) == id);
    let text = match outcome {
        Outcome::RolledBack => {
            let entry = commit.and_then(|commit| commit.log.iter().rfind(|entry| entry.event == LogEvent::Rollback));
            let from = entry.and_then(|entry| entry.from.as_deref()).unwrap_or(alert.version.as_str());
            let to = entry.and_then(|entry| entry.to.as_deref()).unwrap_or("the version before it");
            format!("roll back {from} → {to}")
        }
        Outcome::Held if reason == OutcomeReason::Confirming => {
            "ask Prometheus first, and roll back unless the version is healthy again".to_owned()
        }
        Outcome::Held => {
            let held = incident().and_then(|incident| incident.held.as_ref());
            let detail = held.map(|held| format!(": {}", held.detail)).unwrap_or_default();
            format!("be held by the guard {reason}{detail}")
        }
        Outcome::Ignored => format!("be ignored ({reason})"),
        Outcome::IncidentOpened | Outcome::IncidentUpdated | Outcome::Duplicate | Outcome::Resolved => {
            let phase =
                incident().map(|incident| format!(", which is {}", incident.phase.as_str())).unwrap_or_default();
            format!("join an open incident{phase} ({reason}), and change nothing")
        }
    };
    Rehearsed { outcome, reason, text }
}
