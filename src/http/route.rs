//! Which request goes where, and who may send it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use matchit::Router;
use tokio::time::Instant;

use super::budget::{Budget, OWN, ReservedBytes};
use super::input::{self, Query};
use super::reply::{ApiError, Reply, text, within};
use super::{
    Context, Peer, Site, api, auth, canary, drill, exposition, import, mark, postmortem, reload, report, restore,
    serving, slack, webhook,
};
use crate::live::Current;
use crate::metrics::Denial;

/// Longest body, but for alerts and the text of a version: whatever else people send is a few names and reasons.
const MAX_SHORT: usize = 64 << 10;

/// The paths of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Webhook,
    Rollback,
    Import,
    Prompts,
    Prompt,
    Log,
    Versions,
    Restore,
    Mark,
    Activate,
    Canary,
    Gates,
    Incidents,
    Incident,
    Postmortem,
    Decide,
    Report,
    StartDrill,
    Drill,
    Pause,
    Resume,
    Slack,
    Reload,
    Metrics,
    Healthy,
    Ready,
}

/// Paths → routes.
#[derive(Debug)]
pub struct Routes(Router<Route>);

impl Routes {
    #[allow(clippy::expect_used, reason = "a fixed table, run at every start")]
    pub fn new() -> Self {
        let table = [
            ("/webhooks/alertmanager", Route::Webhook),
            ("/api/rollback", Route::Rollback),
            ("/api/import", Route::Import),
            ("/api/prompts", Route::Prompts),
            ("/api/prompts/{prompt}", Route::Prompt),
            ("/api/prompts/{prompt}/log", Route::Log),
            ("/api/prompts/{prompt}/versions", Route::Versions),
            ("/api/prompts/{prompt}/versions/{version}/restore", Route::Restore),
            ("/api/prompts/{prompt}/versions/{version}/mark", Route::Mark),
            ("/api/prompts/{prompt}/activate", Route::Activate),
            ("/api/prompts/{prompt}/canary", Route::Canary),
            ("/api/prompts/{prompt}/gates", Route::Gates),
            ("/api/incidents", Route::Incidents),
            ("/api/incidents/{id}", Route::Incident),
            ("/api/incidents/{id}/postmortem", Route::Postmortem),
            ("/api/incidents/{id}/decide", Route::Decide),
            ("/api/report", Route::Report),
            ("/api/drill", Route::StartDrill),
            ("/api/drill/{id}", Route::Drill),
            ("/api/pause", Route::Pause),
            ("/api/resume", Route::Resume),
            ("/slack/interactions", Route::Slack),
            ("/metrics", Route::Metrics),
            ("/-/reload", Route::Reload),
            ("/-/healthy", Route::Healthy),
            ("/-/ready", Route::Ready),
        ];
        let mut router = Router::new();
        for (path, route) in table {
            router.insert(path, route).expect("the routes do not conflict");
        }
        Self(router)
    }

