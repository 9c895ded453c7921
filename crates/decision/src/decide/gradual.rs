//! Gradual rollbacks. A person has decided on it, so it continues automatically as long as the target is healthy.

use super::super::alert::Alert;
use super::super::event::Stepped;
use super::super::guards::{Guard, Held};
use super::super::incident::Incident;
use super::super::names::{IncidentId, VersionName};
use super::super::note::NoteKind;
use super::super::operator::Operator;
use super::super::phase::{Pending, Phase};
use super::super::serving::ActivatedBy;
use super::super::severity::Severity;
use super::super::split::TrafficSplit;
use super::super::switch::SwitchMode;
use super::super::time::spoken;
use super::super::verification::{Check, Finding, Verdict};
use super::{AlertOutcome, Answer, LogEvent, Outcome, Refusal, RefusalCode, Transaction, alerts, mark};

/// Refuses a second split, also while another one waits for an answer to begin, except that of incident `own`.
pub(super) fn must_be_free(tx: &Transaction<'_>, own: Option<&IncidentId>) -> Result<(), Refusal> {
    let refusal = |message| Err(Refusal::new(RefusalCode::SplitUnderWay, message));
    if let Some(split) = tx.state.split() {
        let what = if tx.state.running_canary().is_some() { "a canary" } else { "a gradual rollback" };
        let TrafficSplit { leaving, arriving, operator, .. } = split;
        let percent = split.percent();
        return refusal(format!(
            "{what} from {leaving} to {arriving} is under way ({percent} % on {arriving}, by {operator})"
        ));
    }
    if let Some(lapsed) = &tx.state.lapsed {
        let message = format!("{}: a version can be activated, but not with a share of the traffic", lapsed.fault());
        return Err(Refusal::new(RefusalCode::Moved, message));
    }
    let others = tx.state.open_incidents().filter(|incident| Some(&incident.id) != own);
    let mut pending = others.filter_map(|incident| incident.pending());
    match pending.find(|pending| pending.gradual.is_some()) {
        Some(Pending { from, to, operator, .. }) => {
            refusal(format!("a gradual rollback from {from} to {to} is about to begin (requested by {operator})"))
        }
        None => Ok(()),
    }
}

/// Starts the first stage. Only this prompt's own split may be in progress.
pub(super) fn begin(tx: &mut Transaction<'_>, id: &IncidentId, pending: Pending) {
    let now = tx.now;
    let Pending { by, from, to, operator, reason, gradual, .. } = pending;
    let Some(plan) = gradual.filter(|plan| plan.stages.first() != Some(&100)) else {
        tx.switch(Some(&from), &to, by, &operator, &reason, Some(id));
        return;
    };
    let left: Vec<_> = plan.stages.iter().map(|percent| format!("{} %", 100 - percent)).collect();
    let text = format!("{operator} started a gradual rollback from {from} to {to}: {} left on {from}", left.join(", "));
    let split = TrafficSplit::begin(true, (from, to.clone()), plan, operator.clone(), reason, now);
    let Some(incident) = tx.incident(id) else { return };
    incident.phase = Phase::RollingBack(split.clone());
    incident.target = Some(to);
    incident.decided_by = Some(operator);
    incident.quiet_since = None;
    incident.held = None;
    incident.note(now, NoteKind::Decided, text);
    tx.state.last_rollback = Some(now);
    tx.share(&split, ActivatedBy::Rollback, LogEvent::Gradual, Some(id));
}

/// Handles Prometheus' answer to whether the rollback may continue.
pub(super) fn stepped(tx: &mut Transaction<'_>, step: &Stepped) -> Answer {
    let now = tx.now;
    let Some(split) = rolling(tx, &step.incident).filter(|split| split.since == step.since) else {
        return Answer::Noted;
    };
    if split.paused.is_some() {
        return Answer::Noted;
    }
    split.check = split.next.map(|_| now.plus(TrafficSplit::CHECK_EVERY));
    split.last = Some(Check { at: now, finding: step.finding.clone() });
    let Finding { verdict, text } = &step.finding;
    if *verdict == Verdict::Unhealthy {
        let why = format!("{} is unhealthy: {text}", split.arriving);
        pause(tx, &step.incident, why);
    } else if split.next.is_some_and(|next| next <= now) {
        advance(tx, &step.incident);
    }
    Answer::Noted
}

