//! Coordinating incidents: one root for all prompts.

use slack_morphism::prelude::{
    SlackActionsBlock, SlackBlock, SlackBlockButtonElement, SlackBlockButtonStyle, SlackBlockConfirmItem,
    SlackSectionBlock, SlackSectionBlockElement,
};

use super::button::{Button, action, confirmed, plain};
use super::reply::sign;
use super::text::{LinkAddress, Markup, escape, fit, literal, who};
use super::{Message, aside, header, others, ours};
use crate::decision::note::{Note, NoteKind};
use crate::decision::outage::{Member, Outage, OutageAction, shared};
use crate::visible::shown;
use crate::wording::offers::{self, Confirmation};

/// Prompts with a row and a button of their own; a message may have 50 blocks.
const ROWS: usize = 20;
/// Text of all these rows: Slack rejects messages of much more than 10,000 characters.
const ROOM: usize = 5_500;
/// Longest reason why one was not rolled back.
const WHY: usize = 120;
/// Prompts named in one section.
const NAMED: usize = 30;
/// Shared labels that are shown.
const SHARED: usize = 5;

/// A coordinating incident, and the config's settings for its decider.
#[derive(Debug, Clone, Copy)]
pub struct OutageMessage<'a> {
    pub outage: &'a Outage,
    pub members: &'a [Member],
    pub mention: Option<&'a str>,
}

impl OutageMessage<'_> {
    fn waiting(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.waits())
    }

    fn asks(&self) -> bool {
        let waits = self.outage.is_open() && self.outage.hold.is_none() && self.waiting().next().is_some();
        waits && !self.is_rolling_back()
    }

    /// Whether a person has already decided for all that wait. Prompts that joined after the click wait for another.
    fn is_rolling_back(&self) -> bool {
        let execution = self.outage.execution.as_ref().filter(|execution| execution.what == OutageAction::RollBack);
        execution.is_some_and(|execution| self.waiting().all(|member| member.joined <= execution.at))
    }
}

/// The thread's root, with the buttons.
pub fn outage_root(view: &OutageMessage<'_>) -> Message {
    let mut blocks = state(view, view.mention.filter(|_| view.asks()));
    blocks.extend(buttons(view));
    let mut rest = 0;
    if view.outage.is_open() {
        let mut room = ROOM;
        for (at, member) in view.waiting().enumerate() {
            let left = room.checked_sub(cost(member)).filter(|_| at < ROWS);
            match left.filter(|_| rest == 0) {
                Some(left) => {
                    room = left;
                    blocks.push(row(at, member));
                }
                None => rest += 1,
            }
        }
    }
    if rest > 0 {
        blocks.extend(others(format!("and {rest} more waiting")));
    }
    blocks.extend(decided(view));
    blocks.extend(small_print(view));
    Message { text: summary(view), blocks }
}

/// The root in the channel for all incidents: no buttons, but a link to them.
pub fn outage_overview(view: &OutageMessage<'_>, thread: Option<&str>) -> Message {
    let mut blocks = state(view, None);
    if let Some(address) = thread.and_then(LinkAddress::parse) {
        let is_asked = view.outage.is_open() && view.waiting().next().is_some();
        let way = if is_asked { "Decide in the thread" } else { "Go to the thread" };
        blocks.push(ours(Markup::default().link(way, &address)));
    }
    blocks.extend(small_print(view));
    Message { text: summary(view), blocks }
}

/// One note as a reply.
pub fn outage_reply(view: &OutageMessage<'_>, note: &Note) -> Message {
    let said = fit(&note.text, 2_900);
    let mut blocks: Vec<SlackBlock> = others(format!("{} {said}", sign(note.kind))).into_iter().collect();
    let last = view.outage.notes.last().is_some_and(|last| last.seq == note.seq);
    if note.kind == NoteKind::Asked && last && view.asks() && view.mention.is_some() {
        blocks.push(ours(Markup::default().mention(view.mention).and(" please decide about the remaining prompts")));
    }
    blocks.extend(aside(vec![Markup::default().date(note.at)]));
    Message { text: escape(&said), blocks }
}

fn title(view: &OutageMessage<'_>) -> String {
    let count = view.members.len();
    match (&view.outage.hold, view.outage.is_open(), view.waiting().next().is_some()) {
        (_, false, _) => format!("⚪ Closed: {count} prompts failed together"),
        (Some(_), true, _) => format!("✋ {count} prompts fail together, on hold"),
        (None, true, true) if view.is_rolling_back() => format!("↩ {count} prompts fail together: rolling back all"),
        (None, true, true) => format!("🔴 {count} prompts fail together: decision needed"),
        (None, true, false) => format!("↩ {count} prompts fail together, all decided"),
    }
}

fn summary(view: &OutageMessage<'_>) -> String {
    escape(&fit(&format!("{}. {}", title(view), counts(view)), 1_000))
}

fn counts(view: &OutageMessage<'_>) -> String {
    let before = view.members.iter().filter(|member| member.before).count();
    let waits = view.waiting().count();
    let rest = view.members.iter().filter(|member| !member.before && !member.waits()).count();
    let mut text = format!("Rolled back before: {before}; waiting for a decision: {waits}");
    if rest > 0 {
        text.push_str(&format!("; decided or ended since then: {rest}"));
    }
    text
}

