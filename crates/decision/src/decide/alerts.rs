//! Decisions about delivered alerts.

use std::collections::HashMap;

use super::super::alert::{Alert, AlertRecord, AlertStatus};
use super::super::guards::{Guard, Held};
use super::super::incident::Incident;
use super::super::names::{IncidentId, VersionName};
use super::super::note::NoteKind;
use super::super::operator::Operator;
use super::super::phase::{Pending, Phase, PhaseKind, Question};
use super::super::policy::Policy;
use super::super::severity::{Action, Severity};
use super::super::state::InactiveAlert;
use super::super::switch::{DryRunRollback, SwitchMode};
use super::super::trigger::Trigger;
use super::{Active, AlertOutcome, Outcome, Transaction, canary, confirm, ended, gradual, recheck};

/// What an alert did to the incident of its version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Opened,
    Updated(&'static str),
    /// A repeat: it asks for nothing new, unless the guard that held it no longer applies.
    Again,
}

pub(super) enum Acted {
    RolledBack,
    Held(Guard),
    /// Prometheus is asked before the rollback.
    Confirming,
    Asked,
}

/// Handles all alerts of one delivery. Alerts of one version are decided together, so that a delivery switches at most
/// once.
pub(super) fn alerts(tx: &mut Transaction<'_>, alerts: &[Alert]) -> Vec<AlertOutcome> {
    let mut outcomes: Vec<Option<AlertOutcome>> = vec![None; alerts.len()];
    // ends first, then what fires on versions that may be rolled back to: all of it tells whether a target is healthy
    for (alert, outcome) in alerts.iter().zip(&mut outcomes) {
        if alert.status == AlertStatus::Resolved {
            *outcome = Some(ended::resolved(tx, alert));
        }
    }
    for (alert, outcome) in alerts.iter().zip(&mut outcomes) {
        if alert.status == AlertStatus::Firing && ended::is_late_copy(tx, alert) {
            *outcome = Some(self::outcome(Outcome::Ignored, "already_resolved", None));
        }
    }
    let mut groups = by_version(alerts, &outcomes);
    // the base of a canary comes first: a rollback from it also ends the canary, so traffic moves once
    let base = tx.state.running_canary().map(|canary| canary.split.leaving.clone());
    groups.sort_by_cached_key(|(version, _)| {
        let target = gradual::split_to(tx, version).is_some();
        (tx.has_traffic(version), !target, base.as_ref() != Some(*version))
    });
    for (version, places) in groups {
        let group: Vec<&Alert> = places.iter().map(|place| &alerts[*place]).collect();
        for (place, outcome) in places.into_iter().zip(firing(tx, version, &group)) {
            outcomes[place] = Some(outcome);
        }
    }
    // every alert is either resolved or belongs to one of the versions
    outcomes.into_iter().map(|o| o.unwrap_or_else(|| outcome(Outcome::Ignored, "not_active", None))).collect()
}

