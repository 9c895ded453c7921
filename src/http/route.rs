//! Routes: which handler gets a request, and who may send it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use matchit::Router;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::auth::Caller;
use super::budget::{Budget, OWN, ReservedBytes, overloaded};
use super::input::{self, Query};
use super::login::SignInForm;
use super::page::{self, PageKind, PageRequest};
use super::reply::{ApiError, Reply, shipped, text, within};
use super::{
    Context, Peer, Site, api, auth, canary, drill, events, explain, exposition, import, login, mark, openapi,
    postmortem, reload, report, restore, serving, slack, unix_seconds, webhook,
};
use crate::config::Role;
use crate::decision::PromptName;
use crate::live::Current;
use crate::metrics::{Denial, Metrics};
use crate::trace;

/// Longest body, except for alerts and content: other requests hold a few names and reasons.
const MAX_SHORT: usize = 64 << 10;

/// The paths of one prompt.
const PROMPT: &str = "/prompts/{prompt}";

/// The documented paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Webhook,
    Rollback,
    Import,
    Prompts,
    Prompt,
    Log,
    Logs,
    Versions,
    Restore,
    Mark,
    Activate,
    Canary,
    Gates,
    Explain,
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
    Login,
    Logout,
    Events,
    Reload,
    Metrics,
    OpenApi,
    Healthy,
    Ready,
    /// The page, for browsers.
    Page(PageKind),
}

/// Each path, its method and its route. HEAD is GET without the body.
pub(super) static TABLE: [(&str, Method, Route); 39] = [
    ("/webhooks/alertmanager", Method::POST, Route::Webhook),
    ("/api/rollback", Method::POST, Route::Rollback),
    ("/api/import", Method::POST, Route::Import),
    ("/api/prompts", Method::GET, Route::Prompts),
    ("/api/prompts/{prompt}", Method::GET, Route::Prompt),
    ("/api/log", Method::GET, Route::Logs),
    ("/api/prompts/{prompt}/log", Method::GET, Route::Log),
    ("/api/prompts/{prompt}/versions", Method::POST, Route::Versions),
    ("/api/prompts/{prompt}/versions/{version}/restore", Method::POST, Route::Restore),
    ("/api/prompts/{prompt}/versions/{version}/mark", Method::POST, Route::Mark),
    ("/api/prompts/{prompt}/activate", Method::POST, Route::Activate),
    ("/api/prompts/{prompt}/canary", Method::POST, Route::Canary),
    ("/api/prompts/{prompt}/gates", Method::GET, Route::Gates),
    ("/api/prompts/{prompt}/explain", Method::GET, Route::Explain),
    ("/api/incidents", Method::GET, Route::Incidents),
    ("/api/incidents/{id}", Method::GET, Route::Incident),
    ("/api/incidents/{id}/postmortem", Method::GET, Route::Postmortem),
    ("/api/incidents/{id}/decide", Method::POST, Route::Decide),
    ("/api/report", Method::GET, Route::Report),
    ("/api/drill", Method::POST, Route::StartDrill),
    ("/api/drill/{id}", Method::GET, Route::Drill),
    ("/api/pause", Method::POST, Route::Pause),
    ("/api/resume", Method::POST, Route::Resume),
    ("/slack/interactions", Method::POST, Route::Slack),
    ("/login", Method::POST, Route::Login),
    ("/logout", Method::POST, Route::Logout),
    ("/events", Method::GET, Route::Events),
    ("/metrics", Method::GET, Route::Metrics),
    ("/openapi.json", Method::GET, Route::OpenApi),
    ("/-/reload", Method::POST, Route::Reload),
    ("/-/healthy", Method::GET, Route::Healthy),
    ("/-/ready", Method::GET, Route::Ready),
    ("/", Method::GET, Route::Page(PageKind::Overview)),
    ("/prompts/{prompt}", Method::GET, Route::Page(PageKind::Prompt)),
    ("/incidents", Method::GET, Route::Page(PageKind::Incidents)),
    ("/incidents/{id}", Method::GET, Route::Page(PageKind::Incident)),
    ("/incidents/{id}/picture.svg", Method::GET, Route::Page(PageKind::Picture)),
    ("/rollouts", Method::GET, Route::Page(PageKind::Rollouts)),
    ("/assets/{file}", Method::GET, Route::Page(PageKind::Asset)),
];

