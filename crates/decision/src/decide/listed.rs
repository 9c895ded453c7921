//! What Alertmanager still lists. Inhibited, silenced and truncated alerts never send `resolved`.

use std::collections::BTreeSet;

use super::answer::Answer;
use super::transaction::Transaction;
use crate::{IncidentId, NoteKind, Policy};

/// Ends the alerts of `id` that Alertmanager has listed before and, for [`Policy::ABSENT`], does not any more. One that was
/// never listed came from elsewhere: its absence says nothing. A restarted Alertmanager has an empty list for a while.
pub(super) fn compare(tx: &mut Transaction<'_>, id: &IncidentId, listed: &BTreeSet<String>) -> Answer {
    let (now, refresh_after) = (tx.now, tx.policy.refresh_after());
    let Some(incident) = tx.incident(id).filter(|i| i.phase.is_undecided()) else { return Answer::Noted };
    let mut ended = Vec::new();
    for alert in incident.alerts.iter_mut().filter(|a| a.firing) {
        if listed.contains(&alert.fingerprint) {
            alert.listed = true;
            alert.absent_since = None;
            // as good as a repeat, which may come more rarely than we forget
            if now.since(alert.last_seen) >= refresh_after {
                alert.last_seen = now;
            }
        } else if alert.listed {
            let since = *alert.absent_since.get_or_insert(now);
            if now.since(since) >= Policy::ABSENT {
                alert.firing = false;
                ended.push(alert.alertname.clone());
            }
        }
    }
    if !ended.is_empty() {
        incident.note(now, NoteKind::Alert, format!("Alertmanager no longer lists it: {}", ended.join(", ")));
        if !incident.is_firing() {
            incident.quiet_since.get_or_insert(now);
        }
    }
    Answer::Noted
}
