//! One prompt: its versions, its log, and what would happen if.

use maud::{Markup, html};

use super::actions::StillOff;
use super::deployments::entries;
use super::explain::explained;
use super::layout::{NavItem, PageLayout, again, ends_by_time, headings, page};
use super::overview::{Automation, automation};
use super::parts::{
    Text, Tone, badge, bar, health, how, incident_link, incomplete, prompt_link, segment, servers, time, time_of, who,
};
use super::{Viewer, actions};
use crate::api::{ExplainView, PromptView, VersionView};
use crate::decision::{Canary, Guard, Incident, MarkKind, PromptName, VersionName};
use crate::deployed::DeploymentEntry;
use crate::figures::Known;
use crate::visible::shown;
use crate::wording::{title, until};

#[derive(Debug, Clone)]
pub struct PromptPage<'a> {
    pub prompt: &'a PromptName,
    pub view: &'a PromptView,
    /// The open ones.
    pub incidents: &'a [&'a Incident],
    pub automation: &'a Automation,
    /// Whether automation is paused for this prompt itself.
    pub is_paused: bool,
    pub still_off: Option<StillOff>,
    /// Whether automation asks once a version has served for long.
    pub asks_by_age: bool,
    pub canary: Option<&'a Canary>,
    pub explained: Option<&'a ExplainView>,
    /// The latest entry first.
    pub log: &'a [DeploymentEntry],
    /// Whether there are older entries.
    pub has_more: bool,
    pub known: &'a Known,
}

pub fn prompt(view: &PromptPage<'_>, viewer: &Viewer) -> String {
    let name = shown(view.prompt);
    let version = |name: &Option<String>| VersionName::parse(name.as_deref()?).ok();
    let (active, target) = (version(&view.view.active), version(&view.view.rollback_target));
    let main = html! {
        h1 { (Text(&name)) }
        (serving(view))
        (incidents(view.incidents))
        section aria-labelledby="automation" {
            h2 id="automation" { "Automation" }
            p { (automation(view.automation)) }
            div class="acts" {
                @if let (Some(active), Some(target), true) =
                    (&active, &target, view.incidents.is_empty())
                { (actions::of_serving(view.prompt, active, target, view.canary.map(|canary| &canary.split.arriving), viewer)) }
                (actions::of_automation(Some(view.prompt), view.is_paused, view.still_off, viewer))
            }
        }
        @if let Some(canary) = view.canary { (super::rollouts::canary(view.prompt, canary, viewer)) }
        (versions(view, viewer))
        @if let Some(view) = view.explained { (explained(view)) }
        (also_changed(view.view))
        (log(view))
    };
    let foreseen = view.explained.iter().flat_map(|view| &view.alerts).flat_map(|alert| &alert.guards);
    let ends = foreseen.filter_map(|guard| Guard::parse(&guard.reason)).any(ends_by_time);
    let again = again(view.known.is_awaited(), view.asks_by_age || ends);
    let about = Some(view.prompt.as_str());
    page(&PageLayout { title: &name, place: NavItem::Prompts, about, now: None, again, age: None, main }, Some(viewer))
}

fn serving(view: &PromptPage<'_>) -> Markup {
    let PromptView { active, active_fault, rollback_target, in_service, .. } = view.view;
    let shares: Vec<(String, u8)> = in_service.iter().map(|one| (one.version.clone(), one.percent)).collect();
    html! {
        (incomplete(view.known))
        @if let Some(fault) = active_fault { p { (badge(Tone::Bad, "fault")) " " (Text(fault)) } }
        p class="lead" {
            @match active { Some(active) => { "Serving " code { (Text(active)) } } None => { "Nothing is served" } }
            @match rollback_target {
                Some(target) => { "; a rollback would go to " code { (Text(target)) } }
                None => { "; no rollback target" }
            }
            "."
        }
        @if shares.len() > 1 { (bar(&shares)) }
        (servers(view.known, view.prompt.as_str()))
        ul class="plain" {
            @for one in in_service {
                li {
                    code { (Text(&one.version)) } " " (one.percent) " %"
                    @if let Some(event) = &one.event { ", " (how(event)) }
                    @if let Some(since) = &one.since { " " (time_of(since)) }
                    @if let Some(operator) = one.operator.as_ref().filter(|name| !name.is_empty()) {
                        " by " (who(operator))
                    }
                    div class="health" { (health(view.known, view.prompt.as_str(), &one.version)) }
                }
            }
        }
    }
}

fn incidents(incidents: &[&Incident]) -> Markup {
    html! {
        @for incident in incidents {
            div class="banner bad" {
                p {
                    strong { (incident_link(&incident.id.0, title(incident))) } ": " (Text(incident.summary().trim_end_matches('.'))) "."
                    @if let Some((label, at)) = until(incident) { " " (label) " " (time(at)) "." }
                }
            }
        }
    }
}

