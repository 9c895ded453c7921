//! A reader of each language on the same Redis: one in this process, one in the example prompt server in Python.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::{Mode, Problem, Prompt, Reader, Settings};

use crate::common::{Redis, SOON, eventually};
use super::servers::{Server, python_server, start};

pub const ACTIVE: &str = "{prompts}:active:support";

pub struct Both {
    pub rust: Reader,
    python: Server,
}

impl Both {
    /// As the prompt server that ships, at `addr`.
    pub async fn start(addr: &str, settings: Settings) -> Result<Self> {
        let url = Redis::PROMPT_SERVER.url(addr);
        let rust = Reader::start(url.as_str(), ["support"], settings.clone())?;
        Ok(Self { rust, python: by_python(url, &settings).await? })
    }

    /// The same with TLS.
    pub async fn start_tls(addr: &str, ca: &Path, settings: Settings) -> Result<Self> {
        let url = Redis::PROMPT_SERVER.url(addr).replace("redis://", "rediss://");
        let root_cert = Some(std::fs::read(ca)?);
        let client =
            redis::Client::build_with_tls(url.as_str(), redis::TlsCertificates { client_tls: None, root_cert })?;
        let rust = Reader::start(client.get_connection_info().clone(), ["support"], settings.clone())?;
        let url = format!("{url}?ssl_ca_certs={}", ca.display());
        Ok(Self { rust, python: by_python(url, &settings).await? })
    }

    pub fn prompt(&self) -> Result<&Prompt> {
        self.rust.prompt("support").context("the one followed")
    }

    /// Waits until both serve it, and have nothing to complain about.
    pub async fn serve(&self, version: &str) -> Result<()> {
        let [rust, python] = self.served_after(version).await?;
        println!("{version} is served by Rust after {rust:?}, by Python after {python:?}");
        Ok(())
    }

    /// The same; how long that took, in Rust and in Python.
    pub async fn served_after(&self, version: &str) -> Result<[Duration; 2]> {
        let (begun, prompt) = (Instant::now(), self.prompt()?);
        let by_rust =
            async || (prompt.active_version("u").as_deref() == Some(version) && prompt.error().is_none()).then_some(());
        let by_rust = async {
            let served = eventually("served by Rust", SOON, by_rust).await;
            served.with_context(|| format!("{version}: {:?}", prompt.error())).map(|()| begun.elapsed())
        };
        let by_python = async || (self.python.version("u").await.ok()? == version).then_some(());
        let by_python = async {
            let served = eventually("served by Python", SOON, by_python).await;
            served.with_context(|| format!("{version}: {}", self.python.log())).map(|()| begun.elapsed())
        };
        let (rust, python) = tokio::try_join!(by_rust, by_python)?;
        ensure!(self.rust.mode() == Mode::Pushed, "{}", self.rust.mode());
        Ok([rust, python])
    }

    /// Waits until both say that they have lost contact.
    pub async fn lose_contact(&self) -> Result<()> {
        let (prompt, lost) = (self.prompt()?, "redis can't be asked");
        eventually("both have lost contact", SOON, async || {
            let rust = matches!(prompt.error(), Some(Problem::Away(_))) && self.rust.mode() == Mode::Away;
            (rust && self.python.log().contains(lost)).then_some(())
        })
        .await
    }
}

/// By the variables of the example prompt server.
async fn by_python(url: String, settings: &Settings) -> Result<Server> {
    let mut env = vec![("REDIS_URL", url), ("REDIS_NODES", settings.nodes.join(","))];
    let sentinel = [
        ("REDIS_SENTINEL_MASTER", &settings.sentinel_master),
        ("REDIS_SENTINEL_USERNAME", &settings.sentinel_username),
        ("REDIS_SENTINEL_PASSWORD", &settings.sentinel_password),
    ];
    env.extend(sentinel.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    start(&env, python_server).await
}

/// As the receiver commits it, and announced.
pub async fn set(redis: &Redis, version: &str) -> Result<()> {
    redis.cmd::<()>(&["SET", ACTIVE, version]).await?;
    redis.cmd(&["PUBLISH", "{prompts}:changes", r#"{"prompt":"support"}"#]).await
}

/// Reads again only when it is told to, within the time of a test.
pub fn pushed() -> Settings {
    Settings { refresh: Duration::from_secs(600), ..Settings::default() }
}
