//! Marks: a person declares a version bad or good. A mark moves no traffic; open questions follow it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::answer::{Answer, Marked};
use super::commit::{LogEntry, LogEvent};
use super::precondition::{must_be_known, unknown_version};
use super::transaction::Transaction;
use super::{gradual, question, transaction};
use crate::incident::Never;
use crate::{
    Incident, IncidentId, Mark, MarkKind, Marking, NoteKind, OrRefusal, Pending, Phase, PhaseKind, Policy, Question,
    SwitchMode, VersionName, VersionRecord,
};

pub(super) fn mark(tx: &mut Transaction<'_>, request: &Marking) -> OrRefusal<Answer> {
    let now = tx.now;
    let Marking { version, kind, reason, operator, incident } = request;
    must_be_known(tx)?;
    let Some(record) = tx.state.version(version) else {
        return Err(unknown_version(tx, version));
    };
    if is_marked(record, *kind, reason) {
        return Ok(answer(tx, request, true));
    }
    let before = ways(tx);
    let mark = Mark { kind: *kind, at: now, operator: operator.clone(), reason: reason.clone() };
    let said = format!("{operator} marked {version} as {}: {reason}", kind.as_str());
    if let Some(record) = tx.state.version_mut(version) {
        apply(record, mark);
    }
    let event = match kind {
        MarkKind::Bad => LogEvent::MarkBad,
        MarkKind::Good => LogEvent::MarkGood,
    };
    tx.log.push(LogEntry {
        event,
        from: None,
        to: Some(version.to_string()),
        reason: reason.clone(),
        operator: operator.clone(),
        incident: incident.clone(),
    });
    if let Some(id) = incident {
        note_in_closed(tx, id, &said);
    }
    for ((id, before), (_, after)) in before.into_iter().zip(ways(tx)) {
        let left = *kind == MarkKind::Bad && leave_it(tx, &id, version, after.first());
        let named = incident.as_ref() == Some(&id) || is_about(tx, &id, version);
        offer(tx, &id, &said, MarkEffect { before, after, left, named });
    }
    Ok(answer(tx, request, false))
}

fn answer(tx: &Transaction<'_>, request: &Marking, unchanged: bool) -> Answer {
    let percent = tx.state.percent(&request.version);
    let from = if percent > 0 { Some(&request.version) } else { tx.serving() };
    let target = tx.state.target(from, tx.policy, tx.now).cloned();
    Answer::Marked(Marked { kind: request.kind, unchanged, percent, target })
}

/// Whether the same mark is already there and still in force.
fn is_marked(record: &VersionRecord, kind: MarkKind, reason: &str) -> bool {
    let said = record.mark.as_ref().is_some_and(|mark| mark.kind == kind && mark.reason == reason);
    // a rollback ends the trust that a good mark gave
    said && (kind == MarkKind::Bad || (record.known_good.is_some() && record.quarantine.is_none()))
}

fn apply(record: &mut VersionRecord, mark: Mark) {
    match mark.kind {
        MarkKind::Bad => {
            record.known_good = None;
            record.soak = None;
            if let Some(quarantine) = &mut record.quarantine {
                quarantine.known_good = None; // an undo does not restore it
            }
        }
        MarkKind::Good => {
            record.trust(mark.at);
            record.quarantine = None;
        }
    }
    record.mark = Some(mark);
}

/// The possible targets of each open incident, the first choice first.
fn ways(tx: &Transaction<'_>) -> Vec<(IncidentId, Vec<VersionName>)> {
    let targets = tx.targets();
    let ways = |incident: &Incident| {
        (incident.id.clone(), transaction::choices(&targets, incident.subject(), &incident.version))
    };
    tx.state.open_incidents().map(ways).collect()
}

/// Notes the mark in the thread of an incident that is already closed.
fn note_in_closed(tx: &mut Transaction<'_>, id: &IncidentId, said: &str) {
    let now = tx.now;
    if tx.state.open_incidents().any(|incident| incident.id == *id) {
        return;
    }
    let known = tx.incident(id).is_some();
    tx.state.incidents.extend(tx.snapshot.incident.clone().filter(|closed| !known && closed.id == *id));
    let Some(incident) = tx.incident(id).cloned() else { return };
    let never = Bad::of(tx).never(&incident);
    if let Some(incident) = tx.incident(id) {
        incident.never = never;
        incident.note(now, NoteKind::Marked, said);
    }
}

fn is_about(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName) -> bool {
    tx.incident(id)
        .is_some_and(|i| i.version == *version || i.subject() == version || i.target.as_ref() == Some(version))
}

