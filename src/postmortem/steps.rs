//! The steps from the first bad response to recovery: when, how long each took, and whether that met its limit.

use std::time::Duration;

use super::PostmortemFacts;
use super::text::{moment, took};
use crate::decision::note::NoteKind;
use crate::decision::{Action, PhaseKind, Policy, Timestamp};
use crate::wording::change;

/// A limit of the trigger table or the config, and whether it was met.
struct Limit {
    within: Duration,
    /// The event from which the time is measured, after "the".
    since: &'static str,
    taken: Option<Duration>,
    /// The result if it never happened.
    otherwise: &'static str,
}

struct TimelineStep {
    name: &'static str,
    at: Option<Timestamp>,
    limit: Option<Limit>,
}

/// A table of the steps. Contains no external text.
pub fn table(facts: &PostmortemFacts<'_>) -> String {
    let steps = steps(facts);
    let mut table = String::from("| step | at | after the previous step | limit |\n|---|---|---|---|\n");
    let mut before: Option<Timestamp> = None;
    for TimelineStep { name, at, limit } in &steps {
        let gap = match (*at, before) {
            (Some(at), Some(before)) if at < before => format!("{} earlier", took(before.since(at))),
            (Some(at), Some(before)) => took(at.since(before)),
            _ => "–".to_owned(),
        };
        let at_text = at.map_or("–".to_owned(), moment);
        let limit = limit.as_ref().map_or("–".to_owned(), Limit::describe);
        table.push_str(&format!("| {name} | {at_text} | {gap} | {limit} |\n"));
        before = at.or(before);
    }
    let first = steps.iter().find_map(|step| step.at);
    if let (Some(first), Some(last)) = (first, before)
        && last > first
    {
        table.push_str(&format!("\nFrom the first step to the last: {}.\n", took(last.since(first))));
    }
    table.push_str(
        "\nClocks: the first bad sample and the alert are in Prometheus' time, everything else is in Redis' time.\n",
    );
    table
}

impl Limit {
    fn describe(&self) -> String {
        let Self { within, since, taken, otherwise } = self;
        match taken {
            Some(taken) if taken <= within => format!("{} of {} since the {since}: met", took(*taken), took(*within)),
            Some(taken) => format!("{} of {} since the {since}: missed", took(*taken), took(*within)),
            None => format!("{} since the {since}: {otherwise}", took(*within)),
        }
    }
}

fn steps(facts: &PostmortemFacts<'_>) -> Vec<TimelineStep> {
    let incident = facts.incident;
    let step = |name, at| TimelineStep { name, at, limit: None };
    let decided = decided_at(facts);
    let in_hand = facts.incident.notes.iter().find(|note| note.kind == NoteKind::Decided).map(|note| note.at);
    let in_hand = in_hand.filter(|at| decided.is_none_or(|decided| *at < decided));
    let switched = incident.switch.as_ref().map(|switch| switch.at);

    let mut steps = vec![step("first bad sample", facts.samples.and_then(|samples| samples.first_bad()))];
    if !incident.alerts.is_empty() {
        steps.push(step("detected (the alert began)", facts.alert_began()));
    }
    steps.push(step("received", Some(incident.opened_at)));
    if in_hand.is_some() {
        // in an outage, a person may have put it on hold
        let name = if incident.outage { "first response" } else { "under investigation" };
        steps.push(step(name, in_hand));
    }
    let answered = in_hand.or(decided);
    steps.push(TimelineStep { name: "decided", at: decided, limit: decision_limit(facts, answered) });
    let earlier = facts.earlier_rollback().map(|note| note.at);
    if earlier.is_some() {
        steps.push(step("rolled back", earlier));
    }
    if earlier.is_none() || switched.is_some() {
        let name = match earlier {
            _ if incident.is_shipped() => "replaced",
            Some(_) => "rolled back again",
            None => "rolled back",
        };
        steps.push(step(name, switched));
    }
    let recovered = facts.recovered_at();
    let limit = switched.map(|switched| Limit {
        within: facts.verification_deadline,
        since: change(incident),
        taken: recovered.map(|at| at.since(switched)),
        otherwise: match incident.phase.kind() {
            PhaseKind::Escalated => "missed",
            PhaseKind::Unverified => "missed, recovery could not be measured",
            phase if phase.is_open() => "still running",
            _ => "ended by a person",
        },
    });
    steps.push(TimelineStep { name: "recovered", at: recovered, limit });
    steps
}

/// When the question was answered or ended.
pub fn decided_at(facts: &PostmortemFacts<'_>) -> Option<Timestamp> {
    let incident = facts.incident;
    if let Some(note) = facts.earlier_rollback() {
        return Some(facts.begun_at(note)); // later switches answer other questions
    }
    match (&incident.switch, incident.phase.kind()) {
        (Some(_), _) => incident.rollback_decided_at(),
        (None, PhaseKind::Dismissed) => incident.closed_at,
        (None, _) => None,
    }
}

/// The time limit of the strongest alert. `answered`: when a person decided or began to investigate, which stops the
/// clock.
fn decision_limit(facts: &PostmortemFacts<'_>, answered: Option<Timestamp>) -> Option<Limit> {
    let incident = facts.incident;
    if incident.alerts.is_empty() {
        return None; // no one was asked: a person decided unasked
    }
    let asked = |alert: &&crate::decision::alert::AlertRecord| alert.rank() == (incident.action, incident.severity);
    let first = incident.alerts.iter().filter(asked).map(|alert| alert.first_seen).min().unwrap_or(incident.opened_at);
    let by = answered.unwrap_or(incident.updated_at);
    let again = incident.notes.iter().rev().find(|note| note.kind == NoteKind::Reopened && note.at <= by);
    let since = again.map_or(first, |note| first.max(note.at));
    let within = match incident.action {
        // first observed, then asked
        Action::Observe => incident.time_limit + Policy::AFTER_OBSERVING,
        _ => incident.time_limit,
    };
    let otherwise = match incident.phase.kind() {
        _ if incident.escalations > 0 => "missed",
        phase if phase.is_open() => "still running",
        _ => "ended earlier",
    };
    let taken = answered.map(|at| at.since(since));
    Some(Limit { within, since: "alert", taken, otherwise })
}
