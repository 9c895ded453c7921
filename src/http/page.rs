//! The page: handlers that load what it shows, by the same functions as the API.

mod incident;
mod overview;
mod prompt;

use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, REFRESH,
    X_CONTENT_TYPE_OPTIONS,
};

use super::auth::Caller;
use super::context::Context;
use super::error::ApiError;
use super::input::{ApiResult, Query};
use super::reply::{Reply, reply, shipped};
use super::route::PageKind;
use crate::config::Role;
use crate::metrics::Denial;
use crate::page::Viewer;
use crate::page::assets;
use crate::page::login::{self, SignIn};
use crate::page::problem::{self, ErrorPage};

const HTML: &str = "text/html; charset=utf-8";
/// Content-Security-Policy of the pages: nothing inline, nothing from other sites, and no framing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// For files whose names contain a hash of their content, so the content never changes.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

/// The request of a browser.
#[derive(Debug)]
pub struct PageRequest {
    /// Where to go after signing in.
    pub path: String,
    /// The person followed a link of another site, so the browser did not send the session's cookie.
    pub by_link: bool,
}

/// The caller, and what the page shows them.
struct Visitor<'a> {
    caller: &'a Caller,
    viewer: Viewer,
}

fn viewer(caller: &Caller) -> Viewer {
    Viewer {
        name: caller.name().to_owned(),
        may_deploy: caller.has(Role::Deploy),
        may_decide: caller.has(Role::Decide),
        sees_all: caller.sees_all(),
        csrf: caller.csrf.clone(),
        signs_out: caller.has_session(),
    }
}

pub async fn answer(
    context: &Context,
    caller: &Caller,
    shown: PageKind,
    parameter: &str,
    query: &Query,
) -> ApiResult<Reply> {
    let reader = &Visitor { caller, viewer: viewer(caller) };
    match shown {
        PageKind::Overview => overview::overview(context, reader, query).await,
        PageKind::Rollouts => overview::rollouts(context, reader).await,
        PageKind::Prompt => prompt::prompt(context, reader, parameter, query).await,
        PageKind::Incidents => incident::incidents(context, reader, query).await,
        PageKind::Incident => incident::incident(context, reader, parameter, query).await,
        PageKind::Picture => incident::picture(context, reader, parameter).await,
        PageKind::Asset => asset(parameter),
    }
}

pub fn asset(name: &str) -> ApiResult<Reply> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such file");
    let (asset, is_own) = assets::find(name).ok_or_else(missing)?;
    let mut answer = secured(shipped(asset.content_type, asset.content));
    let kept = HeaderValue::from_static(if is_own { FOR_GOOD } else { "no-cache" });
    answer.headers_mut().insert(CACHE_CONTROL, kept);
    Ok(answer)
}

/// An HTML page, which browsers must not store: it shows what only some may see.
fn html(status: StatusCode, document: String) -> Reply {
    let mut answer = secured(reply(status, HTML, document));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Keeps browsers from showing the response of any other route as a page, because it may contain external text.
pub fn secure(headers: &mut HeaderMap) {
    const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NO_PAGE);
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
}

fn secured(mut answer: Reply) -> Reply {
    let headers: [(HeaderName, &'static str); 3] =
        [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "same-origin")];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// The form for signing in, as it was sent, with what is wrong about it.
pub fn sign_in_again(failure: &ApiError, name: &str, next: &str) -> Reply {
    html(failure.status, login::sign_in(&SignIn { fault: fault(failure), name, next }))
}

fn fault(failure: &ApiError) -> Option<&str> {
    match failure.refused {
        Some(Denial::NoToken) => None,
        Some(Denial::WrongToken) => Some("This token is wrong."),
        _ => Some(&failure.message),
    }
}

/// An error as a page. A missing or wrong token leads to the form for signing in.
pub fn problem(failure: &ApiError, asked: &PageRequest) -> Reply {
    if failure.status == StatusCode::UNAUTHORIZED {
        let mut answer = sign_in_again(failure, "", &asked.path);
        if asked.by_link {
            // asks again, now as the page's own request, with the cookie of a session if there is one
            answer.headers_mut().insert(REFRESH, HeaderValue::from_static("0"));
        }
        return answer;
    }
    let problem = ErrorPage { status: failure.status.as_u16(), code: failure.code, message: &failure.message };
    html(failure.status, problem::problem(&problem))
}
