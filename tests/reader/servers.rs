//! Both example prompt servers, asked by the same users.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::Split;
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::{Dir, Port, Process, ProcessBuilder, eventually, shipped};
use serde_json::json;

use crate::python::{examples, python};

const SOON: Duration = Duration::from_secs(120);
const SPLIT: [(&str, &str); 2] = [("v1.9.0", "25"), ("v2.0.0", "75")];

pub struct Server {
    http: Http,
    process: Process,
    _dir: Dir,
}

pub fn rust_server() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.ancestors().nth(2).context("the folder of the profile")?.join("examples/prompt_server");
    // `cargo test` builds examples, `cargo test --test reader` does not
    ensure!(path.exists(), "{} is missing: run cargo build -p prompt-rollback-examples --examples", path.display());
    Ok(path)
}

pub fn python_server(dir: &Dir) -> Result<ProcessBuilder> {
    Ok(ProcessBuilder::new(python(), dir.path()).arg("-B").arg(examples().join("python/prompt_server.py")))
}

pub async fn start(env: &[(&str, String)], program: impl FnOnce(&Dir) -> Result<ProcessBuilder>) -> Result<Server> {
    let (dir, port) = (Dir::new("prompt-server")?, Port::claim());
    let command = program(&dir)?.args(["--prompt", "support", "--listen"]).arg(port.addr());
    let process = env.iter().fold(command, |command, (name, value)| command.env(name, value)).spawn()?;
    let http = Http::new(format!("http://{}", port.addr()));
    let up = eventually("healthy", SOON, async || http.get("/-/healthy").await.ok()).await;
    up.with_context(|| process.log())?;
    Ok(Server { http, process, _dir: dir })
}

impl Server {
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub async fn version(&self, user: &str) -> Result<String> {
        let answer =
            self.http.post_json("/complete", &json!({"prompt": "support", "input": "hi", "user": user})).await?;
        let body = answer.json()?;
        Ok(body["version"].as_str().with_context(|| format!("{body}"))?.to_owned())
    }

    async fn metrics(&self) -> Result<String> {
        Ok(self.http.get("/metrics").await?.text().to_string())
    }
}

#[tokio::test]
async fn both_example_servers_give_a_user_the_same_version_and_count_by_version() -> Result<()> {
    let redis = shipped::redis("receiver-password", "server-password")?.start()?;
    let [(first, share), (second, rest)] = SPLIT;
    redis.cmd::<()>(&["HSET", "{prompts}:routing:support", first, share, second, rest]).await?;
    redis.cmd::<()>(&["SET", "{prompts}:active:support", second]).await?;
    let env = [("REDIS_URL", format!("redis://prompt-server:server-password@{}", redis.addr()))];
    let servers = [
        start(&env, |dir| Ok(ProcessBuilder::new(rust_server()?, dir.path()))).await?,
        start(&env, python_server).await?,
    ];
    let split = Split::new(second, &SPLIT);
    for server in &servers {
        let at_zero = async || {
            let text = server.metrics().await.ok()?;
            SPLIT.iter().all(|(version, _)| text.contains(&format!("version=\"{version}\""))).then_some(())
        };
        eventually("both versions are exposed before anybody has asked", SOON, at_zero).await?;
        for number in 0..40 {
            let user = format!("user-{number}");
            ensure!(server.version(&user).await? == **split.version(&user), "{user}");
        }
        // nobody in particular: requests are split, not stuck to one version
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let body = server.http.get("/?prompt=support").await?.json()?;
            seen.insert(body["version"].as_str().context("a version")?.to_owned());
        }
        ensure!(seen.len() == 2, "{seen:?}");
        let user = format!("/?prompt=support&user={}", "user-7");
        let body = server.http.get(&user).await?.json()?;
        ensure!(body["version"] == **split.version("user-7"), "{body}");
    }
    // the end of the split: at once, not at the next look
    redis.cmd::<()>(&["DEL", "{prompts}:routing:support"]).await?;
    redis.cmd::<()>(&["SET", "{prompts}:active:support", first]).await?;
    redis.cmd::<()>(&["PUBLISH", "{prompts}:changes", r#"{"prompt":"support"}"#]).await?;
    for server in &servers {
        eventually("all get the version that is active", SOON, async || {
            for number in 0..10 {
                if server.version(&format!("user-{number}")).await.ok()? != first {
                    return None;
                }
            }
            Some(())
        })
        .await?;
        let text = server.metrics().await?;
        let counted = |version: &str| {
            let line = |line: &&str| {
                line.starts_with("prompt_requests_total{")
                    && line.contains(&format!("version=\"{version}\""))
                    && line.contains("outcome=\"ok\"")
            };
            let line = text.lines().find(line)?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        ensure!(SPLIT.iter().all(|(version, _)| counted(version).is_some_and(|count| count > 0.0)), "{text}");
    }
    Ok(())
}