    /// The route and its parameters, decoded: a `/` in a prompt's name comes as `%2F`.
    fn find(&self, path: &str) -> Option<(Route, [String; 2])> {
        let found = self.0.at(path).ok()?;
        let mut parameters = found.params.iter().map(|(_, value)| value);
        let mut decoded = || {
            let parameter = parameters.next().unwrap_or_default();
            Some(percent_encoding::percent_decode_str(parameter).decode_utf8().ok()?.into_owned())
        };
        Some((*found.value, [decoded()?, decoded()?]))
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers one request, whatever it is, within `server.request_timeout`; `whole` is called once all of it is there.
pub async fn answer(
    contexts: &Current<Arc<Context>>,
    request: Request<Incoming>,
    peer: Peer,
    whole: impl FnOnce(),
) -> Result<Reply, Infallible> {
    let context = contexts.get();
    let timeout = context.request_timeout;
    let budget = context.budget.clone();
    let answer = dispatch(context, contexts, request, peer, whole);
    let answer = tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        Err(ApiError::unavailable("timeout", format!("not done within {} ms: try again", timeout.as_millis())))
    });
    let answer = answer.and_then(|answer| within(&budget, answer));
    let mut answer = answer.unwrap_or_else(|failure| {
        if failure.status.is_server_error() {
            tracing::warn!(code = failure.code, why = failure.message, "request failed");
        }
        if let Some(denial) = failure.refused {
            refused(&contexts.get(), denial, peer);
        }
        failure.into_reply()
    });
    if peer.has_stayed_long() || peer.door != contexts.get().door() {
        // whoever goes on comes in anew: by the certificates that are in force now
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

/// Leaves a trace of a request that was not let in, without what it sent.
fn refused(context: &Context, denial: Denial, peer: Peer) {
    context.engine.metrics.refused(denial);
    if let Some(untold) = context.refusals.should_log(denial, Instant::now().into_std()) {
        let from = peer.address;
        tracing::warn!(reason = denial.as_str(), %from, not_told = untold, "a request was refused");
    }
}

async fn dispatch(
    mut context: Arc<Context>,
    contexts: &Current<Arc<Context>>,
    request: Request<Incoming>,
    peer: Peer,
    whole: impl FnOnce(),
) -> Result<Reply, ApiError> {
    let arrived = Instant::now();
    let (head, incoming) = request.into_parts();
    let Some((route, [parameter, second])) = context.routes.find(head.uri.path()) else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path"));
    };
    if !context.serves(peer.site, route) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "not at this address: see metrics.listen"));
    }
    let expected = match route {
        Route::Webhook
        | Route::Rollback
        | Route::Import
        | Route::Versions
        | Route::Restore
        | Route::Mark
        | Route::Activate
        | Route::Canary
        | Route::Decide
        | Route::StartDrill
        | Route::Pause
        | Route::Resume
        | Route::Reload
        | Route::Slack => Method::POST,
        _ => Method::GET,
    };
    // HEAD is GET without the body, which is left out below us
    let right = head.method == expected || (expected == Method::GET && head.method == Method::HEAD);
    if !right {
        let message = format!("expected {expected}");
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message));
    }
    if let Err(refused) = admit(&context, route, &head, peer) {
        // its file may have been replaced since we looked: a new token is never refused
        let is_token = refused.status == StatusCode::UNAUTHORIZED && head.headers.contains_key(AUTHORIZATION);
        if !is_token {
            return Err(refused);
        }
        context.reloader.look().await;
        // by this look, or by one that was under way
        let now = contexts.get();
        if Arc::ptr_eq(&now, &context) {
            return Err(refused);
        }
        context = now;
        admit(&context, route, &head, peer)?;
    }
    let context = &*context;
    let query = Query::parse(head.uri.query());
    if expected == Method::GET {
        whole();
        // boxed, as below: what it takes to handle a request is kept neither for idle connections nor while a body comes in
        return Box::pin(get(context, route, &parameter, &query, head.method == Method::HEAD)).await;
    }
    input::uncompressed(&head.headers)?;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    // what anyone may send has a budget of its own
    let (max, budget) = match route {
        Route::Slack => (slack::MAX_BODY, &context.slack_budget),
        Route::Webhook | Route::Versions => (context.max_body_bytes, &context.budget),
        _ => (context.max_body_bytes.min(MAX_SHORT), &context.budget),
    };
    let (bytes, _held) = read(incoming, declared, max, budget).await?;
    let bytes = input::utf8(bytes.into())?;
    whole();
    Box::pin(post(context, route, [&parameter, &second], &head, &bytes, arrived)).await
}

async fn post(
    context: &Context,
    route: Route,
    [parameter, second]: [&str; 2],
    head: &Parts,
    bytes: &Bytes,
    arrived: Instant,
) -> Result<Reply, ApiError> {
    match route {
        Route::Webhook => {
            let start = Instant::now();
            let source = auth::sender(head, context.webhook_token.as_ref(), &context.sources)?;
            let answer = webhook::handle(context, source, bytes).await;
            context.engine.metrics.webhook(start.elapsed());
            answer
        }
        Route::Reload => reload::reload(context).await,
        Route::Slack => slack::interactions(context, &head.headers, bytes, arrived).await,
        Route::Rollback => serving::rollback(context, bytes).await,
        Route::Import => import::import(context, bytes).await,
        Route::Versions => api::register(context, parameter, bytes).await,
        Route::Restore => restore::restore(context, parameter, second).await,
        Route::Mark => mark::mark(context, parameter, second, bytes).await,
        Route::Activate => serving::activate(context, parameter, bytes).await,
        Route::Canary => canary::steer(context, parameter, bytes).await,
        Route::Decide => serving::decide(context, parameter, bytes).await,
        Route::StartDrill => drill::start(context, bytes).await,
        Route::Pause => api::pause(context, bytes, true).await,
        _ => api::pause(context, bytes, false).await,
    }
}

