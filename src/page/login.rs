//! The page on which people sign in.

use maud::html;

use super::layout::{NavItem, PageLayout, page};
use super::parts::{Text, shown};

/// What the page says.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignIn<'a> {
    /// Why the last attempt failed.
    pub fault: Option<&'a str>,
    /// What was entered before.
    pub name: &'a str,
    /// The path to go to afterwards.
    pub next: &'a str,
}

/// The form sends the token to `POST /login`.
pub fn sign_in(view: &SignIn<'_>) -> String {
    let main = html! {
        h1 { "Sign in" }
        @if let Some(fault) = view.fault { p id="fault" class="fault" role="alert" { (Text(fault)) } }
        form class="sign-in" method="post" action="/login" {
            label for="name" { "Your name (optional)" }
            input id="name" name="name" type="text" value=(shown(view.name)) maxlength="200" autocomplete="username";
            label for="token" { "Token" }
            input id="token" name="token" type="password" required autocomplete="current-password"
                aria-describedby=[view.fault.map(|_| "fault")] aria-invalid=[view.fault.map(|_| "true")];
            input type="hidden" name="next" value=(shown(view.next));
            button type="submit" { "Sign in" }
        }
        p class="quiet" {
            "An API token of the receiver: server.api_token, or one of its [tokens]. The log shows your name and the token's name "
            "with everything that you do."
        }
    };
    page(
        &PageLayout {
            title: "Sign in",
            place: NavItem::Elsewhere,
            about: None,
            now: None,
            again: None,
            age: None,
            main,
        },
        None,
    )
}
