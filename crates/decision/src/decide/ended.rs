//! Ends of alerts, and copies that arrive late.

use super::answer::{AlertOutcome, Outcome};
use super::transaction::Transaction;
use crate::alert::plausible;
use crate::state::EndedAlert;
use crate::{Alert, AlertRecord, Incident, NoteKind, OutcomeReason, Policy, VersionName};

/// Whether a `firing` is a late copy: it began before the same outbreak was resolved. For [`Policy::LATE_COPY`] it is
/// ignored, because only a new outbreak fires again. After that it counts: after a gap between Prometheus and
/// Alertmanager, an outbreak that seemed to be over can come back.
pub(super) fn is_late_copy(tx: &Transaction<'_>, alert: &Alert) -> bool {
    let Some(began) = alert.began(tx.now) else { return false };
    tx.state.ended.iter().any(|ended| {
        is_of(ended, alert)
            && tx.now.since(ended.at) < Policy::LATE_COPY
            && (ended.starts_at == Some(began) || ended.ends_at.is_some_and(|at| began < at))
    })
}

fn is_of(ended: &EndedAlert, alert: &Alert) -> bool {
    ended.fingerprint == alert.fingerprint && ended.version == alert.version
}

fn remember(tx: &mut Transaction<'_>, alert: &Alert) {
    let now = tx.now;
    let (starts_at, ends_at) = (alert.began(now), alert.ended(now));
    // without a time, a late copy cannot be told from a new outbreak; an unknown version has no incident
    if (starts_at, ends_at) == (None, None) || tx.state.version(&alert.version).is_none() {
        return;
    }
    let all = &mut tx.state.ended;
    if all.iter().any(|ended| is_of(ended, alert) && (ended.starts_at, ended.ends_at) == (starts_at, ends_at)) {
        return;
    }
    all.retain(|ended| !is_of(ended, alert));
    if all.len() >= Policy::MAX_ENDED {
        all.remove(0);
    }
    let Alert { version, fingerprint, .. } = alert;
    all.push(EndedAlert { version: version.clone(), fingerprint: fingerprint.clone(), starts_at, ends_at, at: now });
}

pub(super) fn resolved(tx: &mut Transaction<'_>, alert: &Alert) -> AlertOutcome {
    let now = tx.now;
    let mut known = false;
    remember(tx, alert);
    let ours = |version: &VersionName, fingerprint: &str| *version == alert.version && fingerprint == alert.fingerprint;
    let before = tx.state.inactive_alerts.len() + tx.state.silences.len();
    // the end of an earlier outbreak, delivered late, does not end this one
    let earlier = |began| alert.ended(now).zip(plausible(began, now)).is_some_and(|(ended, began)| ended <= began);
    tx.state.inactive_alerts.retain(|s| !ours(&s.version, &s.alert.fingerprint) || earlier(s.alert.starts_at));
    tx.state.silences.retain(|s| !ours(&s.version, &s.fingerprint) || earlier(s.starts_at));
    let mut ended = before != tx.state.inactive_alerts.len() + tx.state.silences.len();
    let mut id = None;
    if let Some(incident) = tx.state.open_incident_on(&alert.version)
        && let Some(record) = incident.alerts.iter_mut().find(|r| r.fingerprint == alert.fingerprint)
    {
        known = true;
        id = Some(incident.id.clone());
        if record.firing && !earlier(record.starts_at) {
            record.firing = false;
            ended = true;
            let text = format!("{} has ended", record.alertname);
            if !incident.is_firing() {
                incident.quiet_since = Some(now);
            }
            incident.note(now, NoteKind::Alert, text);
        }
    }
    // one that rolled the version back may still be verified while another one is about its next traffic
    let about = |i: &&mut Incident| i.phase.is_open() && i.version == alert.version && Some(&i.id) != id.as_ref();
    for incident in tx.state.incidents.iter_mut().filter(about) {
        let same = |r: &&mut AlertRecord| r.firing && r.fingerprint == alert.fingerprint;
        for record in incident.alerts.iter_mut().filter(same) {
            record.firing = earlier(record.starts_at);
            ended |= !record.firing;
        }
    }
    match (ended, known) {
        (true, _) => AlertOutcome::new(Outcome::Resolved, OutcomeReason::Resolved, id),
        (false, true) => AlertOutcome::new(Outcome::Duplicate, OutcomeReason::Duplicate, id),
        (false, false) => AlertOutcome::new(Outcome::Ignored, OutcomeReason::UnknownAlert, None),
    }
}
