//! Gradual rollbacks. A person has decided on it, so it continues automatically as long as the target is healthy.

use super::answer::Answer;
use super::commit::LogEvent;
use super::precondition::must_not_be_bad;
use super::transaction::{Cause, Transaction};
use crate::time::spoken;
use crate::{
    ActivatedBy, Check, Finding, Incident, IncidentId, NoteKind, Operator, OrRefusal, Pending, Phase, Refusal,
    RefusalCode, Stepped, SwitchMode, TrafficSplit, Verdict, VersionName,
};

/// Starts the first stage. Only this prompt's own split may be in progress.
pub(super) fn begin(tx: &mut Transaction<'_>, id: &IncidentId, pending: Pending) {
    let now = tx.now;
    let Pending { by, from, to, operator, reason, gradual, .. } = pending;
    let Some(plan) = gradual.filter(|plan| plan.stages.first() != Some(&100)) else {
        tx.switch(Some(&from), &to, by, Cause { operator: &operator, reason: &reason, incident: Some(id) });
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
    incident.switch = None; // people left the version that an earlier rollback went to
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
    finish(tx, id, &split, Cause { operator: &split.operator, reason: &split.reason, incident: Some(id) });
}

/// The target gets all traffic.
pub(super) fn finish(tx: &mut Transaction<'_>, id: &IncidentId, split: &TrafficSplit, cause: Cause<'_>) {
    tx.switch(Some(&split.leaving), &split.arriving, SwitchMode::Gradual, cause);
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

/// `alertname`, high or worse, is news about the target of a gradual rollback, which goes no further without a person.
pub(super) fn stay(tx: &mut Transaction<'_>, version: &VersionName, alertname: &str) {
    let to_version = |i: &&Incident| i.gradual().is_some_and(|split| split.arriving == *version);
    let Some(id) = tx.state.open_incidents().find(to_version).map(|incident| incident.id.clone()) else { return };
    if !tx.hears_inactive_alerts {
        pause(tx, &id, format!("{alertname} fires on {version}"));
    }
}

/// Resumes a paused rollback at a person's request: the next stage starts at once.
pub(super) fn resume(tx: &mut Transaction<'_>, id: &IncidentId, operator: &Operator, force: bool) -> OrRefusal<Answer> {
    let now = tx.now;
    if let Some(arriving) = rolling(tx, id).map(|split| split.arriving.clone()) {
        must_not_be_bad(tx, &arriving, force)?;
    }
    let Some(split) = rolling(tx, id) else {
        return Err(Refusal::new(RefusalCode::AlreadyDecided, "no gradual rollback is under way"));
    };
    if split.paused.is_none() {
        let when = split.next.map_or_else(String::new, |at| format!(", next stage in {}", spoken(at.since(now))));
        let message = format!("{} is already rolling back gradually{when}", split.operator);
        return Err(Refusal::new(RefusalCode::AlreadyDecided, message));
    }
    let (from, to) = (split.leaving.clone(), split.arriving.clone());
    if let Some(incident) = tx.incident(id) {
        incident.question_number += 1;
        incident.held = None;
        incident.note(now, NoteKind::Decided, format!("{operator} resumed the gradual rollback"));
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

/// The answer about a gradual rollback that has just begun.
pub(super) fn begun(
    tx: &mut Transaction<'_>,
    id: &IncidentId,
    from: Option<String>,
    to: VersionName,
    mode: SwitchMode,
) -> Answer {
    let incident = Some(id.clone());
    match tx.incident(id).and_then(|incident| incident.gradual()) {
        Some(split) => Answer::Shared { from: split.leaving.clone(), to, percent: split.percent(), incident },
        None => Answer::Changed { from, to, incident, unchanged: false, mode: Some(mode) },
    }
}
