//! Spans: what a delivery, a click, an API request or a task is about. Log lines carry them, and they are exported where
//! `tracing.otlp_endpoint` is set.
//!
//! The spans that log lines carry have the level error, so that lines of every level carry them. The spans below them, such as a
//! call of Redis, are made only where spans are exported.

mod context;
#[cfg_attr(not(feature = "otlp"), path = "no_otel.rs")]
mod otel;

use std::time::Duration;

use futures_util::FutureExt;
use hyper::{HeaderMap, Method, StatusCode};
use tracing::field::{Empty, display};
use tracing::{Instrument, Span, error_span, trace_span};

use crate::decision::{Incident, PromptName, Timestamp, Trace};

pub use context::{TRACEPARENT, TRACESTATE, TraceContext};
pub use otel::{begin_export, is_exported};

/// Work that is picked up this soon after a request belongs to the request's trace. Later work has its own trace, with a link:
/// collectors that decide by whole traces wait half a minute for the spans of one.
const SAME_TRACE: Duration = Duration::from_secs(30);

/// A delivery of Alertmanager.
pub fn webhook(headers: &HeaderMap, route: &str) -> Span {
    let span = error_span!("webhook", prompt = Empty, version = Empty, incident = Empty, trace_id = Empty);
    describe(&span, &Method::POST, route);
    begin(&span, TraceContext::of(headers).as_ref());
    span
}

/// The alerts of one prompt, where a delivery is about several.
pub fn alerts() -> Span {
    let span = error_span!("alerts", prompt = Empty, version = Empty, incident = Empty, trace_id = Empty);
    begin(&span, None);
    span
}

/// A request of the API; `prompt` and `incident` are what its path names.
pub fn api(
    (method, route): (&Method, &str),
    headers: &HeaderMap,
    prompt: Option<&PromptName>,
    incident: Option<&str>,
) -> Span {
    let span = error_span!(
        "api",
        prompt = prompt.map(display),
        version = Empty,
        incident = incident.map(display),
        trace_id = Empty
    );
    describe(&span, method, route);
    begin(&span, TraceContext::of(headers).as_ref());
    span
}

/// A click in Slack.
pub fn click(caller: Option<&TraceContext>) -> Span {
    let span = error_span!("click", prompt = Empty, version = Empty, incident = Empty, trace_id = Empty);
    begin(&span, caller);
    span
}

/// A task of a worker, about a prompt or an incident.
pub fn task(work: &str, prompt: Option<&PromptName>, incident: Option<&str>) -> Span {
    let span = error_span!(
        "task",
        work = %work,
        prompt = prompt.map(display),
        version = Empty,
        incident = incident.map(display),
        trace_id = Empty
    );
    if prompt.is_some() {
        begin(&span, None); // whose request it follows is recorded for incidents alone
    }
    span
}

/// The span of a task that handles several incidents at once.
pub fn tasks(work: &str, incidents: &[&Incident], now: Timestamp) -> Span {
    if incidents.is_empty() {
        return Span::none();
    }
    let one = incidents.first().filter(|_| incidents.len() == 1);
    let span = error_span!(
        "task",
        work = %work,
        incidents = i64::try_from(incidents.len()).unwrap_or(i64::MAX),
        prompt = one.map(|one| display(&one.prompt)),
        version = one.map(|one| display(&one.version)),
        incident = one.map(|one| display(&one.id)),
        trace_id = Empty
    );
    if is_exported() {
        let requests: Vec<_> = incidents.iter().filter_map(|incident| request(incident)).collect();
        follow_all(&span, &requests, now);
    }
    span
}

/// Notifying a target about a prompt or an incident.
pub fn notify(target: &str, prompt: Option<&PromptName>, incident: Option<&str>) -> Span {
    error_span!(
        "notify",
        target = %target,
        prompt = prompt.map(display),
        version = Empty,
        incident = incident.map(display),
        trace_id = Empty
    )
}

/// The span of a call to Redis, within the current span.
pub fn redis(operation: &'static str) -> Span {
    if !is_exported() || Span::current().is_none() {
        return Span::none();
    }
    trace_span!(
        "redis",
        otel.kind = "client",
        otel.name = operation,
        db.system.name = "redis",
        db.operation.name = operation,
        otel.status_code = Empty,
        error.type = Empty
    )
}

/// A call of Slack's Web API.
pub fn slack(method: &'static str) -> Span {
    if !is_exported() || Span::current().is_none() {
        return Span::none();
    }
    trace_span!(
        "slack",
        otel.kind = "client",
        otel.name = method,
        rpc.system = "slack",
        rpc.method = method,
        otel.status_code = Empty,
        error.type = Empty
    )
}

