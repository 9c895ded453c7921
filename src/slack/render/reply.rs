//! One event of an incident, as a reply in its thread.

use slack_morphism::prelude::SlackBlock;

use super::text::{Markup, escape, fit};
use super::{Message, View, aside, began, links, others, ours, ranked, waits};
use crate::decision::Incident;
use crate::decision::incident::{Note, NoteKind};

/// Entries of the deployment log that an investigation starts with.
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

/// `note` as a reply. `log` holds the newest entries first and is told with the note of an investigation only.
pub fn reply(view: &View<'_>, note: &Note, log: &[LogLine<'_>]) -> Message {
    let incident = view.incident;
    let said = Some(fit(&note.text, 2_000)).filter(|text| !text.is_empty());
    let said = said.unwrap_or_else(|| note.kind.as_str().to_owned());
    let mut blocks: Vec<SlackBlock> = others(format!("{} {said}", sign(note.kind))).into_iter().collect();
    if let Some(mention) = view.mention.filter(|_| calls(incident, note)) {
        let Incident { prompt, version, .. } = incident;
        let asks = Markup::default().mention(Some(mention)).and(" please decide about ");
        blocks.push(ours(asks.code(prompt.as_str()).and(" ").code(version.as_str())));
    }
    if note.kind == NoteKind::Decided {
        blocks.extend(where_to_look(incident, log));
    }
    blocks.extend(aside(vec![when(incident, note)]));
    let text = escape(&fit(&format!("{} {}: {said}", incident.prompt, incident.version), 3_000));
    Message { text, blocks }
}

fn sign(kind: NoteKind) -> &'static str {
    match kind {
        NoteKind::Opened => "🔔",
        NoteKind::Alert => "📈",
        NoteKind::Held => "✋",
        NoteKind::Flipped => "↩",
        NoteKind::Decided => "🔎",
        NoteKind::Asked => "❓",
        NoteKind::Checked => "🔬",
        NoteKind::Escalated => "🚨",
        NoteKind::Reopened => "🔁",
        NoteKind::Closed => "🏁",
    }
}

/// A changed root calls nobody, so the reply does. Only while there is something to decide: after an outage of Slack
/// old notes are told late.
fn calls(incident: &Incident, note: &Note) -> bool {
    let asks = matches!(note.kind, NoteKind::Held | NoteKind::Asked | NoteKind::Escalated | NoteKind::Reopened);
    asks && waits(incident)
}

fn when(incident: &Incident, note: &Note) -> Markup {
    let at = Markup::default().date(note.at);
    match (&incident.flip, note.kind) {
        (Some(flip), NoteKind::Flipped) if flip.at == note.at => match began(incident, flip.at) {
            Some(began) => at.and(", ").took(flip.at.since(began)).and(" after the first alert began"),
            None => at,
        },
        _ => at,
    }
}

/// What an investigation starts with.
fn where_to_look(incident: &Incident, log: &[LogLine<'_>]) -> Vec<SlackBlock> {
    let description = ranked(incident).first().map(|alert| fit(&alert.description, 1_500));
    let mut blocks: Vec<SlackBlock> = description.and_then(others).into_iter().collect();
    blocks.extend(aside(links(incident)));
    if !log.is_empty() {
        blocks.push(ours(Markup::words("*Latest changes of ").code(incident.prompt.as_str()).and("*")));
        blocks.extend(others(log.iter().take(LOG_SHOWN).map(log_line).collect::<Vec<_>>().join("\n")));
    }
    blocks
}

fn log_line(line: &LogLine<'_>) -> String {
    let LogLine { at, event, from, to, operator, reason } = *line;
    let [from, to] = [from, to].map(|version| if version.is_empty() { "nothing" } else { version });
    fit(&format!("{at} {event} {from} → {to} by {operator}: {reason}"), 400)
}
