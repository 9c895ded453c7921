//! Exports spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Ending a span only puts it into a queue, so a slow or unreachable collector delays nothing. If the queue is full, the span is
//! dropped and counted.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, Uri};
use opentelemetry::trace::{SpanBuilder, SpanKind, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{Level, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use ulid::Ulid;

use super::error::AppError;
use crate::config::TracingConfig;
use crate::http_client::{BaseUrl, Outgoing};
use crate::live::Current;
use crate::metrics::{Metrics, SpanResult};
use crate::trace;

/// Limit for spans that wait for export; one takes about a kilobyte.
const QUEUE: usize = 4_096;
/// Spans exported together, and how long the first of them waits for others.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);
/// Timeout of one export, including its retries.
const TIMEOUT: Duration = Duration::from_secs(10);
const NAME: &str = "prompt-rollback";

/// The metrics that count spans. Empty until the receiver has started, which is after logging begins.
type SpanMetrics = Arc<OnceLock<Arc<Metrics>>>;

/// The last reason for which a request failed: the library reports only that one did.
type Fault = Arc<Mutex<Option<String>>>;

/// Queues the spans of the process until [`start`](Self::start) begins to export them.
#[derive(Debug)]
pub struct Exporter {
    endpoint: String,
    resource: Resource,
    provider: SdkTracerProvider,
    spans: mpsc::Receiver<SpanData>,
    counters: SpanMetrics,
}

impl Exporter {
    pub fn new(config: &TracingConfig) -> Option<Self> {
        let endpoint = config.otlp_endpoint.as_ref()?.trim_end_matches('/').to_owned();
        let (queue, spans) = mpsc::channel(QUEUE);
        let (resource, counters) = (resource(), SpanMetrics::default());
        let provider = SdkTracerProvider::builder()
            .with_span_processor(SpanQueue { spans: queue, counters: Arc::clone(&counters) })
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio.0))))
            .with_resource(resource.clone())
            .build();
        trace::begin_export();
        Some(Self { endpoint, resource, provider, spans, counters })
    }

    /// The `tracing` layer that collects prompt-rollback's own spans, and the log lines within them.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let layer = OpenTelemetryLayer::new(Named(self.provider.tracer(NAME)))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        layer.with_filter(filter_fn(|about| {
            about.target().starts_with("prompt_rollback") && (about.is_span() || *about.level() <= Level::INFO)
        }))
    }

    /// Starts the task that exports the queued spans.
    pub fn start(self, config: Current<TracingConfig>, metrics: &Arc<Metrics>) -> Result<Exporting, AppError> {
        fn unusable(error: impl fmt::Display) -> AppError {
            AppError::Tracing(error.to_string())
        }
        let Self { endpoint, resource, spans, counters, .. } = self;
        let _ = counters.set(Arc::clone(metrics)); // it was not set before
        let base: BaseUrl = endpoint.parse().map_err(unusable)?;
        let http = Outgoing::new(base, TIMEOUT).map_err(unusable)?;
        let fault = Fault::default();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client { http, config, fault: Arc::clone(&fault) })
            .with_endpoint(format!("{endpoint}{}", TracingConfig::PATH))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .build()
            .map_err(unusable)?;
        exporter.set_resource(&resource);
        let (stop, stopped) = oneshot::channel();
        let sending = Sending { exporter, metrics: Arc::clone(metrics), fault, failing: false };
        Ok(Exporting { stop, task: tokio::spawn(export(spans, sending, stopped)) })
    }
}

/// The OpenTelemetry resource of this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` override its attributes.
fn resource() -> Resource {
    let own = [
        ("service.name", NAME.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", Ulid::generate().to_string()),
    ];
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    Resource::builder_empty()
        .with_attributes(own.map(|(name, value)| KeyValue::new(name, value)))
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())])
        .with_attributes(name.map(|name| KeyValue::new("service.name", name)))
        .build()
}

/// Gives spans the names and kinds of OpenTelemetry's conventions, such as `POST /api/rollback` and `server`.
#[derive(Debug)]
struct Named(SdkTracer);