/// Lets the request pass if whoever sends it may.
fn admit(context: &Context, route: Route, head: &Parts, peer: Peer) -> Result<(), ApiError> {
    match route {
        Route::Webhook => {
            auth::sender(head, context.webhook_token.as_ref(), &context.sources)?;
            if context.webhook_certificate && peer.door.authority() != context.door().authority() {
                // it was never asked for one, or by an authority that is not trusted any more; a 4xx would not be sent again
                return Err(ApiError::unavailable("reconnect", "client certificates are wanted by now: connect again"));
            }
            auth::check_certificate(peer.certified || !context.webhook_certificate)
        }
        // Slack signs its body, which is read only where that can be
        Route::Slack => slack::admit(context, &head.headers),
        // these need no token; without one for the API they must not show a foreign web page what the API hides from it
        Route::Metrics | Route::Healthy | Route::Ready if context.api_token.is_some() => Ok(()),
        _ => auth::check(head, context.api_token.as_ref(), "server.api_token"),
    }
}

async fn get(context: &Context, route: Route, parameter: &str, query: &Query, head: bool) -> Result<Reply, ApiError> {
    match route {
        Route::Prompts => api::prompts(context, query).await,
        Route::Prompt => api::prompt(context, parameter).await,
        Route::Log => api::log(context, parameter, query).await,
        Route::Gates => serving::gates(context, parameter, query).await,
        Route::Incidents => api::incidents(context, query).await,
        Route::Incident => api::incident(context, parameter).await,
        Route::Postmortem => postmortem::postmortem(context, parameter).await,
        Route::Report => report::report(context, query).await,
        Route::Drill => drill::drill(context, parameter).await,
        Route::Metrics => exposition::metrics(context, head).await,
        Route::Ready => Ok(match &*context.readiness.borrow() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        }),
        _ => Ok(text(StatusCode::OK, "healthy\n")),
    }
}

impl Context {
    /// Metrics may have an address of their own, where nothing else is served but what tells of health.
    fn serves(&self, site: Site, route: Route) -> bool {
        match (site, route) {
            (_, Route::Healthy | Route::Ready) => true,
            (Site::Main, Route::Metrics) => !self.metrics_apart,
            (Site::Main, _) | (Site::Metrics, Route::Metrics) => true,
            (Site::Metrics, _) => false,
        }
    }
}

/// Reads the whole body, which may be at most `max` bytes, as far as there is memory for it.
async fn read(
    mut incoming: Incoming,
    declared: Option<u64>,
    max: usize,
    budget: &Budget,
) -> Result<(Vec<u8>, ReservedBytes), ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    // said to be too large: not worth reading
    if declared.is_some_and(|length| length > max as u64) || incoming.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    let mut held = ReservedBytes::default();
    let mut body = Vec::with_capacity(declared.unwrap_or_default().min(OWN));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| ApiError::bad_request("the body did not arrive whole"))?;
        let Some(data) = frame.data_ref() else { continue };
        let length = body.len() + data.len();
        if length > max {
            return Err(too_large());
        }
        if length > body.capacity() {
            // what was said is not believed before it comes; doubled, so that each byte is copied at most twice
            let room = (2 * length).min(declared.unwrap_or(max)).max(length);
            budget.hold(&mut held, room)?;
            body.reserve_exact(room - body.len());
        }
        body.extend_from_slice(data);
    }
    Ok((body, held))
}

/// `answer`, or 500 if it panics: a bug in one request ends neither its connection nor others.
pub async fn caught(answer: impl Future<Output = Result<Reply, Infallible>>) -> Result<Reply, Infallible> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a request panicked");
        Ok(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a bug: please report it").into_reply())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_500() {
        let Ok(answer) = caught(async { panic!("a bug") }).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