/// An HTTP request of ours. Its path is not recorded: that of a webhook may be a secret.
pub fn http(method: &Method, host: &str, port: Option<u16>) -> Span {
    if !is_exported() || Span::current().is_none() {
        return Span::none();
    }
    trace_span!(
        "http",
        otel.kind = "client",
        otel.name = method.as_str(),
        http.request.method = method.as_str(),
        server.address = host,
        server.port = port.map(i64::from),
        http.response.status_code = Empty,
        otel.status_code = Empty,
        error.type = Empty
    )
}

/// Carries out a call in its span; an error is recorded by its kind alone.
pub fn call<T, E>(
    span: Span,
    call: impl Future<Output = Result<T, E>>,
    kind: impl FnOnce(&E) -> &'static str,
) -> impl Future<Output = Result<T, E>> {
    call.instrument(span.clone()).map(move |done| {
        done.inspect_err(|error| {
            if !span.is_none() {
                span.record("otel.status_code", "ERROR").record("error.type", kind(error));
            }
        })
    })
}

/// Records the status that another service answered in a span of [`http`].
pub fn answered(span: &Span, status: StatusCode) {
    if !span.is_none() {
        span.record("http.response.status_code", i64::from(status.as_u16()));
        if status.is_client_error() || status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// Records the status of the response to a caller. `code` is the error's code, if the request failed.
pub fn answers(span: &Span, status: StatusCode, code: Option<&'static str>) {
    if is_exported() {
        otel::attribute(span, "http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            otel::failed(span, code.unwrap_or("internal"));
        }
    }
}

/// Adds this prompt, version and incident to the current span, as far as they are known. Call it once for each field of a span.
pub fn concerns(prompt: Option<&str>, version: Option<&str>, incident: Option<&str>) {
    let span = Span::current();
    if !span.is_none() {
        let [prompt, version, incident] = [prompt, version, incident].map(|text| text.map(display));
        tracing::record_all!(span, prompt = prompt, version = version, incident = incident);
    }
}

/// Marks the current span as work on this incident: in the trace of its last request if that was made at most 30 s
/// ago, and linked to that trace otherwise. The span must already name the incident.
pub fn follow(incident: &Incident, now: Timestamp) {
    concerns(Some(incident.prompt.as_str()), Some(incident.version.as_str()), None);
    if is_exported() {
        follow_all(&Span::current(), request(incident).as_slice(), now);
    }
}

/// The request that last changed this incident, and when.
fn request(incident: &Incident) -> Option<(TraceContext, Timestamp)> {
    let trace = incident.trace.as_deref()?;
    Some((TraceContext::of_record(trace)?, trace.at))
}

/// Links the span to the requests made at these times. With several, the span continues the trace of the last one.
pub fn follow_all(span: &Span, requests: &[(TraceContext, Timestamp)], now: Timestamp) {
    if !is_exported() || span.is_none() {
        return;
    }
    let recent = |(_, at): &&(TraceContext, Timestamp)| now.since(*at) <= SAME_TRACE;
    let parent =
        requests.iter().rev().find(recent).map(|(context, _)| context).filter(|parent| otel::continues(span, parent));
    let mut linked: Vec<&str> = parent.map(TraceContext::trace_id).into_iter().collect();
    for (context, _) in requests {
        if !linked.contains(&context.trace_id()) {
            linked.push(context.trace_id());
            otel::link(span, context);
        }
    }
    begin(span, None);
}

/// The current trace, for the task that continues the work later. `None`: no trace is recorded.
pub fn current(at: Timestamp) -> Option<Trace> {
    if !is_exported() {
        return None;
    }
    otel::context(&Span::current()).filter(TraceContext::is_sampled).map(|context| context.to_record(at))
}

/// Adds the trace context of `span`, or else of the current span, to the headers of a call.
pub fn hand_on(span: &Span, headers: &mut HeaderMap) {
    if !is_exported() {
        return;
    }
    let Some(context) = otel::context(span).or_else(|| otel::context(&Span::current())) else { return };
    for (name, value) in [(TRACEPARENT, context.parent()), (TRACESTATE, context.state())] {
        if let Some(value) = value.parse().ok().filter(|_| !value.is_empty()) {
            headers.insert(name, value);
        }
    }
}

/// Begins a trace, or continues the caller's. The id is for log lines, also where nothing is exported.
fn begin(span: &Span, caller: Option<&TraceContext>) {
    if let Some(caller) = caller {
        otel::continues(span, caller);
    }
    let own = if is_exported() { otel::context(span).filter(TraceContext::is_sampled) } else { None };
    if let Some(context) = own.as_ref().or(caller) {
        span.record("trace_id", display(context.trace_id()));
    }
}

fn describe(span: &Span, method: &Method, route: &str) {
    if is_exported() {
        otel::attribute(span, "http.request.method", method.as_str().to_owned());
        otel::attribute(span, "http.route", route.to_owned());
    }
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{SpanId, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanProcessor};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::decision::{IncidentId, VersionName};

    #[derive(Debug, Clone, Default)]
    struct Ended(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for Ended {
        fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().expect("no panic").push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    /// The spans that end while `work` runs.
    fn exported(work: impl FnOnce()) -> Vec<SpanData> {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_context_activation(false);
        begin_export();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        ended.0.lock().expect("no panic").clone()
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn incident(parent: Option<&str>, at: Timestamp) -> Incident {
        let prompt = PromptName::parse("p").expect("a name");
        let version = VersionName::parse("v2").expect("a version");
        let id = IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned());
        let trace = parent.map(|parent| Box::new(Trace { parent: parent.to_owned(), state: String::new(), at }));
        Incident { trace, ..Incident::new(id, prompt, version, "on-call".to_owned(), at) }
    }

    #[test]
    fn prompt_work_continues_the_trace_and_later_work_is_linked() {
        let (at, trace_id) = (Timestamp(1_000_000), "4bf92f3577b34da6a3ce929d0e0e4736");
        for (after, continues) in [(0, true), (30_000, true), (30_001, false), (86_400_000, false)] {
            let now = Timestamp(at.0 + after);
            let spans = exported(|| {
                task("act", None, Some("01")).in_scope(|| follow(&incident(Some(PARENT), at), now));
            });
            let [span] = spans.as_slice() else { panic!("{spans:?}") };
            assert_eq!(span.span_context.trace_id().to_string() == trace_id, continues, "{after}");
            assert_eq!(span.parent_span_id != SpanId::INVALID, continues, "{after}");
            let links: Vec<_> = span.links.iter().map(|link| link.span_context.trace_id().to_string()).collect();
            assert_eq!(links, if continues { vec![] } else { vec![trace_id.to_owned()] }, "{after}");
            let said =
                |name: &str| span.attributes.iter().find(|said| said.key.as_str() == name).map(|s| s.value.to_string());
            assert_eq!((said("prompt").as_deref(), said("version").as_deref()), (Some("p"), Some("v2")));
        }
        // what a damaged record says
        let spans = exported(|| task("act", None, Some("01")).in_scope(|| follow(&incident(Some("x"), at), at)));
        assert_eq!((spans[0].parent_span_id, spans[0].links.len()), (SpanId::INVALID, 0));
    }

    #[test]
    fn a_task_of_several_requests_is_linked_to_each() {
        let (old, new) = (Timestamp(1_000_000), Timestamp(1_060_000));
        let other = PARENT.replace("4bf9", "5bf9");
        let incidents = [incident(Some(PARENT), old), incident(Some(&other), new), incident(Some(&other), new)];
        let all: Vec<&Incident> = incidents.iter().collect();
        let spans = exported(|| drop(tasks("check", &all, new)));
        assert!(spans[0].span_context.trace_id().to_string().starts_with("5bf9"));
        let links: Vec<_> = spans[0].links.iter().map(|link| link.span_context.trace_id().to_string()).collect();
        assert_eq!(links, ["4bf92f3577b34da6a3ce929d0e0e4736"]);
    }

    #[test]
    fn calls_carry_the_trace_context() {
        let mut headers = HeaderMap::new();
        let spans = exported(|| {
            let mut caller = HeaderMap::new();
            caller.insert(TRACEPARENT, PARENT.parse().expect("a header"));
            caller.insert(TRACESTATE, "vendor=abc".parse().expect("a header"));
            webhook(&caller, "/webhooks/alertmanager").in_scope(|| {
                let span = http(&Method::POST, "prometheus", Some(9090));
                hand_on(&span, &mut headers);
                answered(&span, StatusCode::BAD_GATEWAY);
            });
        });
        let [call, delivery] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!(call.parent_span_id, delivery.span_context.span_id());
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", call.span_context.span_id());
        assert_eq!(headers[TRACEPARENT], expected);
        assert_eq!(headers[TRACESTATE], "vendor=abc");
        assert!(matches!(call.status, opentelemetry::trace::Status::Error { .. }));
        // outside a trace, no header is added and nothing is exported
        let mut none = HeaderMap::new();
        let spans = exported(|| hand_on(&http(&Method::GET, "prometheus", None), &mut none));
        assert!(none.is_empty() && spans.is_empty(), "{none:?} {spans:?}");
    }
}
