//! Decisions about delivered alerts.

use std::collections::HashMap;

use super::answer::{AlertOutcome, Outcome};
use super::response::Acted;
use super::snapshot::Active;
use super::transaction::Transaction;
use super::{ended, gradual, response, transaction};
use crate::state::Silence;
use crate::{
    Action, Alert, AlertRecord, AlertStatus, Guard, InactiveAlert, Incident, IncidentId, NoteKind, ObjectionKind,
    OutcomeReason, Phase, PhaseKind, Policy, Severity, Timestamp, Trigger, VersionName,
};

/// What an alert did to the incident of its version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Opened,
    Updated(OutcomeReason),
    /// A repeat whose decider is another one, because the config has changed.
    Reassigned,
    /// A repeat: it asks for nothing new, unless the guard that held it no longer applies.
    Again,
}

impl Joined {
    /// Whether the alert itself says something new.
    fn is_news(self) -> bool {
        matches!(self, Joined::Opened | Joined::Updated(_))
    }
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
            *outcome = Some(AlertOutcome::new(Outcome::Ignored, OutcomeReason::AlreadyResolved, None));
        }
    }
    let mut groups = by_version(alerts, &outcomes);
    // the base of a canary comes first: a rollback from it also ends the canary, so traffic moves once
    let canary = tx.state.running_canary().map(|canary| canary.split.clone());
    let is_base = |version: &VersionName| canary.as_ref().is_some_and(|split| split.leaving == *version);
    groups.sort_by_cached_key(|(version, _)| {
        let target = tx.state.gradual_to(version).is_some();
        (tx.has_traffic(version), !target, !is_base(version))
    });
    let of_canary = canary.as_ref().and_then(|split| groups.iter().find(|(version, _)| **version == split.arriving));
    let of_canary: Vec<&Alert> = of_canary.iter().flat_map(|(_, places)| places).map(|place| &alerts[*place]).collect();
    for (version, places) in groups {
        let group: Vec<&Alert> = places.iter().map(|place| &alerts[*place]).collect();
        let beside: &[&Alert] = if is_base(version) { &of_canary } else { &[] };
        for (place, outcome) in places.into_iter().zip(firing_beside(tx, version, &group, beside)) {
            outcomes[place] = Some(outcome);
        }
    }
    // every alert is either resolved or belongs to one of the versions
    outcomes
        .into_iter()
        .map(|o| o.unwrap_or_else(|| AlertOutcome::new(Outcome::Ignored, OutcomeReason::NotActive, None)))
        .collect()
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

/// Each open question names the targets that it has now: an alert may have begun or ended on a version that a rollback could
/// go to, somebody may vouch for one, or one has lost its traffic.
pub(super) fn follow_targets(tx: &mut Transaction<'_>) {
    let now = tx.now;
    let asks = |incident: &&Incident| incident.phase.is_undecided() && incident.version == *incident.subject();
    let undecided = tx.state.open_incidents().filter(asks);
    let targets = tx.targets();
    let news = undecided.map(|incident| {
        let version = &incident.version;
        (
            incident.id.clone(),
            transaction::choices(&targets, version, version),
            transaction::passed_over(&targets, version),
        )
    });
    let news: Vec<_> = news.collect();
    // who is paged about a rollback, or about what was shipped instead, chooses as well
    let chooses = |i: &&Incident| !asks(i) && (i.awaits_decision() || i.gradual().is_some());
    let choosing = tx.state.open_incidents().filter(chooses);
    let choosing = choosing.map(|i| (i.id.clone(), transaction::choices(&targets, i.subject(), &i.version)));
    let choosing: Vec<_> = choosing.collect();
    for (id, choices, passed_over) in news {
        let known = tx.heard_of(&id).is_some();
        let Some(incident) = tx.incident(&id) else { continue };
        let target = choices.first().cloned();
        if known && incident.target != target {
            let text = passed_over.unwrap_or_else(|| new_target(target.as_ref()));
            incident.note(now, NoteKind::Alert, text);
            incident.question_number += 1; // an answer to the question before means another target
            if let Phase::AwaitingDecision(question) = &mut incident.phase {
                question.objection.take_if(|objection| objection.kind != ObjectionKind::Changed);
            }
        }
        (incident.target, incident.choices) = (target, choices);
    }
    let snapshot = tx.snapshot;
    for (id, choices) in choosing {
        let asked = snapshot.state.incidents.iter().find(|i| i.id == id).map(|i| i.question_number);
        let Some(incident) = tx.incident(&id) else { continue };
        if asked == Some(incident.question_number) && incident.choices.first() != choices.first() {
            incident.note(now, NoteKind::Alert, new_target(choices.first()));
            incident.question_number += 1; // an answer to the question before means another target
        }
        incident.choices = choices;
    }
}

