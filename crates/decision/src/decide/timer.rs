//! Decisions about time that has passed.

use super::answer::Answer;
use super::transaction::Transaction;
use super::{confirm, gradual, question, recheck, verify};
use crate::{Incident, IncidentId, Lapsed, NoteKind, Phase, PhaseKind, Policy, Timestamp};

/// Does what is due for `id`, which may be nothing. `early`: all but what its deadline ends.
pub(super) fn due(tx: &mut Transaction<'_>, id: &IncidentId, early: bool) -> Answer {
    let (policy, now) = (tx.policy, tx.now);
    let Some(incident) = tx.incident(id).filter(|i| i.phase.is_open()) else { return Answer::Noted };
    if incident.phase.is_undecided() && incident.phase.kind() != PhaseKind::Confirming {
        if !early {
            forget_silent_alerts(incident, policy, now);
        }
        if incident.quiet_since.is_some_and(|since| now.since(since) >= Policy::QUIET) {
            incident.close(Phase::Resolved, now, "all alerts resolved before a decision was made");
            question::reopen_about_canary(tx, id);
            return Answer::Noted;
        }
    }
    if incident.phase.kind() == PhaseKind::RollingBack {
        gradual::due(tx, id);
        return Answer::Noted;
    }
    if incident.recheck().is_some_and(|recheck| recheck.next <= now) {
        recheck::due(tx, id);
    }
    let Some(incident) = tx.incident(id) else { return Answer::Noted };
    if !early && incident.deadline().is_some_and(|deadline| deadline <= now) {
        match incident.phase.kind() {
            PhaseKind::Confirming => confirm::overdue(tx, id),
            PhaseKind::Verifying => verify::overdue(tx, id),
            PhaseKind::Escalated => rest(tx, id),
            PhaseKind::AwaitingDecision if question::withdraw_about_canary(tx, id) => {}
            _ => question::deadline_passed(tx, id),
        }
    }
    Answer::Noted
}

/// Closes a failed rollback of a prompt whose key has held no version for long: deleting the key retires a prompt. It
/// closes once no alert fires on any version that the incident is about.
fn rest(tx: &mut Transaction<'_>, id: &IncidentId) {
    let (policy, now) = (tx.policy, tx.now);
    let again = tx.rests_at();
    let fault = tx.state.lapsed.as_ref().map(Lapsed::fault);
    let Some(incident) = tx.incident(id) else { return };
    if let Phase::Escalated { until, .. } = &mut incident.phase {
        *until = again;
    }
    let Some(fault) = fault else { return };
    let about = [incident.version.clone(), incident.subject().clone()];
    let fires = |last_seen| now.since(last_seen) < policy.alert_resolve_timeout;
    let state = &tx.state;
    let alerts = state.open_incidents().filter(|other| about.contains(&other.version)).flat_map(|other| &other.alerts);
    let alerts = alerts.filter(|alert| alert.firing).map(|alert| alert.last_seen);
    let inactive_alerts = state
        .inactive_alerts
        .iter()
        .filter(|inactive| about.contains(&inactive.version))
        .map(|inactive| inactive.alert.last_seen);
    if alerts.chain(inactive_alerts).any(fires) {
        return;
    }
    let text = format!("{fault}, and no alert is firing: the prompt seems to be retired");
    if let Some(incident) = tx.incident(id) {
        incident.close(Phase::Superseded { by: None }, now, text);
    }
}

/// Ends alerts that were not repeated for long: an inhibited, silenced or truncated alert never sends `resolved`.
fn forget_silent_alerts(incident: &mut Incident, policy: &Policy, now: Timestamp) {
    let mut forgotten = Vec::new();
    for alert in
        incident.alerts.iter_mut().filter(|a| a.firing && now.since(a.last_seen) >= policy.alert_resolve_timeout)
    {
        alert.firing = false;
        forgotten.push(alert.alertname.clone());
    }
    if !forgotten.is_empty() {
        incident.note(
            now,
            NoteKind::Alert,
            format!("not sent by Alertmanager for a while, treated as resolved: {}", forgotten.join(", ")),
        );
        if !incident.is_firing() {
            incident.quiet_since.get_or_insert(now);
        }
    }
}
