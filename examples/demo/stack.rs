//! Everything the demo runs, with the files that ship.

use crate::{Args, people};
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::shipped::{self, Source, Targets};
use prompt_rollback_testkit::slack::Slack;
use prompt_rollback_testkit::{
    Alertmanager, Dir, Port, Process, ProcessBuilder, Prometheus, Receiver, Redis, eventually,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The prompt that the demo is about.
pub const PROMPT: &str = "customer-support";

const RECEIVER_PASSWORD: &str = "demo-receiver";
const SERVER_PASSWORD: &str = "demo-prompt-server";
const WEBHOOK_TOKEN: &str = "demo-webhook-token";

/// The running parts; dropping it ends them all.
pub struct Stack {
    pub prometheus: Prometheus,
    pub alertmanager: Alertmanager,
    pub servers: Vec<PromptServer>,
    pub receiver: Receiver,
    pub redis: Redis,
    pub slack: Slack,
}

/// A prompt server and what it is called in the report.
pub struct PromptServer {
    pub name: &'static str,
    port: Port,
    process: Process,
    _dir: Dir,
}

impl PromptServer {
    pub fn addr(&self) -> String {
        self.port.addr()
    }

    pub fn http(&self) -> Http {
        Http::new(format!("http://{}", self.addr())).timeout(Duration::from_secs(5))
    }
}

impl Stack {
    /// Starts all parts around this workspace and waits until Prometheus scrapes them.
    pub async fn start(args: &Args, slack: Slack) -> Result<Self> {
        let redis = shipped::redis(RECEIVER_PASSWORD, SERVER_PASSWORD)?.start()?;
        let url = |user: &str, password: &str| format!("redis://{user}:{password}@{}", redis.addr());
        let servers = start_servers(&url("prompt-server", SERVER_PASSWORD)).await?;
        // Receiver, Alertmanager and Prometheus are told each other's addresses.
        let port = Port::claim();
        let alertmanager = Alertmanager::builder(shipped::alertmanager(&port.addr())?);
        let alertmanager = alertmanager.file("webhook_token", WEBHOOK_TOKEN).start()?;
        let targets = Targets {
            receivers: vec![port.addr()],
            alertmanagers: vec![alertmanager.addr()],
            prompt_servers: servers.iter().map(PromptServer::addr).collect(),
        };
        let prometheus = start_prometheus(&targets, args.profile.interval())?;
        let receiver = Receiver::builder(binary("prompt-rollback")?)
            .port(port)
            .config(shipped::text("config/prompt-rollback.toml")?)
            .env("PROMPT_ROLLBACK_REDIS__URL", url("receiver", RECEIVER_PASSWORD))
            .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", WEBHOOK_TOKEN)
            .env("PROMPT_ROLLBACK_PROMETHEUS__URL", prometheus.url())
            .env("PROMPT_ROLLBACK_ALERTMANAGER__URLS", alertmanager.url());
        let receiver = people::config(&slack)
            .into_iter()
            .fold(receiver, |receiver, (key, value)| receiver.env(format!("PROMPT_ROLLBACK_{key}"), value));
        let receiver = receiver.start()?;
        slack.set_request_url(format!("{}/slack/interactions", receiver.url()));
        let stack = Self { prometheus, alertmanager, servers, receiver, redis, slack };
        let targets = stack.servers.len() + 1;
        // Prometheus takes up to 5 s to look at its targets at all.
        let within = Duration::from_secs(10) + args.profile.interval();
        eventually("Prometheus scrapes the receiver and the prompt servers", within, async || {
            let up = stack.prometheus.query(r#"up{job=~"prompt-.*"} == 1"#).await.ok()?;
            (up.len() == targets).then_some(())
        })
        .await?;
        Ok(stack)
    }

    /// A part that has ended although nobody asked it to, with the end of its log.
    pub fn ended(&mut self) -> Option<String> {
        let servers = self.servers.iter_mut().map(|server| (server.name, &mut server.process));
        let parts = [
            ("Redis", self.redis.process()),
            ("the receiver", self.receiver.process()),
            ("Alertmanager", self.alertmanager.process()),
            ("Prometheus", self.prometheus.process()),
        ];
        parts.into_iter().chain(servers).find_map(|(name, process)| {
            let status = process.exited().ok()??;
            Some(format!("{name} ended with {status}:\n{}", process.log_tail()))
        })
    }
}

async fn start_servers(redis_url: &str) -> Result<Vec<PromptServer>> {
    let rust = |dir: &Dir| Ok(ProcessBuilder::new(binary("examples/prompt_server")?, dir.path()));
    let python = |dir: &Dir| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/prompt_server.py");
        Ok(ProcessBuilder::new(python()?, dir.path()).arg(script))
    };
    Ok(vec![
        start_server("Rust server", redis_url, rust).await?,
        start_server("Python server", redis_url, python).await?,
    ])
}

async fn start_server(
    name: &'static str,
    redis: &str,
    program: impl FnOnce(&Dir) -> Result<ProcessBuilder>,
) -> Result<PromptServer> {
    let (dir, port) = (Dir::new("prompt-server")?, Port::claim());
    let command = program(&dir)?.env("REDIS_URL", redis).args(["--prompt", PROMPT, "--listen"]).arg(port.addr());
    let mut process = command.spawn()?;
    let http = Http::new(format!("http://{}", port.addr()));
    let healthy = eventually("healthy", Duration::from_secs(10), async || http.get("/-/healthy").await.ok()).await;
    healthy.with_context(|| format!("{name}: {}", process.log()))?;
    ensure!(process.exited()?.is_none(), "{name} has ended: {}", process.log());
    Ok(PromptServer { name, port, process, _dir: dir })
}

/// With the shipped rules, but for two numbers that a demo can't wait for: what quality is compared with is known after
/// one interval instead of five minutes, and a drop has to last one instead of 30 s. The critical row stays as it is.
fn start_prometheus(targets: &Targets, interval: Duration) -> Result<Prometheus> {
    let interval_ms = format!("{}ms", interval.as_millis());
    let baselines = shipped::text("alert-rules/baselines.yml")?;
    let baselines = shipped::replace(&baselines, "interval: 5m", &format!("interval: {interval_ms}"))?;
    let row = "(prompt_version:quality_score:drop_ratio > 0.2)\n        for: ";
    let alerts = shipped::text("alert-rules/alerts.yml")?;
    let alerts = shipped::replace(&alerts, &format!("{row}30s"), &format!("{row}{interval_ms}"))?;
    shipped::prometheus(targets, Source::Native, interval)?
        .file("rules/baselines.yml", baselines)
        .file("rules/alerts.yml", alerts)
        .start()
}

/// A binary of the same build as this one: this is `target/<profile>/examples/demo`.
fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("path of the demo")?;
    let path = own.ancestors().nth(2).context("parent of the examples folder")?.join(name);
    ensure!(path.exists(), "{} is not built: run scripts/demo", path.display());
    Ok(path)
}

/// A Python that has the two modules. Debian's packages are for Debian's own Python, which may not be the first.
fn python() -> Result<&'static str> {
    let has_modules = |program: &&str| {
        let mut probe = std::process::Command::new(program);
        let probe = probe.args(["-c", "import redis, prometheus_client"]).stderr(std::process::Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_modules);
    python.context("no python3 with the modules redis and prometheus_client: run scripts/install-deps demo")
}
