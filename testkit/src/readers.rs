//! Readers in both languages: the reader crate in this process, and the example prompt servers as processes.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback_reader::redis::IntoConnectionInfo;
use prompt_rollback_reader::{Mode, Problem, Prompt, Reader, Settings};
use serde_json::json;

use crate::http::Http;
use crate::{Dir, PATIENCE, Port, Process, ProcessBuilder, Redis, eventually, shipped};

/// The key of the prompt `support`, which all readers here follow.
pub const ACTIVE: &str = "{prompts}:active:support";

/// An example prompt server that serves `support`.
pub struct Server {
    http: Http,
    process: Process,
    _dir: Dir,
}

/// A Python with the modules that the examples need. Debian installs them for its own Python, which may not be the first on the
/// path.
pub fn python() -> Result<&'static str> {
    let has_modules = |program: &&str| {
        let mut probe = Command::new(program);
        let probe = probe.args(["-c", "import redis, prometheus_client"]).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_modules);
    python.context("no python3 with the modules redis and prometheus_client: run scripts/install-deps test")
}

/// The folder of the Python reader.
pub fn python_examples() -> PathBuf {
    shipped::root().join("examples/python")
}

/// The example in Rust, beside the program that runs: `cargo test` builds it, `cargo test --test NAME` does not.
pub fn rust_server() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.ancestors().nth(2).context("the folder of the profile")?.join("examples/prompt_server");
    ensure!(path.exists(), "{} is missing: run cargo build -p prompt-rollback-examples --examples", path.display());
    Ok(path)
}

/// The example in Python.
pub fn python_server(dir: &Dir) -> Result<ProcessBuilder> {
    Ok(ProcessBuilder::new(python()?, dir.path()).arg("-B").arg(python_examples().join("prompt_server.py")))
}

impl Server {
    /// Starts `program` with these environment variables, and waits until it answers.
    pub async fn start(env: &[(&str, String)], program: impl FnOnce(&Dir) -> Result<ProcessBuilder>) -> Result<Self> {
        let (dir, port) = (Dir::new("prompt-server")?, Port::claim());
        let command = program(&dir)?.args(["--prompt", "support", "--listen"]).arg(port.addr());
        let process = env.iter().fold(command, |command, (name, value)| command.env(name, value)).spawn()?;
        let http = Http::new(format!("http://{}", port.addr()));
        let up = eventually("healthy", PATIENCE, async || http.get("/-/healthy").await.ok()).await;
        up.with_context(|| process.log())?;
        Ok(Self { http, process, _dir: dir })
    }

    /// A client of it.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The version that a request of this user gets.
    pub async fn version(&self, user: &str) -> Result<String> {
        let body = json!({"prompt": "support", "input": "hi", "user": user});
        let answer = self.http.post_json("/complete", &body).await?.json()?;
        Ok(answer["version"].as_str().with_context(|| format!("{answer}"))?.to_owned())
    }
}

/// A reader of each language on the same Redis: one in this process, one in the example prompt server in Python.
pub struct Both {
    /// The one in this process.
    pub rust: Reader,
    python: Server,
}

impl Both {
    /// Connects to `addr` as the user for prompt servers.
    pub async fn start(addr: &str, settings: Settings) -> Result<Self> {
        let url = Redis::PROMPT_SERVER.url(addr);
        Self::start_at(url.as_str(), url.clone(), settings).await
    }

    /// Connects each reader by its own address.
    pub async fn start_at(rust: impl IntoConnectionInfo, python: String, settings: Settings) -> Result<Self> {
        let rust = Reader::start(rust, ["support"], settings.clone())?;
        let mut env = vec![("REDIS_URL", python), ("REDIS_NODES", settings.nodes.join(","))];
        let sentinel = [
            ("REDIS_SENTINEL_MASTER", &settings.sentinel_master),
            ("REDIS_SENTINEL_USERNAME", &settings.sentinel_username),
            ("REDIS_SENTINEL_PASSWORD", &settings.sentinel_password),
        ];
        env.extend(sentinel.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        Ok(Self { rust, python: Server::start(&env, python_server).await? })
    }

    /// What the reader in this process knows of the prompt.
    pub fn prompt(&self) -> Result<&Prompt> {
        self.rust.prompt("support").context("the one followed")
    }

    /// Waits until both serve it, and have nothing to complain about.
    pub async fn serve(&self, version: &str) -> Result<()> {
        let [rust, python] = self.served_after(version).await?;
        println!("{version} is served by Rust after {rust:?}, by Python after {python:?}");
        Ok(())
    }

    /// Does the same as [`serve`](Self::serve). Returns how long it took in Rust and in Python.
    pub async fn served_after(&self, version: &str) -> Result<[Duration; 2]> {
        let (begun, prompt) = (Instant::now(), self.prompt()?);
        let by_rust =
            async || (prompt.active_version("u").as_deref() == Some(version) && prompt.error().is_none()).then_some(());
        let by_rust = async {
            let served = eventually("served by Rust", PATIENCE, by_rust).await;
            served.with_context(|| format!("{version}: {:?}", prompt.error())).map(|()| begun.elapsed())
        };
        let by_python = async || (self.python.version("u").await.ok()? == version).then_some(());
        let by_python = async {
            let served = eventually("served by Python", PATIENCE, by_python).await;
            served.with_context(|| format!("{version}: {}", self.python.log())).map(|()| begun.elapsed())
        };
        let (rust, python) = tokio::try_join!(by_rust, by_python)?;
        ensure!(self.rust.mode() == Mode::Pushed, "{}", self.rust.mode());
        Ok([rust, python])
    }

    /// Waits until both say that they have lost contact.
    pub async fn lose_contact(&self) -> Result<()> {
        let (prompt, lost) = (self.prompt()?, "redis can't be asked");
        eventually("both have lost contact", PATIENCE, async || {
            let rust = matches!(prompt.error(), Some(Problem::Away(_))) && self.rust.mode() == Mode::Away;
            (rust && self.python.log().contains(lost)).then_some(())
        })
        .await
    }
}

/// Sets the version of `support` as the receiver commits it, and announces it.
pub async fn set(redis: &Redis, version: &str) -> Result<()> {
    redis.cmd::<()>(&["SET", ACTIVE, version]).await?;
    redis.cmd(&["PUBLISH", "{prompts}:changes", r#"{"prompt":"support"}"#]).await
}

/// Reads again only when it is told to, within the time of a test.
pub fn pushed() -> Settings {
    Settings { refresh: Duration::from_secs(600), ..Settings::default() }
}
