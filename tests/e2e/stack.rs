//! All services, with the shipped files, scraped and evaluated each second.

use super::server::{Behaviour, PromptServer};
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::shipped::{self, Source, Targets};
use prompt_rollback_testkit::{Alertmanager, Port, Prometheus, Receiver, Redis, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub const GOOD: &str = "v1.9.0";
pub const BAD: &str = "v2.0.0";

const TOKEN: &str = "a-webhook-token";
/// Far longer than any test takes on an idle machine.
const STORY: Duration = Duration::from_secs(300);

/// The services to start.
pub struct Plan<'a> {
    pub prompts: &'a [&'a str],
    pub source: Source,
    /// Receivers, each with an Alertmanager of its own; the Alertmanagers are one cluster.
    pub replicas: usize,
    /// Alertmanager repeats firing alerts every 10 s instead of every minute.
    pub repeat_soon: bool,
    /// Baselines of quality and latency are recorded after a second instead of five minutes.
    pub baselines_soon: bool,
    /// Further targets of the prompt servers' job.
    pub also_scraped: Vec<String>,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self {
            prompts: &["customer-support"],
            source: Source::Native,
            replicas: 1,
            repeat_soon: false,
            baselines_soon: false,
            also_scraped: Vec::new(),
        }
    }
}

/// The running services; stopped when dropped.
pub struct Stack {
    pub prometheus: Prometheus,
    pub alertmanagers: Vec<Alertmanager>,
    pub receivers: Vec<Receiver>,
    pub server: PromptServer,
    pub redis: Redis,
}

impl Stack {
    pub async fn start(plan: Plan<'_>) -> Result<Self> {
        let redis = shipped::redis("receiver-password", "server-password")?.start()?;
        let url = |user: &str, password: &str| format!("redis://{user}:{password}@{}", redis.addr());
        let port = Arc::new(Port::claim());
        let (mut receivers, mut alertmanagers) = (Vec::new(), Vec::<Alertmanager>::new());
        for _ in 0..plan.replicas {
            let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
                .config(shipped::text("config/prompt-rollback.toml")?)
                .file("webhook_token", format!("{TOKEN}\n"))
                .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN_FILE", "webhook_token")
                .env("PROMPT_ROLLBACK_REDIS__URL", url("receiver", "receiver-password"))
                .env("PROMPT_ROLLBACK_PROMETHEUS__URL", format!("http://{}", port.addr()))
                .start()?;
            let mut config = shipped::alertmanager(&receiver.addr())?;
            if plan.repeat_soon {
                config = shipped::replace(&config, "repeat_interval: 1m", "repeat_interval: 10s")?;
            }
            let mut alertmanager = Alertmanager::builder(config).file("webhook_token", TOKEN);
            if plan.replicas > 1 {
                // the second one does not wait for the first to send
                alertmanager = alertmanager.clustered().flag("--cluster.peer-timeout=1ms");
            }
            if let Some(first) = alertmanagers.first() {
                alertmanager = alertmanager.peer(first);
            }
            receivers.push(receiver);
            alertmanagers.push(alertmanager.start()?);
        }
        let server = PromptServer::start(&url("prompt-server", "server-password"), plan.prompts, plan.source).await?;
        let targets = Targets {
            receivers: receivers.iter().map(Receiver::addr).collect(),
            alertmanagers: alertmanagers.iter().map(Alertmanager::addr).collect(),
            prompt_servers: [vec![server.addr.clone()], plan.also_scraped].concat(),
            prompts: plan.prompts.iter().map(|prompt| (*prompt).to_owned()).collect(),
        };
        let mut prometheus = shipped::prometheus(&targets, plan.source, Duration::from_secs(1))?.on(port);
        if plan.baselines_soon {
            let baselines = shipped::text("alert-rules/baselines.yml")?;
            let baselines = shipped::replace(&baselines, "interval: 5m", "interval: 1s")?;
            prometheus = prometheus.file("rules/baselines.yml", baselines);
        }
        let prometheus = prometheus.start()?;
        let stack = Self { prometheus, alertmanagers, receivers, server, redis };
        // all receivers and Alertmanagers, the prompt servers, and Prometheus itself
        let targets = 2 * plan.replicas + targets.prompt_servers.len() + 1;
        stack.until("all is scraped", async || (stack.count("up == 1").await? == targets).then_some(())).await?;
        if plan.replicas > 1 {
            stack.until("the Alertmanagers are one cluster", async || stack.clustered().await).await?;
        }
        Ok(stack)
    }

