//! All prompts: what each serves, how healthy that is, and whether automation would act.

use std::time::Duration;

use maud::{Markup, html};

use super::layout::{NavItem, PageLayout, again, ends_by_time, headings, page};
use super::parts::{
    Text, Tone, badge, bar, distance, health, how, incident_link, incomplete, left, prompt_link, segment, servers,
    shown, time, who,
};
use super::{Viewer, actions};
use crate::decision::{HoldingGuard, Timestamp};
use crate::figures::Known;
use crate::visible::shown_name;

/// Which prompts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    #[default]
    All,
    NeedsPerson,
    Open,
    Rollout,
    Paused,
}

impl Filter {
    pub const ALL: [Self; 5] = [Filter::All, Filter::NeedsPerson, Filter::Open, Filter::Rollout, Filter::Paused];

    pub fn word(self) -> &'static str {
        match self {
            Filter::All => "all",
            Filter::NeedsPerson => "needs-person",
            Filter::Open => "open",
            Filter::Rollout => "rollout",
            Filter::Paused => "paused",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Filter::All => "All",
            Filter::NeedsPerson => "Needs a person",
            Filter::Open => "Open incident",
            Filter::Rollout => "Rollout",
            Filter::Paused => "Automation paused",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.word() == word)
    }
}

/// What the reader asked for.
#[derive(Debug, Clone, Default)]
pub struct ListRequest<'a> {
    pub search: &'a str,
    pub filter: Filter,
    pub group: &'a str,
    /// From 1.
    pub page: usize,
}

#[derive(Debug, Clone)]
pub struct Overview<'a> {
    pub now: Timestamp,
    pub choice: ListRequest<'a>,
    pub rows: Vec<Row>,
    /// Prompts that match, and all prompts.
    pub found: usize,
    pub total: usize,
    pub pages: usize,
    /// How many prompts each filter shows.
    pub counts: [usize; 5],
    pub groups: Vec<(String, usize)>,
    pub paused_for_all: Option<&'a str>,
    pub is_dry_run: bool,
    /// Whether automation asks once a version has served for long.
    pub asks_by_age: bool,
    /// The open incident about many prompts.
    pub outage: Option<&'a str>,
    /// Whether there are more open incidents than the order considers.
    pub is_partial: bool,
    /// How long before the request the order was read; `None` if it was read for it.
    pub age: Option<Duration>,
    pub known: &'a Known,
}

/// One prompt.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub prompt: String,
    pub active: Option<String>,
    /// Why no version is active although one was, or why nothing can be said.
    pub fault: Option<String>,
    pub since: Option<Timestamp>,
    /// How the active version came to serve, and by whom: the words of the log.
    pub event: Option<String>,
    pub operator: Option<String>,
    pub is_known_good: bool,
    /// Versions with traffic, and their percentages.
    pub shares: Vec<(String, u8)>,
    pub rollout: Option<String>,
    pub automation: Automation,
    pub incidents: Vec<OpenIncident>,
}

/// An open incident of a prompt.
#[derive(Debug, Clone)]
pub struct OpenIncident {
    pub id: String,
    pub title: &'static str,
    pub tone: Tone,
    pub version: String,
    pub decider: Option<String>,
    pub until: Option<(&'static str, Timestamp)>,
    /// How many prompt servers follow its rollback.
    pub followers: Option<String>,
}

/// What a critical alert would lead to now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Automation {
    /// It would be rolled back to this version, at once or once Prometheus has confirmed the alert.
    Armed {
        target: Option<String>,
        asks_first: bool,
    },
    Paused(String),
    DryRun,
    Held(HoldingGuard),
    /// The core's own words.
    Other(String),
    NothingServed,
    /// The state of the prompt cannot be read.
    #[default]
    NotKnown,
}

