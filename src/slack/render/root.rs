//! The root of a thread: the current state.

use slack_morphism::prelude::{SlackBlock, SlackBlockText, SlackSectionBlock};

use super::button::buttons;
use super::text::{LinkAddress, Markup, escape, fit, who};
use super::{Message, View, aside, header, links, others, ours, ranked, waits};
use crate::decision::alert::AlertRecord;
use crate::decision::incident::Never;
use crate::decision::note::NoteKind;
use crate::decision::{Incident, Operator, PhaseKind, Severity, Timestamp};
use crate::deployed::{Deployed, NAMED};
use crate::visible::{shown, shown_name};
use crate::wording::{began, change, stages, title, until, what_was_done};

/// Alerts shown in full; the thread has all of them.
const ALERTS_SHOWN: usize = 3;
/// Versions marked as bad that are shown with the reason.
const NEVER_SHOWN: usize = 3;
/// At most two versions share the traffic.
const VERSIONS_SHOWN: usize = 2;

/// The thread's root in the decider's channel, with the buttons that the phase allows.
pub fn root(view: &View<'_>) -> Message {
    let incident = view.incident;
    let mut blocks = state(incident, view.mention.filter(|_| waits(incident)));
    blocks.extend(view.deployed.and_then(|deployed| what_was_deployed(incident, deployed)));
    blocks.extend(buttons(incident));
    blocks.extend(aside(links(incident)));
    blocks.extend(small_print(incident));
    Message { text: summary(incident), blocks }
}

/// The root in the channel for all incidents: no buttons, but a link to them. It mentions people only for a page.
pub fn overview(view: &View<'_>, thread: Option<&str>) -> Message {
    linked(view.incident, view.mention.filter(|_| view.incident.pages()), thread)
}

/// The root in the channel of a decider to whom the question has passed. It mentions them while it waits for them.
pub fn notice(view: &View<'_>, thread: Option<&str>) -> Message {
    linked(view.incident, view.mention.filter(|_| waits(view.incident)), thread)
}

fn linked(incident: &Incident, mention: Option<&str>, thread: Option<&str>) -> Message {
    let mut blocks = state(incident, mention);
    if let Some(address) = thread.and_then(LinkAddress::parse) {
        let way = if incident.phase.is_undecided() { "Decide in the thread" } else { "Go to the thread" };
        blocks.push(ours(Markup::default().link(way, &address)));
    }
    blocks.extend(aside(links(incident)));
    blocks.extend(small_print(incident));
    Message { text: summary(incident), blocks }
}

fn summary(incident: &Incident) -> String {
    let Incident { version, severity, .. } = incident;
    let prompt = shown(&incident.prompt);
    let what = fit(incident.summary(), 1_000);
    escape(&format!("{}: {prompt} {version} ({severity}). {what}", title(incident)))
}

fn state(incident: &Incident, mention: Option<&str>) -> Vec<SlackBlock> {
    let (prompt, version) = (shown(&incident.prompt), &incident.version);
    let mut blocks = vec![header(&format!("{} {}: {prompt} {version}", sign(incident), title(incident)))];
    blocks.extend(
        incident
            .switch
            .as_ref()
            .and_then(|switch| others(what_was_done(incident, switch, &who(switch.operator.as_str(), 100)))),
    );
    blocks.extend(progress(incident).and_then(|text| others(fit(&text, 600))));
    blocks.extend(verification(incident).and_then(|text| others(fit(&text, 600))));
    blocks.extend(last_word(incident).and_then(|text| others(fit(text, 600))));
    blocks.extend(others(what_is_wrong(incident)));
    blocks.push(SlackSectionBlock::new().with_fields(fields(incident, mention)).into());
    if let Some(objection) = incident.objection().filter(|_| incident.phase.is_undecided()) {
        let text = format!("Not rolled back yet: {}. Approve again to {}.", objection.text, objection.remedy());
        blocks.extend(others(fit(&text, 600)));
    }
    if let Some(held) = incident.held.as_ref().filter(|_| incident.phase.is_undecided()) {
        let text = format!("Not rolled back automatically ({}): {}", held.guard.as_str(), held.detail);
        blocks.extend(others(fit(&text, 600)));
    }
    if incident.phase.is_open() {
        blocks.extend(never_back_to(incident).and_then(|text| others(fit(&text, 1_000))));
    }
    blocks
}

