//! The services of the demo, with the shipped files.

use crate::scene::BUSY;
use crate::{DemoArgs, people};
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::{Answer, Http};
use prompt_rollback_testkit::shipped::{self, Source, Targets};
use prompt_rollback_testkit::slack::Slack;
use prompt_rollback_testkit::{
    Alertmanager, Dir, Port, Process, ProcessBuilder, Prometheus, Receiver, Redis, eventually,
};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The prompt that the demo is about.
pub const PROMPT: &str = "customer-support";

const RECEIVER_PASSWORD: &str = "demo-receiver";
const SERVER_PASSWORD: &str = "demo-prompt-server";
const WEBHOOK_TOKEN: &str = "demo-webhook-token";

/// The running services; dropping it stops them all.
pub struct Stack {
    pub prometheus: Prometheus,
    pub alertmanager: Alertmanager,
    pub servers: Vec<ServerProcess>,
    pub receiver: Receiver,
    pub redis: Redis,
    pub slack: Slack,
    /// The receiver's binary, which is also the command line.
    pub program: PathBuf,
    pids: Vec<(LoggedProcess, u32)>,
}

/// A part that has a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LoggedProcess {
    Redis,
    Receiver,
    Alertmanager,
    Prometheus,
    Servers,
}

impl fmt::Display for LoggedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Receiver => "the receiver",
            Self::Alertmanager => "Alertmanager",
            Self::Prometheus => "Prometheus",
            Self::Servers => "a prompt server",
        })
    }
}

/// A prompt server, and its name in the report.
pub struct ServerProcess {
    pub name: &'static str,
    port: Port,
    process: Process,
    _dir: Dir,
}

impl ServerProcess {
    pub fn addr(&self) -> String {
        self.port.addr()
    }

    pub fn http(&self) -> Http {
        Http::new(format!("http://{}", self.addr())).timeout(Duration::from_secs(5))
    }
}

impl Stack {
    /// Starts all parts around this workspace.
    pub async fn start(args: &DemoArgs, slack: Slack) -> Result<Self> {
        let redis = shipped::redis(RECEIVER_PASSWORD, SERVER_PASSWORD)?.start()?;
        let url = |user: &str, password: &str| format!("redis://{user}:{password}@{}", redis.addr());
        let servers = start_servers(&url("prompt-server", SERVER_PASSWORD)).await?;
        // receiver, Alertmanager and Prometheus get each other's addresses
        let port = Port::claim();
        let alertmanager = Alertmanager::builder(shipped::alertmanager(&port.addr())?);
        let alertmanager = alertmanager.file("webhook_token", WEBHOOK_TOKEN).start()?;
        let targets = Targets {
            receivers: vec![port.addr()],
            alertmanagers: vec![alertmanager.addr()],
            prompt_servers: servers.iter().map(ServerProcess::addr).collect(),
            prompts: Vec::new(),
        };
        let prometheus = start_prometheus(&targets, args.profile.interval())?;
        let program = binary("prompt-rollback")?;
        let receiver = Receiver::builder(&program)
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
        let mut stack = Self { prometheus, alertmanager, servers, receiver, redis, slack, program, pids: Vec::new() };
        stack.pids = vec![
            (LoggedProcess::Redis, stack.redis.process().pid()),
            (LoggedProcess::Receiver, stack.receiver.pid()),
            (LoggedProcess::Alertmanager, stack.alertmanager.process().pid()),
            (LoggedProcess::Prometheus, stack.prometheus.process().pid()),
        ];
        stack.pids.extend(stack.servers.iter().map(|server| (LoggedProcess::Servers, server.process.pid())));
        Ok(stack)
    }

