//! The page on which people sign in.

use maud::html;

use super::layout::{Page, Place, page};
use super::parts::{Text, shown};

/// What the page says.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignIn<'a> {
    /// Why the last attempt failed.
    pub fault: Option<&'a str>,
    /// The path to go to afterwards.
    pub next: &'a str,
}

/// The form sends the token to `POST /login`.
pub fn sign_in(view: &SignIn<'_>) -> String {
    let main = html! {
        h1 { "Sign in" }
        @if let Some(fault) = view.fault { p id="fault" class="fault" role="alert" { (Text(fault)) } }
        form class="sign-in" method="post" action="/login" {
            label for="token" { "Token" }
            input id="token" name="token" type="password" required autocomplete="current-password"
                aria-describedby=[view.fault.map(|_| "fault")] aria-invalid=[view.fault.map(|_| "true")];
            input type="hidden" name="next" value=(shown(view.next));
            button type="submit" { "Sign in" }
        }
        p class="quiet" { "The config of the receiver names your token. It is sent to this receiver only." }
    };
    page(&Page { title: "Sign in", place: Place::Elsewhere, is_awaited: false, main }, None)
}