/// The versions with traffic when it was opened, and other changes in the hour before.
fn what_was_deployed(incident: &Incident, deployed: &Deployed) -> Option<SlackBlock> {
    let opened = incident.opened_at;
    let mut lines = Vec::new();
    for placed in deployed.in_service.iter().take(VERSIONS_SHOWN) {
        let Some(since) = placed.since() else { continue };
        let line = Markup::words("*In service* ").code(&fit(&placed.version, 64)).and(" since ").date(since);
        lines.push(by(line, &placed.event, &placed.operator));
    }
    for other in deployed.others.iter().take(NAMED) {
        let line = Markup::words("*Also changed* ").code(&fit(&shown_name(&other.prompt), 128)).and(
            match other.event.as_str() {
                "rollback" => " rolled back ",
                "gradual" => " rolled back gradually ",
                "canary" => " canary ",
                _ => " ",
            },
        );
        let line = named(named(line, &other.from).and(" → "), &other.to);
        let line = by(line, &other.event, &other.operator).and(", ").before(opened.since(Timestamp(other.at)));
        lines.push(if other.same_group { line.and(" (same group)") } else { line });
    }
    if deployed.more > 0 {
        let line = Markup::words(if deployed.at_least { "*Also changed* at least " } else { "*Also changed* " });
        lines.push(line.count(deployed.more).and(if deployed.more == 1 { " more prompt" } else { " more prompts" }));
    }
    let text = lines.into_iter().reduce(|text, line| text.and("\n").then(line))?;
    Some(ours(text))
}

fn named(line: Markup, version: &str) -> Markup {
    if version.is_empty() { line.and("nothing") } else { line.code(&fit(version, 64)) }
}

/// Who did it: the log has `system` for prompt-rollback, and `external` for a direct SET.
fn by(line: Markup, event: &str, operator: &str) -> Markup {
    match (event, operator) {
        ("external", _) => line.and(", set in Redis from outside"),
        (_, operator) if Operator::recorded(operator).is_system() => line.and(", by prompt-rollback itself"),
        (_, "") => line,
        (_, operator) => line.and(", by ").code(&who(operator, 60)),
    }
}

/// The versions that are not offered, and why.
fn never_back_to(incident: &Incident) -> Option<String> {
    let never = &incident.never;
    let one = |never: &Never| {
        format!(
            "{} (marked as bad by {}: {})",
            never.version,
            who(never.operator.as_str(), 60),
            fit(&never.reason, 120)
        )
    };
    let mut text: Vec<String> = never.iter().take(NEVER_SHOWN).map(one).collect();
    if never.len() > NEVER_SHOWN {
        text.push(format!("and {} more", never.len() - NEVER_SHOWN));
    }
    (!text.is_empty()).then(|| format!("Not offered as a rollback target: {}", text.join(", ")))
}

fn sign(incident: &Incident) -> &'static str {
    match (incident.phase.kind(), incident.severity) {
        (PhaseKind::Confirming | PhaseKind::Observing | PhaseKind::Investigating, _) => "🔎",
        (PhaseKind::AwaitingDecision, _) if incident.is_held_back() => "✋",
        (PhaseKind::AwaitingDecision | PhaseKind::Escalated, Severity::Critical) => "🔴",
        (PhaseKind::AwaitingDecision | PhaseKind::Escalated, Severity::High) => "🟠",
        (PhaseKind::AwaitingDecision | PhaseKind::Escalated, Severity::Medium) => "🟡",
        (PhaseKind::RollingBack, _) if incident.is_stuck() => "🔴",
        (PhaseKind::RollingBack | PhaseKind::Verifying | PhaseKind::Unverified, _) => "↩",
        (PhaseKind::Recovered | PhaseKind::Resolved, _) => "✅",
        (PhaseKind::Dismissed | PhaseKind::Superseded, _) => "⚪",
    }
}

/// The progress of a gradual rollback, as one line that is edited.
fn progress(incident: &Incident) -> Option<String> {
    let split = incident.gradual()?;
    let mut text = format!("Left on {}: {}", split.leaving, stages(split, |percent| 100 - percent));
    match (&split.paused, &split.last) {
        (Some(why), _) => text.push_str(&format!(". Paused: {why}")),
        (None, Some(check)) => text.push_str(&format!(". {}: {}", split.arriving, check.finding.text)),
        (None, None) => {}
    }
    Some(text)
}

