//! One incident: what the thread in Slack shows, and more.

use maud::{Markup, html};

use super::actions::StillOff;
use super::deployments::{deployed, entries};
use super::incidents::tone;
use super::layout::{NavItem, PageLayout, again, ends_by_time, headings, page};
use super::markdown;
use super::overview::held;
use super::parts::{Text, Tone, badge, distance, outward, prompt_link, seconds, segment, time, who};
use super::{Viewer, actions};
use crate::decision::alert::AlertRecord;
use crate::decision::note::NoteKind;
use crate::decision::verification::{Traffic, Verification};
use crate::decision::{Action, Incident, Rehearsed, Severity, SwitchMode, Timestamp};
use crate::deployed::{Deployed, DeploymentEntry};
use crate::visible::shown;
use crate::wording::{began, change, stages, title, until, what_was_done};

/// The picture of the metric around the rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture<'a> {
    /// With a number that differs for other measurements.
    Drawn(u64),
    /// Prometheus did not answer when the checks ended.
    Awaited,
    /// Why there is none.
    Missing(&'a str),
}

#[derive(Debug, Clone)]
pub struct IncidentPage<'a> {
    pub now: Timestamp,
    pub incident: &'a Incident,
    /// Whether the prompt's traffic is split, while the incident is open.
    pub is_split: bool,
    /// What a critical alert on the prompt would lead to now, while the incident is open.
    pub rehearsed: Option<&'a Rehearsed>,
    /// Whether automation is paused for the prompt, while the incident is open.
    pub is_paused: Option<bool>,
    pub still_off: Option<StillOff>,
    /// Whether automation asks once a version has served for long.
    pub asks_by_age: bool,
    /// The deployment log around the incident, the latest entry first.
    pub log: &'a [DeploymentEntry],
    /// What was deployed when it was opened.
    pub deployed: &'a Deployed,
    /// Other prompts of the same group.
    pub related: &'a [String],
    pub picture: Picture<'a>,
    /// The post-mortem draft, in Markdown, if it was asked for.
    pub draft: Option<&'a str>,
}

pub fn incident(view: &IncidentPage<'_>, viewer: &Viewer) -> String {
    let incident = view.incident;
    let name = format!("{}: {} {}", title(incident), shown(&incident.prompt), incident.version);
    let main = html! {
        h1 { (title(incident)) ": " (prompt_link(incident.prompt.as_str())) " " code { (incident.version.as_str()) } }
        p {
            (badge(severity(incident), incident.severity.as_str())) " " (badge(tone(incident), incident.phase.as_str()))
        }
        (said(incident))
        (actions::of_incident(incident, view.is_split, viewer))
        (facts(view))
        (verification(incident))
        (picture(view))
        (alerts(incident))
        (guards(view, viewer))
        (timeline(incident))
        (log(view))
        (related(view))
        (postmortem(view))
    };
    let ends = |rehearsed: &Rehearsed| {
        view.asks_by_age || rehearsed.guards.iter().any(|holding| ends_by_time(holding.held.guard))
    };
    let again = again(view.picture == Picture::Awaited, view.rehearsed.is_some_and(ends));
    let (about, now) = (Some(incident.prompt.as_str()), Some(view.now));
    page(&PageLayout { title: &name, place: NavItem::Incidents, about, now, again, age: None, main }, Some(viewer))
}

fn severity(incident: &Incident) -> Tone {
    match incident.severity {
        Severity::Critical => Tone::Bad,
        Severity::High => Tone::Watch,
        Severity::Medium => Tone::Info,
    }
}

/// Sentences about what happened and what is open.
fn said(incident: &Incident) -> Markup {
    html! {
        p class="lead" { (Text(incident.summary())) }
        @if let Some(switch) = &incident.switch {
            p { (Text(&what_was_done(incident, switch, switch.operator.as_str()))) "." }
        }
        @if let Some(split) = incident.gradual() {
            p {
                "Left on " (split.leaving.as_str()) ": " (stages(split, |percent| 100 - percent)) "."
                @if let Some(why) = &split.paused { " Paused: " (Text(why)) "." }
                @else if let Some(check) = &split.last {
                    " " (split.arriving.as_str()) ": " (Text(&check.finding.text)) "."
                }
            }
        }
        @if incident.phase.is_undecided() {
            @if let Some(objection) = incident.objection() {
                p { "Not rolled back yet: " (Text(&objection.text)) ". Approve again to " (objection.remedy()) "." }
            }
            @if let Some(held) = &incident.held {
                p { "Not rolled back automatically (" code { (held.guard.as_str()) } "): " (Text(&held.detail)) "." }
            }
        }
        @if incident.phase.is_open() {
            @for never in &incident.never {
                p {
                    (never.version.as_str()) " is not offered as a rollback target: marked as bad by "
                    (who(never.operator.as_str())) " (" (Text(&never.reason)) ")."
                }
            }
        }
    }
}

