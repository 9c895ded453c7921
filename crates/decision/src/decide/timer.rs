//! What time does.

use super::super::incident::{Incident, IncidentId, NoteKind, Phase, PhaseKind, Question};
use super::super::policy::Policy;
use super::{Answer, Draft, confirm, gradual, recheck, verify};

/// A wake-up of `id`: does what is due, which may be nothing (the world moved on).
pub(super) fn due(draft: &mut Draft<'_>, id: &IncidentId) -> Answer {
    let (policy, now) = (draft.policy, draft.now);
    let Some(incident) = draft.incident(id).filter(|i| i.phase.is_open()) else { return Answer::Noted };
    if incident.phase.is_undecided() && incident.phase.kind() != PhaseKind::Confirming {
        forget_silent_alerts(incident, policy, now);
        if incident.quiet_since.is_some_and(|since| now.since(since) >= Policy::QUIET) {
            incident.close(Phase::Resolved, now, "all alerts ended before anyone decided");
            return Answer::Noted;
        }
    }
    if incident.phase.kind() == PhaseKind::RollingBack {
        gradual::due(draft, id);
        return Answer::Noted;
    }
    if incident.recheck().is_some_and(|recheck| recheck.next <= now) {
        recheck::due(draft, id);
    }
    let Some(incident) = draft.incident(id) else { return Answer::Noted };
    if incident.deadline().is_some_and(|deadline| deadline <= now) {
        match incident.phase.kind() {
            PhaseKind::Confirming => confirm::overdue(draft, id),
            PhaseKind::Verifying => verify::overdue(draft, id),
            _ => deadline_passed(incident, now),
        }
    }
    Answer::Noted
}

/// An inhibited, silenced or truncated alert never says that it ended.
fn forget_silent_alerts(incident: &mut Incident, policy: &Policy, now: super::Timestamp) {
    let mut forgotten = Vec::new();
    for alert in incident.alerts.iter_mut().filter(|a| a.firing && now.since(a.last_seen) >= policy.forget_after) {
        alert.firing = false;
        forgotten.push(alert.alertname.clone());
    }
    if !forgotten.is_empty() {
        incident.note(now, NoteKind::Alert, format!("not heard of for long, taken as ended: {}", forgotten.join(", ")));
        if !incident.is_firing() {
            incident.quiet_since.get_or_insert(now);
        }
    }
}

fn deadline_passed(incident: &mut Incident, now: super::Timestamp) {
    let firing = incident.is_firing();
    let limit = incident.time_limit;
    match &mut incident.phase {
        Phase::Observing { .. } if firing => {
            incident.note(now, NoteKind::Asked, "still firing after the observation: a person decides");
            incident.ask(Question::until(now.plus(Policy::AFTER_OBSERVING)), now);
        }
        // quiet, but not for long enough: the quiet clock decides
        Phase::Observing { until } => *until = None,
        Phase::AwaitingDecision(question) => {
            incident.escalations += 1;
            let again = limit.max(Policy::ESCALATE_EVERY);
            question.deadline = (incident.escalations < Policy::ESCALATIONS).then(|| now.plus(again));
            let text =
                format!("nobody decided in time (escalation {} of {})", incident.escalations, Policy::ESCALATIONS);
            incident.note(now, NoteKind::Escalated, text);
        }
        Phase::Investigating { .. } => {
            incident.note(now, NoteKind::Asked, "still under investigation: asked again");
            incident.ask(Question::until(now.plus(limit)), now);
        }
        _ => {}
    }
}