pub fn overview(view: &Overview<'_>, viewer: &Viewer) -> String {
    let main = html! {
        h1 { "Prompts" }
        (banners(view, viewer))
        (choose(view))
        @if view.rows.is_empty() { (empty(view)) } @else {
            table class="wide prompts" {
                caption { (counted(view)) }
                (headings(&["Prompt", "Serving", "Health", "Automation", "Open"]))
                tbody { @for row in &view.rows { (row_of(row, view)) } }
            }
            (pages(view))
        }
    };
    let ends = |row: &Row| matches!(&row.automation, Automation::Held(guard) if ends_by_time(guard.held.guard));
    let again = again(view.known.is_awaited(), view.asks_by_age || view.rows.iter().any(ends));
    let again = again.filter(|_| !view.rows.is_empty());
    page(
        &PageLayout {
            title: "Prompts",
            place: NavItem::Prompts,
            about: None,
            now: Some(view.now),
            again,
            age: view.age,
            main,
        },
        Some(viewer),
    )
}

fn banners(view: &Overview<'_>, viewer: &Viewer) -> Markup {
    html! {
        @if let Some(who) = view.paused_for_all {
            div class="banner watch" {
                p { strong { "Automation is paused for all prompts" } " (" (Text(who)) "). The receiver asks people instead." }
                (actions::of_automation(None, true, actions::StillOff::of(view.is_dry_run, false), viewer))
            }
        }
        @if view.is_dry_run {
            div class="banner info" {
                p { strong { "Dry run." } " Nothing is rolled back automatically: guards.mode is dry-run." }
            }
        }
        @if let Some(id) = view.outage {
            div class="banner bad" {
                p { strong { "Many prompts fail together." } " " (incident_link(id, "Decide about all of them")) }
            }
        }
        (incomplete(view.known))
        @if view.is_partial {
            p class="quiet" { "There are more open incidents than the order of this list considers." }
        }
    }
}

