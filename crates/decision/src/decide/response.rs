//! What follows from the alerts that fire on a version: a rollback, a question, or nothing.

use super::transaction::{Cause, Transaction};
use super::{canary, confirm, gradual, question};
use crate::switch::DryRunRollback;
use crate::{
    Action, AlertRecord, Guard, Held, IncidentId, NoteKind, Operator, Pending, Phase, PhaseKind, Question, SwitchMode,
    Trigger, VersionName,
};

pub(super) enum Acted {
    RolledBack,
    Held(Guard),
    /// Prometheus is asked again before it is done.
    Confirming,
    Asked,
}

/// Makes the incident follow the strongest of its firing alerts. `urgent`: a rollback alert is among the news.
pub(super) fn process(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName, urgent: bool) -> Option<Acted> {
    let (now, policy) = (tx.now, tx.policy);
    let choices = tx.choices(version, version);
    let target = choices.first().cloned();
    let content_missing = target.as_ref().is_some_and(|target| tx.lacks_content(target));
    let passed_over = tx.passed_over(version);
    let held = tx.guard(version);
    let rehearsed =
        held.as_ref().is_some_and(|held| held.guard == Guard::DryRun) && tx.guard_if_armed(version).is_none();
    let heard = tx.heard_of(id);
    let incident = tx.incident(id)?;
    let strongest = incident.strongest()?.clone();
    let stronger = (strongest.action, strongest.severity) > (incident.action, incident.severity);
    let decider =
        if strongest.decider == Trigger::SYSTEM { policy.fallback_decider.clone() } else { strongest.decider.clone() };
    // whoever was asked may answer until somebody else is asked
    let other = stronger || incident.target != target || incident.decider != decider;
    if let Some(why) = passed_over.filter(|_| incident.target != target) {
        incident.note(now, NoteKind::Alert, why);
    }
    incident.severity = strongest.severity;
    incident.action = strongest.action;
    incident.time_limit = strongest.time_limit;
    incident.decider = decider;
    incident.target = target.clone();
    incident.choices = choices;
    if incident.phase.kind() == PhaseKind::RollingBack {
        let waits = urgent || incident.held.is_some();
        let reason = (waits && strongest.action == Action::Rollback).then(|| why(&strongest));
        return on_gradual(tx, id, reason.as_deref());
    }
    match canary::fails(tx, id, version, strongest.severity, &why(&strongest)) {
        Some(Ok(())) => return Some(Acted::RolledBack),
        Some(Err(held)) => {
            let guard = held.guard;
            question::hold_alert(tx, id, version, held, other, heard);
            return Some(Acted::Held(guard));
        }
        None => {}
    }
    let incident = tx.incident(id)?;
    match &incident.phase {
        // held back together with others: neither acted upon nor escalated
        Phase::AwaitingDecision(Question { hold: Some(_), .. }) => {
            return Some(incident.held.as_ref().map_or(Acted::Asked, |held| Acted::Held(held.guard)));
        }
        // a person has it in hand
        Phase::Investigating { .. } if !stronger && !urgent => return Some(Acted::Asked),
        Phase::Confirming(confirming) if confirming.pending.by == SwitchMode::Auto => return Some(Acted::Confirming),
        Phase::Confirming(confirming) => {
            let pending = confirming.pending.clone();
            let skip_confirmation = strongest.action == Action::Rollback && held.is_none() && !policy.requery;
            if !skip_confirmation || tx.lacks_content(&pending.to) {
                return Some(Acted::Asked); // the answer decides
            }
            // the alert is the answer: what the person asked for is done, with the target that they named
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
    match strongest.action {
        Action::Rollback => match (held, target) {
            (None, Some(target)) => {
                let reason = why(&strongest);
                if policy.requery || content_missing {
                    let (from, operator) = (version.clone(), Operator::SYSTEM);
                    let (skip_confirmation, gradual, by) = (!policy.requery, None, SwitchMode::Auto);
                    let pending =
                        Pending { by, from, to: target, operator, reason, gradual, skip_confirmation, at: now };
                    confirm::begin(tx, id, pending);
                    return Some(Acted::Confirming);
                }
                let cause = Cause { operator: &Operator::SYSTEM, reason: &reason, incident: Some(id) };
                tx.switch(Some(version), &target, SwitchMode::Auto, cause);
                return Some(Acted::RolledBack);
            }
            (held, target) => {
                let held = held?; // no target is a guard of its own
                if let Some(to) = target.filter(|_| rehearsed && incident.dry_run.is_none()) {
                    let (from, trigger) = (version.clone(), strongest.alertname.clone());
                    incident.dry_run = Some(DryRunRollback { at: now, from, to, trigger });
                }
                let guard = held.guard;
                question::hold_alert(tx, id, version, held, other, heard);
                return Some(Acted::Held(guard));
            }
        },
        Action::Page | Action::Recommend => question::ask(incident, now, other, heard),
        Action::Observe => {
            let opened_at = incident.opened_at;
            if let Phase::Observing { until: until @ None } = &mut incident.phase {
                // reopened: the clock of the observation goes on
                *until = Some(opened_at.plus(strongest.time_limit).max(now));
            }
        }
    }
    Some(Acted::Asked)
}

/// What an alert on the bad version does to a gradual rollback: a critical one ends the patience, unless the target is no
/// better.
fn on_gradual(tx: &mut Transaction<'_>, id: &IncidentId, urgent: Option<&str>) -> Option<Acted> {
    let split = tx.incident(id)?.gradual()?.clone();
    if tx.hears_inactive_alerts {
        return Some(Acted::Asked); // it was heard before: the stages go on
    }
    // someone stopped automation: it goes on no faster than they were promised
    if let Some(reason) = urgent.filter(|_| tx.snapshot.paused.is_none()) {
        if let Some(detail) = tx.target_risk(&split) {
            gradual::pause(tx, id, detail.clone());
            return Some(Acted::Held(hold_gradual(tx, id, detail)));
        }
        let cause = Cause { operator: &Operator::SYSTEM, reason, incident: Some(id) };
        gradual::finish(tx, id, &split, cause);
        return Some(Acted::RolledBack);
    }
    Some(Acted::Asked)
}

fn hold_gradual(tx: &mut Transaction<'_>, id: &IncidentId, detail: String) -> Guard {
    let (now, guard) = (tx.now, Guard::TargetUnhealthy);
    if let Some(incident) = tx.incident(id).filter(|incident| incident.held.is_none()) {
        question::note_held(incident, now, Held { guard, detail });
    }
    guard
}

/// A repeated rollback alert acts once what held it is gone: automation was resumed, a version became known-good.
/// Not while a person has it in hand.
pub(super) fn process_if_unheld(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName) -> Option<Acted> {
    if held_is_over(tx, id) {
        return process(tx, id, version, true);
    }
    let waits = {
        let incident = tx.incident(id)?;
        incident.phase.kind() == PhaseKind::AwaitingDecision
            && incident.held.as_ref().is_some_and(|held| !held.guard.waits_for_news())
            && incident.hold().is_none()
            && incident.strongest().cloned().is_some_and(|alert| tx.acts_on(version, &alert))
    };
    if waits && tx.has_traffic(version) && tx.guard(version).is_none() {
        return process(tx, id, version, true);
    }
    None
}

/// A critical alert on the bad version waited for the target to serve well, which it does.
fn held_is_over(tx: &Transaction<'_>, id: &IncidentId) -> bool {
    let held = tx.state.open_incidents().find(|incident| incident.id == *id && incident.held.is_some());
    let split = held.and_then(|incident| incident.gradual());
    split.is_some_and(|split| tx.snapshot.paused.is_none() && tx.target_risk(split).is_none())
}

fn why(alert: &AlertRecord) -> String {
    if alert.summary.is_empty() { alert.alertname.clone() } else { format!("{}: {}", alert.alertname, alert.summary) }
}
