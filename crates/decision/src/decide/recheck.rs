//! An alert that began before its version was activated: it may be about what served before, or about a fault that was
//! mended meanwhile. People are asked at once; automation acts when the requests since the activation are bad as well.

use std::time::Duration;

use super::super::incident::{Incident, IncidentId, NoteKind, Phase};
use super::super::names::VersionName;
use super::super::policy::Policy;
use super::super::time::{Timestamp, spoken};
use super::super::verification::{Finding, Verdict};
use super::{Answer, Draft, alerts, canary};

/// By how much everything that asks for a rollback of `version` began before its activation, while that counts.
pub(super) fn predates(draft: &Draft<'_>, version: &VersionName) -> Option<Duration> {
    let record = draft.state.version(version)?;
    let since = record.traffic_since?;
    // nothing can be wrong with a version long before anybody knows it: such a moment says nothing
    let oldest = record.known_since.minus(Policy::KNOWN_LATE);
    let before = |began: &Timestamp| (oldest..=since).contains(began);
    let incident = draft.state.open_incidents().filter(|i| i.version == *version && i.flip.is_none()).last()?;
    let nobody_to_ask = !draft.policy.verify && draft.now.since(since) >= Policy::PREDATES;
    if nobody_to_ask || incident.confirmed_at.is_some_and(|at| at >= since) {
        return None;
    }
    let urgent = incident.alerts.iter().filter(|alert| alert.firing && canary::acts_on(draft, version, alert));
    // of the latest one, if all of them began before
    urgent.map(|alert| alert.began(draft.now).filter(before).map(|began| since.since(began))).min()?
}

/// Prometheus was asked about the requests since the activation.
pub(super) fn rechecked(draft: &mut Draft<'_>, id: &IncidentId, finding: &Finding) -> Answer {
    let now = draft.now;
    let Some((version, since)) = waiting(draft, id) else { return Answer::Noted };
    let old = now.since(since) >= Policy::PREDATES;
    let text = match finding.verdict {
        Verdict::Unhealthy => format!("asked about the requests since {version} was activated: {}", finding.text),
        Verdict::Unknown if old => {
            let age = spoken(now.since(since));
            format!("it fires {age} after {version} was activated, and Prometheus can't be asked: {}", finding.text)
        }
        Verdict::Healthy | Verdict::NoData | Verdict::Unknown => {
            later(draft, id, since);
            return Answer::Noted;
        }
    };
    if let Some(incident) = draft.incident(id) {
        incident.confirmed_at = Some(now);
        incident.note(now, NoteKind::Checked, text);
    }
    alerts::act_if_unheld(draft, id, &version);
    later(draft, id, since);
    Answer::Noted
}

/// Nobody has asked: as good as an answer that says nothing.
pub(super) fn due(draft: &mut Draft<'_>, id: &IncidentId) {
    let Some((version, since)) = waiting(draft, id) else { return };
    if !draft.policy.verify {
        alerts::act_if_unheld(draft, id, &version);
    }
    later(draft, id, since);
}

/// The version of an incident that waits for this answer, and since when that has traffic.
fn waiting(draft: &Draft<'_>, id: &IncidentId) -> Option<(VersionName, Timestamp)> {
    let is = |i: &&Incident| i.id == *id && i.question().is_some_and(|question| question.recheck.is_some());
    let version = &draft.state.open_incidents().find(is)?.version;
    Some((version.clone(), draft.state.version(version)?.traffic_since?))
}

fn later(draft: &mut Draft<'_>, id: &IncidentId, since: Timestamp) {
    let now = draft.now;
    let every = if now.since(since) < Policy::PREDATES { Policy::RECHECK_EVERY } else { Policy::VERIFY_SLOWLY };
    let Some(incident) = draft.incident(id) else { return };
    let again = incident.confirmed_at.is_none_or(|at| at < since) && incident.is_firing();
    if let Phase::AwaitingDecision(question) = &mut incident.phase {
        question.recheck = again.then(|| now.plus(every));
    }
}
