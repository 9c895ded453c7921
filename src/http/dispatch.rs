//! Which handler gets a request, and who may send it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::auth::{Caller, unix_seconds};
use super::context::Context;
use super::error::ApiError;
use super::input::{self, Query};
use super::login::SignInForm;
use super::page::{self, PageRequest};
use super::peer::{Peer, Site};
use super::reply::{Reply, shipped, text, within};
use super::route::{PageKind, Route, Routes};
use super::{
    api, auth, canary, drill, events, explain, import, incoming, login, mark, openapi, postmortem, reload, report,
    restore, scrape, serving, slack, webhook,
};
use crate::decision::PromptName;
use crate::live::Current;
use crate::metrics::{Denial, Metrics};
use crate::trace;

/// Longest body, except for alerts and content: other requests hold a few names and reasons.
const MAX_SHORT: usize = 64 << 10;

/// The paths of one prompt.
const PROMPT: &str = "/prompts/{prompt}";

/// Answers one request within `server.request_timeout`. `whole` is called when all of it has arrived.
pub async fn answer(
    contexts: &Current<Arc<Context>>,
    request: Request<Incoming>,
    peer: Peer,
    whole: impl FnOnce(),
) -> Result<Reply, Infallible> {
    let context = contexts.get();
    let timeout = context.request_timeout;
    let budget = context.budget.clone();
    let mut span = Span::none();
    let asked =
        page_request(&context.routes, &request).filter(|_| context.serves(peer.site, Route::Page(PageKind::Overview)));
    let answer = dispatch(context, contexts, request, peer, whole, &mut span);
    let answer = tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        Err(ApiError::unavailable("timeout", format!("not done within {} ms: try again", timeout.as_millis())))
    });
    let answer = answer.and_then(|answer| within(&budget, answer));
    let code = answer.as_ref().err().map(|failure| failure.code);
    let mut answer = answer.unwrap_or_else(|failure| {
        if failure.status.is_server_error() {
            failed(&contexts.get(), &failure, &span, peer);
        }
        if let Some(denial) = failure.refused {
            refused(&contexts.get(), denial, peer);
        }
        match &asked {
            Some(asked) => page::problem(&failure, asked),
            None => failure.into_reply(),
        }
    });
    trace::answers(&span, answer.status(), code);
    page::secure(answer.headers_mut());
    if peer.has_stayed_long() || peer.door != contexts.get().door() {
        // the client must reconnect, with the certificates that are in force now
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

/// The request as one for a page, if it comes from a browser that expects one, even at a path without a page.
fn page_request<B>(routes: &Routes, request: &Request<B>) -> Option<PageRequest> {
    let headers = request.headers();
    let accepts =
        || headers.get_all(ACCEPT).iter().any(|accepted| accepted.to_str().is_ok_and(|all| all.contains("text/html")));
    let own = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let (expects, path) = match routes.find(request.uri().path()) {
        Some((_, Route::Page(_), _)) => (true, own),
        // the form names the page that it leads to
        Some((_, Route::Login, _)) => (true, "/"),
        Some(_) => (false, ""),
        None => (accepts(), own),
    };
    let by_link = headers.get(auth::SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
    expects.then(|| PageRequest { path: login::destination(path).to_owned(), by_link })
}

/// The span of a request that was let in. What is asked every few seconds has none, and each click has its own.
fn span(route: Route, head: &Parts, parameter: &str) -> Span {
    let path = route.path();
    match route {
        Route::Webhook => trace::webhook(&head.headers, path),
        Route::Slack
        | Route::Login
        | Route::Logout
        | Route::Metrics
        | Route::Healthy
        | Route::Ready
        | Route::Page(PageKind::Asset) => Span::none(),
        _ => {
            let named = |part: &str| path.contains(part).then_some(parameter);
            let prompt = named("/{prompt}").and_then(|name| PromptName::written(name).ok());
            let incident = named("/incidents/{id}").and_then(|id| input::incident_id(id).ok());
            let incident = incident.as_ref().map(|id| id.0.as_str());
            trace::api((&head.method, path), &head.headers, prompt.as_ref(), incident)
        }
    }
}

/// Counts and logs a refused request, without its content.
fn refused(context: &Context, denial: Denial, peer: Peer) {
    context.engine.metrics.refused(denial);
    let reason = denial.as_str();
    if let Some(untold) = context.refusals.should_log(reason, Instant::now().into_std()) {
        let from = peer.address;
        tracing::warn!(reason, %from, not_told = untold, "a request was refused");
    }
}

/// Logs a request that failed. Those without a span may be sent by anyone, so they must not fill the log.
fn failed(context: &Context, failure: &ApiError, span: &Span, peer: Peer) {
    let (code, why) = (failure.code, failure.message.as_str());
    if !span.is_none() {
        return span.in_scope(|| tracing::warn!(code, why, "request failed"));
    }
    if let Some(untold) = context.refusals.should_log(code, Instant::now().into_std()) {
        let from = peer.address;
        tracing::warn!(code, why, %from, not_told = untold, "request failed");
    }
}

async fn dispatch(
    mut context: Arc<Context>,
    contexts: &Current<Arc<Context>>,
    request: Request<Incoming>,
    peer: Peer,
    whole: impl FnOnce(),
    span: &mut Span,
) -> Result<Reply, ApiError> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let Some((expected, route, parameters)) = context.routes.find(head.uri.path()) else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path"));
    };
    if !context.serves(peer.site, route) {
        let message = "not at this address: see metrics.listen, page.listen and page.enabled";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    // HEAD is GET without the body, which is left out below us
    let right = head.method == *expected || (*expected == Method::GET && head.method == Method::HEAD);
    if !right {
        if route == Route::Login && matches!(head.method, Method::GET | Method::HEAD) {
            return login::to_overview();
        }
        return Err(ApiError::method_not_allowed(expected));
    }
    let Some([parameter, second]) = parameters else {
        return Err(ApiError::bad_request("path: expected UTF-8 text, percent-encoded"));
    };
    let sender = match admit(&context, route, &head, &parameter, &peer) {
        Ok(sender) => sender,
        Err(refused) => {
            let is_token = refused.status == StatusCode::UNAUTHORIZED && head.headers.contains_key(AUTHORIZATION);
            let now = if is_token { renewed(&context, contexts).await } else { None };
            context = now.ok_or(refused)?;
            admit(&context, route, &head, &parameter, &peer)?
        }
    };
    *span = self::span(route, &head, &parameter);
    let query = Query::parse(head.uri.query(), route.parameters())?;
    if matches!(head.method, Method::GET | Method::HEAD) {
        // while it waits, its connection may be evicted
        let _room = context.room_for(route, &query).await?;
        whole();
        // boxed, as below: what it takes to handle a request is kept neither for idle connections nor while a body comes in
        let only_head = head.method == Method::HEAD;
        if let (Route::Events, Sender::Caller(caller)) = (route, &sender) {
            return events::events(&context, contexts, caller.clone(), (head, peer), only_head);
        }
        let answer = Box::pin(get(&context, (route, only_head), &sender, &parameter, &query, arrived));
        return answer.instrument(span.clone()).await;
    }
    input::uncompressed(&head.headers)?;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    // requests that anyone may send have a budget of their own
    let (max, budget) = match route {
        Route::Slack => (slack::MAX_BODY, &context.unsigned_budget),
        Route::Login | Route::Logout => (login::MAX_BODY, &context.unsigned_budget),
        Route::Webhook | Route::Versions => (context.max_body_bytes, &context.budget),
        _ => (context.max_body_bytes.min(MAX_SHORT), &context.budget),
    };
    let (bytes, held) = incoming::read(body, declared, max, budget).await?;
    let bytes = input::utf8(bytes.into())?;
    whole();
    let parameters = [parameter.as_str(), second.as_str()];
    let request = PostRequest { sender: &sender, parameters, head: &head, peer, bytes: &bytes, arrived };
    let mut answer = Box::pin(post(&context, route, request)).instrument(span.clone()).await;
    // it has a token, or Slack's signature, in its body
    let is_refused = matches!(sender, Sender::Anyone)
        && answer.as_ref().is_err_and(|refused| refused.status == StatusCode::UNAUTHORIZED);
    if is_refused {
        // most such requests are forged: while the files are read, they keep no others out
        let waiting = budget.lend(held);
        let now = tokio::select! {
            biased;
            () = waiting.given_up() => None,
            now = renewed(&context, contexts) => now,
        };
        if let Some(now) = now {
            let _held = waiting.complete();
            answer = Box::pin(post(&now, route, request)).instrument(span.clone()).await;
        }
    }
    match answer {
        Err(failure) if route == Route::Login => Ok(sign_in_again(&context, &failure, &bytes, peer)),
        answer => answer,
    }
}

/// The context now in force, if it is another one. The file of a secret may have been replaced since the last check: a new
/// secret is never refused.
async fn renewed(context: &Arc<Context>, contexts: &Current<Arc<Context>>) -> Option<Arc<Context>> {
    context.reloader.look().await;
    // reloaded by this check, or by one in progress
    Some(contexts.get()).filter(|now| !Arc::ptr_eq(now, context))
}

/// The form for signing in: what was typed is still there, except for the token.
fn sign_in_again(context: &Context, failure: &ApiError, bytes: &Bytes, peer: Peer) -> Reply {
    if let Some(denial) = failure.refused {
        refused(context, denial, peer);
    }
    let form = SignInForm::read(bytes);
    page::sign_in_again(failure, &form.name, &form.next)
}

/// Observes how long a delivery took, also if `server.request_timeout` ends it.
struct Timed<'a>(&'a Metrics, Instant);

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.0.webhook(self.1.elapsed());
    }
}

