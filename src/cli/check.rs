//! `check`: validates the config, and tests the services that it names.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::client::{ApiClient, BaseUrl};
use super::output;
use super::table::{Cell, table};
use crate::api::PromptSummary;
use crate::config::{Config, HttpTarget, parse_prometheus_duration};
use crate::http_client::{Access, Outgoing, Proxies};
use crate::prometheus::client::Prometheus;
use crate::store::Level;

/// Flags of Prometheus: the probe, the recommended value, and what a longer one leads to.
const FLAGS: [(&str, &str, Duration, &str); 2] = [
    (
        "rules.alert.resend-delay",
        "prometheus resend delay",
        Duration::from_secs(5),
        "after a short outage of Alertmanager, an alert arrives that much later",
    ),
    (
        "rules.alert.for-grace-period",
        "prometheus grace period",
        Duration::from_secs(10),
        "a restart of Prometheus ends and repeats firing alerts that have `for: 30s`",
    ),
];

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What was tested, such as `redis permissions`.
    pub name: String,
    pub level: Level,
    /// What was found; after a failure, the cause and what to do.
    pub detail: String,
}

impl Probe {
    /// The result of a test that can fail.
    pub fn new(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        let level = if ok { Level::Ok } else { Level::Problem };
        Self { name: name.into(), level, detail: detail.into() }
    }

    pub fn failed(&self) -> bool {
        self.level == Level::Problem
    }
}

/// The results about Redis.
#[derive(Debug, Default)]
pub struct StoreReport {
    pub probes: Vec<Probe>,
    /// Prompts that have no rollback target yet.
    pub without_target: Vec<PromptSummary>,
}

/// Tests whether Prometheus and each Alertmanager answer, with the credentials and through the proxy of the config.
pub async fn probe_http(config: &Config) -> Vec<Probe> {
    let invalid = |detail| Probe { name: "proxy".to_owned(), level: Level::Warning, detail };
    let mut probes: Vec<_> = Proxies::invalid_variables().map(invalid).collect();
    if let Some(url) = &config.prometheus.url {
        let target = &config.prometheus.http;
        let server = probe_server("prometheus", url, target, "/api/v1/status/buildinfo", &["data", "version"]).await;
        let answers = !server.failed();
        probes.push(server);
        if answers {
            probes.push(probe_query(config, url).await);
        }
        probes.extend(probe_flags(url, target).await);
    }
    let target = &config.alertmanager.http;
    for url in &config.alertmanager.urls {
        probes.push(probe_server("alertmanager", url, target, "/api/v2/status", &["versionInfo", "version"]).await);
    }
    probes
}

async fn probe_server(name: &str, url: &str, target: &HttpTarget, info: &str, version: &[&str]) -> Probe {
    let tried = async {
        let base: BaseUrl = url.parse()?;
        let http = Outgoing::with(base, Access::of(target)).map_err(|error| error.to_string())?;
        let through = http.proxy().map(|proxy| format!(", through the proxy {proxy}")).unwrap_or_default();
        let client = ApiClient::of(http);
        let ready = match client.text("/-/ready").await {
            Ok(_) => true,
            // Mimir, Thanos, VictoriaMetrics and hosted services have it elsewhere, or not at all
            Err(error) if error.status().is_some_and(|status| status.as_u16() < 500) => false,
            Err(error) => return Err(error.to_string()),
        };
        // Anything may answer 200 to every request; the right service knows its own version.
        let about = match client.get(info).await {
            // what it can do is asked for below
            Err(error) if name == "prometheus" && error.status() == Some(StatusCode::NOT_FOUND) => Value::Null,
            about => about.map_err(|error| error.to_string())?,
        };
        let version = version.iter().fold(&about, |value, key| &value[*key]);
        let is = if ready { "is ready" } else { "answers (it has no /-/ready)" };
        match version.as_str() {
            Some(version) => Ok(format!("{url} {is}, version {version}{through}")),
            // as VictoriaMetrics 1.79
            None if about["status"] == "success" || about.is_null() => {
                Ok(format!("{url} {is}, version not reported{through}"))
            }
            None => Err(format!("{url} answers, but is not {name}")),
        }
    };
    let result: Result<String, String> = tried.await;
    let ok = result.is_ok();
    Probe::new(name, ok, result.unwrap_or_else(|error| error))
}

