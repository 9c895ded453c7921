//! Questions to people: when one begins or changes, what objects to it, and what happens without an answer, or if Slack rejects it.

use super::answer::Answer;
use super::transaction::Transaction;
use crate::phase::{Objection, ObjectionKind};
use crate::{
    Action, Guard, Held, Incident, IncidentId, NoteKind, Pending, Phase, PhaseKind, Policy, Question, Recheck,
    Severity, SwitchMode, Timestamp, TrafficSplit, Trigger, Verdict,
};

/// Asks the decider, within the time limit. A deadline that is already running can only move earlier. `heard`: the last
/// note of this incident that people received, if any.
pub(super) fn ask(incident: &mut Incident, now: Timestamp, changed: bool, heard: Option<u32>) {
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
fn call(incident: &mut Incident, now: Timestamp, heard: Option<u32>) {
    let Some(heard) = heard else { return };
    let calls = |kind| matches!(kind, NoteKind::Held | NoteKind::Reopened);
    if incident.notes.iter().any(|note| note.seq > heard && calls(note.kind)) {
        return;
    }
    let text = match incident.phase.kind() {
        PhaseKind::AwaitingDecision => "the question has changed: check the message again",
        PhaseKind::Investigating => "an alert is more severe than the one under investigation: asking again",
        _ => "observation ended early: a person must decide",
    };
    incident.note(now, NoteKind::Asked, text);
}

fn hold_by(incident: &mut Incident, now: Timestamp, held: Held, changed: bool, heard: Option<u32>) {
    let other_guard = note_held(incident, now, held);
    ask(incident, now, changed || other_guard, heard);
}

/// Records the guard that holds the rollback. Returns whether it is another guard than before.
pub(super) fn note_held(incident: &mut Incident, now: Timestamp, held: Held) -> bool {
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

/// As [`hold`], for an alert. If its age is what holds it, Prometheus is asked about the requests since then.
pub(super) fn hold_alert(tx: &mut Transaction<'_>, id: &IncidentId, held: Held, changed: bool, heard: Option<u32>) {
    let now = tx.now;
    if let Some(incident) = tx.incident(id) {
        hold_by(incident, now, held, changed, heard);
    }
    recheck(tx, id);
}

/// Asks about the requests since its version got its traffic, while this guard holds `id`.
pub(super) fn recheck(tx: &mut Transaction<'_>, id: &IncidentId) {
    let Some(version) = tx.incident(id).map(|incident| incident.version.clone()) else { return };
    let since = tx.state.version(&version).and_then(|record| record.traffic_since);
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

/// Records that `active` no longer holds a version, and asks again if a question is open. Phases after the question
/// continue; a failed rollback is checked again at `rest`.
pub(super) fn report_lapse(tx: &mut Transaction<'_>, id: &IncidentId, fault: &str, rest: Option<Timestamp>) {
    let (now, heard) = (tx.now, tx.heard_of(id));
    if object_to_lapse(tx, id, fault) {
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

/// Records the objection and asks again. A second approval overrules it.
pub(super) fn object(tx: &mut Transaction<'_>, id: &IncidentId, pending: &Pending, kind: ObjectionKind, text: String) {
    let now = tx.now;
    let Some(incident) = tx.incident(id) else { return };
    let objection = Objection { kind, to: Some(pending.to.clone()), text };
    let (why, operator, then) = (&objection.text, &pending.operator, objection.remedy());
    let text = format!("not rolled back yet: {why}. {operator} may approve again to {then}");
    incident.note(now, NoteKind::Asked, text);
    match incident.phase {
        // people are still paged about the rollback that did not help, or about what was shipped instead
        Phase::Escalated { .. } | Phase::Verifying { .. } => incident.question_number += 1,
        _ => {
            let question = Question::until(now.plus(incident.time_limit));
            incident.ask(Question { objection: Some(objection), ..question }, now);
        }
    }
    recheck(tx, id);
}

/// `active` lost its version after a person decided: the person decides again, because nothing is overwritten unseen.
fn object_to_lapse(tx: &mut Transaction<'_>, id: &IncidentId, fault: &str) -> bool {
    let Some(incident) = tx.incident(id) else { return false };
    let asked = incident.pending().filter(|pending| pending.by != SwitchMode::Auto).map(|pending| pending.at);
    let Some(pending) = asked.and_then(|at| incident.answered(at)) else { return false };
    object_by_lapse(tx, id, &pending, fault.to_owned());
    true
}

/// Keeps an earlier page: nothing has been decided.
pub(super) fn object_by_lapse(tx: &mut Transaction<'_>, id: &IncidentId, pending: &Pending, fault: String) {
    let Some(escalations) = tx.incident(id).map(|incident| incident.escalations) else { return };
    object(tx, id, pending, ObjectionKind::Changed, fault);
    if let Some(incident) = tx.incident(id) {
        incident.escalations = escalations.min(Policy::ESCALATIONS - 1);
    }
}

/// The deadline of its phase has passed.
pub(super) fn deadline_passed(tx: &mut Transaction<'_>, id: &IncidentId) {
    let now = tx.now;
    let Some(incident) = tx.incident(id) else { return };
    let firing = incident.is_firing();
    let limit = incident.time_limit;
    match &mut incident.phase {
        Phase::Observing { .. } if firing => {
            incident.note(now, NoteKind::Asked, "still firing after the observation period: a person must decide");
            incident.ask(Question::until(now.plus(Policy::AFTER_OBSERVING)), now);
        }
        // resolved, but not for long enough: the quiet period decides
        Phase::Observing { until } => *until = None,
        Phase::AwaitingDecision(question) => {
            incident.escalations += 1;
            question.overdue = true;
            let again = limit.max(Policy::ESCALATE_EVERY);
            question.deadline = (incident.escalations < Policy::ESCALATIONS).then(|| now.plus(again));
            let (nth, of) = (incident.escalations, Policy::ESCALATIONS);
            let text = format!("no decision before the deadline (escalation {nth} of {of})");
            incident.note(now, NoteKind::Escalated, text);
        }
        Phase::Investigating { .. } => {
            incident.note(now, NoteKind::Asked, "still under investigation: asking again");
            incident.ask(Question::until(now.plus(limit)), now);
        }
        _ => {}
    }
    recheck(tx, id);
}

/// Pages the decider of `id`, because Slack permanently rejects the question everywhere, or in the decider's channel.
pub(super) fn page_instead(tx: &mut Transaction<'_>, id: &IncidentId, why: &str) -> Answer {
    let now = tx.now;
    if let Some(incident) = tx.incident(id).filter(|i| i.phase.is_open() && !i.undeliverable) {
        incident.undeliverable = true; // also for a later question
        if incident.phase.is_undecided() {
            incident.note(now, NoteKind::Escalated, format!("{why}: escalated"));
        }
    }
    Answer::Noted
}

/// Lets the fallback decider answer what a decider was asked who is no longer configured.
pub(super) fn reassign(tx: &mut Transaction<'_>) {
    let (now, policy) = (tx.now, tx.policy);
    let gone = |i: &&mut Incident| i.phase.is_open() && !Trigger::knows(&i.decider, policy);
    for incident in tx.state.incidents.iter_mut().filter(gone) {
        let before = std::mem::replace(&mut incident.decider, policy.fallback_decider.clone());
        if incident.question_number > 0 || incident.pages() {
            incident.question_number += 1;
            if let Phase::AwaitingDecision(question) = &mut incident.phase {
                question.overdue = false; // not missed by the new decider
            }
            let text = format!("{before} is no longer configured: {} decides", incident.decider);
            incident.note(now, NoteKind::Asked, text);
        }
    }
}

/// Asks people once about a canary that does not advance.
pub(super) fn ask_about_canary(tx: &mut Transaction<'_>, why: &str) {
    let Some(split) = tx.state.running_canary().map(|canary| canary.split.clone()) else { return };
    let text = format!(
        "the canary of {} stays at {} %: {why}. Approve moves all traffic back to {}; dismiss keeps it waiting; \
         skip and promote continue it",
        split.arriving,
        split.percent(),
        split.leaving
    );
    let observed = tx.state.open_incident_on(&split.arriving).map(|incident| incident.id.clone());
    let id = match observed {
        Some(id) => {
            ask_early(tx, &id, text);
            id
        }
        None => open_about_canary(tx, &split, text),
    };
    if let Some(waiting) = tx.state.canary.as_mut().and_then(|canary| canary.waiting.as_mut()) {
        waiting.asked = Some(id);
    }
}

/// Asks about the canary in its open incident, before the observation there is over.
fn ask_early(tx: &mut Transaction<'_>, id: &IncidentId, text: String) {
    let (now, heard) = (tx.now, tx.heard_of(id));
    let Some(incident) = tx.incident(id) else { return };
    incident.note(now, NoteKind::Checked, text);
    ask(incident, now, true, heard);
}

fn open_about_canary(tx: &mut Transaction<'_>, split: &TrafficSplit, text: String) -> IncidentId {
    let now = tx.now;
    let id = tx.next_id();
    let (prompt, decider) = (tx.snapshot.prompt.clone(), tx.policy.fallback_decider.clone());
    let mut incident = Incident {
        phase: Phase::AwaitingDecision(Question::until(now.plus(Policy::CANARY_QUESTION))),
        severity: Severity::Medium,
        action: Action::Recommend,
        target: Some(split.leaving.clone()),
        time_limit: Policy::CANARY_QUESTION,
        ..Incident::new(id.clone(), prompt, split.arriving.clone(), decider, now)
    };
    incident.note(now, NoteKind::Opened, text);
    tx.state.incidents.push(incident);
    id
}

/// Closes the question about the canary.
pub(super) fn close_about_canary(tx: &mut Transaction<'_>, why: &str) {
    let now = tx.now;
    let waiting = tx.state.canary.as_ref().and_then(|canary| canary.waiting.as_ref());
    let Some(id) = waiting.and_then(|waiting| waiting.asked.clone()) else { return };
    if let Some(incident) = tx.incident(&id).filter(|incident| is_only_a_question(incident)) {
        incident.close(Phase::Resolved, now, why);
    }
}

/// The incident that asked about the canary ended with its alerts without an answer, so the next check asks again.
pub(super) fn reopen_about_canary(tx: &mut Transaction<'_>, id: &IncidentId) {
    let waiting = tx.state.canary.as_mut().filter(|canary| canary.end.is_none()).and_then(|c| c.waiting.as_mut());
    if let Some(waiting) = waiting.filter(|waiting| waiting.asked.as_ref() == Some(id)) {
        (waiting.asked, waiting.harm) = (None, false);
    }
}

/// Closes a question about the canary that was not answered for a day, without a page and without another question.
pub(super) fn withdraw_about_canary(tx: &mut Transaction<'_>, id: &IncidentId) -> bool {
    let waiting = tx.state.canary.as_ref().and_then(|canary| canary.waiting.as_ref());
    let own = waiting.is_some_and(|waiting| waiting.asked.as_ref() == Some(id));
    let only = tx.incident(id).is_some_and(|incident| is_only_a_question(incident));
    if own && only {
        close_about_canary(tx, "no decision within a day: the canary keeps waiting");
    }
    own && only
}

/// The incident is only the question about the canary that is under way.
pub(super) fn is_about_canary(tx: &Transaction<'_>, id: &IncidentId) -> bool {
    let waiting = tx.state.running_canary().and_then(|canary| canary.waiting.as_ref());
    let own = waiting.is_some_and(|waiting| waiting.asked.as_ref() == Some(id));
    own && tx.state.open_incidents().any(|incident| incident.id == *id && is_only_a_question(incident))
}

/// It is only the question about a canary that lacks figures: nothing is said against its version.
pub(super) fn wants_only_evidence(tx: &Transaction<'_>, id: &IncidentId) -> bool {
    let last = tx.state.running_canary().and_then(|canary| canary.split.last.as_ref());
    is_about_canary(tx, id) && last.is_none_or(|check| check.finding.verdict != Verdict::Unhealthy)
}

/// It holds no alert and no rollback.
pub(super) fn is_only_a_question(incident: &Incident) -> bool {
    let waits = incident.phase.is_undecided() && incident.pending().is_none();
    waits && incident.alerts.is_empty() && incident.switch.is_none()
}