/// A request that has arrived whole.
#[derive(Clone, Copy)]
struct PostRequest<'a> {
    sender: &'a Sender,
    /// Of the path.
    parameters: [&'a str; 2],
    head: &'a Parts,
    peer: Peer,
    bytes: &'a Bytes,
    arrived: Instant,
}

async fn post(context: &Context, route: Route, request: PostRequest<'_>) -> Result<Reply, ApiError> {
    let PostRequest { sender, parameters: [parameter, second], head, peer, bytes, arrived } = request;
    let caller = match sender {
        Sender::Caller(caller) => caller,
        Sender::Source(name) => {
            let _timed = Timed(&context.engine.metrics, Instant::now());
            let source = name.as_ref().and_then(|name| context.sources.get_key_value(name));
            let source = source.map(|(name, source)| (name.as_str(), source));
            return webhook::handle(context, source, bytes).await;
        }
        Sender::Anyone => match route {
            Route::Login => return login::login(context, head, &peer, &SignInForm::read(bytes), unix_seconds()),
            Route::Logout => return login::logout(head, &peer),
            _ => return slack::interactions(context, &head.headers, bytes, arrived).await,
        },
    };
    match route {
        Route::Reload => reload::reload(context, caller).await,
        Route::Rollback => serving::rollback(context, caller, bytes, arrived).await,
        Route::Import => import::import(context, caller, bytes).await,
        Route::Versions => api::register(context, caller, parameter, bytes).await,
        Route::Restore => restore::restore(context, parameter, second, bytes, arrived).await,
        Route::Mark => mark::mark(context, caller, parameter, second, bytes).await,
        Route::Activate => serving::activate(context, caller, parameter, bytes, arrived).await,
        Route::Canary => canary::steer(context, caller, parameter, bytes).await,
        Route::Decide => serving::decide(context, caller, parameter, bytes, arrived).await,
        Route::StartDrill => drill::start(context, caller, bytes).await,
        Route::Pause => api::pause(context, caller, bytes, true).await,
        _ => api::pause(context, caller, bytes, false).await,
    }
}

