//! Everything the demo runs, with the files that ship.

use crate::{Args, Profile};
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::Http;
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
    /// Starts all parts and waits until Prometheus scrapes them.
    pub async fn start(args: &Args) -> Result<Self> {
        let redis = start_redis()?;
        let receiver = Receiver::builder(binary("prompt-rollback")?)
            .config(shipped("config/prompt-rollback.toml")?)
            .env("PROMPT_ROLLBACK_REDIS__URL", redis_url(&redis, "receiver", RECEIVER_PASSWORD))
            .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", WEBHOOK_TOKEN)
            .start()?;
        let servers = start_servers(&redis).await?;
        let alertmanager = {
            let config = shipped("config/alertmanager.yml")?;
            let config = replace(config, "receiver:8000", &receiver.addr())?;
            Alertmanager::builder(config).file("webhook_token", WEBHOOK_TOKEN).start()?
        };
        let prometheus = start_prometheus(args.profile, &receiver, &servers, &alertmanager)?;
        let stack = Self { prometheus, alertmanager, servers, receiver, redis };
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

fn start_redis() -> Result<Redis> {
    let acl = shipped("config/users.acl")?;
    let acl = replace(acl, "#RECEIVER_PASSWORD_SHA256", &format!(">{RECEIVER_PASSWORD}"))?;
    let acl = replace(acl, "#PROMPT_SERVER_PASSWORD_SHA256", &format!(">{SERVER_PASSWORD}"))?;
    // The testkit says where it listens and where the users are.
    let elsewhere = ["bind ", "port ", "aclfile "];
    let conf = shipped("config/redis.conf")?;
    let conf: Vec<_> = conf.lines().filter(|line| !elsewhere.iter().any(|key| line.starts_with(key))).collect();
    Redis::builder().acl(acl).conf(conf.join("\n")).start()
}

fn redis_url(redis: &Redis, user: &str, password: &str) -> String {
    format!("redis://{user}:{password}@{}", redis.addr())
}

async fn start_servers(redis: &Redis) -> Result<Vec<PromptServer>> {
    let url = redis_url(redis, "prompt-server", SERVER_PASSWORD);
    let rust = |dir: &Dir| Ok(ProcessBuilder::new(binary("examples/prompt_server")?, dir.path()));
    let python = |dir: &Dir| {
        let script = root().join("examples/python/prompt_server.py");
        Ok(ProcessBuilder::new(python()?, dir.path()).arg(script))
    };
    Ok(vec![
        start_server("Rust server (push)", &url, rust).await?,
        start_server("Python server (GET)", &url, python).await?,
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

fn start_prometheus(
    profile: Profile,
    receiver: &Receiver,
    servers: &[PromptServer],
    alertmanager: &Alertmanager,
) -> Result<Prometheus> {
    let targets: Vec<_> = servers.iter().map(PromptServer::addr).collect();
    let mut config = shipped("config/prometheus.yml")?;
    config = replace(config, "receiver:8000", &receiver.addr())?;
    config = replace(config, "alertmanager:9093", &alertmanager.addr())?;
    config = replace(config, "localhost:9090", "$ADDR")?;
    config = replace(config, "prompt-server:9100", &targets.join(", "))?;
    if profile == Profile::Fast {
        config = replace(config, "scrape_interval: 5s", "scrape_interval: 1s")?;
        config = replace(config, "evaluation_interval: 5s", "evaluation_interval: 1s")?;
    }
    let mut prometheus = Prometheus::builder(config);
    for entry in std::fs::read_dir(root().join("alert-rules")).context("read alert-rules")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yml") {
            prometheus = prometheus.file(format!("rules/{name}"), shipped(&format!("alert-rules/{name}"))?);
        }
    }
    prometheus.start()
}

/// Replaces what must be there: a shipped file that has changed is to be noticed, not run half adapted.
fn replace(text: String, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "a shipped file no longer holds {from:?}; adapt the demo");
    Ok(text.replace(from, to))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped(name: &str) -> Result<String> {
    std::fs::read_to_string(root().join(name)).with_context(|| format!("read {name}"))
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