/// Asks a question as the receiver does: what is in front of a server may permit one path and refuse another.
async fn probe_query(config: &Config, url: &str) -> Probe {
    let asked = async {
        let prometheus = Prometheus::new(&config.prometheus).map_err(|error| error.to_string())?;
        let prometheus = prometheus.ok_or("prometheus.url is not set")?;
        let answer = prometheus.instant("vector(1)").await.map_err(|error| error.to_string())?;
        match answer.as_slice() {
            [one] if (one.value() - 1.0).abs() < f64::EPSILON => Ok(format!("{url} answers queries")),
            _ => Err(format!("{url} answers the query vector(1) with {} series", answer.len())),
        }
    };
    let result: Result<String, String> = asked.await;
    Probe::new("prometheus queries", result.is_ok(), result.unwrap_or_else(|error| error))
}

/// The flags that decide when a firing alert arrives. Other servers with Prometheus' API have none of them.
async fn probe_flags(url: &str, target: &HttpTarget) -> Vec<Probe> {
    let flags = async {
        let client = ApiClient::of(Outgoing::with(url.parse().ok()?, Access::of(target)).ok()?);
        client.get("/api/v1/status/flags").await.ok()
    };
    let Some(flags) = flags.await else { return Vec::new() };
    let probe = |(flag, name, most, consequence): &(&str, &str, Duration, &str)| {
        let value = flags["data"][flag].as_str()?;
        let is_short = parse_prometheus_duration(value).ok()? <= *most;
        let expected = format!(": expected at most {}s: {consequence}", most.as_secs());
        let (level, expected) = if is_short { (Level::Ok, String::new()) } else { (Level::Warning, expected) };
        let detail = format!("{url} has --{flag}={value}{expected}");
        Some(Probe { name: (*name).to_owned(), level, detail })
    };
    FLAGS.iter().filter_map(probe).collect()
}

/// One line for each test.
pub fn table_of(probes: &[Probe], color: bool) -> String {
    let rows: Vec<_> = probes
        .iter()
        .map(|probe| {
            let result = match probe.level {
                Level::Ok => Cell::new("ok"),
                Level::Warning => Cell::warning("warning"),
                Level::Problem => Cell::warning("FAIL"),
            };
            [Cell::new(&probe.name), result, Cell::new(&probe.detail)]
        })
        .collect();
    table(["CHECKED", "RESULT", "DETAIL"], &rows, color)
}

/// What is not set, and the prompts that could not be rolled back.
pub fn hints(config: &Config, without_target: &[PromptSummary]) -> String {
    let mut out = String::new();
    if config.prometheus.url.is_none() {
        out.push_str("prometheus.url is not set: rollbacks are not verified\n");
    }
    if config.alertmanager.urls.is_empty() {
        out.push_str(
            "alertmanager.urls is empty: missed deadlines raise no alert, and an alert that never says `resolved` ends after incidents.alert_resolve_timeout\n",
        );
    }
    if !without_target.is_empty() {
        out.push('\n');
        out.push_str(&output::without_target(&without_target.iter().collect::<Vec<_>>()));
    }
    out
}

pub fn json(warnings: &[String], probes: &[Probe], without_target: &[PromptSummary]) -> Value {
    let probes: Vec<Value> = probes
        .iter()
        .map(|probe| {
            let level = probe.level.as_str();
            json!({ "name": probe.name, "ok": !probe.failed(), "level": level, "detail": probe.detail })
        })
        .collect();
    let names: Vec<&str> = without_target.iter().map(|prompt| prompt.prompt.as_str()).collect();
    json!({ "config": "ok", "warnings": warnings, "probes": probes, "without_target": names })
}