impl Route {
    /// What its callers must be allowed.
    pub(super) fn role(self) -> Role {
        match self {
            Route::Versions | Route::Restore | Route::Activate | Route::Canary => Role::Deploy,
            Route::Rollback | Route::Mark | Route::Decide | Route::Pause | Route::Resume => Role::Decide,
            Route::Import | Route::StartDrill | Route::Reload => Role::Admin,
            _ => Role::Read,
        }
    }

    /// The query parameters that it takes. `None`: others are ignored, because links, proxies and senders of alerts add
    /// their own.
    pub(super) fn parameters(self) -> Option<&'static [&'static str]> {
        match self {
            Route::Prompts => Some(&["limit", "cursor", "without_target"]),
            Route::Logs => Some(&["limit", "cursor", "since"]),
            Route::Log => Some(&["limit", "cursor"]),
            Route::Incidents => Some(&["limit", "cursor", "open"]),
            Route::Gates => Some(&["version"]),
            Route::Explain => Some(&["alert"]),
            Route::Report => Some(&["since"]),
            _ => self.path().starts_with("/api/").then_some(&[]),
        }
    }

    fn path(self) -> &'static str {
        TABLE.iter().find(|(_, _, route)| *route == self).map_or("", |(path, ..)| path)
    }

    /// The span of a request that was let in. What is asked every few seconds has none, and each click has its own.
    fn span(self, head: &Parts, parameter: &str) -> Span {
        let path = self.path();
        match self {
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
}

/// Paths → methods and routes.
#[derive(Debug)]
pub struct Routes(Router<(Method, Route)>);

impl Routes {
    #[allow(clippy::expect_used, reason = "a fixed table, run at every start")]
    pub fn new() -> Self {
        let mut router = Router::new();
        for (path, method, route) in TABLE.iter().cloned() {
            router.insert(path, (method, route)).expect("the routes do not conflict");
        }
        Self(router)
    }

    /// The route and its parameters, decoded: a `/` in a prompt's name comes as `%2F`. Without them, if they are not UTF-8.
    fn find(&self, path: &str) -> Option<(&Method, Route, Option<[String; 2]>)> {
        let found = self.0.at(path).ok()?;
        let mut parameters = found.params.iter().map(|(_, value)| value);
        let mut decoded = || {
            let parameter = parameters.next().unwrap_or_default();
            Some(percent_encoding::percent_decode_str(parameter).decode_utf8().ok()?.into_owned())
        };
        let (method, route) = found.value;
        let both = decoded().and_then(|first| Some([first, decoded()?]));
        Some((method, *route, both))
    }
}

impl Routes {
    /// What a browser asks for that expects a page, also if there is none.
    fn page_request<B>(&self, request: &Request<B>) -> Option<PageRequest> {
        let headers = request.headers();
        let accepts = || {
            headers.get_all(ACCEPT).iter().any(|accepted| accepted.to_str().is_ok_and(|all| all.contains("text/html")))
        };
        let own = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let (expects, path) = match self.find(request.uri().path()) {
            Some((_, Route::Page(_), _)) => (true, own),
            // the form names the page that it leads to
            Some((_, Route::Login, _)) => (true, "/"),
            Some(_) => (false, ""),
            None => (accepts(), own),
        };
        let by_link = headers.get(auth::SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
        expects.then(|| PageRequest { path: login::destination(path).to_owned(), by_link })
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new()
    }
}

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
        context.routes.page_request(&request).filter(|_| context.serves(peer.site, Route::Page(PageKind::Overview)));
    let answer = dispatch(context, contexts, request, peer, whole, &mut span);
    let answer = tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        Err(ApiError::unavailable("timeout", format!("not done within {} ms: try again", timeout.as_millis())))
    });
    let answer = answer.and_then(|answer| within(&budget, answer));
    let code = answer.as_ref().err().map(|failure| failure.code);
    let mut answer = answer.unwrap_or_else(|failure| {
        if failure.status.is_server_error() {
            span.in_scope(|| tracing::warn!(code = failure.code, why = failure.message, "request failed"));
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

/// Counts and logs a refused request, without its content.
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
    span: &mut Span,
) -> Result<Reply, ApiError> {
    let arrived = Instant::now();
    let (head, incoming) = request.into_parts();
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
    *span = route.span(&head, &parameter);
    let query = Query::parse(head.uri.query(), route.parameters())?;
    if matches!(head.method, Method::GET | Method::HEAD) {
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
    let (bytes, _held) = read(incoming, declared, max, budget).await?;
    let bytes = input::utf8(bytes.into())?;
    whole();
    let parameters = [parameter.as_str(), second.as_str()];
    let request = PostRequest { sender: &sender, parameters, head: &head, peer, bytes: &bytes, arrived };
    let mut answer = Box::pin(post(&context, route, request)).instrument(span.clone()).await;
    // it has a token, or Slack's signature, in its body
    let is_refused = answer.as_ref().is_err_and(|refused| refused.status == StatusCode::UNAUTHORIZED);
    if is_refused && let Some(now) = renewed(&context, contexts).await {
        answer = Box::pin(post(&now, route, request)).instrument(span.clone()).await;
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

/// What programs may read without a token.
async fn public(context: &Context, route: Route, parameter: &str, head: bool) -> Result<Reply, ApiError> {
    match route {
        Route::Metrics => exposition::metrics(context, head).await,
        Route::Page(_) => page::asset(parameter),
        Route::OpenApi => Ok(shipped("application/json", openapi::DOCUMENT)),
        Route::Ready => Ok(match &*context.readiness.borrow() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        }),
        _ => Ok(text(StatusCode::OK, "healthy\n")),
    }
}

impl Context {
    /// Metrics may have an address of their own, which serves nothing else but health checks. So may the page, with the API
    /// that it uses.
    pub(super) fn serves(&self, site: Site, route: Route) -> bool {
        match (site, route) {
            (_, Route::Healthy | Route::Ready) => true,
            (Site::Main, Route::Metrics) => !self.metrics_apart,
            (Site::Metrics, Route::Metrics) => true,
            (Site::Metrics, _) => false,
            (Site::Page, Route::Webhook | Route::Slack | Route::Metrics | Route::Reload | Route::Import) => false,
            (Site::Page, _) if !self.shows_page => false,
            (Site::Main, Route::Page(_) | Route::Events | Route::Login | Route::Logout) => {
                self.shows_page && !self.page_apart
            }
            (Site::Main | Site::Page, _) => true,
        }
    }
}

/// Reads the whole body, of at most `max` bytes, if there is memory for it.
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
    // too large by its own declaration: not worth reading
    if declared.is_some_and(|length| length > max as u64) || incoming.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    let mut arriving = budget.body();
    let mut body = Vec::with_capacity(declared.unwrap_or_default().min(OWN));
    loop {
        let frame = tokio::select! {
            biased;
            () = arriving.given_up() => return Err(overloaded()),
            frame = incoming.frame() => frame,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| ApiError::bad_request("the body did not arrive whole"))?;
        let Some(data) = frame.data_ref() else { continue };
        let length = body.len() + data.len();
        if length > max {
            return Err(too_large());
        }
        if length > body.capacity() {
            // the declared length is not trusted; doubling copies each byte at most twice
            let room = (2 * length).min(declared.unwrap_or(max)).max(length);
            arriving.hold(room)?;
            body.reserve_exact(room - body.len());
        }
        body.extend_from_slice(data);
    }
    Ok((body, arriving.complete()))
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
