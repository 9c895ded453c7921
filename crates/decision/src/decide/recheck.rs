//! Alerts that began before their version was activated. Such an alert may be about the previous version, or about a
//! fault that was fixed since. People are asked at once; automation acts if the requests since the activation fail too.

use super::answer::Answer;
use super::response;
use super::transaction::Transaction;
use crate::time::spoken;
use crate::{Finding, IncidentId, NoteKind, Phase, Policy, Recheck, Timestamp, Verdict, VersionName};

/// Handles Prometheus' answer.
pub(super) fn rechecked(tx: &mut Transaction<'_>, id: &IncidentId, asked: Timestamp, finding: &Finding) -> Answer {
    let now = tx.now;
    let Some((version, since)) = waiting(tx, id).filter(|(_, since)| *since == asked) else { return Answer::Noted };
    let age = now.since(since);
    let text = match finding.verdict {
        Verdict::Unhealthy => format!("checked only requests since {version} got traffic: {}", finding.text),
        Verdict::Unknown if age >= Policy::PREDATES => {
            let age = spoken(age);
            format!(
                "the alert fires {age} after {version} got traffic, and Prometheus cannot tell whether it fails: {}",
                finding.text
            )
        }
        Verdict::Healthy | Verdict::NoData | Verdict::Unknown => {
            later(tx, id);
            return Answer::Noted;
        }
    };
    if let Some(incident) = tx.incident(id) {
        incident.confirmed_at = Some(now);
        incident.note(now, NoteKind::Checked, text);
    }
    response::process_if_unheld(tx, id, &version);
    later(tx, id);
    Answer::Noted
}

/// Handles a missing answer like one without data.
pub(super) fn due(tx: &mut Transaction<'_>, id: &IncidentId) {
    let Some((version, _)) = waiting(tx, id) else { return };
    if !tx.policy.verify {
        response::process_if_unheld(tx, id, &version);
    }
    later(tx, id);
}

/// The version of an incident that waits for this answer, and since when it has traffic.
fn waiting(tx: &Transaction<'_>, id: &IncidentId) -> Option<(VersionName, Timestamp)> {
    let incident = tx.state.open_incidents().find(|incident| incident.id == *id)?;
    Some((incident.version.clone(), incident.recheck()?.since))
}

fn later(tx: &mut Transaction<'_>, id: &IncidentId) {
    let now = tx.now;
    let Some(incident) = tx.incident(id) else { return };
    let (confirmed_at, firing) = (incident.confirmed_at, incident.is_firing());
    let Phase::AwaitingDecision(question) = &mut incident.phase else { return };
    question.recheck = question.recheck.take().filter(|_| firing).and_then(|recheck| {
        let young = now.since(recheck.since) < Policy::PREDATES;
        let next = now.plus(if young { Policy::RECHECK_EVERY } else { Policy::VERIFY_SLOWLY });
        confirmed_at.is_none_or(|at| at < recheck.since).then_some(Recheck { next, ..recheck })
    });
}