fn new_target(target: Option<&VersionName>) -> String {
    target.map_or_else(|| "no rollback target is left".to_owned(), |to| format!("{to} is the rollback target now"))
}

/// As [`firing`]. A rollback from `version` goes to no version that `beside` fires on, although that is handled later.
fn firing_beside(
    tx: &mut Transaction<'_>,
    version: &VersionName,
    group: &[&Alert],
    beside: &[&Alert],
) -> Vec<AlertOutcome> {
    let now = tx.now;
    let is_beside = |s: &InactiveAlert| beside.iter().any(|alert| alert.version == s.version);
    let inactive =
        |alert: &&Alert| InactiveAlert { version: alert.version.clone(), alert: AlertRecord::new(alert, now) };
    tx.state.inactive_alerts.extend(beside.iter().map(inactive));
    let outcomes = firing(tx, version, group);
    tx.state.inactive_alerts.retain(|s| !is_beside(s));
    outcomes
}

fn firing(tx: &mut Transaction<'_>, version: &VersionName, group: &[&Alert]) -> Vec<AlertOutcome> {
    // alerts on the target of a gradual rollback pause it if they ask for a rollback, and are handled as usual
    // otherwise
    let stops = |alert: &Alert| alert.trigger.action == Action::Rollback;
    let (urgent, rest): (Vec<&Alert>, Vec<&Alert>) = group.iter().copied().partition(|alert| stops(alert));
    let Some(stopped) = target_fails(tx, version, &urgent) else {
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
        let is_new = joined.as_ref().is_ok_and(|(_, joined)| joined.is_news());
        is_new && alert.trigger.severity >= Severity::High
    };
    if let Some((alert, _)) = group.iter().zip(&joined).find(worse) {
        gradual::stay(tx, version, &alert.alertname);
    }
    let asks_rollback = |alert: &Alert| alert.trigger.action == Action::Rollback;
    let urgent = group
        .iter()
        .zip(&joined)
        .any(|(alert, joined)| asks_rollback(alert) && joined.as_ref().is_ok_and(|(_, joined)| joined.is_news()));
    let acted =
        if news { response::process(tx, &id, version, urgent) } else { response::process_if_unheld(tx, &id, version) };
    // an alert that was only refreshed, and so has no outcome of its own, may let a held alert act
    let came_by = !group.iter().any(|alert| asks_rollback(alert));
    let describe = |(alert, joined): (&&Alert, Result<(IncidentId, Joined), AlertOutcome>)| {
        let (id, joined) = match joined {
            Ok(joined) => joined,
            Err(outcome) => return outcome,
        };
        let rollback = asks_rollback(alert);
        let (what, reason) = match (&acted, joined) {
            (Some(Acted::RolledBack), _) if rollback || came_by => (Outcome::RolledBack, OutcomeReason::Alert),
            (Some(Acted::Held(guard)), Joined::Opened | Joined::Updated(_)) if rollback => {
                (Outcome::Held, OutcomeReason::Guard(*guard))
            }
            (Some(Acted::Confirming), Joined::Opened | Joined::Updated(_)) if rollback => {
                (Outcome::Held, OutcomeReason::Confirming)
            }
            (_, Joined::Again) => (Outcome::Duplicate, OutcomeReason::Duplicate),
            (_, Joined::Reassigned) => (Outcome::IncidentUpdated, OutcomeReason::Joined),
            (_, Joined::Opened) => (Outcome::IncidentOpened, OutcomeReason::Action(alert.trigger.action)),
            (_, Joined::Updated(reason)) => (Outcome::IncidentUpdated, reason),
        };
        AlertOutcome::new(what, reason, Some(id))
    };
    group.iter().zip(joined).map(describe).collect()
}