/// Ends a stage. With a Prometheus, its answer decides ([`stepped`]).
pub(super) fn due(tx: &mut Transaction<'_>, id: &IncidentId) {
    let (policy, now) = (tx.policy, tx.now);
    let Some(split) = rolling(tx, id) else { return };
    // a missing answer counts as no data
    if policy.verify && split.next.is_none_or(|next| now.since(next) < TrafficSplit::CHECK_EVERY) {
        return;
    }
    split.check = split.next; // there is no Prometheus to ask
    if split.next.is_some_and(|next| next <= now) {
        advance(tx, id);
    }
}

fn rolling<'d>(tx: &'d mut Transaction<'_>, id: &IncidentId) -> Option<&'d mut TrafficSplit> {
    tx.incident(id)?.gradual_mut()
}

/// Starts the next stage.
pub(super) fn advance(tx: &mut Transaction<'_>, id: &IncidentId) {
    let now = tx.now;
    let Some(split) = rolling(tx, id) else { return };
    if split.next_percent().is_some_and(|percent| percent < 100) {
        split.enter(split.stage + 1, now);
        let split = split.clone();
        if let Some(incident) = tx.incident(id) {
            incident.escalations = 0;
            incident.updated_at = now;
        }
        tx.share(&split, ActivatedBy::Rollback, LogEvent::Gradual, Some(id));
        return;
    }
    let split = split.clone();
    finish(tx, id, &split, &split.operator, &split.reason);
}

/// The target gets all traffic.
fn finish(tx: &mut Transaction<'_>, id: &IncidentId, split: &TrafficSplit, operator: &Operator, reason: &str) {
    tx.switch(Some(&split.leaving), &split.arriving, SwitchMode::Gradual, operator, reason, Some(id));
    if let Some(switch) = tx.incident(id).and_then(|incident| incident.switch.as_mut()) {
        switch.decided_at = Some(split.began);
    }
}

/// Keeps the current stage and notifies people.
pub(super) fn pause(tx: &mut Transaction<'_>, id: &IncidentId, why: String) {
    let now = tx.now;
    let Some(split) = rolling(tx, id).filter(|split| split.paused.is_none()) else { return };
    let text = format!("gradual rollback paused with {} % on {}: {why}", split.percent(), split.arriving);
    split.paused = Some(why);
    split.next = None;
    split.check = None;
    let Some(incident) = tx.incident(id) else { return };
    incident.question_number += 1;
    incident.escalations = 1;
    incident.note(now, NoteKind::Escalated, text);
}

/// Resumes a paused rollback at a person's request: the next stage starts at once.
pub(super) fn resume(
    tx: &mut Transaction<'_>,
    id: &IncidentId,
    operator: &Operator,
    force: bool,
) -> Result<Answer, Refusal> {
    let now = tx.now;
    if let Some(arriving) = rolling(tx, id).map(|split| split.arriving.clone()) {
        mark::must_not_be_bad(tx, &arriving, force)?;
    }
    let Some(split) = rolling(tx, id) else {
        return Err(Refusal::new(RefusalCode::AlreadyDecided, "no gradual rollback is under way"));
    };
    if split.paused.is_none() {
        let when = split.next.map_or_else(String::new, |at| format!(", next stage in {}", spoken(at.since(now))));
        let message = format!("{} is already rolling back step by step{when}", split.operator);
        return Err(Refusal::new(RefusalCode::AlreadyDecided, message));
    }
    let (from, to) = (split.leaving.clone(), split.arriving.clone());
    if let Some(incident) = tx.incident(id) {
        incident.question_number += 1;
        incident.held = None;
        incident.note(now, NoteKind::Decided, format!("{operator} lets the gradual rollback go on"));
    }
    advance(tx, id);
    let incident = Some(id.clone());
    Ok(match rolling(tx, id) {
        Some(split) => Answer::Shared { from, to, percent: split.percent(), incident },
        None => {
            let from = Some(from.to_string());
            Answer::Changed { from, to, incident, unchanged: false, mode: Some(SwitchMode::Gradual) }
        }
    })
}

/// The gradual rollback to `version` that is in progress.
pub(super) fn split_to<'d>(tx: &'d Transaction<'_>, version: &VersionName) -> Option<&'d TrafficSplit> {
    tx.state.open_incidents().filter_map(Incident::gradual).find(|split| split.arriving == *version)
}

/// Why only a person may give more traffic to the target.
pub(super) fn target_risk(tx: &Transaction<'_>, split: &TrafficSplit) -> Option<String> {
    let found_bad = || split.last.as_ref().is_some_and(|check| check.finding.verdict == Verdict::Unhealthy);
    let marked = || tx.state.marked_bad(&split.arriving).map(|mark| format!("{} is {mark}", split.arriving));
    let fires = || fires_on(tx, &split.arriving);
    let risk = tx.trouble_on(&split.arriving).or_else(fires).or_else(marked);
    risk.or_else(|| split.paused.clone().filter(|_| found_bad()))
}

