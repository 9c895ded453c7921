//! The list of incidents.

use maud::{Markup, html};

use super::Viewer;
use super::layout::{NavItem, PageLayout, headings, page};
use super::overview::OpenIncident;
use super::parts::{Text, Tone, badge, distance, incident_link, prompt_link, segment, time};
use crate::decision::{Incident, PhaseKind, Severity, Timestamp};
use crate::wording::{title, until};

/// An incident of one prompt, or of many.
#[derive(Debug, Clone)]
pub enum Listed<'a> {
    One(&'a Incident),
    Outage { id: String, prompts: usize, waiting: usize, opened_at: Timestamp, closed_at: Option<Timestamp> },
}

#[derive(Debug, Clone)]
pub struct Incidents<'a> {
    pub now: Timestamp,
    pub open_only: bool,
    pub rows: Vec<Listed<'a>>,
    /// The cursor of the next page.
    pub next: Option<&'a str>,
}

/// How urgent the state of an incident looks.
pub fn tone(incident: &Incident) -> Tone {
    match (incident.phase.kind(), incident.severity) {
        (PhaseKind::AwaitingDecision | PhaseKind::Escalated, Severity::Medium) => Tone::Watch,
        (PhaseKind::AwaitingDecision | PhaseKind::Escalated, _) => Tone::Bad,
        _ if incident.pages() => Tone::Bad,
        (PhaseKind::Recovered | PhaseKind::Resolved, _) => Tone::Fine,
        (PhaseKind::Dismissed | PhaseKind::Superseded, _) => Tone::Off,
        (PhaseKind::Unverified, _) => Tone::Watch,
        _ => Tone::Info,
    }
}

/// An open incident in the list of prompts.
pub fn line(incident: &Incident) -> OpenIncident {
    let asks = incident.phase.kind() == PhaseKind::AwaitingDecision || incident.pages();
    let traffic = incident.verification().and_then(|verification| verification.traffic.as_ref());
    OpenIncident {
        id: incident.id.0.clone(),
        title: title(incident),
        tone: tone(incident),
        version: incident.version.to_string(),
        decider: asks.then(|| incident.decider.clone()),
        until: until(incident),
        followers: traffic.map(|traffic| traffic.followers()),
    }
}

pub fn incidents(view: &Incidents<'_>, viewer: &Viewer) -> String {
    let next = view.next.map(|next| format!("/incidents?open={}&cursor={}", view.open_only, segment(next)));
    let main = html! {
        h1 { "Incidents" }
        nav class="pages" aria-label="Which incidents" {
            a href="/incidents?open=true" aria-current=[view.open_only.then_some("true")] { "Open" }
            a href="/incidents?open=false" aria-current=[(!view.open_only).then_some("true")] { "All" }
        }
        @if view.rows.is_empty() && next.is_some() {
            p { "You may not see any of the latest incidents." }
        } @else if view.rows.is_empty() {
            p { @if view.open_only { "No incident is open." } @else { "There are no incidents." } }
        } @else {
            table class="wide" {
                caption class="hidden" { "Incidents, the latest first" }
                (headings(&["State", "Prompt", "Version", "Reason", "Opened", "Until"]))
                tbody { @for row in &view.rows { (row_of(row, view.now)) } }
            }
        }
        @if let Some(next) = next {
            nav class="pages" aria-label="Pages of the list" { a rel="next" href=(next) { "Older" } }
        }
    };
    page(
        &PageLayout {
            title: "Incidents",
            place: NavItem::Incidents,
            about: None,
            now: Some(view.now),
            again: None,
            age: None,
            main,
        },
        Some(viewer),
    )
}

fn row_of(listed: &Listed<'_>, now: Timestamp) -> Markup {
    let incident = match listed {
        Listed::One(incident) => incident,
        Listed::Outage { id, prompts, waiting, opened_at, closed_at } => {
            return html! {
                tr data-key=(id) {
                    td data-label="State" {
                        (badge(if closed_at.is_some() { Tone::Off } else { Tone::Bad }, "Many prompts"))
                    }
                    th scope="row" data-label="Prompt" {
                        (incident_link(id, &format!("{prompts} prompts fail together")))
                    }
                    td data-label="Version" { "–" }
                    td data-label="Reason" { (waiting) " wait for a decision" }
                    td data-label="Opened" { (time(*opened_at)) }
                    td data-label="Until" { @if let Some(at) = closed_at { "Closed " (time(*at)) } }
                }
            };
        }
    };
    html! {
        tr data-key=(incident.id.0) {
            td data-label="State" { (badge(tone(incident), title(incident))) }
            td data-label="Prompt" { (prompt_link(incident.prompt.as_str())) }
            th scope="row" data-label="Version" { (incident_link(&incident.id.0, incident.version.as_str())) }
            td data-label="Reason" { (Text(incident.summary())) }
            td data-label="Opened" { (time(incident.opened_at)) " (" (distance(incident.opened_at, now)) ")" }
            td data-label="Until" { @if let Some((label, at)) = until(incident) { (label) " " (time(at)) } }
        }
    }
}
