//! Which request goes where, and who may send it.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use matchit::Router;
use tokio::time::Instant;

use super::input::{self, Query};
use super::reply::{Failure, Reply, json, reply, text};
use super::{
    Context, Door, Peer, api, auth, canary, drill, import, mark, postmortem, reload, report, restore, serving, slack,
    webhook,
};
use crate::live::Current;
use crate::metrics::Stored;
use crate::store::StoreError;
use crate::store::schedule::Work;

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
    let answer = dispatch(context, contexts, request, peer, whole);
    let answer = tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        Err(Failure::unavailable("timeout", format!("not done within {} ms: try again", timeout.as_millis())))
    });
    let mut answer = answer.unwrap_or_else(|failure| {
        if failure.status.is_server_error() {
            tracing::warn!(code = failure.code, why = failure.message, "request failed");
        }
        if let Some(reason) = failure.refused {
            refused(&contexts.get(), reason, peer);
        }
        failure.into_reply()
    });
    if peer.door != contexts.get().door() {
        // TLS was switched on or off: whoever goes on comes in anew
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

/// Leaves a trace of a request that was not let in, without what it sent.
fn refused(context: &Context, reason: &'static str, peer: Peer) {
    context.engine.metrics.refused(reason);
    if let Some(untold) = context.refusals.tell(reason, Instant::now().into_std()) {
        let from = peer.address;
        tracing::warn!(reason, %from, not_told = untold, "a request was refused");
    }
}

async fn dispatch(
    mut context: Arc<Context>,
    contexts: &Current<Arc<Context>>,
    request: Request<Incoming>,
    peer: Peer,
    whole: impl FnOnce(),
) -> Result<Reply, Failure> {
    let arrived = Instant::now();
    let (head, incoming) = request.into_parts();
    let Some((route, [parameter, second])) = context.routes.find(head.uri.path()) else {
        return Err(Failure::new(StatusCode::NOT_FOUND, "not_found", "no such path"));
    };
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
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message));
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
        return get(context, route, &parameter, &query).await;
    }
    input::uncompressed(&head.headers)?;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let max = if route == Route::Slack { slack::MAX_BODY } else { context.max_body_bytes };
    let bytes = input::utf8(read(incoming, declared, max).await?)?;
    whole();
    match route {
        Route::Webhook => {
            let start = Instant::now();
            let source = auth::sender(&head, context.webhook_token.as_ref(), &context.sources)?;
            let answer = webhook::handle(context, source, &bytes).await;
            context.engine.metrics.webhook(start.elapsed());
            answer
        }
        Route::Reload => reload::reload(context).await,
        Route::Slack => slack::interactions(context, &head.headers, &bytes, arrived).await,
        Route::Rollback => serving::rollback(context, &bytes).await,
        Route::Import => import::import(context, &bytes).await,
        Route::Versions => api::register(context, &parameter, &bytes).await,
        Route::Restore => restore::restore(context, &parameter, &second).await,
        Route::Mark => mark::mark(context, &parameter, &second, &bytes).await,
        Route::Activate => serving::activate(context, &parameter, &bytes).await,
        Route::Canary => canary::steer(context, &parameter, &bytes).await,
        Route::Decide => serving::decide(context, &parameter, &bytes).await,
        Route::StartDrill => drill::start(context, &bytes).await,
        Route::Pause => api::pause(context, &bytes, true).await,
        _ => api::pause(context, &bytes, false).await,
    }
}

/// Lets the request pass if whoever sends it may.
fn admit(context: &Context, route: Route, head: &Parts, peer: Peer) -> Result<(), Failure> {
    match route {
        Route::Webhook => {
            auth::sender(head, context.webhook_token.as_ref(), &context.sources)?;
            if context.webhook_certificate && peer.door != Door::TlsWithCertificates {
                // it was never asked for one; a 4xx would not be sent again
                return Err(Failure::unavailable("reconnect", "client certificates are wanted by now: connect again"));
            }
            auth::check_certificate(peer.certified || !context.webhook_certificate)
        }
        // Slack signs its body
        Route::Slack => Ok(()),
        // these need no token; without one for the API they must not show a foreign web page what the API hides from it
        Route::Metrics | Route::Healthy | Route::Ready if context.api_token.is_some() => Ok(()),
        _ => auth::check(head, context.api_token.as_ref(), "server.api_token"),
    }
}

async fn get(context: &Context, route: Route, parameter: &str, query: &Query) -> Result<Reply, Failure> {
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
        Route::Metrics => metrics(context).await,
        Route::Ready => Ok(match &*context.readiness.borrow() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        }),
        _ => Ok(text(StatusCode::OK, "healthy\n")),
    }
}

async fn metrics(context: &Context) -> Result<Reply, Failure> {
    let stored = match stored_metrics(context).await {
        Ok(stored) => Some(stored),
        // our own counters say why: they must be seen just then
        Err(error) => {
            tracing::warn!(%error, "metrics without what is kept in redis");
            context.engine.metrics.ready(false); // the alert rules trust the series of a receiver that is ready
            None
        }
    };
    let body =
        context.engine.metrics.encode(stored).map_err(|_| Failure::unavailable("metrics", "can't be written"))?;
    Ok(reply(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body))
}

async fn stored_metrics(context: &Context) -> Result<Stored, StoreError> {
    let store = &context.engine.store;
    let (series, dropped) = store.series(context.max_prompts).await?;
    let (phases, parked) = store.counts().await?;
    let paused = store.paused_for_all().await?.is_some();
    let slack_lag = store.slack_lag().await?;
    let works = [Work::Act, Work::Page, Work::Mass, Work::Archive];
    let work_lag = works.map(Work::as_str).into_iter().zip(store.work_lag(&works).await?).collect();
    let heartbeat = store.heartbeat().await?.map(|last| last.heard_at);
    Ok(Stored { series, dropped, phases, parked, paused, slack_lag, work_lag, heartbeat })
}

/// Reads the whole body, which may be at most `max` bytes.
async fn read(incoming: Incoming, declared: Option<u64>, max: usize) -> Result<Bytes, Failure> {
    let too_large = || {
        let message = format!("the body is larger than {max} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    // said to be too large: not worth reading
    if declared.is_some_and(|length| length > max as u64) || incoming.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    match Limited::new(incoming, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Failure::bad_request("the body did not arrive whole")),
    }
}

/// The answer to a request that made us panic: a bug, which must not take the connection or others with it.
pub fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Reply {
    tracing::error!("a request panicked");
    json(
        StatusCode::INTERNAL_SERVER_ERROR,
        &serde_json::json!({ "error": { "code": "internal", "message": "a bug: please report it" } }),
    )
}
