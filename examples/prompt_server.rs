//! An example prompt server that serves whatever version prompt-rollback says, told by Redis as soon as it changes.
//!
//! How an existing prompt server adopts prompt-rollback is `follow_on`, the RESP3 way of the plain GET that
//! `python/prompt_server.py` does, and the metrics below it. The rest makes a demo: fake completions, traffic of its
//! own, and misbehaviour on demand:
//!
//! ```text
//! cargo run --example prompt_server -- --rps 10
//! curl localhost:9100/?prompt=customer-support
//! curl localhost:9100/misbehave -d '{"version": "v2.0.0", "error_ratio": 0.3}'
//! ```

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use redis::{AsyncCommands, AsyncConnectionConfig, ProtocolVersion, RedisResult};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The version to serve of each prompt; the last one known while Redis is away.
#[derive(Default)]
struct ActiveVersions(Mutex<HashMap<String, String>>);

impl ActiveVersions {
    fn get(&self, prompt: &str) -> Option<String> {
        lock(&self.0).get(prompt).cloned()
    }

    /// Follows Redis for ever, over one connection after the other.
    async fn follow(&self, client: &redis::Client, args: &Args, metrics: &Metrics) {
        loop {
            if let Err(error) = self.follow_on(client, args, metrics).await {
                eprintln!("redis: {error}; serving the last known versions");
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Reads the versions, and again whenever Redis says that one of them changed (`CLIENT TRACKING`), at the latest
    /// after 2 s: a connection whose other end is gone says nothing, and then the read fails.
    async fn follow_on(&self, client: &redis::Client, args: &Args, metrics: &Metrics) -> RedisResult<()> {
        let (sender, mut invalidations) = mpsc::unbounded_channel();
        let second = Duration::from_secs(1);
        let config = AsyncConnectionConfig::new()
            .set_push_sender(sender)
            .set_connection_timeout(Some(second))
            .set_response_timeout(Some(second));
        let mut redis = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("CLIENT").arg("TRACKING").arg("ON").exec_async(&mut redis).await?;
        loop {
            for prompt in &args.prompts {
                let version: Option<String> = redis.get(format!("{}:active:{prompt}", args.namespace)).await?;
                if let Some(version) = version.filter(|version| self.get(prompt).as_ref() != Some(version)) {
                    metrics.expose_at_zero(prompt, &version);
                    lock(&self.0).insert(prompt.clone(), version);
                }
            }
            let _ = timeout(2 * second, invalidations.recv()).await;
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByVersion {
    prompt: String,
    version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    prompt: String,
    version: String,
    outcome: &'static str,
}

struct Metrics {
    registry: Registry,
    requests: Family<ByOutcome, Counter>,
    duration: Family<ByOutcome, Histogram>,
    quality: Family<ByVersion, Histogram>,
}

impl Metrics {
    fn new() -> Self {
        let seconds = || Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let score = || Histogram::new((1..=10).map(|tenth| f64::from(tenth) / 10.0));
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds),
            quality: Family::new_with_constructor(score),
        };
        let Self { mut registry, requests, duration, quality } = metrics;
        // The encoder adds `_total`.
        registry.register("prompt_requests", "Requests answered", requests.clone());
        registry.register("prompt_request_duration_seconds", "Time to answer a request", duration.clone());
        registry.register("prompt_quality_score", "Score of an answer, 0 to 1", quality.clone());
        Self { registry, requests, duration, quality }
    }

    /// A counter that is born above 0 hides its first errors from Prometheus.
    fn expose_at_zero(&self, prompt: &str, version: &str) {
        for outcome in ["ok", "error"] {
            let labels = ByOutcome { prompt: prompt.to_owned(), version: version.to_owned(), outcome };
            drop(self.requests.get_or_create(&labels));
            drop(self.duration.get_or_create(&labels));
        }
        drop(self.quality.get_or_create(&ByVersion { prompt: prompt.to_owned(), version: version.to_owned() }));
        eprintln!("{prompt} is now {version}");
    }

    fn measured(&self, prompt: &str, version: &str, took: Duration, quality: Option<f64>) {
        let outcome = if quality.is_some() { "ok" } else { "error" };
        let labels = ByOutcome { prompt: prompt.to_owned(), version: version.to_owned(), outcome };
        self.requests.get_or_create(&labels).inc();
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
        if let Some(score) = quality {
            let labels = ByVersion { prompt: prompt.to_owned(), version: version.to_owned() };
            self.quality.get_or_create(&labels).observe(score);
        }
    }
}

/// How a version of the fake model answers; what is left out is good.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    version: String,
    #[serde(default)]
    error_ratio: f64,
    #[serde(default = "Wish::good_delay")]
    delay_seconds: f64,
    #[serde(default = "Wish::good_quality")]
    quality: f64,
}

impl Wish {
    fn good_delay() -> f64 {
        0.02
    }

    fn good_quality() -> f64 {
        0.9
    }

    fn good(version: &str) -> Self {
        let (delay_seconds, quality) = (Self::good_delay(), Self::good_quality());
        Self { version: version.to_owned(), error_ratio: 0.0, delay_seconds, quality }
    }
}

impl std::str::FromStr for Wish {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// A fake model, whose versions can be told to fail, to be slow or to answer badly.
#[derive(Default)]
struct Model {
    behaviour: Mutex<HashMap<String, Wish>>,
    failures_owed: Mutex<HashMap<String, f64>>,
}

impl Model {
    fn misbehave(&self, wish: Wish) {
        lock(&self.behaviour).insert(wish.version.clone(), wish);
    }

    /// Answers after a while: the score of the answer, or nothing when it failed.
    async fn complete(&self, version: &str) -> Option<f64> {
        let behaviour = lock(&self.behaviour).get(version).cloned().unwrap_or_else(|| Wish::good(version));
        let failed = {
            // Failures are spread evenly instead of drawn: a demo is the same every time.
            let mut owed = lock(&self.failures_owed);
            let owed = owed.entry(version.to_owned()).or_default();
            *owed += behaviour.error_ratio;
            let failed = *owed >= 1.0 - 1e-9;
            *owed -= f64::from(u8::from(failed));
            failed
        };
        sleep(Duration::try_from_secs_f64(behaviour.delay_seconds).unwrap_or_default()).await;
        (!failed).then_some(behaviour.quality)
    }
}

/// Serves requests with the active version, and measures them.
struct PromptServer {
    args: Args,
    active: ActiveVersions,
    metrics: Metrics,
    model: Model,
}

#[derive(Deserialize)]
struct Completion {
    prompt: Option<String>,
    input: Option<String>,
}

impl PromptServer {
    async fn answer(&self, wish: Completion) -> (StatusCode, Value) {
        let prompt = wish.prompt.unwrap_or_else(|| self.args.prompts[0].clone());
        let Some(version) = self.active.get(&prompt) else {
            let error = format!("no version of {prompt} is known");
            return (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": error }));
        };
        let started = Instant::now();
        let quality = self.model.complete(&version).await;
        self.metrics.measured(&prompt, &version, started.elapsed(), quality);
        if quality.is_none() {
            let body = json!({ "prompt": prompt, "version": version, "error": "the model gave up" });
            return (StatusCode::INTERNAL_SERVER_ERROR, body);
        }
        let completion = format!("{version} says: {}", wish.input.as_deref().unwrap_or("hello"));
        (StatusCode::OK, json!({ "prompt": prompt, "version": version, "completion": completion }))
    }

    /// The HTTP routes.
    async fn route(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let path = request.uri().path().to_owned();
        let (status, body) = match (request.method(), path.as_str()) {
            (&Method::GET, "/metrics") => {
                let mut text = String::new();
                prometheus_client::encoding::text::encode(&mut text, &self.metrics.registry)?;
                return reply(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text);
            }
            (&Method::GET, "/-/healthy") => {
                return reply(StatusCode::OK, "text/plain", "healthy\n");
            }
            (&Method::GET, "/") => {
                let query = request.uri().query().unwrap_or_default();
                let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)).map(decode);
                self.answer(Completion { prompt: value("prompt="), input: value("input=") }).await
            }
            (&Method::POST, "/complete") => match read(request).await {
                Ok(wish) => self.answer(wish).await,
                Err(error) => bad_request(&error),
            },
            (&Method::POST, "/misbehave") => match read::<Wish>(request).await {
                Ok(wish) => {
                    self.model.misbehave(wish.clone());
                    (StatusCode::OK, serde_json::to_value(wish)?)
                }
                Err(error) => bad_request(&error),
            },
            _ => (StatusCode::NOT_FOUND, json!({ "error": "not found" })),
        };
        reply(status, "application/json", body.to_string())
    }

    /// Answers `rps` requests a second for each prompt, as if users had asked.
    async fn generate_traffic(self: Arc<Self>) {
        let mut due = interval(Duration::from_secs_f64(1.0 / self.args.rps));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            for prompt in self.args.prompts.clone() {
                let server = self.clone();
                let wish = Completion { prompt: Some(prompt), input: Some("generated".to_owned()) };
                tokio::spawn(async move { server.answer(wish).await });
            }
        }
    }
}

async fn read<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Result<T> {
    let body = Limited::new(request.into_body(), 1 << 20).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

fn reply(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Result<Response<Full<Bytes>>> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    Ok(response.body(Full::new(body.into()))?)
}

fn bad_request(error: &anyhow::Error) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({ "error": format!("{error:#}") }))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Example prompt server: is told by Redis when the active version changes (RESP3 client tracking).
#[derive(Parser, Clone)]
struct Args {
    /// Address and port of /, /complete and /metrics.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// Redis URL.
    #[arg(long, env = "REDIS_URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    redis: String,
    /// Namespace of prompt-rollback in Redis.
    #[arg(long, default_value = "{prompts}")]
    namespace: String,
    /// Prompt to serve; may be repeated.
    #[arg(long = "prompt", default_value = "customer-support")]
    prompts: Vec<String>,
    /// Own traffic, requests a second for each prompt.
    #[arg(long, default_value_t = 0.0)]
    rps: f64,
    /// As POST /misbehave: {"version": "v2.0.0", "error_ratio": 0.3, "delay_seconds": 2, "quality": 0.5}.
    #[arg(long)]
    misbehave: Vec<Wish>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let url: redis::ConnectionInfo = redis::IntoConnectionInfo::into_connection_info(args.redis.as_str())?;
    let resp3 = url.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = redis::Client::open(url.set_redis_settings(resp3))?;
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    eprintln!("serving {} on http://{}", args.prompts.join(", "), args.listen);

    let (active, metrics, model) = (ActiveVersions::default(), Metrics::new(), Model::default());
    args.misbehave.iter().cloned().for_each(|wish| model.misbehave(wish));
    let server = Arc::new(PromptServer { args, active, metrics, model });
    let following = server.clone();
    tokio::spawn(async move { following.active.follow(&client, &following.args, &following.metrics).await });
    if server.args.rps > 0.0 {
        tokio::spawn(server.clone().generate_traffic());
    }

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = terminate.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let server = server.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { server.route(request).await }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}
