//! An example prompt server that serves the active version, and gets each change from Redis at once.
//!
//! To adopt prompt-rollback, an existing prompt server needs a `Reader`, the metrics below, and `PromptServer::answer`.
//! The rest is for demonstration: fake completions, generated traffic, and misbehavior on demand:
//!
//! ```text
//! cargo run -p prompt-rollback-examples --example prompt_server -- --rps 10
//! curl 'localhost:9100/?prompt=customer-support&user=4711'
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
use prompt_rollback_reader::{Reader, Settings, Version, key_of};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

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

struct ServerMetrics {
    registry: Registry,
    requests: Family<ByOutcome, Counter>,
    duration: Family<ByOutcome, Histogram>,
    quality: Family<ByVersion, Histogram>,
}

impl ServerMetrics {
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

    /// A counter that starts above 0 hides its first errors from Prometheus.
    fn expose_at_zero(&self, prompt: &str, versions: &[Version]) {
        for version in versions {
            for outcome in ["ok", "error"] {
                let labels = ByOutcome { prompt: prompt.to_owned(), version: version.to_string(), outcome };
                drop(self.requests.get_or_create(&labels));
                drop(self.duration.get_or_create(&labels));
            }
            drop(self.quality.get_or_create(&ByVersion { prompt: prompt.to_owned(), version: version.to_string() }));
        }
        eprintln!("{prompt} is now {}", versions.join(" and "));
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

/// How a version of the fake model answers; omitted fields mean healthy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelBehaviour {
    version: String,
    #[serde(default)]
    error_ratio: f64,
    #[serde(default = "ModelBehaviour::good_delay")]
    delay_seconds: f64,
    #[serde(default = "ModelBehaviour::good_quality")]
    quality: f64,
}

impl ModelBehaviour {
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

impl std::str::FromStr for ModelBehaviour {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// A fake model whose versions can be told to fail, to be slow or to give bad answers.
#[derive(Default)]
struct Model {
    behaviour: Mutex<HashMap<String, ModelBehaviour>>,
    failures_owed: Mutex<HashMap<String, f64>>,
}

impl Model {
    fn misbehave(&self, behaviour: ModelBehaviour) {
        lock(&self.behaviour).insert(behaviour.version.clone(), behaviour);
    }

    /// Answers after a while. Returns the score of the answer, or nothing if it failed.
    async fn complete(&self, version: &str) -> Option<f64> {
        let behaviour = lock(&self.behaviour).get(version).cloned().unwrap_or_else(|| ModelBehaviour::good(version));
        let failed = {
            // failures are spread evenly instead of at random, so that each demo is the same
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
    args: ServerArgs,
    /// The encoded form of each prompt's name, which Redis keys contain.
    keys: HashMap<String, String>,
    reader: Reader,
    metrics: ServerMetrics,
    model: Model,
    requests: AtomicU64,
}

#[derive(Deserialize)]
struct Completion {
    prompt: Option<String>,
    input: Option<String>,
    /// The user: while traffic is split, each user keeps a version. A number counts as its text, an empty text as no user.
    user: Option<UserId>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UserId {
    Text(String),
    Number(serde_json::Number),
}

impl UserId {
    fn key(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text).filter(|text| !text.is_empty()),
            Self::Number(number) => Some(number.to_string()),
        }
    }
}

impl PromptServer {
    async fn answer(&self, behaviour: Completion) -> (StatusCode, Value) {
        let prompt = behaviour.prompt.unwrap_or_else(|| self.args.prompts[0].clone());
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let key = behaviour.user.and_then(UserId::key).unwrap_or_else(|| format!("request-{number}"));
        let followed = self.keys.get(&prompt).and_then(|encoded| self.reader.prompt(encoded));
        let Some(version) = followed.and_then(|prompt| prompt.active_version(&key)) else {
            let error = format!("no known version of {prompt}");
            return (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": error }));
        };
        let started = Instant::now();
        let quality = self.model.complete(&version).await;
        self.metrics.measured(&prompt, &version, started.elapsed(), quality);
        if quality.is_none() {
            let body = json!({ "prompt": prompt, "version": *version, "error": "the model failed" });
            return (StatusCode::INTERNAL_SERVER_ERROR, body);
        }
        let completion = format!("{version} says: {}", behaviour.input.as_deref().unwrap_or("hello"));
        (StatusCode::OK, json!({ "prompt": prompt, "version": *version, "completion": completion }))
    }

    /// Exposes the metrics of each new version, and logs problems while they last.
    async fn announce(self: Arc<Self>, name: String) {
        let Some(prompt) = self.keys.get(&name).and_then(|encoded| self.reader.prompt(encoded)) else { return };
        let (mut changes, mut problem) = (prompt.changes(), None);
        loop {
            if let Ok(Some(versions)) = timeout(Duration::from_secs(1), changes.next()).await {
                self.metrics.expose_at_zero(&name, &versions);
            }
            if problem != prompt.error() {
                problem = prompt.error();
                eprintln!(
                    "{name}: {}",
                    problem.as_ref().map_or("normal responses again".to_owned(), ToString::to_string)
                );
            }
        }
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
                self.answer(Completion {
                    prompt: value("prompt="),
                    input: value("input="),
                    user: value("user=").map(UserId::Text),
                })
                .await
            }
            (&Method::POST, "/complete") => match read(request).await {
                Ok(behaviour) => self.answer(behaviour).await,
                Err(error) => bad_request(&error),
            },
            (&Method::POST, "/misbehave") => match read::<ModelBehaviour>(request).await {
                Ok(behaviour) => {
                    self.model.misbehave(behaviour.clone());
                    (StatusCode::OK, serde_json::to_value(behaviour)?)
                }
                Err(error) => bad_request(&error),
            },
            _ => (StatusCode::NOT_FOUND, json!({ "error": "not found" })),
        };
        reply(status, "application/json", body.to_string())
    }

