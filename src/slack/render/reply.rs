//! One event of an incident, as a reply in its thread.

use slack_morphism::prelude::SlackBlock;

use super::text::{LinkAddress, Markup, escape, fit};
use super::{Message, View, aside, links, others, ours, ranked, waits};
use crate::decision::note::{Note, NoteKind};
use crate::decision::{Incident, LogEvent};
use crate::deployed::is_change;
use crate::visible::{shown, shown_name};
use crate::wording::began;

/// Entries of the deployment log shown with an investigation.
const LOG_SHOWN: usize = 5;

/// One entry of the deployment log.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// RFC 3339.
    pub at: &'a str,
    pub event: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub operator: &'a str,
    pub reason: &'a str,
}

/// A prompt of the same group, and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    pub prompt: String,
    /// The version that it serves.
    pub version: Option<String>,
    pub health: &'static str,
}

/// Adds the state of prompts in the same group; `all`: how many there are.
pub fn with_related(mut message: Message, group: &str, related: &[Related], all: usize) -> Message {
    if related.is_empty() {
        return message;
    }
    let one =
        |r: &Related| format!("{} {} ({})", shown_name(&r.prompt), r.version.as_deref().unwrap_or("nothing"), r.health);
    let mut text = format!("Same group ({}): ", fit(group, 100));
    text.push_str(&related.iter().map(one).collect::<Vec<_>>().join(", "));
    if all > related.len() {
        text.push_str(&format!(" and {} more", all - related.len()));
    }
    let place = message.blocks.len().saturating_sub(1); // above the small print
    message.blocks.splice(place..place, others(fit(&text, 2_900)));
    message
}

/// Renders `note` as a reply. `log` holds the newest entries first, and is shown with an investigation only.
pub fn reply(view: &View<'_>, note: &Note, log: &[LogLine<'_>]) -> Message {
    let incident = view.incident;
    let mut blocks = said(note);
    if view.mention.is_some() && calls(incident, note) {
        blocks.push(asks(view));
    }
    if note.kind == NoteKind::Decided {
        blocks.extend(where_to_look(incident, log));
    }
    finished(view, note, blocks)
}

/// An escalation, for the channel without the thread: no buttons, but a link to them.
pub fn call(view: &View<'_>, note: &Note, thread: Option<&str>) -> Message {
    let mut blocks = said(note);
    blocks.push(asks(view));
    if let Some(address) = thread.and_then(LinkAddress::parse) {
        blocks.push(ours(Markup::default().link("Decide in the thread", &address)));
    }
    finished(view, note, blocks)
}

fn text_of(note: &Note) -> String {
    let text = Some(fit(&note.text, 2_000)).filter(|text| !text.is_empty());
    text.unwrap_or_else(|| note.kind.as_str().to_owned())
}

fn said(note: &Note) -> Vec<SlackBlock> {
    others(format!("{} {}", sign(note.kind), text_of(note))).into_iter().collect()
}

fn asks(view: &View<'_>) -> SlackBlock {
    let (prompt, version) = (shown(&view.incident.prompt), &view.incident.version);
    let asks = Markup::default().mention(view.mention).and(" please decide about ");
    ours(asks.code(&prompt).and(" ").code(version.as_str()))
}

fn finished(view: &View<'_>, note: &Note, mut blocks: Vec<SlackBlock>) -> Message {
    let (prompt, version) = (shown(&view.incident.prompt), &view.incident.version);
    blocks.extend(aside(vec![when(view.incident, note)]));
    Message { text: escape(&fit(&format!("{prompt} {version}: {}", text_of(note)), 3_000)), blocks }
}

pub(super) fn sign(kind: NoteKind) -> &'static str {
    match kind {
        NoteKind::Opened => "🔔",
        NoteKind::Alert => "📈",
        NoteKind::Held => "✋",
        NoteKind::Switched => "↩",
        NoteKind::Decided => "🔎",
        NoteKind::Marked => "🔖",
        NoteKind::Asked => "❓",
        NoteKind::Checked => "🔬",
        NoteKind::Escalated => "🚨",
        NoteKind::Reopened => "🔁",
        NoteKind::Closed => "🏁",
    }
}

/// Whether the reply mentions the decider, because an edited root notifies no one. Only while there is something to
/// decide, and only in the last note: after an outage of Slack, old notes are posted late.
pub fn calls(incident: &Incident, note: &Note) -> bool {
    let asks = |kind| matches!(kind, NoteKind::Held | NoteKind::Asked | NoteKind::Escalated | NoteKind::Reopened);
    asks(note.kind) && waits(incident) && !incident.notes.iter().any(|later| later.seq > note.seq && asks(later.kind))
}

/// Whether people who do not follow the thread must notice as well.
pub fn calls_channel(incident: &Incident, note: &Note) -> bool {
    note.kind == NoteKind::Escalated && calls(incident, note)
}

fn when(incident: &Incident, note: &Note) -> Markup {
    let at = Markup::default().date(note.at);
    match (&incident.switch, note.kind) {
        (Some(switch), NoteKind::Switched) if switch.at == note.at => match began(incident, switch.at) {
            Some(began) => at.and(", ").took(switch.at.since(began)).and(" after the first alert began"),
            None => at,
        },
        _ => at,
    }
}

/// The starting points of an investigation.
fn where_to_look(incident: &Incident, log: &[LogLine<'_>]) -> Vec<SlackBlock> {
    let description = ranked(incident).first().map(|alert| fit(&alert.description, 1_500));
    let mut blocks: Vec<SlackBlock> = description.and_then(others).into_iter().collect();
    blocks.extend(aside(links(incident)));
    if !log.is_empty() {
        blocks.push(ours(Markup::words("*Latest changes of ").code(&shown(&incident.prompt)).and("*")));
        blocks.extend(others(log.iter().take(LOG_SHOWN).map(log_line).collect::<Vec<_>>().join("\n")));
    }
    blocks
}

fn log_line(line: &LogLine<'_>) -> String {
    let LogLine { at, event, from, to, operator, reason } = *line;
    if event == LogEvent::Soaked.as_str() {
        return fit(&format!("{at} {to} has soaked: {reason}"), 400);
    }
    let [from, to] = [from, to].map(|version| if version.is_empty() { "nothing" } else { version });
    match is_change(event) {
        true => fit(&format!("{at} {event} {from} → {to} by {operator}: {reason}"), 400),
        false => fit(&format!("{at} {event} {to} by {operator}: {reason}"), 400),
    }
}
