//! The shipped files, adapted to the addresses of a test or the demo.

use crate::{Prometheus, PrometheusBuilder, Redis, RedisBuilder};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

/// The folder of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A file, by its path from the root of the repository.
pub fn text(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("read {path}"))
}

/// Replaces text that must exist: a shipped file that has changed must be noticed instead of being half adapted.
pub fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "a shipped file no longer holds {from:?}; adapt who reads it");
    Ok(text.replace(from, to))
}

/// `config/users.acl` with the hashes of these passwords.
pub fn users(receiver: &str, prompt_server: &str) -> Result<String> {
    let hash = |password: &str| Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let acl = text("config/users.acl")?;
    let acl = replace(&acl, "RECEIVER_PASSWORD_SHA256", &hash(receiver))?;
    replace(&acl, "PROMPT_SERVER_PASSWORD_SHA256", &hash(prompt_server))
}

/// `config/redis.conf` and `config/users.acl` with these passwords, otherwise unchanged: the testkit adds the addresses
/// and paths.
pub fn redis(receiver: &str, prompt_server: &str) -> Result<RedisBuilder> {
    let conf = root().join("config/redis.conf").canonicalize().context("find config/redis.conf")?;
    Ok(Redis::builder().base(conf).acl(users(receiver, prompt_server)?))
}

/// `config/alertmanager.yml`, for the receiver at this address. It reads its token from the file `webhook_token`.
pub fn alertmanager(receiver: &str) -> Result<String> {
    replace(&text("config/alertmanager.yml")?, "receiver:8000", receiver)
}

/// The source of the metrics that the rules read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `prompt_requests_total` and the other native metrics.
    #[default]
    Native,
    /// OpenTelemetry's `gen_ai_*`.
    OpenTelemetry,
}

/// The targets that Prometheus scrapes, as `host:port`.
#[derive(Debug, Default, Clone)]
pub struct Targets {
    /// All replicas.
    pub receivers: Vec<String>,
    /// Alerts are also sent there.
    pub alertmanagers: Vec<String>,
    /// Or other exporters of the metrics of `Source`.
    pub prompt_servers: Vec<String>,
    /// The prompts that these may have metrics for; empty: every prompt, as shipped.
    pub prompts: Vec<String>,
}

/// `config/prometheus.yml` with the rules of `alert-rules/`; `interval` is the scrape and evaluation interval.
pub fn prometheus(targets: &Targets, source: Source, interval: Duration) -> Result<PrometheusBuilder> {
    let mut config = text("config/prometheus.yml")?;
    for (from, to) in [
        ("receiver:8000", targets.receivers.join(", ")),
        ("alertmanager:9093", targets.alertmanagers.join(", ")),
        ("prompt-server:9100", targets.prompt_servers.join(", ")),
        ("localhost:9090", "$ADDR".to_owned()),
    ] {
        config = replace(&config, from, &to)?;
    }
    if !targets.prompts.is_empty() {
        let prompts = format!("regex: '|{}'", targets.prompts.join("|").replace('.', "\\."));
        config = replace(&config, "regex: '.*'", &prompts)?;
    }
    for key in ["scrape_interval", "evaluation_interval"] {
        config = replace(&config, &format!("{key}: 5s"), &format!("{key}: {}ms", interval.as_millis()))?;
    }
    if source == Source::OpenTelemetry {
        config = replace(&config, "\n  - rules/native.yml", "")?;
        config = replace(&config, "\n  # - rules/otel.yml", "\n  - rules/otel.yml")?;
    }
    let mut prometheus = Prometheus::builder(config);
    for entry in std::fs::read_dir(root().join("alert-rules")).context("read alert-rules")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yml") {
            prometheus = prometheus.file(format!("rules/{name}"), text(&format!("alert-rules/{name}"))?);
        }
    }
    Ok(prometheus)
}
