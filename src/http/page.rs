//! The page: handlers that load what it shows, by the same functions as the API.

mod incident;
mod overview;
mod prompt;

use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use super::Context;
use super::input::{ApiResult, Query};
use super::reply::{ApiError, Reply, reply};
use crate::decision::Operator;
use crate::page::Viewer;
use crate::page::assets;
use crate::page::problem::{self, Problem};

const HTML: &str = "text/html; charset=utf-8";
/// Nothing inline, nothing from elsewhere, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A name with the hash of what it holds stands for nothing else.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

/// What is shown at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Overview,
    Prompt,
    Incidents,
    Incident,
    /// The picture of an incident.
    Picture,
    Rollouts,
    /// The style sheet, the script, the icon.
    Asset,
}

/// Who looks: whoever may use the API, because its token is required.
fn viewer() -> Viewer {
    let name = Operator::API.to_owned();
    Viewer { name, may_deploy: true, may_decide: true, may_admin: true, csrf: None, signs_out: false }
}

pub async fn answer(context: &Context, shown: Shown, parameter: &str, query: &Query) -> ApiResult<Reply> {
    let viewer = viewer();
    match shown {
        Shown::Overview => overview::overview(context, &viewer, query).await,
        Shown::Rollouts => overview::rollouts(context, &viewer).await,
        Shown::Prompt => prompt::prompt(context, &viewer, parameter, query).await,
        Shown::Incidents => incident::incidents(context, &viewer, query).await,
        Shown::Incident => incident::incident(context, &viewer, parameter, query).await,
        Shown::Picture => incident::picture(context, parameter).await,
        Shown::Asset => asset(parameter),
    }
}

fn asset(name: &str) -> ApiResult<Reply> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such file");
    let (asset, is_own) = assets::find(name).ok_or_else(missing)?;
    let mut answer = secured(reply(StatusCode::OK, asset.content_type, asset.content));
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

fn secured(mut answer: Reply) -> Reply {
    let headers: [(HeaderName, &'static str); 3] =
        [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "same-origin")];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// An error as a page. Whoever was refused sees no more than that.
pub fn problem(failure: &ApiError) -> Reply {
    let refused = failure.refused.is_some() || failure.status == StatusCode::UNAUTHORIZED;
    let viewer = (!refused).then(viewer);
    let problem = Problem { status: failure.status.as_u16(), code: failure.code, message: &failure.message };
    html(failure.status, problem::problem(&problem, viewer.as_ref()))
}
