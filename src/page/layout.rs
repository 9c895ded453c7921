//! The frame of every page.

use maud::{DOCTYPE, Markup, html};

use super::Viewer;
use super::assets::{CSS, ICON, JS};
use super::parts::{Text, shown};

/// A page of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NavItem {
    Prompts,
    Incidents,
    Rollouts,
    /// In none of them.
    Elsewhere,
}

const NAVIGATION: [(NavItem, &str, &str); 3] = [
    (NavItem::Prompts, "/", "Prompts"),
    (NavItem::Incidents, "/incidents", "Incidents"),
    (NavItem::Rollouts, "/rollouts", "Rollouts"),
];

/// What a page consists of.
#[derive(Debug)]
pub struct PageLayout<'a> {
    pub title: &'a str,
    pub place: NavItem,
    /// Whether something is still awaited, so that the script looks again soon.
    pub is_awaited: bool,
    pub main: Markup,
}

/// `viewer`: `None` on pages for people who have not signed in.
pub fn page(page: &PageLayout<'_>, viewer: Option<&Viewer>) -> String {
    let csrf = viewer.and_then(|viewer| viewer.csrf.as_deref());
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
            }
            body data-live=[viewer.map(|_| "/events")] {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    a class="brand" href="/" { "prompt-rollback" }
                    @if let Some(viewer) = viewer { (navigation(page.place)) (person(viewer)) }
                }
                p id="said" role="status" aria-live="polite" {}
                main id="main" tabindex="-1" data-again=[page.is_awaited.then_some("2")] { (page.main) }
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