    /// Whether Prometheus has scraped the receiver and all prompt servers.
    pub async fn is_scraped(&self) -> Option<()> {
        let up = self.prometheus.query(r#"up{job=~"prompt-.*"} == 1"#).await.ok()?;
        (up.len() == self.servers.len() + 1).then_some(())
    }

    /// Sends GET, or POST with this body. The receiver answers 503 to requests that may be retried, mostly on a busy
    /// machine.
    pub async fn api(&self, path: &str, body: Option<&Value>) -> Result<Answer> {
        let (http, deadline) = (self.receiver.http(), Instant::now() + BUSY);
        loop {
            let answer = match body {
                Some(body) => http.post_json(path, body).await?,
                None => http.get(path).await?,
            };
            if answer.status != 503 || Instant::now() > deadline {
                let succeeded = (200..300).contains(&answer.status);
                ensure!(succeeded, "the receiver answered {path} with {} {}", answer.status, answer.text());
                return Ok(answer);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// A part that has ended unexpectedly. Until its status is read, it is a zombie.
    pub fn ended(&self) -> Option<LoggedProcess> {
        let is_zombie = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
        };
        self.pids.iter().find(|(_, pid)| is_zombie(*pid)).map(|(part, _)| *part)
    }

    /// The last lines of these logs.
    pub fn logs(&self, parts: &[LoggedProcess]) -> String {
        let of = |part: LoggedProcess| match part {
            LoggedProcess::Redis => vec![("Redis", self.redis.log())],
            LoggedProcess::Receiver => vec![("The receiver", self.receiver.log())],
            LoggedProcess::Alertmanager => vec![("Alertmanager", self.alertmanager.log())],
            LoggedProcess::Prometheus => vec![("Prometheus", self.prometheus.log())],
            LoggedProcess::Servers => self.servers.iter().map(|server| (server.name, server.process.log())).collect(),
        };
        let logs = parts.iter().flat_map(|part| of(*part));
        logs.map(|(name, log)| format!("\n\nLast log lines of {name}:\n{}", tail(&log))).collect()
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().map(|line| format!("    {line}")).collect();
    if lines.is_empty() { "    (nothing)".to_owned() } else { lines[lines.len().saturating_sub(10)..].join("\n") }
}

async fn start_servers(redis_url: &str) -> Result<Vec<ServerProcess>> {
    let rust = |dir: &Dir| Ok(ProcessBuilder::new(binary("examples/prompt_server")?, dir.path()));
    let python = |dir: &Dir| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/prompt_server.py");
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
) -> Result<ServerProcess> {
    let (dir, port) = (Dir::new("prompt-server")?, Port::claim());
    let command = program(&dir)?.env("REDIS_URL", redis).args(["--prompt", PROMPT, "--listen"]).arg(port.addr());
    let mut process = command.spawn()?;
    let http = Http::new(format!("http://{}", port.addr()));
    let healthy = eventually("it is healthy", BUSY, async || http.get("/-/healthy").await.ok()).await;
    healthy.with_context(|| format!("{name}:\n{}", tail(&process.log())))?;
    ensure!(process.exited()?.is_none(), "{name} has ended:\n{}", tail(&process.log()));
    Ok(ServerProcess { name, port, process, _dir: dir })
}

/// Starts Prometheus with the shipped rules, except for two durations that are too long for a demo, as `Scene::set`
/// prints: the quality baseline is recorded after one interval instead of five minutes, and a drop must last one
/// interval instead of 30 s. The critical rule and all thresholds are unchanged.
fn start_prometheus(targets: &Targets, interval: Duration) -> Result<Prometheus> {
    let interval_ms = format!("{}ms", interval.as_millis());
    let baselines = shipped::text("alert-rules/baselines.yml")?;
    let baselines = shipped::replace(&baselines, "interval: 5m", &format!("interval: {interval_ms}"))?;
    let row = "prompt_version:quality_score:drop_above20\n        for: ";
    let alerts = shipped::text("alert-rules/alerts.yml")?;
    let alerts = shipped::replace(&alerts, &format!("{row}30s"), &format!("{row}{interval_ms}"))?;
    shipped::prometheus(targets, Source::Native, interval)?
        .file("rules/baselines.yml", baselines)
        .file("rules/alerts.yml", alerts)
        .start()
}

/// A binary of the same build: this program is `target/<profile>/examples/demo`.
fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("path of the demo")?;
    let path = own.ancestors().nth(2).context("parent of the examples folder")?.join(name);
    ensure!(path.exists(), "{} is not built: run scripts/demo", path.display());
    Ok(path)
}

/// A Python that has both modules. Debian's packages are for Debian's Python, which may not be first in PATH.
fn python() -> Result<&'static str> {
    let has_modules = |program: &&str| {
        let mut probe = std::process::Command::new(program);
        let probe = probe.args(["-c", "import redis, prometheus_client"]).stderr(std::process::Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_modules);
    python.context("no python3 with the modules redis and prometheus_client: run scripts/install-deps demo")
}
