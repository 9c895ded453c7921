//! Alertmanager's list of alerts. Inhibited, silenced and truncated alerts never send `resolved`.

use std::collections::BTreeSet;

use super::answer::Answer;
use super::transaction::Transaction;
use crate::{AlertRecord, IncidentId, NoteKind, Policy};

/// Ends the alerts of `id`, and those on versions without traffic, that Alertmanager has listed before and, for
/// [`Policy::ABSENT`], does not any more. One that was never listed came from elsewhere: its absence says nothing. A
/// restarted Alertmanager has an empty list for a while.
pub(super) fn compare(tx: &mut Transaction<'_>, id: &IncidentId, listed: &BTreeSet<String>) -> Answer {
    let (now, refresh_after) = (tx.now, tx.policy.refresh_after());
    let has_ended = |alert: &mut AlertRecord| {
        if listed.contains(&alert.fingerprint) {
            alert.listed = true;
            alert.absent_since = None;
            // as good as a repeat: repeats may be rarer than `forget_after`
            if now.since(alert.last_seen) >= refresh_after {
                alert.last_seen = now;
            }
            return false;
        }
        alert.listed && now.since(*alert.absent_since.get_or_insert(now)) >= Policy::ABSENT
    };
    if tx.incident(id).is_none_or(|incident| !incident.phase.is_undecided()) {
        return Answer::Noted;
    }
    // what fires on the versions that it could be rolled back to
    tx.state.inactive_alerts.retain_mut(|stray| !has_ended(&mut stray.alert));
    let Some(incident) = tx.incident(id) else { return Answer::Noted };
    let mut ended = Vec::new();
    for alert in incident.alerts.iter_mut().filter(|a| a.firing) {
        if has_ended(alert) {
            alert.firing = false;
            ended.push(alert.alertname.clone());
        }
    }
    if !ended.is_empty() {
        incident.note(now, NoteKind::Alert, format!("Alertmanager no longer lists these alerts: {}", ended.join(", ")));
        if !incident.is_firing() {
            incident.quiet_since.get_or_insert(now);
        }
    }
    Answer::Noted
}
