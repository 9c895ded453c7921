//! `check`: validates the config, and tests the services that it names.

use std::time::Duration;

use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::client::{ApiClient, BaseUrl};
use super::output;
use super::table::{Cell, table};
use crate::alertmanager::client::authorization;
use crate::api::PromptSummary;
use crate::config::{Config, RenamedKey, parse_prometheus_duration};
use crate::store::Level;

/// As recommended; Prometheus' default is a minute.
const RESEND_DELAY: Duration = Duration::from_secs(5);

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

/// Tests whether Prometheus and each Alertmanager are ready.
pub async fn probe_http(config: &Config) -> Vec<Probe> {
    let mut probes = Vec::new();
    if let Some(url) = &config.prometheus.url {
        probes.push(probe_server("prometheus", url, None, "/api/v1/status/buildinfo", &["data", "version"]).await);
        probes.extend(probe_resend_delay(url).await);
    }
    let login = authorization(&config.alertmanager);
    for url in &config.alertmanager.urls {
        probes.push(
            probe_server("alertmanager", url, login.clone(), "/api/v2/status", &["versionInfo", "version"]).await,
        );
    }
    probes
}

async fn probe_server(name: &str, url: &str, login: Option<HeaderValue>, info: &str, version: &[&str]) -> Probe {
    let tried = async {
        let base: BaseUrl = url.parse()?;
        let client = ApiClient::new(base, login, None).map_err(|error| error.to_string())?;
        client.text("/-/ready").await.map_err(|error| error.to_string())?;
        // Anything may answer 200 to every request; the right service knows its own version.
        let about = client.get(info).await.map_err(|error| error.to_string())?;
        let version = version.iter().fold(&about, |value, key| &value[*key]);
        match version.as_str() {
            Some(version) => Ok(format!("{url} is ready, version {version}")),
            // as VictoriaMetrics 1.79
            None if about["status"] == "success" => Ok(format!("{url} is ready, version not reported")),
            None => Err(format!("{url} answers, but not as {name} does")),
        }
    };
    let result: Result<String, String> = tried.await;
    let ok = result.is_ok();
    Probe::new(name, ok, result.unwrap_or_else(|error| error))
}

/// How long Prometheus waits before it sends a firing alert again. Other servers with its API have no such flag.
async fn probe_resend_delay(url: &str) -> Option<Probe> {
    let client = ApiClient::new(url.parse().ok()?, None, None).ok()?;
    let flags = client.get("/api/v1/status/flags").await.ok()?;
    let delay = flags["data"]["rules.alert.resend-delay"].as_str()?;
    let is_short = parse_prometheus_duration(delay).ok()? <= RESEND_DELAY;
    let text = "expected at most 5s: after a short outage of Alertmanager, an alert arrives that much later";
    let (level, text) = if is_short { (Level::Ok, "") } else { (Level::Warning, text) };
    let colon = if is_short { "" } else { ": " };
    let detail = format!("{url} has --rules.alert.resend-delay={delay}{colon}{text}");
    Some(Probe { name: "prometheus resend delay".to_owned(), level, detail })
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

pub fn json(renamed: &[RenamedKey], probes: &[Probe], without_target: &[PromptSummary]) -> Value {
    let probes: Vec<Value> = probes
        .iter()
        .map(|probe| {
            let level = probe.level.as_str();
            json!({ "name": probe.name, "ok": !probe.failed(), "level": level, "detail": probe.detail })
        })
        .collect();
    let names: Vec<&str> = without_target.iter().map(|prompt| prompt.prompt.as_str()).collect();
    let warnings: Vec<String> = renamed.iter().map(RenamedKey::to_string).collect();
    json!({ "config": "ok", "warnings": warnings, "probes": probes, "without_target": names })
}