fn state(view: &OutageMessage<'_>, mention: Option<&str>) -> Vec<SlackBlock> {
    let OutageMessage { outage, members, .. } = view;
    let mut blocks = vec![header(&title(view))];
    blocks.extend(outage.notes.first().and_then(|note| others(fit(&note.text, 600))));
    blocks.extend(others(counts(view)));
    let one = |(label, value, count): &(&str, &str, usize)| {
        format!("{label} {} ({count} of {})", fit(value, 100), members.len())
    };
    let shared: Vec<_> = shared(members).iter().take(SHARED).map(one).collect();
    if !shared.is_empty() {
        blocks.extend(others(format!("Shared labels: {}", shared.join(", "))));
    }
    if let Some(hold) = &outage.hold {
        let by = who(hold.by.as_str(), 100);
        blocks.extend(others(format!("{by} put all prompts on hold: no automatic rollbacks and no escalations.")));
    }
    if let Some(execution) = &outage.execution {
        let left = members.iter().filter(|member| member.is_due(execution)).count();
        let what =
            if execution.what == OutageAction::Undo { "is undoing the rollbacks" } else { "is rolling back all" };
        blocks.extend(others(format!("{} {what}: {left} to go.", who(execution.by.as_str(), 100))));
    }
    let field = |label: &'static str| Markup::words("*").and(label).and("*\n");
    let began = members.iter().map(|member| member.began).min().unwrap_or(outage.opened_at);
    let decides = field("Who decides").code(&outage.decider);
    let decides = if mention.is_some() { decides.and(" ").mention(mention) } else { decides };
    let mut fields = vec![field("Began").date(began), decides];
    fields.extend(outage.closed_at.map(|at| field("Closed").date(at)));
    let fields = fields.into_iter().map(|field| field.object().into()).collect();
    blocks.push(SlackSectionBlock::new().with_fields(fields).into());
    blocks
}

fn buttons(view: &OutageMessage<'_>) -> Option<SlackBlock> {
    let outage = view.outage;
    let value =
        Button { incident: outage.id.clone(), from: None, to: None, question_number: outage.question_number }.encode();
    let one = |(outage_action, label, confirmation): (OutageAction, &str, Confirmation)| {
        let button = SlackBlockButtonElement::new(plain(label))
            .with_action_id(action::all(outage_action).into())
            .with_value(value.clone());
        let button = confirmed(button, Some(&confirmation));
        if outage_action == OutageAction::RollBack { button.with_style(SlackBlockButtonStyle::Primary) } else { button }
            .into()
    };
    let elements: Vec<_> = offers::of_outage(outage, view.members).into_iter().map(one).collect();
    (!elements.is_empty()).then(|| SlackActionsBlock::new(elements).into())
}

/// Why a member still waits although someone requested its rollback.
fn why(member: &Member) -> Option<String> {
    let failed = member.done.as_ref().filter(|done| done.failed).map(|done| &done.text);
    member.objection.as_ref().or(failed).map(|why| fit(why, WHY))
}

/// The approximate length of its row, including its button's dialog.
fn cost(member: &Member) -> usize {
    let version = member.version.as_str().len() + member.target.as_ref().map_or(0, |target| target.as_str().len());
    // escaping can turn one character into five
    250 + 2 * (escape(&shown(&member.prompt)).len() + version) + why(member).map_or(0, |why| 5 * why.chars().count())
}

/// A waiting prompt, with a button that rolls back this prompt only.
fn row(at: usize, member: &Member) -> SlackBlock {
    let mut text = Markup::default().code(&shown(&member.prompt)).and(" ").code(member.version.as_str());
    text = match &member.target {
        Some(target) => text.and(" → ").code(target.as_str()),
        None => text.and(" → no other known-good version exists"),
    };
    text = text.and(", began ").date(member.began);
    if let Some(why) = why(member) {
        text = text.and("\nnot rolled back, ").code(&why);
    }
    let section = SlackSectionBlock::new().with_text(text.object().into());
    let (Some(target), false) = (&member.target, member.phase == crate::decision::PhaseKind::Confirming) else {
        return section.into();
    };
    let value = Button {
        incident: member.incident.clone(),
        from: Some(member.version.clone()),
        to: Some(target.clone()),
        question_number: member.question_number,
    };
    let confirm = SlackBlockConfirmItem::new(
        plain(&fit(&format!("Roll back {}?", shown(&member.prompt)), 100)),
        literal(format!("From {} back to {target}. All its prompt servers follow at once.", member.version)).into(),
        plain("Yes, do it"),
        plain("Not now"),
    );
    let button = SlackBlockButtonElement::new(plain("Approve rollback"))
        .with_action_id(action::approve_one_of(at).into())
        .with_value(value.encode())
        .with_confirm(confirm);
    section.with_accessory(SlackSectionBlockElement::Button(button)).into()
}

/// The state of the other prompts, in one section.
fn decided(view: &OutageMessage<'_>) -> Option<SlackBlock> {
    let all: Vec<&Member> = view.members.iter().filter(|member| !member.waits()).collect();
    let line = |member: &&Member| {
        let Member { version, phase, .. } = member;
        let prompt = shown(&member.prompt);
        let before = if member.before { ", before" } else { "" };
        fit(&format!("{prompt} {version}: {phase}{before}"), 90)
    };
    let mut lines: Vec<String> = all.iter().take(NAMED).map(line).collect();
    if all.len() > NAMED {
        lines.push(format!("and {} more", all.len() - NAMED));
    }
    others(lines.join("\n"))
}

fn small_print(view: &OutageMessage<'_>) -> Option<SlackBlock> {
    let id = &view.outage.id;
    let all = Markup::words("List them with ").code(&format!("prompt-rollback incidents {id}"));
    aside(vec![Markup::words("Incident ").code(&id.0), all])
}