    /// Answers `rps` requests per second for each prompt, like requests of users.
    async fn generate_traffic(self: Arc<Self>) {
        let mut due = interval(Duration::from_secs_f64(1.0 / self.args.rps));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            for prompt in self.args.prompts.clone() {
                let server = self.clone();
                let behaviour = Completion { prompt: Some(prompt), input: Some("generated".to_owned()), user: None };
                tokio::spawn(async move { server.answer(behaviour).await });
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

/// Example prompt server: gets each change of the active version from Redis.
#[derive(Parser, Clone)]
struct ServerArgs {
    /// Address and port of /, /complete and /metrics.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// Redis URL.
    #[arg(long, env = "REDIS_URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    redis: String,
    /// host:port of another node of a Redis Cluster, or of each sentinel; may be repeated.
    #[arg(long = "node", env = "REDIS_NODES", value_delimiter = ',')]
    nodes: Vec<String>,
    /// Name of the master in the sentinels.
    #[arg(long, env = "REDIS_SENTINEL_MASTER")]
    sentinel_master: Option<String>,
    /// The sentinels' own user.
    #[arg(long, env = "REDIS_SENTINEL_USERNAME")]
    sentinel_username: Option<String>,
    /// That user's password.
    #[arg(long, env = "REDIS_SENTINEL_PASSWORD", hide_env_values = true)]
    sentinel_password: Option<String>,
    /// prompt-rollback's namespace in Redis.
    #[arg(long, default_value = "{prompts}")]
    namespace: String,
    /// Prompt to serve; may be repeated.
    #[arg(long = "prompt", default_value = "customer-support")]
    prompts: Vec<String>,
    /// Generated traffic, in requests per second per prompt.
    #[arg(long, default_value_t = 0.0)]
    rps: f64,
    /// Like POST /misbehave: {"version": "v2.0.0", "error_ratio": 0.3, "delay_seconds": 2, "quality": 0.5}.
    #[arg(long)]
    misbehave: Vec<ModelBehaviour>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = ServerArgs::parse();
    let settings = Settings {
        namespace: args.namespace.clone(),
        // `REDIS_NODES=`, as from `${REDIS_NODES:-}`, names none
        nodes: args.nodes.iter().filter(|node| !node.trim().is_empty()).cloned().collect(),
        sentinel_master: args.sentinel_master.clone().filter(|master| !master.is_empty()),
        sentinel_username: args.sentinel_username.clone(),
        sentinel_password: args.sentinel_password.clone(),
        ..Settings::default()
    };
    // metrics have the name of a prompt; Redis, and so the reader, has its encoded form
    let with_key = |name: &String| Ok((name.clone(), key_of(name)?));
    let keys = args.prompts.iter().map(with_key).collect::<Result<HashMap<_, _>>>()?;
    let reader = Reader::start(args.redis.as_str(), keys.values().cloned().collect::<Vec<_>>(), settings)?;
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    eprintln!("serving {} on http://{}", args.prompts.join(", "), args.listen);

    let (metrics, model) = (ServerMetrics::new(), Model::default());
    args.misbehave.iter().cloned().for_each(|behaviour| model.misbehave(behaviour));
    let server = Arc::new(PromptServer { args, keys, reader, metrics, model, requests: AtomicU64::default() });
    for prompt in server.args.prompts.clone() {
        tokio::spawn(server.clone().announce(prompt));
    }
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
