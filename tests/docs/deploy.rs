//! `deploy/`: the chart, what it renders, and the way of an alert through what the operator makes of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Alertmanager, Dir, Port, Receiver, Redis};
use serde_json::json;

const RECEIVER: &str = env!("CARGO_BIN_EXE_prompt-rollback");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `tests/kubernetes/check.py` with these arguments.
fn check(arguments: &[&str]) -> Result<Output> {
    let python: PathBuf = root().join("target/tools/bin/python");
    ensure!(python.exists(), "{} is missing: run scripts/install-deps test", python.display());
    Ok(Command::new(python).arg(root().join("tests/kubernetes/check.py")).args(arguments).output()?)
}

fn text_of(output: Output) -> Result<String> {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}{error}");
    Ok(out.into_owned())
}

#[test]
fn the_chart_renders_valid_manifests_and_config() -> Result<()> {
    let told = text_of(check(&["all", RECEIVER])?)?;
    ensure!(told.lines().filter(|line| line.ends_with(": ok")).count() >= 7, "{told}");
    Ok(())
}

/// These blocks of YAML are objects, or values of kube-prometheus-stack, that the operator knows.
pub fn check_objects(blocks: &[&str]) -> Result<()> {
    ensure!(!blocks.is_empty(), "no YAML");
    let dir = Dir::new("objects")?;
    let file = dir.write("objects.yaml", blocks.join("---\n"))?;
    text_of(check(&["objects", file.to_str().context("a path")?])?).map(drop)
}

/// What was created has each Secret, and each key of one, that what was rendered refers to.
pub fn check_secrets(created: &Path, rendered: &Path) -> Result<()> {
    let [created, rendered] = [created, rendered].map(|path| path.to_str().context("a path"));
    text_of(check(&["secrets", created?, rendered?])?).map(drop)
}

/// A receiver as the chart would start it, and an Alertmanager with what the operator makes of the chart's
/// AlertmanagerConfigs, on the operator's default strategy.
pub struct Cluster {
    pub receiver: Receiver,
    pub alertmanager: Alertmanager,
    pub redis: Redis,
}

impl Cluster {
    pub async fn start(labels: &str) -> Result<Self> {
        let (redis, port) = (Redis::start()?, Port::claim());
        let config = text_of(check(&["routes", "OnNamespace", &port.addr()])?)?;
        let alertmanager = Alertmanager::builder(config).file("webhook_token", "0123456789abcdef").start()?;
        let receiver = Receiver::builder(RECEIVER)
            .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
            .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", "0123456789abcdef")
            .env("PROMPT_ROLLBACK_ALERTMANAGER__URLS", alertmanager.url())
            .env("PROMPT_ROLLBACK_ALERTMANAGER__LABELS", labels)
            .port(port)
            .start()?;
        for version in ["v1", "v2"] {
            let version = json!({ "version": version, "known_good": true });
            for path in ["/api/prompts/greeting/versions", "/api/prompts/greeting/activate"] {
                let version =
                    if path.ends_with("activate") { json!({ "version": version["version"] }) } else { version.clone() };
                let answer = receiver.http().post_json(path, &version).await?;
                ensure!(answer.status < 300, "{path}: {}", answer.text());
            }
        }
        Ok(Self { receiver, alertmanager, redis })
    }

    async fn drill(&self, wait: &'static str) -> Result<Output> {
        let url = self.receiver.url();
        let mut command = Command::new(RECEIVER);
        command.args(["drill", "greeting", "--wait", wait, "--operator", "test"]).env("PROMPT_ROLLBACK_URL", url);
        tokio::task::spawn_blocking(move || command.output()).await?.context("drill")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_arrives_through_the_operators_default_routes() -> Result<()> {
    let told = text_of(Cluster::start("namespace=prompts").await?.drill("60").await?)?;
    ensure!(told.contains("delivered by its webhook"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_label_the_operators_default_routes_keep_a_drill_away() -> Result<()> {
    let output = Cluster::start("").await?.drill("5").await?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(told.contains("posted to Alertmanager") && !told.contains("delivered by its webhook"), "{told}");
    Ok(())
}
