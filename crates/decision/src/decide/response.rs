//! What follows from the alerts that fire on a version: a rollback, a question, or nothing.

use super::transaction::{Cause, Transaction};
use super::{canary, confirm, gradual, question};
use crate::switch::DryRunRollback;
use crate::{
    Action, AlertRecord, Guard, Held, Incident, IncidentId, NoteKind, Operator, Pending, Phase, PhaseKind, Question,
    SwitchMode, Trigger, VersionName,
};

pub(super) enum Acted {
    RolledBack,
    Held(Guard),
    /// Prometheus is asked before the rollback.
    Confirming,
    Asked,
}

/// Makes the incident follow the strongest of its firing alerts. `urgent`: one of the new alerts asks for a rollback.
pub(super) fn process(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName, urgent: bool) -> Option<Acted> {
    let (now, policy) = (tx.now, tx.policy);
    if !tx.has_traffic(version) {
        return None; // there is nothing to roll back
    }
    let choices = tx.choices(version, version);
    let target = choices.first().cloned();
    let content_missing = target.as_ref().is_some_and(|target| tx.lacks_content(target));
    let passed_over = tx.passed_over(version);
    let held = tx.guard(version);
    let rehearsed =
        held.as_ref().is_some_and(|held| held.guard == Guard::DryRun) && tx.guard_if_armed(version).is_none();
    let heard = tx.heard_of(id);
    let incident = tx.incident(id)?;
    let (strongest, worst) = (incident.strongest()?.clone(), incident.worst()?.clone());
    let stronger = (strongest.action, worst.severity) > (incident.action, incident.severity);
    // the record of an alert keeps the decider of its last delivery, whom a reload may have removed
    let named = Some(&strongest.decider).filter(|name| *name != Trigger::SYSTEM && Trigger::knows(name, policy));
    let decider = named.unwrap_or(&policy.fallback_decider).clone();
    // the earlier decider may answer until another decider is asked
    let other = stronger || incident.target != target || incident.decider != decider;
    if let Some(why) = passed_over.filter(|_| incident.target != target) {
        incident.note(now, NoteKind::Alert, why);
    }
    incident.time_limit = strongest.time_limit;
    // the person who was asked, or investigates, keeps the decision unless another decider must be asked
    let observes = strongest.action == Action::Observe;
    let in_hand = match &incident.phase {
        Phase::AwaitingDecision(question) => question.hold.is_some() || observes,
        Phase::Investigating { .. } => (!stronger && !urgent) || observes,
        Phase::Confirming(confirming) => confirming.pending.by != SwitchMode::Auto,
        phase => phase.kind() == PhaseKind::RollingBack,
    };
    // the question that comes back if Prometheus does not confirm the alert is another one
    let anew = u32::from(!in_hand && incident.decider != decider && incident.question_number > 0);
    if !in_hand {
        incident.decider = decider;
    }
    // whoever investigates knows the worst so far: an alert that is no worse is no news
    let known = in_hand && incident.phase.kind() == PhaseKind::Investigating;
    let (severity, action) = (incident.severity, incident.action);
    incident.severity = if known { severity.max(worst.severity) } else { worst.severity };
    incident.action = if known { action.max(strongest.action) } else { strongest.action };
    incident.target = target.clone();
    incident.choices = choices;
    if incident.phase.kind() == PhaseKind::RollingBack {
        let waits = urgent || incident.held.is_some();
        let reason = (waits && strongest.action == Action::Rollback).then(|| why(&strongest));
        return on_gradual(tx, id, reason.as_deref());
    }
    let fails = match canary::fails(tx, id, version, worst.severity, &why(&worst)) {
        Some(Ok(())) => return Some(Acted::RolledBack),
        Some(Err(held)) => Some(held),
        None => None,
    };
    let incident = tx.incident(id)?;
    match &incident.phase {
        // on hold together with other prompts: no action and no escalation
        Phase::AwaitingDecision(Question { hold: Some(_), .. }) => {
            return Some(incident.held.as_ref().map_or(Acted::Asked, |held| Acted::Held(held.guard)));
        }
        // a person is investigating
        Phase::Investigating { .. } if !stronger && !urgent => return Some(Acted::Asked),
        Phase::Confirming(confirming) if confirming.pending.by == SwitchMode::Auto => {
            incident.question_number += anew;
            return Some(Acted::Confirming);
        }
        Phase::Confirming(confirming) => {
            let pending = confirming.pending.clone();
            let acts = [&strongest, &worst].into_iter().any(|alert| tx.acts_on(version, alert));
            let skip_confirmation = acts && held.is_none() && !policy.requery;
            if !skip_confirmation || tx.lacks_content(&pending.to) {
                // the answer decides; if it is an objection, the alert goes on as a held one
                if let (Some(incident), Some(held)) = (tx.incident(id), held.filter(|_| acts)) {
                    question::note_held(incident, now, held);
                }
                return Some(Acted::Asked);
            }
            // the alert answers the open question: the requested rollback happens, to the target that the person named
            let reason = format!("{} ({})", pending.reason, why(&strongest));
            let cause = Cause { operator: &pending.operator, reason: &reason, incident: Some(id) };
            tx.switch(Some(&pending.from), &pending.to, pending.by, cause);
            if let Some(incident) = tx.incident(id) {
                incident.decided_by = Some(pending.operator);
                if let Some(switch) = &mut incident.switch {
                    switch.decided_at = Some(pending.at);
                }
            }
            return Some(Acted::RolledBack);
        }
        _ => {}
    }
    if let Some(held) = fails {
        let guard = held.guard;
        question::hold_alert(tx, id, held, other, heard);
        return Some(Acted::Held(guard));
    }
    match strongest.action {
        Action::Rollback => match (held, target) {
            (None, Some(target)) => {
                let reason = why(&strongest);
                if policy.requery || content_missing {
                    let (from, operator) = (version.clone(), Operator::SYSTEM);
                    let (skip_confirmation, gradual, by) = (!policy.requery, None, SwitchMode::Auto);
                    let pending =
                        Pending { by, from, to: target, operator, reason, gradual, skip_confirmation, at: now };
                    incident.question_number += anew;
                    confirm::begin(tx, id, pending);
                    return Some(Acted::Confirming);
                }
                let cause = Cause { operator: &Operator::SYSTEM, reason: &reason, incident: Some(id) };
                tx.switch(Some(version), &target, SwitchMode::Auto, cause);
                return Some(Acted::RolledBack);
            }
            (held, target) => {
                let held = held?; // a missing target is a guard of its own
                if let Some(to) = target.filter(|_| rehearsed && incident.dry_run.is_none()) {
                    let (from, trigger) = (version.clone(), strongest.alertname.clone());
                    incident.dry_run = Some(DryRunRollback { at: now, from, to, trigger });
                }
                let guard = held.guard;
                question::hold_alert(tx, id, held, other, heard);
                return Some(Acted::Held(guard));
            }
        },
        Action::Page | Action::Recommend => question::ask(incident, now, other, heard),
        Action::Observe => {
            let opened_at = incident.opened_at.min(now); // a clock may have gone back since
            if let Phase::Observing { until } = &mut incident.phase {
                // reopened: the observation continues
                let limit = opened_at.plus(strongest.time_limit).max(now);
                *until = Some(until.map_or(limit, |until| until.min(limit)));
            }
        }
    }
    Some(Acted::Asked)
}