/// What fires on `version`, high or worse, in an incident of its own.
pub(super) fn fires_on(tx: &Transaction<'_>, version: &VersionName) -> Option<String> {
    let about = |i: &&Incident| i.version == *version && i.switch.is_none();
    let worst = tx.state.open_incidents().filter(about).filter_map(Incident::worst).max_by_key(|alert| alert.severity);
    let alert = worst.filter(|alert| alert.severity >= Severity::High)?;
    Some(format!("{} fires on {version} too", alert.alertname))
}

/// `alertname`, high or worse, is news about the target of a gradual rollback, which goes no further without a person.
pub(super) fn stay(tx: &mut Transaction<'_>, version: &VersionName, alertname: &str) {
    let to_version = |i: &&Incident| i.gradual().is_some_and(|split| split.arriving == *version);
    let Some(id) = tx.state.open_incidents().find(to_version).map(|incident| incident.id.clone()) else { return };
    if !tx.hears_inactive_alerts {
        pause(tx, &id, format!("{alertname} fires on {version}"));
    }
}

/// Ends the hold of a critical alert on the bad version that waited for the target, which is now healthy.
pub(super) fn held_is_over(tx: &Transaction<'_>, id: &IncidentId) -> bool {
    let held = tx.state.open_incidents().find(|incident| incident.id == *id && incident.held.is_some());
    let split = held.and_then(|incident| incident.gradual());
    split.is_some_and(|split| tx.switched_off(&split.leaving).is_none() && target_risk(tx, split).is_none())
}

/// Handles an alert on the bad version of a gradual rollback: a critical alert completes the rollback at once, unless
/// the target is no better.
pub(super) fn on_alert(tx: &mut Transaction<'_>, id: &IncidentId, urgent: Option<&str>) -> Option<alerts::Acted> {
    let split = rolling(tx, id)?.clone();
    if tx.hears_inactive_alerts {
        return Some(alerts::Acted::Asked); // a repeat: the stages continue
    }
    let Some(reason) = urgent else { return Some(alerts::Acted::Asked) };
    // someone stopped automation: it goes on no faster than they were promised
    if let Some(held) = tx.switched_off(&split.leaving) {
        return Some(alerts::Acted::Held(hold(tx, id, held)));
    }
    if let Some(detail) = target_risk(tx, &split) {
        pause(tx, id, detail.clone());
        return Some(alerts::Acted::Held(hold(tx, id, Held { guard: Guard::TargetUnhealthy, detail })));
    }
    finish(tx, id, &split, &Operator::SYSTEM, reason);
    Some(alerts::Acted::RolledBack)
}

fn hold(tx: &mut Transaction<'_>, id: &IncidentId, held: Held) -> Guard {
    let (now, guard) = (tx.now, held.guard);
    let told = |incident: &Incident| incident.held.as_ref().is_some_and(|before| before.guard == guard);
    if let Some(incident) = tx.incident(id).filter(|incident| !told(incident)) {
        alerts::note_held(incident, now, held);
    }
    guard
}

/// Pauses the gradual rollback whose target `group` wants to roll back, and notifies people. `None`: the target is not
/// one of a gradual rollback.
pub(super) fn target_fails(
    tx: &mut Transaction<'_>,
    version: &VersionName,
    group: &[&Alert],
) -> Option<Vec<AlertOutcome>> {
    let to_version = |i: &&Incident| i.gradual().is_some_and(|split| split.arriving == *version);
    let id = tx.state.open_incidents().find(to_version)?.id.clone();
    let why = format!("{} fires on {version}", group.first()?.alertname);
    let mut news = false;
    let mut outcomes = Vec::with_capacity(group.len());
    for alert in group {
        let known = |s: &super::InactiveAlert| s.version == *version && s.alert.fingerprint == alert.fingerprint;
        let (what, reason) = match tx.state.inactive_alerts.iter().any(known) {
            true => (Outcome::Duplicate, "duplicate"),
            false => (Outcome::IncidentUpdated, "target_unhealthy"),
        };
        news |= what != Outcome::Duplicate;
        alerts::remember_inactive(tx, alert);
        outcomes.push(AlertOutcome { outcome: what, reason, incident: Some(id.clone()) });
    }
    if news {
        pause(tx, &id, why); // who let it go on knew of the rest
    }
    Some(outcomes)
}