/// The checks of the rollback, as one line that is edited.
fn verification(incident: &Incident) -> Option<String> {
    let verification = incident.verification().filter(|_| incident.is_checked())?;
    let Some(check) = &verification.last else {
        return Some(format!("Checking whether the {} helped.", change(incident)));
    };
    let mut text = format!("Check {}: {}", verification.checks, check.finding.text);
    if let Some(traffic) = &verification.traffic {
        text.push_str(&format!("; {}", traffic.followers()));
    }
    Some(text)
}

/// The last event, if the phase alone does not say who and why.
fn last_word(incident: &Incident) -> Option<&str> {
    let kind = match incident.phase.kind() {
        PhaseKind::AwaitingDecision if incident.is_held_back() => NoteKind::Decided,
        PhaseKind::Observing | PhaseKind::AwaitingDecision | PhaseKind::Verifying => return None,
        PhaseKind::Confirming => NoteKind::Checked,
        PhaseKind::Investigating | PhaseKind::RollingBack => NoteKind::Decided,
        PhaseKind::Escalated => NoteKind::Escalated,
        _ => NoteKind::Closed,
    };
    // a repeated alert is asked about without a note: the last one is about something else
    let since = incident.pending().map(|pending| pending.at);
    let said = incident.notes.iter().rev().find(|note| note.kind == kind)?;
    since.is_none_or(|since| said.at == since).then_some(said.text.as_str())
}

/// What was measured against which threshold, according to the alerts.
fn what_is_wrong(incident: &Incident) -> String {
    let alerts = ranked(incident);
    if alerts.is_empty() {
        return fit(incident.summary(), 600);
    }
    let mut lines: Vec<String> = alerts.iter().take(ALERTS_SHOWN).map(|alert| describe(alert)).collect();
    match alerts.len() - lines.len() {
        0 => {}
        1 => lines.push("and 1 more alert".to_owned()),
        more => lines.push(format!("and {more} more alerts")),
    }
    lines.join("\n")
}

fn describe(alert: &AlertRecord) -> String {
    let (summary, value, reference) =
        (fit(&alert.summary, 240), fit(&alert.value, 60), fit(&alert.measure.reference, 60));
    let mut line = fit(&alert.alertname, 80);
    if !summary.is_empty() {
        line.push_str(&format!(": {summary}"));
    }
    if !value.is_empty() && !summary.contains(&value) {
        line.push_str(&format!(" (measured: {value})"));
    }
    if !reference.is_empty() {
        line.push_str(&format!(" (compared with: {reference})"));
    }
    if !alert.firing {
        line.push_str(" (resolved)");
    }
    let threshold = fit(&alert.description, 180);
    if threshold.is_empty() { line } else { format!("{line}\n{threshold}") }
}

fn fields(incident: &Incident, mention: Option<&str>) -> Vec<SlackBlockText> {
    let field = |label: &'static str| Markup::words("*").and(label).and("*\n");
    let change = match (&incident.switch, &incident.target) {
        (Some(switch), _) if incident.is_shipped() => {
            field("Replaced").code(switch.from.as_str()).and(" → ").code(switch.to.as_str())
        }
        (Some(switch), _) => field("Rolled back").code(switch.from.as_str()).and(" → ").code(switch.to.as_str()),
        (None, Some(to)) => field("Rollback").code(incident.version.as_str()).and(" → ").code(to.as_str()),
        (None, None) => field("Rollback").code(incident.version.as_str()).and(" → no other known-good version exists"),
    };
    let mut fields = vec![
        field("Prompt").code(&shown(&incident.prompt)),
        change,
        field("Severity").and(incident.severity.as_str()),
        field("Began").date(began(incident, incident.opened_at).unwrap_or(incident.opened_at)),
    ];
    if incident.awaits_decision() || incident.is_stuck() {
        let decides = field("Who decides").code(&incident.decider);
        fields.push(if mention.is_some() { decides.and(" ").mention(mention) } else { decides });
    }
    fields.extend(until(incident).map(|(label, at)| field(label).date(at)));
    fields.into_iter().map(|field| field.object().into()).collect()
}

fn small_print(incident: &Incident) -> Option<SlackBlock> {
    let mut texts = vec![Markup::words("Incident ").code(&incident.id.0)];
    if incident.phase.kind() == PhaseKind::AwaitingDecision && incident.escalations > 0 && !incident.is_held_back() {
        match incident.deadline() {
            None => texts.push(Markup::words("no further escalation follows")),
            Some(_) if incident.is_overdue() => texts.push(Markup::words("no decision before the deadline")),
            Some(_) => {}
        }
    }
    aside(texts)
}