/// The sender of a request that was let in.
enum Sender {
    /// Of alerts. `None`: it may send all alerts.
    Source(Option<String>),
    Caller(Caller),
    /// The handler verifies the sender, or there is no need to.
    Anyone,
}

/// Accepts the request if its sender may send it.
fn admit(context: &Context, route: Route, head: &Parts, parameter: &str, peer: &Peer) -> Result<Sender, ApiError> {
    match route {
        Route::Webhook => {
            let source = auth::sender(head, context.webhook_token.as_ref(), &context.sources)?;
            if context.webhook_certificate && peer.door.authority() != context.door().authority() {
                // the client was never asked for a certificate, or by an authority that is no longer trusted; after a
                // 4xx it would not retry
                return Err(ApiError::unavailable("reconnect", "client certificates are now required: reconnect"));
            }
            auth::check_certificate(peer.certified || !context.webhook_certificate)?;
            Ok(Sender::Source(source.map(|(name, _)| name.to_owned())))
        }
        // Slack signs the body, which is read only if the signature can be valid
        Route::Slack => slack::admit(context, &head.headers).map(|()| Sender::Anyone),
        // the handler compares the token
        Route::Login | Route::Logout => context.admission.check_form(head, peer).map(|()| Sender::Anyone),
        // these need no token; without one for the API they must not show a foreign web page what the API hides from it
        Route::Metrics | Route::OpenApi | Route::Healthy | Route::Ready | Route::Page(PageKind::Asset)
            if !context.admission.is_open() || (peer.site == Site::Metrics && !peer.address.is_loopback()) =>
        {
            Ok(Sender::Anyone)
        }
        _ => {
            let caller = context.admission.caller(head, peer, unix_seconds())?;
            caller.require(route.role())?;
            // a name that is no prompt's is refused by the handler
            if route.path().contains(PROMPT)
                && let Ok(prompt) = PromptName::written(parameter)
            {
                caller.require_prompt(&prompt)?;
            }
            Ok(Sender::Caller(caller))
        }
    }
}