    /// Waits; on failure, shows the logs of all services.
    pub async fn until<T>(&self, what: &str, probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
        let result = eventually(what, STORY, probe).await;
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(self.explain().await)),
        }
    }

    async fn explain(&self) -> String {
        let receivers = self.receivers.iter().map(|one| ("receiver", one.log()));
        let alertmanagers = self.alertmanagers.iter().map(|one| ("Alertmanager", one.log()));
        let tail = |log: String| log.lines().rev().take(12).map(|line| format!("  {line}\n")).collect::<String>();
        let logs: String =
            receivers.chain(alertmanagers).map(|(name, log)| format!("{name}, latest first:\n{}", tail(log))).collect();
        let alerts = self.prometheus.alerts().await.map(Value::from).unwrap_or_default();
        let incidents = self.get("/api/incidents").await.unwrap_or_default();
        format!("{logs}alerts: {alerts:#}\nincidents: {incidents:#}\n")
    }

    async fn clustered(&self) -> Option<()> {
        for one in &self.alertmanagers {
            let status = one.http().get("/api/v2/status").await.ok()?.json().ok()?;
            let cluster = &status["cluster"];
            let whole = cluster["peers"].as_array()?.len() == self.alertmanagers.len();
            (cluster["status"] == "ready" && whole).then_some(())?;
        }
        Some(())
    }

    /// The number of series that a query returns.
    pub async fn count(&self, query: &str) -> Option<usize> {
        Some(self.prometheus.query(query).await.ok()?.len())
    }

    /// GET from the first receiver.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.receivers[0].http().get(path).await?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// POST to the first receiver.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.receivers[0].http().post_json(path, &body).await?;
        ensure!((200..300).contains(&answer.status), "POST {path} {body}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Makes the good version known-good and active.
    pub async fn serve_good(&self, prompt: &str) -> Result<()> {
        let path = format!("/api/prompts/{}", encode(prompt));
        self.post(&format!("{path}/versions"), json!({ "version": GOOD, "known_good": true })).await?;
        self.post(&format!("{path}/activate"), json!({ "version": GOOD })).await?;
        self.until("the good version is served", async || {
            (self.server.served(prompt, GOOD).answers() > 0).then_some(())
        })
        .await
    }

    /// Ships a version of which this fraction of requests fails.
    pub async fn ship_bad(&self, prompt: &str, error_ratio: f64) -> Result<()> {
        self.ship(prompt, Behaviour { error_ratio, ..Behaviour::default() }).await
    }

    /// Ships a version with this behavior.
    pub async fn ship(&self, prompt: &str, behaviour: Behaviour) -> Result<()> {
        self.server.behave(prompt, BAD, behaviour);
        let path = format!("/api/prompts/{}", encode(prompt));
        self.post(&format!("{path}/versions"), json!({ "version": BAD })).await?;
        self.post(&format!("{path}/activate"), json!({ "version": BAD })).await?;
        Ok(())
    }

    /// The version that a prompt server reads.
    pub async fn active(&self, prompt: &str) -> Result<String> {
        self.redis.cmd(&["GET", &format!("{{prompts}}:active:{prompt}")]).await
    }

    pub async fn until_active(&self, prompt: &str, version: &str) -> Result<()> {
        let what = format!("{version} of {prompt} is active");
        self.until(&what, async || (self.active(prompt).await.ok()? == version).then_some(())).await
    }

    /// Waits until users get only the good version.
    pub async fn traffic_is_back(&self, prompt: &str) -> Result<()> {
        // a request that read its version just before the switch may still be counted
        let soon = self.server.served(prompt, GOOD).answers() + 5;
        let answered = |at_least| {
            self.until("the good version is served again", async move || {
                (self.server.served(prompt, GOOD).answers() >= at_least).then_some(())
            })
        };
        answered(soon).await?;
        let bad = self.server.served(prompt, BAD);
        answered(soon + 50).await?;
        ensure!(self.server.served(prompt, BAD) == bad, "the bad version is still served");
        Ok(())
    }

    /// The rollbacks of the prompt's log, newest first.
    pub async fn rollbacks(&self, prompt: &str) -> Result<Vec<Value>> {
        let log = self.get(&format!("/api/prompts/{}/log", encode(prompt))).await?;
        let entries = log["entries"].as_array().context("entries")?;
        Ok(entries.iter().filter(|entry| entry["event"] == "rollback").cloned().collect())
    }

    /// All incidents of the prompt, with their alerts.
    pub async fn incidents(&self, prompt: &str) -> Result<Vec<Value>> {
        let list = self.get("/api/incidents").await?;
        let mut incidents = Vec::new();
        for one in list["incidents"].as_array().context("incidents")?.iter().filter(|one| one["prompt"] == prompt) {
            incidents.push(self.get(&format!("/api/incidents/{}", one["id"].as_str().context("id")?)).await?);
        }
        Ok(incidents)
    }

    /// Checks for a single automatic rollback: one entry in the log, one incident, recovered or being verified.
    pub async fn rolled_back_once(&self, prompt: &str) -> Result<Value> {
        ensure!(self.active(prompt).await? == GOOD, "{} is active", self.active(prompt).await?);
        let rollbacks = self.rollbacks(prompt).await?;
        let entry = |one: &Value| (one["from"] == BAD, one["to"] == GOOD, one["operator"] == "system");
        ensure!(rollbacks.len() == 1 && entry(&rollbacks[0]) == (true, true, true), "log: {rollbacks:#?}");
        let mut incidents = self.incidents(prompt).await?;
        ensure!(incidents.len() == 1, "incidents: {incidents:#?}");
        let incident = incidents.remove(0);
        let as_told = ["version", "target", "severity"].map(|key| incident[key].as_str().unwrap_or_default());
        ensure!(as_told == [BAD, GOOD, "critical"], "{incident:#}");
        ensure!(incident["phase"] == "verifying" || incident["phase"] == "recovered", "{incident:#}");
        ensure!(incident["flip"]["mode"] == "auto" && rollbacks[0]["incident"] == incident["id"], "{incident:#}");
        Ok(incident)
    }
}

/// The sum of a receiver's own series that have all these labels.
pub async fn metric(receiver: &Receiver, name: &str, labels: &[&str]) -> Result<f64> {
    let text = receiver.http().get("/metrics").await?.text();
    let series = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(series, _)| {
        let (own, rest) = series.split_once('{').unwrap_or((series, ""));
        own == name && labels.iter().all(|label| rest.contains(label))
    });
    series.map(|(_, value)| value.parse::<f64>().with_context(|| format!("{name}: {value}"))).sum()
}