fn versions(view: &PromptPage<'_>, viewer: &Viewer) -> Markup {
    html! {
        section aria-labelledby="versions" {
            h2 id="versions" { "Versions" }
            @if view.view.versions.is_empty() { p { "No version is registered." } } @else {
                table class="wide" {
                    caption class="hidden" { "All versions that the receiver knows" }
                    (headings(&["Version", "State", "First active", "Last active", "Contact", "Mark"]))
                    // the newest first
                    tbody { @for version in view.view.versions.iter().rev() { (row(view.prompt, version, viewer)) } }
                }
            }
        }
    }
}

fn row(prompt: &PromptName, version: &VersionView, viewer: &Viewer) -> Markup {
    let mark = version.mark.as_ref();
    let kind = mark.and_then(|mark| MarkKind::parse(&mark.kind));
    let at = |text: &Option<String>| html! { @match text { Some(at) => { (time_of(at)) } None => { "–" } } };
    html! {
        tr data-key=(super::parts::shown(&version.version)) {
            th scope="row" data-label="Version" { code { (Text(&version.version)) } }
            td data-label="State" { (states(version, kind)) }
            td data-label="First active" { (at(&version.first_activated_at)) }
            td data-label="Last active" { (at(&version.last_active_at)) }
            td data-label="Contact" { @match &version.contact { Some(contact) => { (Text(contact)) } None => { "–" } } }
            td data-label="Mark" {
                @if let Some(mark) = mark {
                    div class="quiet" { (Text(&mark.kind)) " by " (who(&mark.operator)) ": " (Text(&mark.reason)) }
                }
                @if let Ok(name) = VersionName::parse(&version.version) {
                    div class="acts" { (actions::of_version(prompt, &name, kind, viewer)) }
                }
            }
        }
    }
}

fn states(version: &VersionView, mark: Option<MarkKind>) -> Markup {
    html! {
        @if version.active { (badge(Tone::Info, "active")) " " }
        @if version.known_good {
            (badge(Tone::Fine, "known-good")) " "
            span class="quiet" {
                @if let Some(by) = &version.known_good_by { "by " (Text(by)) " " }
                @if let Some(at) = &version.known_good_at { "since " (time_of(at)) " " }
            }
        }
        @if let Some(at) = &version.quarantined_at {
            (badge(Tone::Bad, "quarantined")) " " span class="quiet" { (time_of(at)) " " }
        }
        @match mark {
            Some(MarkKind::Bad) => { (badge(Tone::Bad, "marked as bad")) " " }
            // it shows as known-good
            Some(MarkKind::Good) | None => {}
        }
        @if let Some(at) = &version.soak_ends_at { span class="quiet" { "soaks until " (time_of(at)) " " } }
        @else if let Some(at) = &version.soak_limit_at {
            span class="quiet" { "soaks until " (time_of(at)) " at the latest " }
        }
        @if let Some(note) = &version.soak_note { span class="quiet" { (Text(note)) " " } }
        @if let Some(at) = &version.left_at {
            span class="quiet" {
                "lost its traffic during "
                @if let Some(id) = &version.left_with_incident { (incident_link(id, "an incident")) }
                " " (time_of(at)) " "
            }
        }
        @if let Some(fault) = &version.archive_fault { span class="quiet" { "archive: " (Text(fault)) " " } }
        @else if version.archived_at.is_some() { span class="quiet" { "content in the archive " } }
    }
}

fn also_changed(view: &PromptView) -> Markup {
    html! {
        @if !view.also_changed.prompts.is_empty() {
            section aria-labelledby="also" {
                h2 id="also" { "Changed within the last hour" }
                ul {
                    @for other in &view.also_changed.prompts {
                        li {
                            (prompt_link(&other.prompt)) " " (how(&other.event)) " "
                            @if let Some(to) = &other.to { (Text(to)) }
                            ", " (time_of(&other.at)) " by " (who(&other.operator))
                            @if other.same_group { " (same group)" }
                        }
                    }
                    @if view.also_changed.more > 0 {
                        li { @if view.also_changed.at_least { "at least " } (view.also_changed.more) " more" }
                    }
                }
            }
        }
    }
}

fn log(view: &PromptPage<'_>) -> Markup {
    let path = format!("/prompts/{}?entries=1000#log", segment(view.prompt.as_str()));
    html! {
        section aria-labelledby="log" {
            h2 id="log" { "Deployment log" }
            @if view.log.is_empty() { p class="quiet" { "The log is empty." } } @else { (entries(view.log)) }
            @if view.has_more { p { a href=(path) { "Show more" } } }
        }
    }
}