fn facts(view: &IncidentPage<'_>) -> Markup {
    let incident = view.incident;
    let began = began(incident, incident.opened_at).unwrap_or(incident.opened_at);
    let asks = incident.awaits_decision() || incident.is_stuck();
    html! {
        dl class="facts" {
            div { dt { @if incident.is_shipped() { "Replaced" } @else { "Rollback" } } dd {
                code { (incident.switch.as_ref().map_or(&incident.version, |switch| &switch.from).as_str()) } " → "
                @match incident.switch.as_ref().map(|switch| &switch.to).or(incident.target.as_ref()) {
                    Some(to) => { code { (to.as_str()) } }
                    None => { "no other known-good version exists" }
                }
            } }
            div { dt { "Began" } dd { (time(began)) " (" (distance(began, view.now)) ")" } }
            div { dt { "Opened" } dd { (time(incident.opened_at)) } }
            @if asks { div { dt { "Who decides" } dd { (Text(&incident.decider)) } } }
            @if let Some((label, at)) = until(incident) {
                div { dt { (label) } dd { (time(at)) " (" (distance(at, view.now)) ")" } }
            }
            @if let Some(by) = &incident.decided_by { div { dt { "Decided by" } dd { (who(by.as_str())) } } }
            @if incident.escalations > 0 { div { dt { "Escalated" } dd { (incident.escalations) " times" } } }
            div { dt { "Incident" } dd { code { (Text(&incident.id.0)) } } }
        }
    }
}

fn verification(incident: &Incident) -> Markup {
    let Some(verification) = incident.verification() else { return html! {} };
    let Verification { checks, last, traffic, .. } = verification;
    html! {
        section aria-labelledby="verification" {
            h2 id="verification" { "After the " (change(incident)) }
            @match last {
                None => { p { "Checking whether the " (change(incident)) " helped." } }
                Some(check) => {
                    p {
                        "Check " (checks) ", " (time(check.at)) ": "
                        (Text(&check.finding.text)) " (" (check.finding.verdict.as_str()) ")."
                    }
                }
            }
            @if let Some(traffic) = traffic { (traffic_of(incident, traffic)) }
        }
    }
}

fn traffic_of(incident: &Incident, traffic: &Traffic) -> Markup {
    // after a second switch, not the version that the incident is about
    let left = incident.switch.as_ref().map_or(&incident.version, |switch| &switch.from);
    html! {
        dl class="facts" {
            div {
                dt { "Requests to " (incident.subject().as_str()) } dd {
                    (traffic.target) ", " (traffic.failures) " of them failed"
                }
            }
            div { dt { "Requests to " (left.as_str()) } dd {
                (traffic.bad)
                @if let Some(at) = traffic.bad_last_seen { ", the last one " (time(at)) }
            } }
            div { dt { "Prompt servers" } dd { (Text(&traffic.followers())) } }
        }
    }
}

fn picture(view: &IncidentPage<'_>) -> Markup {
    html! {
        section aria-labelledby="picture" {
            h2 id="picture" { "Picture" }
            @match view.picture {
                Picture::Drawn(of) => {
                    @let path = picture_path(view, of);
                    @let around = format!("The metric of both versions around the {}, with its threshold", change(view.incident));
                    img class="picture" src=(path) width="800" height="400" alt=(around);
                }
                Picture::Awaited => {
                    p class="quiet" { "Prometheus has not answered yet: the receiver asks it again." }
                }
                Picture::Missing(why) => { p class="quiet" { (Text(why)) } }
            }
        }
    }
}

/// Another one for other measurements: a browser shows again what it has.
fn picture_path(view: &IncidentPage<'_>, of: u64) -> String {
    format!("/incidents/{}/picture.svg?of={of:016x}", segment(&view.incident.id.0))
}

fn alerts(incident: &Incident) -> Markup {
    let mut alerts: Vec<&AlertRecord> = incident.alerts.iter().collect();
    alerts.sort_by_key(|alert| std::cmp::Reverse((alert.firing, alert.rank())));
    html! {
        section aria-labelledby="alerts" {
            h2 id="alerts" { "Alerts and evidence" }
            @if incident.asks_about_canary() { p class="quiet" { "No alert: a canary waited for a decision." } }
            @else if alerts.is_empty() { p class="quiet" { "No alert: a person opened it." } }
            @else {
                table class="wide" {
                    caption class="hidden" { "The strongest alert first" }
                    (headings(&["Alert", "State", "Measured", "Threshold", "Began", "Links"]))
                    tbody { @for alert in alerts { (alert_row(alert)) } }
                }
            }
        }
    }
}