/// The indexes of the alerts without an outcome, by version, in the order in which the versions first appear. One pass,
/// because a delivery may name as many versions as it has alerts.
pub(super) fn by_version<'a>(
    alerts: &'a [Alert],
    outcomes: &[Option<AlertOutcome>],
) -> Vec<(&'a VersionName, Vec<usize>)> {
    let mut groups: Vec<(&VersionName, Vec<usize>)> = Vec::new();
    let mut known: HashMap<&VersionName, usize> = HashMap::new();
    for (place, alert) in alerts.iter().enumerate().filter(|(place, _)| outcomes[*place].is_none()) {
        let group = *known.entry(&alert.version).or_insert_with(|| {
            groups.push((&alert.version, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(place);
    }
    groups
}

/// Each open question names the target that it has now: an alert may have begun or ended on a version that a rollback could
/// go to, somebody may vouch for one, or one has lost its traffic.
pub(super) fn follow_targets(tx: &mut Transaction<'_>) {
    let now = tx.now;
    let asks = |incident: &&Incident| incident.phase.is_undecided() && incident.version == *incident.subject();
    let undecided = tx.state.open_incidents().filter(asks);
    let targets = tx.targets();
    let news = undecided.map(|incident| {
        let version = &incident.version;
        (incident.id.clone(), super::choices(&targets, version, version), super::passed_over(&targets, version))
    });
    let news: Vec<_> = news.collect();
    for (id, choices, passed_over) in news {
        let known = tx.heard_of(&id).is_some();
        let Some(incident) = tx.incident(&id) else { continue };
        let target = choices.first().cloned();
        if known && incident.target != target {
            let text = passed_over.or(target.as_ref().map(|target| format!("{target} is the rollback target now")));
            incident.note(now, NoteKind::Alert, text.unwrap_or_else(|| "no rollback target is left".to_owned()));
            incident.question_number += 1; // an answer to the question before means another target
        }
        (incident.target, incident.choices) = (target, choices);
    }
}

pub(super) fn outcome(outcome: Outcome, reason: &'static str, incident: Option<IncidentId>) -> AlertOutcome {
    AlertOutcome { outcome, reason, incident }
}

fn firing(tx: &mut Transaction<'_>, version: &VersionName, group: &[&Alert]) -> Vec<AlertOutcome> {
    // alerts on the target of a gradual rollback pause it if they ask for a rollback, and are handled as usual
    // otherwise
    let stops = |alert: &Alert| alert.trigger.action == Action::Rollback;
    let (urgent, rest): (Vec<&Alert>, Vec<&Alert>) = group.iter().copied().partition(|alert| stops(alert));
    let Some(stopped) = gradual::target_fails(tx, version, &urgent) else {
        return join_all(tx, version, group);
    };
    let heard = join_all(tx, version, &rest);
    let (mut stopped, mut heard) = (stopped.into_iter(), heard.into_iter());
    group.iter().filter_map(|alert| if stops(alert) { stopped.next() } else { heard.next() }).collect()
}

fn join_all(tx: &mut Transaction<'_>, version: &VersionName, group: &[&Alert]) -> Vec<AlertOutcome> {
    take_for_served(tx, version, group);
    let joined: Vec<Result<(IncidentId, Joined), AlertOutcome>> = group.iter().map(|alert| join(tx, alert)).collect();
    let Some(id) = joined.iter().find_map(|j| j.as_ref().ok()).map(|(id, _)| id.clone()) else {
        return joined.into_iter().filter_map(Result::err).collect();
    };
    let news = joined.iter().flatten().any(|(_, joined)| *joined != Joined::Again);
    let worse = |(alert, joined): &(&&Alert, &Result<(IncidentId, Joined), AlertOutcome>)| {
        let is_new = joined.as_ref().is_ok_and(|(_, joined)| *joined != Joined::Again);
        is_new && alert.trigger.severity >= Severity::High
    };
    if let Some((alert, _)) = group.iter().zip(&joined).find(worse) {
        gradual::stay(tx, version, &alert.alertname);
    }
    let asks_rollback = |alert: &Alert| alert.trigger.action == Action::Rollback;
    let urgent = group.iter().zip(&joined).any(|(alert, joined)| {
        asks_rollback(alert) && joined.as_ref().is_ok_and(|(_, joined)| *joined != Joined::Again)
    });
    let acted = if news { process(tx, &id, version, urgent) } else { process_if_unheld(tx, &id, version) };
    // an alert that was only refreshed, and so has no outcome of its own, may let a held alert act
    let came_by = !group.iter().any(|alert| asks_rollback(alert));
    let describe = |(alert, joined): (&&Alert, Result<(IncidentId, Joined), AlertOutcome>)| {
        let (id, joined) = match joined {
            Ok(joined) => joined,
            Err(outcome) => return outcome,
        };
        let rollback = asks_rollback(alert);
        let (what, reason) = match (&acted, joined) {
            (Some(Acted::RolledBack), _) if rollback || came_by => (Outcome::RolledBack, "alert"),
            (Some(Acted::Held(guard)), Joined::Opened | Joined::Updated(_)) if rollback => {
                (Outcome::Held, guard.as_str())
            }
            (Some(Acted::Confirming), Joined::Opened | Joined::Updated(_)) if rollback => (Outcome::Held, "confirming"),
            (_, Joined::Again) => (Outcome::Duplicate, "duplicate"),
            (_, Joined::Opened) => (Outcome::IncidentOpened, alert.trigger.action.as_str()),
            (_, Joined::Updated(reason)) => (Outcome::IncidentUpdated, reason),
        };
        outcome(what, reason, Some(id))
    };
    group.iter().zip(joined).map(describe).collect()
}

/// Adds a firing alert to the incident that it belongs to.
fn join(tx: &mut Transaction<'_>, alert: &Alert) -> Result<(IncidentId, Joined), AlertOutcome> {
    let now = tx.now;
    let refresh_after = tx.policy.refresh_after();
    let severity = alert.trigger.severity;
    let alert_resolve_timeout = tx.policy.alert_resolve_timeout;
    let silenced = tx.state.silences.iter_mut().find(|s| {
        s.fingerprint == alert.fingerprint
            && s.version == alert.version
            && severity <= s.severity
            && now.since(s.since) < alert_resolve_timeout
            && (s.dismissed_at.is_none_or(|at| alert.began(now).is_none_or(|began| began <= at))
                || (s.starts_at.is_some() && s.starts_at == alert.starts_at))
    });
    if let Some(silenced) = silenced {
        if now.since(silenced.since) >= refresh_after {
            silenced.since = now;
        }
        return Err(outcome(Outcome::Ignored, "dismissed", None));
    }
    let served = tx.has_traffic(&alert.version);
    if let Some(incident) = tx.state.open_incident_on(&alert.version) {
        let predates = incident.held.as_ref().is_some_and(|held| held.guard == Guard::PredatesActivation);
        if let Some(record) = incident.alerts.iter_mut().find(|r| r.covers(alert)) {
            record.absent_since = None; // it fires, whatever the last list of Alertmanager said
            if alert.began(now) > record.began(now) {
                // it resolved and fires again, but the `resolved` was not received
                record.starts_at = alert.starts_at;
                record.last_seen = now;
                if predates {
                    return Ok((incident.id.clone(), Joined::Updated("firing_again")));
                }
            }
            if now.since(record.last_seen) >= refresh_after {
                record.last_seen = now;
            }
            return Ok((incident.id.clone(), Joined::Again));
        }
        if incident.has_enough_without(alert) {
            return Ok((incident.id.clone(), Joined::Again));
        }
        if served {
            return Ok((incident.id.clone(), Joined::Updated(add(incident, alert, now))));
        }
    }
    if !served {
        remember_inactive(tx, alert);
        let known = tx.state.version(&alert.version).is_some();
        return Err(outcome(Outcome::Ignored, if known { "not_active" } else { "unknown_version" }, None));
    }
    let reopen_within = tx.policy.reopen_within;
    let resting = tx.state.incidents.iter_mut().find(|i| {
        i.version == alert.version
            && i.phase.kind() == PhaseKind::Resolved
            && i.switch.is_none() // an alert that fires now is not about a version that was rolled back there
            && i.closed_at.is_some_and(|at| now.since(at) < reopen_within)
    });
    if let Some(incident) = resting {
        reopen(incident, alert, now);
        let id = incident.id.clone();
        return Ok((id, Joined::Updated("reopened")));
    }
    Ok((open(tx, alert), Joined::Opened))
}

/// While `active` holds no valid version, an alert is the only evidence of what is served: a critical alert makes its
/// version count as served, unless it already fired while another version was served.
fn take_for_served(tx: &mut Transaction<'_>, version: &VersionName, group: &[&Alert]) {
    if !matches!(tx.snapshot.active, Active::Foreign(_)) || tx.has_traffic(version) {
        return;
    }
    let state = &tx.state;
    // an alert that was not received for long counts as ended
    let lately = |at: super::Timestamp| tx.now.since(at) < tx.policy.alert_resolve_timeout;
    let fired = |fingerprint: &str| {
        let inactive = |s: &InactiveAlert| s.alert.fingerprint == fingerprint && lately(s.alert.last_seen);
        state.inactive_alerts.iter().any(|s| s.version == *version && inactive(s))
            || state.silences.iter().any(|s| s.version == *version && s.fingerprint == fingerprint && lately(s.since))
    };
    let says_so = |alert: &&Alert| alert.trigger.severity == Severity::Critical && !fired(&alert.fingerprint);
    if !group.iter().any(says_so) {
        return;
    }
    let Some(lapsed) = tx.state.lapsed.as_mut().filter(|lapsed| lapsed.versions.len() < Policy::MAX_LAPSED) else {
        return;
    };
    lapsed.versions.push(version.clone());
    tx.hear_of(version);
    tx.state.version_entry(version, tx.now);
    tx.limit_versions(version);
}

pub(super) fn remember_inactive(tx: &mut Transaction<'_>, alert: &Alert) {
    let (now, refresh_after) = (tx.now, tx.policy.refresh_after());
    let known = tx.state.inactive_alerts.iter().any(|s| {
        s.alert.fingerprint == alert.fingerprint
            && s.version == alert.version
            && now.since(s.alert.last_seen) < refresh_after
    });
    let heard_of = !tx.state.versions.is_empty() || tx.served_text().is_some();
    if !known && heard_of {
        tx.remember([InactiveAlert { version: alert.version.clone(), alert: AlertRecord::new(alert, now) }]);
    }
}

/// Handles remembered alerts on a version as soon as it gets traffic, because Alertmanager may not repeat them for
/// hours.
pub(super) fn hear_inactive_alerts(tx: &mut Transaction<'_>) {
    tx.hears_inactive_alerts = true;
    for inactive in std::mem::take(&mut tx.returning) {
        let alert = inactive.alert.to_alert(&tx.snapshot.prompt, &inactive.version);
        if tx.has_traffic(&inactive.version) {
            firing(tx, &inactive.version, &[&alert]);
        }
    }
    tx.hears_inactive_alerts = false;
}

/// Adds an alert to an open incident, and returns how.
fn add(incident: &mut Incident, alert: &Alert, now: super::Timestamp) -> &'static str {
    incident.quiet_since = None;
    let text = describe(alert);
    let place = incident.alerts.iter().position(|r| r.fingerprint == alert.fingerprint);
    let (reason, text) = match place {
        Some(place) => {
            let was_firing = incident.alerts[place].firing;
            let first_seen = incident.alerts[place].first_seen;
            incident.alerts[place] = AlertRecord { first_seen, ..AlertRecord::new(alert, now) };
            if was_firing {
                ("worse", format!("got worse: {text}"))
            } else {
                ("firing_again", format!("fires again: {text}"))
            }
        }
        None => {
            if incident.alerts.len() >= Policy::MAX_ALERTS {
                // ended alerts are replaced first, then the least severe
                let victim = (0..incident.alerts.len()).min_by_key(|i| {
                    let record = &incident.alerts[*i];
                    (record.firing, record.rank())
                });
                incident.alerts.remove(victim.unwrap_or_default());
            }
            incident.alerts.push(AlertRecord::new(alert, now));
            ("joined", text)
        }
    };
    incident.note(now, NoteKind::Alert, text);
    reason
}

fn describe(alert: &Alert) -> String {
    let mut text = format!("{} ({})", alert.alertname, alert.trigger.severity);
    if !alert.summary.is_empty() {
        text.push_str(": ");
        text.push_str(&alert.summary);
    }
    for remark in &alert.trigger.remarks {
        text.push_str("; ");
        text.push_str(remark);
    }
    text
}

fn open(tx: &mut Transaction<'_>, alert: &Alert) -> IncidentId {
    let now = tx.now;
    let id = tx.next_id();
    let target = tx.state.target(Some(&alert.version), tx.policy, now).cloned();
    let (prompt, decider) = (tx.snapshot.prompt.clone(), tx.policy.fallback_decider.clone());
    let mut incident = Incident {
        target,
        time_limit: alert.trigger.time_limit,
        alerts: vec![AlertRecord::new(alert, now)],
        ..Incident::new(id.clone(), prompt, alert.version.clone(), decider, now)
    };
    incident.note(now, NoteKind::Opened, describe(alert));
    if let Some(why) = tx.passed_over(&alert.version) {
        incident.note(now, NoteKind::Alert, why);
    }
    tx.state.incidents.push(incident);
    id
}

/// Reopens the incident if the same alert fires again within `reopen_within`. Its clocks continue.
fn reopen(incident: &mut Incident, alert: &Alert, now: super::Timestamp) {
    incident.rewind(now); // closed incidents are not rewound with the clock
    add(incident, alert, now);
    incident.closed_at = None;
    incident.escalations = 0;
    incident.held = None;
    incident.phase = Phase::Observing { until: None };
    incident.note(now, NoteKind::Reopened, "fires again: the incident is open again");
}

/// Makes the incident follow the strongest of its firing alerts. `urgent`: one of the new alerts asks for a rollback.
fn process(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName, urgent: bool) -> Option<Acted> {
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
    let (strongest, worst) = (incident.strongest()?.clone(), incident.worst()?.clone());
    let stronger = (strongest.action, worst.severity) > (incident.action, incident.severity);
    let decider =
        if strongest.decider == Trigger::SYSTEM { policy.fallback_decider.clone() } else { strongest.decider.clone() };
    // the earlier decider may answer until another decider is asked
    let other = stronger || incident.target != target || incident.decider != decider;
    if let Some(why) = passed_over.filter(|_| incident.target != target) {
        incident.note(now, NoteKind::Alert, why);
    }
    incident.severity = worst.severity;
    incident.action = strongest.action;
    incident.time_limit = strongest.time_limit;
    // whoever was asked, or has it in hand, goes on where nobody else is asked
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
    incident.target = target.clone();
    incident.choices = choices;
    if incident.phase.kind() == PhaseKind::RollingBack {
        let waits = urgent || incident.held.is_some();
        let reason = (waits && strongest.action == Action::Rollback).then(|| why(&strongest));
        return gradual::on_alert(tx, id, reason.as_deref());
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
            let acts = [&strongest, &worst].into_iter().any(|alert| canary::acts_on(tx, version, alert));
            let skip_confirmation = acts && held.is_none() && !policy.requery;
            if !skip_confirmation || tx.lacks_content(&pending.to) {
                return Some(Acted::Asked); // the person's answer decides
            }
            // the alert answers the open question: the requested rollback happens, to the target that the person named
            let reason = format!("{} ({})", pending.reason, why(&strongest));
            tx.switch(Some(&pending.from), &pending.to, pending.by, &pending.operator, &reason, Some(id));
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
        hold_by(incident, now, held, other, heard);
        recheck::begin(tx, id, version);
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
                tx.switch(Some(version), &target, SwitchMode::Auto, &Operator::SYSTEM, &reason, Some(id));
                return Some(Acted::RolledBack);
            }
            (held, target) => {
                let held = held?; // a missing target is a guard of its own
                if let Some(to) = target.filter(|_| rehearsed && incident.dry_run.is_none()) {
                    let (from, trigger) = (version.clone(), strongest.alertname.clone());
                    incident.dry_run = Some(DryRunRollback { at: now, from, to, trigger });
                }
                let guard = held.guard;
                hold_by(incident, now, held, other, heard);
                recheck::begin(tx, id, version);
                return Some(Acted::Held(guard));
            }
        },
        Action::Page | Action::Recommend => ask(incident, now, other, heard),
        Action::Observe => {
            let opened_at = incident.opened_at;
            if let Phase::Observing { until: until @ None } = &mut incident.phase {
                // reopened: the observation continues
                *until = Some(opened_at.plus(strongest.time_limit).max(now));
            }
        }
    }
    Some(Acted::Asked)
}

/// Records that `active` no longer holds a version, and asks again if a question is open. Phases after the question
/// continue; a failed rollback is checked again at `rest`.
pub(super) fn report_lapse(tx: &mut Transaction<'_>, id: &IncidentId, fault: &str, rest: Option<super::Timestamp>) {
    let (now, heard) = (tx.now, tx.heard_of(id));
    if confirm::object_to_lapse(tx, id, fault) {
        return;
    }
    let Some(version) = tx.incident(id).map(|incident| incident.version.clone()) else { return };
    let asks = |incident: &Incident| incident.phase.kind() == PhaseKind::AwaitingDecision;
    let asks_rollback = tx.incident(id).is_some_and(|i| asks(i) && i.action == Action::Rollback);
    let held = if asks_rollback { tx.guard(&version) } else { None };
    let Some(incident) = tx.incident(id) else { return };
    let text = format!("{fault}: automatic rollbacks are held, and prompt servers keep the version they have");
    incident.note(now, NoteKind::Held, text);
    match &mut incident.phase {
        Phase::AwaitingDecision(question) if question.hold.is_none() => {
            if asks_rollback {
                incident.held = held;
            }
            ask(incident, now, true, heard);
        }
        Phase::Escalated { until, .. } => *until = rest,
        _ => {}
    }
}

fn hold_by(incident: &mut Incident, now: super::Timestamp, held: Held, changed: bool, heard: Option<u32>) {
    let other_guard = note_held(incident, now, held);
    ask(incident, now, changed || other_guard, heard);
}

/// Records the guard that holds the rollback. Returns whether it is another guard than before.
pub(super) fn note_held(incident: &mut Incident, now: super::Timestamp, held: Held) -> bool {
    let guard = held.guard;
    let other_guard = incident.held.as_ref().is_none_or(|before| before.guard != guard);
    if other_guard {
        incident.note(now, NoteKind::Held, format!("held ({}): {}", guard.as_str(), held.detail));
    }
    incident.held = Some(held);
    other_guard
}

/// Asks a person instead of rolling back.
pub(super) fn hold(tx: &mut Transaction<'_>, id: &IncidentId, held: Held) {
    let now = tx.now;
    let heard = tx.heard_of(id);
    if let Some(incident) = tx.incident(id) {
        hold_by(incident, now, held, false, heard);
    }
}

/// Repeats a rollback alert once its guard no longer applies, for example after automation was resumed or a version
/// became known-good. Not while a person investigates.
pub(super) fn process_if_unheld(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName) -> Option<Acted> {
    if gradual::held_is_over(tx, id) {
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
                .any(|alert| canary::acts_on(tx, version, alert))
    };
    if !waits || !tx.has_traffic(version) {
        return None;
    }
    let Some(held) = tx.guard(version) else { return process(tx, id, version, true) };
    // the guard that people were told of is gone, and another one holds it now
    let now = tx.now;
    let incident = tx.incident(id)?;
    if incident.held.as_ref().is_none_or(|before| before.guard != held.guard) {
        note_held(incident, now, held);
    }
    recheck::begin(tx, id, version);
    None
}

/// Asks the decider, within the time limit. A deadline that is already running can only move earlier. `heard`: the last
/// note of this incident that people received, if any.
fn ask(incident: &mut Incident, now: super::Timestamp, changed: bool, heard: Option<u32>) {
    let limit = now.plus(incident.time_limit);
    let pages = incident.pages();
    let (waiting, objection) = match &mut incident.phase {
        // the same question: one that has used all its escalations does not start over
        Phase::AwaitingDecision(question) if !changed => {
            question.deadline = question.deadline.map(|deadline| deadline.min(limit));
            return;
        }
        Phase::AwaitingDecision(question) => {
            let deadline = question.deadline.map_or(limit, |deadline| deadline.min(limit));
            (Some(deadline), question.objection.take()) // the decider already knows the objection and may overrule it
        }
        _ => (None, None),
    };
    call(incident, now, heard);
    // a page goes on until someone decides, also when it gets worse
    let escalations = if waiting.is_some() || pages { incident.escalations.min(1) } else { 0 };
    incident.ask(Question { objection, ..Question::until(waiting.unwrap_or(limit)) }, now);
    incident.escalations = escalations;
}

/// Notifies the decider. Not needed for a new incident, or if this event's own notes already do so.
fn call(incident: &mut Incident, now: super::Timestamp, heard: Option<u32>) {
    let Some(heard) = heard else { return };
    let calls = |kind| matches!(kind, NoteKind::Held | NoteKind::Reopened);
    if incident.notes.iter().any(|note| note.seq > heard && calls(note.kind)) {
        return;
    }
    let text = match incident.phase.kind() {
        PhaseKind::AwaitingDecision => "the question has changed: check the message again",
        PhaseKind::Investigating => "more severe than the alert under investigation: asking again",
        _ => "observation ended early: a person must decide",
    };
    incident.note(now, NoteKind::Asked, text);
}

fn why(alert: &AlertRecord) -> String {
    if alert.summary.is_empty() { alert.alertname.clone() } else { format!("{}: {}", alert.alertname, alert.summary) }
}