impl Tracer for Named {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Span {
        let kind = match &*builder.name {
            "webhook" | "api" | "click" => Some(SpanKind::Server),
            "task" | "notify" => Some(SpanKind::Consumer),
            _ => None,
        };
        let said = |name: &str| {
            let mut all = builder.attributes.iter().flatten();
            all.find(|attribute| attribute.key.as_str() == name).map(|attribute| attribute.value.as_str())
        };
        let name = match &*builder.name {
            "webhook" | "api" => said("http.request.method").zip(said("http.route")).map(|(a, b)| format!("{a} {b}")),
            "task" => said("work").map(|work| format!("task {work}")),
            "notify" => said("target").map(|target| format!("notify {target}")),
            _ => None,
        };
        builder.span_kind = builder.span_kind.or(kind);
        if let Some(name) = name {
            builder.name = name.into();
        }
        self.0.build_with_context(builder, parent)
    }
}

/// Puts ended spans into the queue.
#[derive(Debug)]
struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    counters: SpanMetrics,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled()
            && let Err(mpsc::error::TrySendError::Full(_)) = self.spans.try_send(span)
            && let Some(metrics) = self.counters.get()
        {
            metrics.spans(SpanResult::Dropped, 1);
        }
    }

    /// Does nothing: [`Exporting::finish`] exports the remaining spans.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The HTTP client of the OTLP library. Adds `tracing.otlp_headers` as they are now.
#[derive(Debug)]
struct Client {
    http: Outgoing,
    config: Current<TracingConfig>,
    fault: Fault,
}

impl Client {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        head.uri = Uri::from_static(TracingConfig::PATH);
        head.headers.extend(self.config.get().headers());
        let answered = self.http.answered(Request::from_parts(head, Full::from(body))).await;
        let fault = match &answered {
            Ok((status, _)) => (!status.is_success()).then(|| format!("{} answered {status}", self.http.base())),
            Err(error) => Some(error.to_string()),
        };
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        let (status, headers) = answered?;
        let mut response = Response::new(Bytes::new());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(self.send(request))
    }
}

/// The running export task.
#[derive(Debug)]
pub struct Exporting {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Exports the spans that have ended so far, until `until` at the latest.
    pub async fn finish(self, until: Instant) {
        let Self { stop, mut task } = self;
        let _ = stop.send(());
        if timeout_at(until, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

async fn export(mut spans: mpsc::Receiver<SpanData>, mut sending: Sending, mut stop: oneshot::Receiver<()>) {
    let mut stopping = false;
    let mut batch = Vec::new();
    while !stopping {
        tokio::select! {
            received = spans.recv_many(&mut batch, BATCH) => if received == 0 { return },
            _ = &mut stop => break,
        }
        let fill = async {
            while let room @ 1.. = BATCH - batch.len()
                && spans.recv_many(&mut batch, room).await > 0
            {}
        };
        tokio::select! {
            () = fill => {}
            () = sleep(DELAY) => {}
            _ = &mut stop => stopping = true,
        }
        sending.send(std::mem::take(&mut batch)).await;
    }
    spans.close();
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        sending.send(std::mem::take(&mut batch)).await;
    }
}

/// The state of the export task.
#[derive(Debug)]
struct Sending {
    exporter: SpanExporter,
    metrics: Arc<Metrics>,
    fault: Fault,
    /// Whether the last export failed.
    failing: bool,
}

impl Sending {
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len();
        let sent = match timeout(TIMEOUT, self.exporter.export(batch)).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not done within {} s", TIMEOUT.as_secs())),
        };
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        match &sent {
            Ok(()) => {
                self.metrics.spans(SpanResult::Exported, count);
                if self.failing {
                    tracing::info!("spans are exported again");
                }
            }
            Err(error) => {
                self.metrics.spans(SpanResult::Failed, count);
                if !self.failing {
                    let error = fault.as_ref().unwrap_or(error);
                    tracing::warn!(error, "spans cannot be exported and are lost until the collector accepts them");
                }
            }
        }
        self.failing = sent.is_err();
    }
}
