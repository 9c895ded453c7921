//! Events for programs, as CloudEvents 1.0, derived from what a commit writes: entries of the deployment log, and notes
//! of incidents. Pure.

mod body;
mod kind;
#[cfg(test)]
mod tests;

use crate::decision::decide::IncidentWrite;
use crate::decision::note::{Note, NoteKind};
use crate::decision::{
    Answer, Choice, Commit, Event, Incident, LogEntry, LogEvent, Operator, PhaseKind, Policy, Snapshot, Timestamp,
    Trace, VersionName,
};

pub use body::{Heading, ping, rfc3339};
pub use kind::Kind;

use body::{EventDetails, Making};

/// A commit, and its cause.
#[derive(Debug, Clone, Copy)]
pub struct Happened<'a> {
    /// The source of the events: [`source`].
    pub source: &'a str,
    pub policy: &'a Policy,
    pub event: &'a Event,
    pub answer: &'a Answer,
    pub before: &'a Snapshot,
    pub commit: &'a Commit,
    pub now: Timestamp,
    /// The trace that it belongs to, where one is recorded.
    pub trace: Option<&'a Trace>,
}

/// The name of all receivers of one namespace: a URI reference.
pub fn source(namespace: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(namespace, percent_encoding::NON_ALPHANUMERIC);
    format!("/prompt-rollback/{encoded}")
}

/// The events of a commit, in order, as JSON: first new incidents and decisions, then switches in the order of the log,
/// then the rest about incidents. Each has an id, which begins with that of the commit.
pub fn of(happened: &Happened<'_>) -> Vec<String> {
    let mut making = Making::new(happened);
    for write in &happened.commit.incidents {
        begins(&mut making, happened, write);
    }
    for entry in &happened.commit.log {
        logged(&mut making, happened, entry);
    }
    for write in &happened.commit.incidents {
        progressed(&mut making, happened, write);
    }
    making.made
}

fn begins(making: &mut Making<'_>, happened: &Happened<'_>, write: &IncidentWrite) {
    let incident = &write.incident;
    for note in news(happened, incident) {
        let kind = match note.kind {
            NoteKind::Opened => Kind::IncidentOpened,
            NoteKind::Reopened => Kind::IncidentReopened,
            _ => continue,
        };
        making.make(kind, EventDetails::about(incident, &note.text));
    }
    let Some((decision, operator)) = decided(happened, incident) else { return };
    let said = news(happened, incident).find(|note| !matches!(note.kind, NoteKind::Opened | NoteKind::Reopened));
    let text = said.map_or_else(|| format!("{operator} decided: {decision}"), |note| note.text.clone());
    let (operator, decision) = (Some(operator), Some(decision));
    making.make(Kind::DecisionMade, EventDetails { operator, decision, ..EventDetails::about(incident, &text) });
}

/// What a person decided about this incident, and who.
fn decided<'a>(happened: &Happened<'a>, incident: &Incident) -> Option<(&'static str, &'a Operator)> {
    if matches!(happened.answer, Answer::Refused(_)) {
        return None;
    }
    match happened.event {
        Event::Decide(click) if click.incident == incident.id => {
            let decision = match click.choice {
                Choice::Approve => "approve",
                Choice::ApproveGradual => "approve_gradual",
                Choice::Investigate => "investigate",
                Choice::Dismiss => "dismiss",
                Choice::Undo => "undo",
            };
            Some((decision, &click.operator))
        }
        // requested without a question
        Event::Rollback(request) => {
            let asked = incident.pending().is_some() || incident.gradual().is_some();
            let switched = incident.switch.as_ref().is_some_and(|switch| switch.at == happened.now);
            (asked || switched).then_some(("rollback", &request.operator))
        }
        Event::Hold { incident: held, by: Some(by) } if *held == incident.id => Some(("hold", by)),
        _ => None,
    }
}

fn logged(making: &mut Making<'_>, happened: &Happened<'_>, entry: &LogEntry) {
    let commit = happened.commit;
    let of_entry = entry.incident.as_ref();
    let known = commit.incidents.iter().map(|write| &write.incident).chain(&commit.state.incidents);
    let incident = of_entry.and_then(|id| known.into_iter().find(|incident| incident.id == *id));
    let was = of_entry.and_then(|id| before(happened, &id.0)).map(|incident| incident.phase.kind());
    let kind = match entry.event {
        LogEvent::Rollback => Kind::RollbackDone,
        LogEvent::Gradual if was == Some(PhaseKind::RollingBack) => Kind::RollbackProgressed,
        LogEvent::Gradual => Kind::RollbackStarted,
        LogEvent::Canary => Kind::CanaryProgressed,
        LogEvent::External if entry.to.as_deref().is_none_or(|to| VersionName::parse(to).is_err()) => {
            Kind::VersionRemoved
        }
        LogEvent::Activate | LogEvent::External => Kind::VersionActivated,
        LogEvent::MarkBad | LogEvent::MarkGood => Kind::VersionMarked,
        LogEvent::Soaked => Kind::VersionKnownGood,
    };
    let mode = incident.filter(|_| kind == Kind::RollbackDone).and_then(|incident| incident.switch.as_ref());
    making.make(
        kind,
        EventDetails {
            incident,
            text: entry.reason.clone(),
            entry: Some(entry),
            operator: Some(&entry.operator),
            mode: mode.map(|switch| switch.mode.as_str()),
            ..EventDetails::default()
        },
    );
}

fn progressed(making: &mut Making<'_>, happened: &Happened<'_>, write: &IncidentWrite) {
    let incident = &write.incident;
    let guard = incident.held.as_ref().map(|held| held.guard.as_str());
    for note in news(happened, incident).filter(|note| note.kind == NoteKind::Held) {
        making.make(Kind::RollbackHeld, EventDetails { guard, ..EventDetails::about(incident, &note.text) });
    }
    let asked = before(happened, &incident.id.0).map_or(0, |before| before.question_number);
    if incident.question_number > asked && incident.question().is_some_and(|question| question.hold.is_none()) {
        let said = |kind: NoteKind| news(happened, incident).filter(|note| note.kind == kind).last();
        let text = said(NoteKind::Asked).or_else(|| said(NoteKind::Held)).map(|note| note.text.as_str());
        let data = EventDetails { guard, ..EventDetails::about(incident, text.unwrap_or_else(|| incident.summary())) };
        making.make(Kind::DecisionRequested, data);
    }
    for note in news(happened, incident) {
        match note.kind {
            NoteKind::Escalated => making.make(Kind::IncidentEscalated, EventDetails::about(incident, &note.text)),
            NoteKind::Closed => {
                if incident.phase.kind() == PhaseKind::Recovered {
                    making.make(Kind::RecoveryVerified, EventDetails::about(incident, &note.text));
                }
                making.make(Kind::IncidentClosed, EventDetails::about(incident, &note.text));
            }
            _ => {}
        }
    }
}

/// The incident before the commit.
fn before<'a>(happened: &Happened<'a>, id: &str) -> Option<&'a Incident> {
    let before = happened.before;
    before.state.incidents.iter().chain(&before.incident).find(|incident| incident.id.0 == id)
}

/// The notes that the commit adds.
fn news<'i>(happened: &Happened<'_>, incident: &'i Incident) -> impl Iterator<Item = &'i Note> + use<'i> {
    let last = before(happened, &incident.id.0).and_then(|before| before.notes.last()).map(|note| note.seq);
    incident.notes.iter().filter(move |note| last.is_none_or(|last| note.seq > last))
}