fn alert_row(alert: &AlertRecord) -> Markup {
    let began = alert.starts_at.filter(|at| at.0 > 0).unwrap_or(alert.first_seen);
    let links = [
        outward("Runbook", &alert.runbook_url),
        outward("Dashboard", &alert.dashboard_url),
        outward("Alertmanager", &alert.alertmanager_url),
        outward("Query", &alert.generator_url),
    ];
    let limit = seconds(alert.time_limit.as_secs());
    html! {
        tr data-key=(super::parts::shown(&alert.fingerprint)) {
            th scope="row" data-label="Alert" {
                (Text(&alert.alertname))
                div class="quiet" {
                    (alert.severity.as_str()) ", " (alert.action.as_str()) ", "
                    (Text(&alert.decider)) " within " (limit)
                }
            }
            td data-label="State" {
                @if alert.firing { (badge(Tone::Bad, "firing")) } @else { (badge(Tone::Off, "resolved")) }
            }
            td data-label="Measured" {
                @if !alert.value.is_empty() { strong { (Text(&alert.value)) } " " }
                (Text(&alert.summary))
            }
            td data-label="Threshold" {
                @if !alert.measure.threshold.is_empty() {
                    (Text(&alert.measure.label)) " " (Text(&alert.measure.threshold)) ". "
                }
                @if !alert.measure.reference.is_empty() { "Compared with " (Text(&alert.measure.reference)) ". " }
                (Text(&alert.description))
            }
            td data-label="Began" { (time(began)) }
            td data-label="Links" { @for link in links.into_iter().flatten() { (link) " " } }
        }
    }
}

fn guards(view: &IncidentPage<'_>, viewer: &Viewer) -> Markup {
    html! {
        section aria-labelledby="guards" {
            h2 id="guards" { "Guards" }
            @if let Some(held) = &view.incident.held {
                p { "Held when it was decided: " code { (held.guard.as_str()) } ", " (Text(&held.detail)) "." }
            } @else { p { (without_guard(view.incident)) } }
            @if let Some(rehearsed) = view.rehearsed {
                p { "If a critical alert fired on the active version now, it would " (Text(&rehearsed.text)) "." }
                @if !rehearsed.guards.is_empty() {
                    ul { @for guard in &rehearsed.guards { li { (held(guard)) } } }
                }
            }
            @if let Some(is_paused) = view.is_paused {
                div class="acts" { (actions::of_automation(Some(&view.incident.prompt), is_paused, view.still_off, viewer)) }
            }
        }
    }
}

/// What guards did to an incident that none holds.
fn without_guard(incident: &Incident) -> &'static str {
    let was_held = incident.notes.iter().any(|note| note.kind == NoteKind::Held);
    let has_lost_notes = incident.notes.windows(2).any(|pair| pair[1].seq > pair[0].seq.saturating_add(1));
    let is_automatic = incident.switch.as_ref().is_some_and(|switch| switch.mode == SwitchMode::Auto);
    let is_requested = incident.alerts.iter().any(|alert| alert.action == Action::Rollback);
    match (was_held, is_automatic || is_requested) {
        (true, _) => "A guard held it for a time: see the timeline.",
        (false, true) if has_lost_notes => {
            "No guard holds it. Its timeline lacks earlier entries, which would show whether one held it for a time."
        }
        (false, true) => "No guard held it.",
        (false, false) => "Guards were not checked: no alert requested an automatic rollback.",
    }
}

fn timeline(incident: &Incident) -> Markup {
    html! {
        section aria-labelledby="timeline" {
            h2 id="timeline" { "Timeline" }
            ol class="timeline" {
                @for note in &incident.notes {
                    li { (time(note.at)) " " (badge(Tone::Info, note.kind.as_str())) " " (Text(&note.text)) }
                }
            }
        }
    }
}

fn log(view: &IncidentPage<'_>) -> Markup {
    html! {
        section aria-labelledby="log" {
            h2 id="log" { "Deployment log" }
            @if view.log.is_empty() { p class="quiet" { "The log has no entries of this time." } } @else {
                (entries(view.log))
            }
        }
    }
}

fn related(view: &IncidentPage<'_>) -> Markup {
    html! {
        section aria-labelledby="related" {
            h2 id="related" { "When it was opened" }
            (deployed(view.deployed))
            @if !view.related.is_empty() {
                p {
                    "Same group: "
                    @for (at, prompt) in view.related.iter().enumerate() { @if at > 0 { ", " } (prompt_link(prompt)) }
                }
            }
        }
    }
}

fn postmortem(view: &IncidentPage<'_>) -> Markup {
    let id = segment(&view.incident.id.0);
    let picture = match view.picture {
        Picture::Drawn(of) => Some(picture_path(view, of)),
        Picture::Awaited | Picture::Missing(_) => None,
    };
    html! {
        section aria-labelledby="postmortem" {
            h2 id="postmortem" { "Post-mortem" }
            p {
                a href=(format!("/api/incidents/{id}/postmortem")) download=(format!("postmortem-{id}.md")) {
                    "Download (Markdown)"
                }
                @if view.draft.is_none() {
                    " · " a href=(format!("/incidents/{id}?draft=true#postmortem")) { "Show the draft so far" }
                }
            }
            @if let Some(draft) = view.draft { article class="draft" { (markdown::render(draft, picture.as_deref())) } }
        }
    }
}