/// Handles an alert on the bad version of a gradual rollback: a critical alert completes the rollback at once, unless
/// the target is no better.
fn on_gradual(tx: &mut Transaction<'_>, id: &IncidentId, urgent: Option<&str>) -> Option<Acted> {
    let split = tx.incident(id)?.gradual()?.clone();
    if tx.hears_inactive_alerts {
        return Some(Acted::Asked); // a repeat: the stages continue
    }
    let Some(reason) = urgent else { return Some(Acted::Asked) };
    // someone stopped automation: it goes on no faster than they were promised
    if let Some(held) = tx.switched_off(&split.leaving) {
        return Some(Acted::Held(hold_gradual(tx, id, held)));
    }
    if let Some(detail) = tx.target_risk(&split) {
        gradual::pause(tx, id, detail.clone());
        return Some(Acted::Held(hold_gradual(tx, id, Held { guard: Guard::TargetUnhealthy, detail })));
    }
    let cause = Cause { operator: &Operator::SYSTEM, reason, incident: Some(id) };
    gradual::finish(tx, id, &split, cause);
    Some(Acted::RolledBack)
}

fn hold_gradual(tx: &mut Transaction<'_>, id: &IncidentId, held: Held) -> Guard {
    let (now, guard) = (tx.now, held.guard);
    let told = |incident: &Incident| incident.held.as_ref().is_some_and(|before| before.guard == guard);
    if let Some(incident) = tx.incident(id).filter(|incident| !told(incident)) {
        question::note_held(incident, now, held);
    }
    guard
}

/// Repeats a rollback alert once its guard no longer applies, for example after automation was resumed or a version
/// became known-good. Not while a person investigates.
pub(super) fn process_if_unheld(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName) -> Option<Acted> {
    if held_is_over(tx, id) {
        return process(tx, id, version, true);
    }
    let waits = {
        let incident = tx.incident(id)?;
        incident.phase.kind() == PhaseKind::AwaitingDecision
            && incident.held.as_ref().is_some_and(|held| !held.guard.waits_for_news())
            && incident.hold().is_none()
            && [incident.strongest().cloned(), incident.worst().cloned()]
                .iter()
                .flatten()
                .any(|alert| tx.acts_on(version, alert))
    };
    if !waits || !tx.has_traffic(version) {
        return None;
    }
    let Some(held) = tx.guard(version) else { return process(tx, id, version, true) };
    // the guard that people were told of is gone, and another one holds it now
    let now = tx.now;
    let incident = tx.incident(id)?;
    if incident.held.as_ref().is_none_or(|before| before.guard != held.guard) {
        question::note_held(incident, now, held);
    }
    question::recheck(tx, id);
    None
}

/// Ends the hold of a critical alert on the bad version that waited for the target, which is now healthy.
fn held_is_over(tx: &Transaction<'_>, id: &IncidentId) -> bool {
    let held = tx.state.open_incidents().find(|incident| incident.id == *id && incident.held.is_some());
    let split = held.and_then(|incident| incident.gradual());
    split.is_some_and(|split| tx.switched_off(&split.leaving).is_none() && tx.target_risk(split).is_none())
}

fn why(alert: &AlertRecord) -> String {
    if alert.summary.is_empty() { alert.alertname.clone() } else { format!("{}: {}", alert.alertname, alert.summary) }
}
