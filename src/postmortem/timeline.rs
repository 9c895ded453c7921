//! The timeline of an incident.

use std::time::Duration;

use super::text::{escaped, moment};
use super::{DeploymentEntry, PostmortemFacts};
use crate::decision::Timestamp;
use crate::decision::note::NoteKind;
use crate::deployed::in_service;

/// Entries of the log shown at most, like the hundred notes of an incident.
const MAX_ENTRIES: usize = 100;
/// A log entry and a note of the same incident this close together are about the same event.
const SAME: Duration = Duration::from_secs(1);

/// One line for each event.
pub fn timeline(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let mut lines: Vec<(Timestamp, String)> = Vec::new();
    lines.extend(deployments(facts).map(|entry| (entry.at, sentence(entry))));
    lines.extend(facts.samples.and_then(|s| s.first_bad()).map(|at| (at, "first bad sample".to_owned())));
    let began = facts.alert_began();
    lines.extend(began.map(|at| (at, "the alert began, as Prometheus evaluated it".to_owned())));
    lines.extend(incident.notes.iter().map(|note| (note.at, format!("{}: {}", word(note.kind), escaped(&note.text)))));
    if let Some(switch) = &incident.switch
        && !incident.is_shipped()
        && !incident.notes.iter().any(|note| note.kind == NoteKind::Switched && note.at == switch.at)
    {
        let text = format!(
            "rolled back: {} rolled `{}` back to `{}`",
            escaped(switch.operator.as_str()),
            switch.from,
            switch.to
        );
        lines.push((switch.at, text));
    }
    lines.extend(meanwhile(facts).map(|entry| (entry.at, sentence(entry))));
    let recovered = facts.recovered_at().filter(|at| incident.closed_at != Some(*at));
    lines.extend(recovered.map(|at| (at, "recovered: measured as healthy".to_owned())));
    lines.sort_by_key(|(at, _)| *at);
    lines.iter().map(|(at, text)| format!("- {} {text}\n", moment(*at))).collect()
}

/// For people: the name in records and in the API is an older one.
fn word(kind: NoteKind) -> &'static str {
    if kind == NoteKind::Switched { "rolled back" } else { kind.as_str() }
}

/// Since when the version in trouble had traffic when the incident was opened.
pub fn in_service_since(facts: &PostmortemFacts<'_>) -> Option<Timestamp> {
    let incident = facts.incident;
    let before = |entry: &&DeploymentEntry| entry.at <= incident.opened_at && entry.incident != incident.id.0;
    // the store lists the latest first
    let mut log: Vec<_> = facts.log.iter().rev().filter(before).collect();
    log.sort_by_key(|entry| entry.at);
    in_service(log.into_iter()).iter().find(|placed| placed.version == incident.version.as_str())?.since()
}

/// How the version in trouble came into service: as a canary, stage by stage.
fn deployments<'a>(facts: &'a PostmortemFacts<'_>) -> impl Iterator<Item = &'a DeploymentEntry> {
    let incident = facts.incident;
    let into_service = move |entry: &&DeploymentEntry| {
        entry.is_change() && entry.to == incident.version.as_str() && entry.at <= incident.opened_at
    };
    let last = facts.log.iter().filter(into_service).map(|entry| entry.at).max();
    let since = in_service_since(facts).or(last);
    facts.log.iter().filter(into_service).filter(move |entry| Some(entry.at) >= since).take(MAX_ENTRIES)
}

/// Other deployments during the incident that none of its notes mentions.
fn meanwhile<'a>(facts: &'a PostmortemFacts<'_>) -> impl Iterator<Item = &'a DeploymentEntry> {
    let incident = facts.incident;
    let end = incident.closed_at.unwrap_or(incident.updated_at);
    let near = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a)) < SAME;
    let noted = move |entry: &DeploymentEntry| {
        entry.incident == incident.id.0 && incident.notes.iter().any(|note| near(note.at, entry.at))
    };
    let during = facts.log.iter().filter(move |entry| entry.at > incident.opened_at && entry.at <= end);
    during.filter(move |entry| !noted(entry)).take(MAX_ENTRIES)
}

fn sentence(entry: &DeploymentEntry) -> String {
    let name = |text: &str| if text.is_empty() { "nothing".to_owned() } else { escaped(text) };
    let DeploymentEntry { event, from, to, operator, reason, .. } = entry;
    let mut line = match entry.is_change() {
        true => format!("deployment log: {} {} → {}", escaped(event), name(from), name(to)),
        false => format!("deployment log: {} {}", escaped(event), name(to)),
    };
    if !operator.is_empty() {
        line.push_str(&format!(" by {}", escaped(operator)));
    }
    if !reason.is_empty() {
        line.push_str(&format!(" ({})", escaped(reason)));
    }
    line
}
