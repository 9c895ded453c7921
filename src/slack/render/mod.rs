//! The messages in Slack: pure functions of the incident, so that an outage of Slack collapses into one update.
//!
//! Nothing here knows the time: moments are written so that Slack shows them in each reader's own time zone. Messages
//! respect all of Slack's limits for any incident, however long or hostile its texts. For how external texts are kept
//! from acting as mentions, links or formatting, see [`text`].

mod button;
mod canary;
mod drill;
mod outage;
mod reply;
mod report;
mod root;
#[cfg(test)]
mod tests;
mod text;

use slack_morphism::prelude::{
    SlackBlock, SlackBlockText, SlackContextBlock, SlackContextBlockElement, SlackHeaderBlock, SlackSectionBlock,
};

pub use button::{Button, SteerButton, action, read_mark};
pub use canary::{canary, canary_over};
pub use drill::{DrillMessage, drill};
pub use outage::{OutageMessage, outage_overview, outage_reply, outage_root};
pub use reply::{LogLine, Related, call, calls, calls_channel, reply, with_related};
pub use report::report;
pub use root::{notice, overview, root};

use crate::decision::alert::AlertRecord;
use crate::decision::{Incident, PhaseKind};
use crate::deployed::Deployed;
use text::{LinkAddress, Markup, code_span, escape, fit, literal};

/// Slack's recommended limit for a message's text; it rejects 40,000 and more.
const MAX_PLAIN: usize = 4_000;
/// All links of a message together.
const MAX_LINKS: usize = 2_500;

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// For notifications and screen readers.
    pub text: String,
    pub blocks: Vec<SlackBlock>,
}

/// An incident, and the config's settings for its decider.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub incident: &'a Incident,
    /// The decider's mention, from the config: the only text that may mention people.
    pub mention: Option<&'a str>,
    /// What was deployed until it was opened, if that was read.
    pub deployed: Option<&'a Deployed>,
}

/// A sentence for one person, such as why a click changed nothing, as mrkdwn: it may contain external names.
pub fn ephemeral(sentence: &str) -> String {
    escape(&fit(sentence, 1_000))
}

/// The reply in a thread whose root Slack does not let the app edit, with Slack's code.
pub fn frozen(code: &str) -> Message {
    let text = Markup::words("Slack does not allow edits of the first message of this thread (").code(code);
    let text = text.and("): it stays unchanged, and updates follow as replies.");
    let said = "The first message of this thread stays unchanged: updates follow as replies.".to_owned();
    Message { text: said, blocks: vec![ours(text)] }
}

/// Everything in `message` as one text, for the case that Slack rejects its blocks.
pub fn plain(message: &Message) -> String {
    let mut said = String::new();
    let mut say = |piece: String| {
        // whole pieces only: half a link or code span would be parsed differently
        if length(&said) + length(&piece) < MAX_PLAIN {
            said.push_str(if said.is_empty() { "" } else { "\n" });
            said.push_str(&piece);
        }
    };
    for block in &message.blocks {
        match block {
            SlackBlock::Header(header) => say(as_mrkdwn(&header.text.clone().into())),
            SlackBlock::Section(section) => {
                section.text.iter().chain(section.fields.iter().flatten()).for_each(|text| say(as_mrkdwn(text)));
            }
            SlackBlock::Context(context) => context.elements.iter().for_each(|element| match element {
                SlackContextBlockElement::Plain(text) => say(as_mrkdwn(&text.as_block_text())),
                SlackContextBlockElement::MarkDown(text) => say(as_mrkdwn(&text.as_block_text())),
                SlackContextBlockElement::Image(_) => {}
            }),
            SlackBlock::Actions(actions) => {
                let command = if button::is_steering(actions) { "canary PROMPT" } else { "decide INCIDENT" };
                say(format!("The buttons cannot be shown: decide with `prompt-rollback {command} …`"));
            }
            _ => {}
        }
    }
    said
}

/// The length as Slack counts it in the worst case.
fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

fn as_mrkdwn(text: &SlackBlockText) -> String {
    match text {
        SlackBlockText::Plain(text) => code_span(&text.text),
        SlackBlockText::MarkDown(text) => text.text.clone(),
    }
}

fn header(text: &str) -> SlackBlock {
    SlackHeaderBlock::new(literal(fit(text, 150)).into()).into()
}

fn ours(text: Markup) -> SlackBlock {
    SlackSectionBlock::new().with_text(text.object().into()).into()
}

/// A section of external text; Slack rejects an empty one.
fn others(text: String) -> Option<SlackBlock> {
    (!text.is_empty()).then(|| SlackSectionBlock::new().with_text(literal(text).into()).into())
}

/// Small print.
fn aside(texts: Vec<Markup>) -> Option<SlackBlock> {
    let elements: Vec<_> = texts.into_iter().map(|text| text.object().into()).collect();
    (!elements.is_empty()).then(|| SlackContextBlock::new(elements).into())
}

/// Alerts by importance: firing before resolved, then by the strongest action and severity.
fn ranked(incident: &Incident) -> Vec<&AlertRecord> {
    let mut alerts: Vec<_> = incident.alerts.iter().collect();
    alerts.sort_by_key(|alert| std::cmp::Reverse((alert.firing, alert.rank())));
    alerts
}

/// The links of the most severe alert, as many as fit.
fn links(incident: &Incident) -> Vec<Markup> {
    let alerts = ranked(incident);
    let Some(alert) = alerts.first() else { return Vec::new() };
    let mut room = MAX_LINKS;
    [
        ("Runbook", &alert.runbook_url),
        ("Dashboard", &alert.dashboard_url),
        ("Alertmanager", &alert.alertmanager_url),
        ("Query", &alert.generator_url),
    ]
    .into_iter()
    .filter_map(|(label, url)| {
        let address = LinkAddress::parse(url)?;
        room = room.checked_sub(address.len())?;
        Some(Markup::default().link(label, &address))
    })
    .collect()
}

/// Whether a person must decide or act now.
pub fn waits(incident: &Incident) -> bool {
    let asks = incident.question().is_some_and(|question| question.hold.is_none());
    asks || incident.phase.kind() == PhaseKind::Escalated || incident.pages()
}