async fn get(
    context: &Context,
    (route, head): (Route, bool),
    sender: &Sender,
    parameter: &str,
    query: &Query,
    arrived: Instant,
) -> Result<Reply, ApiError> {
    let Sender::Caller(caller) = sender else { return public(context, route, parameter, head).await };
    match route {
        Route::Prompts => api::prompts(context, caller, query).await,
        Route::Prompt => api::prompt(context, caller, parameter).await,
        Route::Logs => api::logs(context, caller, query).await,
        Route::Log => api::log(context, parameter, query).await,
        Route::Gates => serving::gates(context, parameter, query, arrived).await,
        Route::Explain => explain::explain(context, parameter, query).await,
        Route::Incidents => api::incidents(context, caller, query).await,
        Route::Incident => api::incident(context, caller, parameter).await,
        Route::Postmortem => postmortem::postmortem(context, caller, parameter).await,
        Route::Report => report::report(context, caller, query).await,
        Route::Drill => drill::drill(context, caller, parameter).await,
        Route::Page(shown) => page::answer(context, caller, shown, parameter, query).await,
        _ => public(context, route, parameter, head).await,
    }
}

/// Routes that need no token: metrics, health and the API description.
async fn public(context: &Context, route: Route, parameter: &str, head: bool) -> Result<Reply, ApiError> {
    match route {
        Route::Metrics => scrape::metrics(context, head).await,
        Route::Page(_) => page::asset(parameter),
        Route::OpenApi => Ok(shipped("application/json", openapi::DOCUMENT)),
        Route::Ready => Ok(match &*context.readiness.borrow() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        }),
        _ => Ok(text(StatusCode::OK, "healthy\n")),
    }
}

/// Returns `answer`, or 500 if it panics: a bug in one request ends neither its connection nor others.
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
