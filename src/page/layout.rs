//! The frame of every page.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::Viewer;
use super::assets::{CSS, ICON, JS};
use super::parts::{Text, shown};
use crate::decision::{Guard, Timestamp};

/// A page of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NavItem {
    Prompts,
    Incidents,
    Rollouts,
    /// The page is in no navigation item.
    Elsewhere,
}

const NAVIGATION: [(NavItem, &str, &str); 3] = [
    (NavItem::Prompts, "/", "Prompts"),
    (NavItem::Incidents, "/incidents", "Incidents"),
    (NavItem::Rollouts, "/rollouts", "Rollouts"),
];

/// The parts of a page's frame.
#[derive(Debug)]
pub struct PageLayout<'a> {
    pub title: &'a str,
    pub place: NavItem,
    /// The prompt that it is about, in its encoded form. Changes of others hardly matter.
    pub about: Option<&'a str>,
    /// The time from which the page computes `… ago` and `… left`, because the reader's clock may be wrong.
    pub now: Option<Timestamp>,
    /// How long before the request the order of the prompts was read; `None` if it was read for it, or is not shown.
    pub age: Option<Duration>,
    /// After how many seconds the script looks again without news.
    pub again: Option<u16>,
    pub main: Markup,
}

/// How soon a page looks again while something is awaited.
pub const SOON: Option<u16> = Some(2);
/// How often a page looks again while time alone may change what automation would do: nothing is committed then.
const BY_TIME: Option<u16> = Some(60);

/// When a page looks again that shows what Prometheus measures, and what automation would do.
pub fn again(is_awaited: bool, changes_by_time: bool) -> Option<u16> {
    SOON.filter(|_| is_awaited).or(BY_TIME.filter(|_| changes_by_time))
}

/// Whether this guard ends by time alone, at a moment that the page does not know.
pub fn ends_by_time(guard: Guard) -> bool {
    matches!(guard, Guard::Budget | Guard::KeepsReturning)
}

/// `viewer`: `None` on pages for people who have not signed in.
pub fn page(page: &PageLayout<'_>, viewer: Option<&Viewer>) -> String {
    let csrf = viewer.and_then(|viewer| viewer.csrf.as_deref());
    // rounded up: a reading must not look later than it was
    let age = page.age.map(|age| age.as_millis() + 1);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                @if let Some(csrf) = csrf { meta name="csrf-token" content=(csrf); }
                title { (Text(page.title)) " · prompt-rollback" }
                link rel="icon" type="image/svg+xml" href=(ICON.path());
                link rel="stylesheet" href=(CSS.path());
                // before the body: what needs it appears at once
                script src=(JS.path()) {}
                // an error page says that it retries
                @if let (None, Some(seconds)) = (viewer, page.again) {
                    noscript { meta http-equiv="refresh" content=(seconds); }
                }
            }
            body data-live=[viewer.map(|_| "/events")] data-now=[page.now.map(|now| now.0)] data-age=[age] {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    a class="brand" href="/" { "prompt-rollback" }
                    @if let Some(viewer) = viewer { (navigation(page.place)) (person(viewer)) }
                }
                p id="said" role="status" aria-live="polite" {}
                main id="main" tabindex="-1" data-about=[page.about] data-again=[page.again] { (page.main) }
                (question())
            }
        }
    };
    document.into_string()
}

fn navigation(place: NavItem) -> Markup {
    html! {
        nav aria-label="Pages" {
            @for (own, path, label) in NAVIGATION {
                a href=(path) aria-current=[(own == place).then_some("page")] { (label) }
            }
        }
    }
}

fn person(viewer: &Viewer) -> Markup {
    html! {
        div class="person" {
            span id="live" role="status" {}
            span { (Text(&viewer.name)) }
            @if viewer.signs_out {
                button type="button" class="act" data-method="POST" data-path="/logout" data-then="/" {
                    "Sign out"
                }
            }
        }
    }
}

/// Filled by the script before an action.
fn question() -> Markup {
    html! {
        dialog id="question" aria-labelledby="question-title" aria-describedby="question-text" {
            form method="dialog" {
                h2 id="question-title" {}
                p id="question-text" {}
                label id="question-label" hidden { span {} input type="text" maxlength="500" autocomplete="off"; }
                div class="acts" {
                    button type="button" { "Not now" }
                    button type="submit" value="yes" { "Yes, do it" }
                }
            }
        }
    }
}

/// A table that a narrow screen shows as a list: each cell names its column.
pub fn headings(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th scope="col" { (shown(name)) } } } } }
}