/// Adds a firing alert to the incident that it belongs to.
fn join(tx: &mut Transaction<'_>, alert: &Alert) -> Result<(IncidentId, Joined), AlertOutcome> {
    let (policy, now) = (tx.policy, tx.now);
    let refresh_after = policy.refresh_after();
    let severity = alert.trigger.severity;
    let alert_resolve_timeout = policy.alert_resolve_timeout;
    let silenced = tx.state.silences.iter_mut().find(|s| {
        s.fingerprint == alert.fingerprint
            && s.version == alert.version
            && severity <= s.severity
            && now.since(s.since) < alert_resolve_timeout
            && (!began_since(s, alert, now) || (s.starts_at.is_some() && s.starts_at == alert.starts_at))
    });
    if let Some(silenced) = silenced {
        if now.since(silenced.since) >= refresh_after {
            silenced.since = now;
        }
        return Err(AlertOutcome::new(Outcome::Ignored, OutcomeReason::Dismissed, None));
    }
    let served = tx.has_traffic(&alert.version);
    if let Some(incident) = tx.state.open_incident_on(&alert.version) {
        let waits_for_news = |guard: Guard| guard == Guard::PredatesActivation || guard.waits_for_news();
        let waits = incident.held.as_ref().is_some_and(|held| waits_for_news(held.guard));
        if let Some(record) = incident.alerts.iter_mut().find(|r| r.covers(alert)) {
            record.absent_since = None; // it fires, whatever the last list of Alertmanager said
            if alert.began(now) > record.began(now) {
                // it resolved and fires again, but the `resolved` was not received
                record.starts_at = alert.starts_at;
                record.last_seen = now;
                if waits {
                    return Ok((incident.id.clone(), Joined::Updated(OutcomeReason::FiringAgain)));
                }
            }
            if now.since(record.last_seen) >= refresh_after {
                record.last_seen = now;
            }
            if record.decider != alert.trigger.decider && !Trigger::knows(&record.decider, policy) {
                record.decider.clone_from(&alert.trigger.decider); // the config has changed
                if served {
                    return Ok((incident.id.clone(), Joined::Reassigned));
                }
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
        return Err(AlertOutcome::new(
            Outcome::Ignored,
            if known { OutcomeReason::NotActive } else { OutcomeReason::UnknownVersion },
            None,
        ));
    }
    let reopen_within = tx.policy.reopen_within;
    let resting = tx.state.incidents.iter_mut().find(|i| {
        i.version == alert.version
            && i.phase.kind() == PhaseKind::Resolved
            && i.switch.is_none() // an alert that fires now is not about a version that was rolled back there
            && !i.alerts.is_empty() // only an alert can fire again
            && i.closed_at.is_some_and(|at| now.since(at) < reopen_within)
    });
    if let Some(incident) = resting {
        reopen(incident, alert, now);
        let id = incident.id.clone();
        return Ok((id, Joined::Updated(OutcomeReason::Reopened)));
    }
    Ok((open(tx, alert), Joined::Opened))
}

/// Whether `alert` began after `silence`: another outbreak. The sender's clock may be ahead.
fn began_since(silence: &Silence, alert: &Alert, now: Timestamp) -> bool {
    let Some(dismissed_at) = silence.dismissed_at else { return false };
    match alert.began(now) {
        Some(began) => began > dismissed_at,
        // much further ahead, it says nothing
        None => {
            let ahead = alert.starts_at.filter(|at| *at > now && at.since(now) < Policy::QUIET);
            ahead.is_some() && silence.starts_at.is_some_and(|at| Some(at) < ahead)
        }
    }
}

/// While `active` holds no valid version, an alert is the only evidence of what is served: a critical alert makes its
/// version count as served, unless it already fired while another version was served.
fn take_for_served(tx: &mut Transaction<'_>, version: &VersionName, group: &[&Alert]) {
    if !matches!(tx.snapshot.active, Active::Foreign(_)) || tx.has_traffic(version) {
        return;
    }
    let state = &tx.state;
    // an alert that was not received for long counts as ended
    let lately = |at: Timestamp| tx.now.since(at) < tx.policy.alert_resolve_timeout;
    let fired = |fingerprint: &str| {
        let inactive = |s: &InactiveAlert| s.alert.fingerprint == fingerprint && lately(s.alert.last_seen);
        let open = state.open_incidents().filter(|incident| incident.version == *version);
        open.flat_map(|incident| &incident.alerts).any(|a| a.fingerprint == fingerprint && a.firing)
            || state.inactive_alerts.iter().any(|s| s.version == *version && inactive(s))
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
    // what is delivered now is newer than what is remembered of it
    tx.returning.retain(|old| old.version != *version || group.iter().all(|a| a.fingerprint != old.alert.fingerprint));
    tx.version_entry(version);
    tx.limit_versions(version);
}

pub(super) fn remember_inactive(tx: &mut Transaction<'_>, alert: &Alert) {
    let (now, refresh_after) = (tx.now, tx.policy.refresh_after());
    let heard_of = !tx.state.versions.is_empty() || tx.served_text().is_some();
    let is_known = |s: &&mut InactiveAlert| {
        s.version == alert.version && s.alert.covers(alert) && now.since(s.alert.last_seen) < refresh_after
    };
    if let Some(known) = tx.state.inactive_alerts.iter_mut().find(is_known) {
        known.alert.absent_since = None; // it fires, whatever the last list of Alertmanager said
    } else if heard_of {
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
fn add(incident: &mut Incident, alert: &Alert, now: Timestamp) -> OutcomeReason {
    incident.quiet_since = None;
    let text = describe(alert);
    let place = incident.alerts.iter().position(|r| r.fingerprint == alert.fingerprint);
    let (reason, text) = match place {
        Some(place) => {
            let was_firing = incident.alerts[place].firing;
            let first_seen = incident.alerts[place].first_seen;
            incident.alerts[place] = AlertRecord { first_seen, ..AlertRecord::new(alert, now) };
            if was_firing {
                (OutcomeReason::Worse, format!("got worse: {text}"))
            } else {
                (OutcomeReason::FiringAgain, format!("fires again: {text}"))
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
            (OutcomeReason::Joined, text)
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
fn reopen(incident: &mut Incident, alert: &Alert, now: Timestamp) {
    incident.rewind(now); // closed incidents are not rewound with the clock
    add(incident, alert, now);
    incident.closed_at = None;
    incident.escalations = 0;
    incident.held = None;
    incident.phase = Phase::Observing { until: None };
    incident.note(now, NoteKind::Reopened, "the alert fires again: the incident is open again");
}

/// Pauses the gradual rollback whose target `group` wants to roll back, and notifies people. `None`: the target is not
/// one of a gradual rollback.
fn target_fails(tx: &mut Transaction<'_>, version: &VersionName, group: &[&Alert]) -> Option<Vec<AlertOutcome>> {
    let to_version = |i: &&Incident| i.gradual().is_some_and(|split| split.arriving == *version);
    let id = tx.state.open_incidents().find(to_version)?.id.clone();
    let why = format!("{} fires on {version}", group.first()?.alertname);
    let mut news = false;
    let mut outcomes = Vec::with_capacity(group.len());
    for alert in group {
        let known = |s: &InactiveAlert| s.version == *version && s.alert.fingerprint == alert.fingerprint;
        let (what, reason) = match tx.state.inactive_alerts.iter().any(known) {
            true => (Outcome::Duplicate, OutcomeReason::Duplicate),
            false => (Outcome::IncidentUpdated, OutcomeReason::Guard(Guard::TargetUnhealthy)),
        };
        news |= what != Outcome::Duplicate;
        remember_inactive(tx, alert);
        outcomes.push(AlertOutcome::new(what, reason, Some(id.clone())));
    }
    if news {
        gradual::pause(tx, &id, why); // who let it go on knew of the rest
    }
    Some(outcomes)
}