fn choose(view: &Overview<'_>) -> Markup {
    let ListRequest { search, filter, group, .. } = view.choice;
    let is_unknown = !group.is_empty() && view.groups.iter().all(|(name, _)| name != group);
    html! {
        form class="choose" method="get" action="/" role="search" data-filter="true" {
            label for="search" { "Search" }
            input id="search" type="search" name="search" value=(shown(search)) maxlength="128" autocomplete="off";
            label for="state" { "Show" }
            select id="state" name="state" {
                @for (one, count) in Filter::ALL.into_iter().zip(view.counts) {
                    option value=(one.word()) selected[one == filter] { (one.label()) " (" (count) ")" }
                }
            }
            @if is_unknown || !view.groups.is_empty() {
                label for="group" { "Group" }
                select id="group" name="group" {
                    option value="" { "All groups" }
                    @if is_unknown { option value=(shown(group)) selected { (Text(&shown_name(group))) "/ (0)" } }
                    @for (name, count) in &view.groups {
                        option value=(shown(name)) selected[name == group] { (Text(&shown_name(name))) "/ (" (count) ")" }
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

fn counted(view: &Overview<'_>) -> String {
    match (view.found, view.total) {
        (1, 1) => "1 prompt".to_owned(),
        (found, total) if found == total => format!("{total} prompts"),
        (found, total) => format!("{found} of {total} prompts"),
    }
}

fn empty(view: &Overview<'_>) -> Markup {
    html! {
        @if view.total == 0 {
            p { "There are no prompts yet." }
            p {
                "Register the first version with "
                code { "prompt-rollback register PROMPT VERSION" } ", or SET its key in Redis."
            }
        } @else {
            p { "No prompt matches." }
            p { a href="/" { "Show all " (view.total) " prompts" } }
        }
    }
}

fn row_of(row: &Row, view: &Overview<'_>) -> Markup {
    html! {
        tr data-key=(shown(&row.prompt)) {
            th scope="row" { (prompt_link(&row.prompt)) }
            td data-label="Serving" { (serving(row, view)) }
            td data-label="Health" { (healths(row, view.known)) }
            td data-label="Automation" { (automation(&row.automation)) }
            td data-label="Open" {
                @for line in &row.incidents { (open(line, view.now)) }
                @if row.automation == Automation::NotKnown { span class="quiet" { "not known" } }
                @else if row.incidents.is_empty() { span class="quiet" { "nothing" } }
            }
        }
    }
}

fn serving(row: &Row, view: &Overview<'_>) -> Markup {
    html! {
        @if let Some(fault) = &row.fault { (badge(Tone::Bad, "fault")) " " (Text(fault)) }
        @if let Some(active) = &row.active {
            div {
                code { (Text(active)) } " "
                @if row.is_known_good { (badge(Tone::Fine, "known-good")) }
            }
            div class="quiet" {
                @if let Some(event) = &row.event { (how(event)) " " }
                @if let Some(since) = row.since { (time(since)) " (" (distance(since, view.now)) ")" }
                @if let Some(operator) = &row.operator { " by " (who(operator)) }
            }
        } @else if row.fault.is_none() { span class="quiet" { "nothing is served" } }
        @if row.shares.len() > 1 {
            (bar(&row.shares))
            div class="quiet" {
                @for (at, (version, percent)) in row.shares.iter().enumerate() {
                    @if at > 0 { " · " }
                    (Text(version)) " " (percent) " %"
                }
            }
        }
        (servers(view.known, &row.prompt))
        @if let Some(rollout) = &row.rollout { div { a href="/rollouts" { (Text(rollout)) } } }
    }
}

fn healths(row: &Row, known: &Known) -> Markup {
    html! {
        @for (version, _) in &row.shares {
            div class="health" {
                @if row.shares.len() > 1 { code { (Text(version)) } " " }
                (health(known, &row.prompt, version))
            }
        }
        @if row.shares.is_empty() { span class="quiet" { "–" } }
    }
}

/// What a critical alert would lead to now.
pub fn automation(automation: &Automation) -> Markup {
    html! {
        @match automation {
            Automation::Armed { target, asks_first } => {
                (badge(Tone::Fine, "armed")) " "
                @if let Some(target) = target { span class="quiet" { "→ " (Text(target)) } }
                @if *asks_first { span class="quiet" { " once Prometheus has confirmed the alert" } }
            }
            Automation::Paused(by) => { (badge(Tone::Watch, "paused")) " " span class="quiet" { (Text(by)) } }
            Automation::DryRun => { (badge(Tone::Info, "dry run")) }
            Automation::Held(guard) => { (badge(Tone::Watch, "held")) " " (held(guard)) }
            Automation::Other(text) => { span class="quiet" { "an alert would " (Text(text)) } }
            Automation::NothingServed => { span class="quiet" { "nothing to roll back" } }
            Automation::NotKnown => { span class="quiet" { "not known" } }
        }
    }
}

/// A guard that holds, and for how long.
pub fn held(guard: &HoldingGuard) -> Markup {
    html! {
        span class="quiet" {
            code { (guard.held.guard.as_str()) } ": " (Text(&guard.held.detail))
            @if let Some(rest) = guard.left { ", " (left(rest)) }
        }
    }
}

fn open(line: &OpenIncident, now: Timestamp) -> Markup {
    html! {
        div {
            (badge(line.tone, line.title)) " " (incident_link(&line.id, &line.version))
            @if let Some(decider) = &line.decider { span class="quiet" { " asks " (Text(decider)) } }
            @if let Some((label, at)) = line.until {
                div class="quiet" { (label) " " (time(at)) " (" (distance(at, now)) ")" }
            }
            @if let Some(followers) = &line.followers { div class="quiet" { (Text(followers)) } }
        }
    }
}

fn pages(view: &Overview<'_>) -> Markup {
    let ListRequest { search, filter, group, page } = &view.choice;
    let path = |page: usize| {
        let (search, group) = (segment(search), segment(group));
        format!("/?search={search}&state={}&group={group}&page={page}", filter.word())
    };
    html! {
        @if view.pages > 1 {
            nav class="pages" aria-label="Pages of the list" {
                @if *page > 1 { a rel="prev" href=(path(page - 1)) { "Previous" } }
                span { "Page " (page) " of " (view.pages) }
                @if *page < view.pages { a rel="next" href=(path(page + 1)) { "Next" } }
            }
        }
    }
}