/// Cancels what is on its way to `version`, which was marked as bad. Returns whether something was, so that people must
/// decide again.
fn leave_it(tx: &mut Transaction<'_>, id: &IncidentId, version: &VersionName, instead: Option<&VersionName>) -> bool {
    let now = tx.now;
    let mark = tx.state.marked_bad(version).map(Mark::to_string).unwrap_or_default();
    let Some(incident) = tx.incident(id) else { return false };
    if incident.gradual().is_some_and(|split| split.arriving == *version) {
        gradual::pause(tx, id, format!("{version} is {mark}"));
        return false;
    }
    let Some(pending) = incident.pending().filter(|pending| pending.to == *version).cloned() else { return false };
    if let (SwitchMode::Auto, Some(to)) = (pending.by, instead) {
        // the alert asks to leave one version, whichever the target
        incident.confirm(Pending { to: to.clone(), at: now, ..pending }, now.plus(Policy::CONFIRM));
        return false;
    }
    incident.answered(pending.at);
    let held = tx.guard(&pending.from).filter(|_| pending.by == SwitchMode::Auto);
    let Some(incident) = tx.incident(id) else { return false };
    incident.held = held.or(incident.held.take());
    if incident.phase.is_undecided() {
        incident.ask_again(Question::until(now.plus(incident.time_limit)), now);
    }
    question::recheck(tx, id);
    true
}

/// The effect of a mark on one incident.
struct MarkEffect {
    /// The possible targets before and after the mark, the first choice first.
    before: Vec<VersionName>,
    after: Vec<VersionName>,
    /// Whether a requested rollback was cancelled.
    left: bool,
    /// Whether the incident is about the marked version, or the mark was made in its thread.
    named: bool,
}

/// Offers the targets that are possible now, and asks again if the question has changed.
fn offer(tx: &mut Transaction<'_>, id: &IncidentId, said: &str, news: MarkEffect) {
    let now = tx.now;
    let MarkEffect { before, after, left, named } = news;
    let Some(incident) = tx.incident(id) else { return };
    let undecided = incident.phase.is_undecided();
    let kind = incident.phase.kind();
    let asks = matches!(kind, PhaseKind::AwaitingDecision | PhaseKind::Investigating | PhaseKind::Escalated);
    let offers = undecided || kind == PhaseKind::Escalated;
    let first = after.first().cloned();
    let changed = asks && (left || before.first() != first.as_ref());
    if changed {
        let then = match &first {
            Some(to) => format!("a rollback would go to {to} now"),
            None => "no known-good version is left to roll back to".to_owned(),
        };
        incident.question_number += 1;
        if let Phase::AwaitingDecision(question) = &mut incident.phase {
            question.objection = None; // the objection was about another target
        }
        incident.note(now, NoteKind::Asked, format!("{said}: {then}"));
    } else if named {
        incident.note(now, NoteKind::Marked, said);
    }
    if offers && before != after {
        incident.choices = after;
        if undecided {
            incident.target = first;
        }
        incident.updated_at = now;
    }
}

/// Updates, for each open incident, the versions that are not offered, and why.
pub(super) fn follow(tx: &mut Transaction<'_>) {
    let bad = Bad::of(tx);
    if bad.marked.is_empty() && tx.state.open_incidents().all(|incident| incident.never.is_empty()) {
        return;
    }
    let told: Vec<Vec<Never>> = tx.state.open_incidents().map(|incident| bad.never(incident)).collect();
    let bad: HashSet<VersionName> = bad.marked.into_iter().map(|(version, _)| version.clone()).collect();
    let ways = ways(tx);
    let open = tx.state.incidents.iter_mut().filter(|incident| incident.phase.is_open());
    for ((incident, never), (_, ways)) in open.zip(told).zip(ways) {
        incident.never = never;
        incident.choices.retain(|choice| !bad.contains(choice));
        // its rollback to this version was cancelled, and people are asked again
        if incident.phase.is_undecided() && incident.target.as_ref().is_some_and(|target| bad.contains(target)) {
            incident.target = ways.first().cloned();
        }
    }
}

/// The versions that are marked as bad, the latest mark first.
struct Bad<'s> {
    marked: Vec<(&'s VersionName, &'s Mark)>,
    places: HashMap<&'s VersionName, usize>,
}

impl<'s> Bad<'s> {
    fn of(tx: &'s Transaction<'_>) -> Self {
        let marked = |record: &'s VersionRecord| Some((&record.version, record.marked_bad()?));
        let mut marked: Vec<_> = tx.state.versions.iter().filter_map(marked).collect();
        marked.sort_by_key(|(_, mark)| std::cmp::Reverse(mark.at));
        let places = marked.iter().enumerate().map(|(place, (version, _))| (*version, place)).collect();
        Self { marked, places }
    }

    /// The versions that `incident` does not offer, those that it is about first.
    fn never(&self, incident: &Incident) -> Vec<Never> {
        let switch = incident.switch.iter().flat_map(|switch| [&switch.from, &switch.to]);
        let about =
            [&incident.version].into_iter().chain(switch).filter_map(|version| self.places.get(version).copied());
        let about: BTreeSet<usize> = about.collect();
        let rest = (0..self.marked.len()).filter(|place| !about.contains(place));
        let never = |place: usize| {
            let (version, Mark { operator, reason, .. }) = self.marked[place];
            Never { version: version.clone(), operator: operator.clone(), reason: reason.clone() }
        };
        about.iter().copied().chain(rest).take(Policy::MAX_CHOICES).map(never).collect()
    }
}
