//! What went wrong, as a page.

use maud::html;

use super::layout::{NavItem, PageLayout, SOON, page};
use super::parts::Text;

/// Why there is no page.
#[derive(Debug, Clone, Copy)]
pub struct ErrorPage<'a> {
    pub status: u16,
    /// The word that the API uses.
    pub code: &'a str,
    pub message: &'a str,
}

impl ErrorPage<'_> {
    fn title(&self) -> &'static str {
        match self.status {
            403 => "Not allowed",
            404 => "Not found",
            409 => "Cannot be shown",
            503 => "Not available now",
            400..500 => "Invalid request",
            _ => "Internal error",
        }
    }

    fn advice(&self) -> &'static str {
        match (self.status, self.code) {
            (503, "redis_unavailable") => {
                "Redis cannot be reached, so this page cannot show any prompt. Prompt servers keep the version that \
                 they have. This page retries automatically."
            }
            (503, _) => "This page retries automatically.",
            (404, _) => "It may never have existed, or its record has expired.",
            _ => "",
        }
    }
}

pub fn problem(problem: &ErrorPage<'_>) -> String {
    let title = problem.title();
    let main = html! {
        h1 { (title) }
        p { (Text(problem.message)) }
        p { (problem.advice()) }
        p { a href="/" { "All prompts" } }
    };
    let again = SOON.filter(|_| problem.status == 503);
    page(&PageLayout { title, place: NavItem::Elsewhere, about: None, now: None, again, age: None, main }, None)
}
