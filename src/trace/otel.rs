//! What OpenTelemetry knows of a span besides its fields.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId};
use opentelemetry::{Context, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::TraceContext;

static EXPORTED: AtomicBool = AtomicBool::new(false);

/// Records that spans are exported from now on.
pub fn begin_export() {
    EXPORTED.store(true, Ordering::Relaxed);
}

/// Whether spans are exported.
pub fn is_exported() -> bool {
    EXPORTED.load(Ordering::Relaxed)
}

/// Puts `span` into this trace. Returns false if spans are not exported, or if the span has already begun a trace of its own.
pub fn continues(span: &Span, caller: &TraceContext) -> bool {
    let Some(caller) = remote(caller).filter(|_| is_exported()) else { return false };
    span.set_parent(Context::new().with_remote_span_context(caller)).is_ok()
}

/// Links `span` to this trace, because something in it caused the span.
pub fn link(span: &Span, cause: &TraceContext) {
    if let Some(cause) = remote(cause) {
        span.add_link(cause);
    }
}

/// Begins the trace of `span` and returns its context; `None` if the span is not exported.
pub fn context(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    let sampled = u8::from(own.is_sampled());
    let parent = format!("00-{}-{}-{sampled:02x}", own.trace_id(), own.span_id());
    TraceContext::read(&parent, &own.trace_state().header())
}

pub fn attribute(span: &Span, name: &'static str, value: impl Into<Value>) {
    span.set_attribute(name, value);
}

pub fn failed(span: &Span, why: &'static str) {
    span.set_status(Status::error(why));
}

fn remote(context: &TraceContext) -> Option<SpanContext> {
    let (trace_id, span_id) = (TraceId::from_hex(context.trace_id()).ok()?, SpanId::from_hex(context.span_id()).ok()?);
    let flags = TraceFlags::default().with_sampled(context.is_sampled());
    Some(SpanContext::new(trace_id, span_id, flags, true, context.state().parse().unwrap_or_default()))
}
