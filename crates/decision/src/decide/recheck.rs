//! Alerts that began before their version was activated. Such an alert may be about the previous version, or about a
//! fault that was fixed since. People are asked at once; automation acts if the requests since the activation fail too.

use std::time::Duration;

use super::super::guards::Guard;
use super::super::names::{IncidentId, VersionName};
use super::super::note::NoteKind;
use super::super::phase::{Phase, Recheck};
use super::super::policy::Policy;
use super::super::time::{Timestamp, spoken};
use super::super::verification::{Finding, Verdict};
use super::{Answer, Transaction, alerts, canary};

/// By how much all rollback alerts on `version` began before its activation, while that matters.
pub(super) fn predates(tx: &Transaction<'_>, version: &VersionName) -> Option<Duration> {
    if tx.hears_inactive_alerts {
        // a known alert keeps its verdict even if a clock went back, and people are asked first
        let about = tx.state.open_incidents().filter(|i| i.version == *version);
        let began = about.flat_map(|i| &i.alerts).filter_map(|alert| alert.began(tx.now)).min();
        return Some(began.map_or(Duration::ZERO, |began| tx.now.since(began)));
    }
    let incident = tx.state.open_incidents().filter(|i| i.version == *version && i.switch.is_none()).last()?;
    let record = tx.state.version(version)?;
    let since = record.traffic_since?;
    let nobody_to_ask = !tx.policy.verify && tx.now.since(since) >= Policy::PREDATES;
    if nobody_to_ask || incident.confirmed_at.is_some_and(|at| at >= since) {
        return None;
    }
    // an alert from long before the version was known cannot be about it: its start time is meaningless
    let oldest = record.known_since.minus(Policy::KNOWN_LATE);
    let before = |began: &Timestamp| (oldest..=since).contains(began);
    let urgent = incident.alerts.iter().filter(|alert| alert.firing && canary::acts_on(tx, version, alert));
    // of the latest alert, if all of them began before
    urgent.map(|alert| alert.began(tx.now).filter(before).map(|began| since.since(began))).min()?
}

/// Asks about the requests since `version` got its traffic, while this guard holds `id`.
pub(super) fn begin(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName) {
    let since = tx.state.version(version).and_then(|record| record.traffic_since);
    let next = tx.now.plus(Policy::RECHECK_EVERY);
    let Some(incident) = tx.incident(id) else { return };
    let holds = incident.held.as_ref().is_some_and(|held| held.guard == Guard::PredatesActivation);
    if let Phase::AwaitingDecision(question) = &mut incident.phase {
        question.recheck = match (since.filter(|_| holds), question.recheck.take()) {
            (Some(since), Some(earlier)) if earlier.since == since => Some(earlier),
            (since, _) => since.map(|since| Recheck { since, next }),
        };
    }
}

/// Handles Prometheus' answer.
pub(super) fn rechecked(tx: &mut Transaction<'_>, id: &IncidentId, finding: &Finding) -> Answer {
    let now = tx.now;
    let Some((version, since)) = waiting(tx, id) else { return Answer::Noted };
    let age = now.since(since);
    let text = match finding.verdict {
        Verdict::Unhealthy => format!("checked only requests since {version} got traffic: {}", finding.text),
        Verdict::Unknown if age >= Policy::PREDATES => {
            let age = spoken(age);
            format!(
                "it fires {age} after {version} got traffic, and Prometheus cannot tell whether it fails: {}",
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
    alerts::process_if_unheld(tx, id, &version);
    later(tx, id);
    Answer::Noted
}

/// Handles a missing answer like one without data.
pub(super) fn due(tx: &mut Transaction<'_>, id: &IncidentId) {
    let Some((version, _)) = waiting(tx, id) else { return };
    if !tx.policy.verify {
        alerts::process_if_unheld(tx, id, &version);
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
