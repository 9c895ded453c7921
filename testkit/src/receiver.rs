//! The receiver under test, as a separate process.

use crate::http::Http;
use crate::process::{Process, ProcessBuilder, answers_ok, retry};
use crate::{Dir, Port};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

/// What `start` waits for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// `/-/ready` answers 200: it serves, and Redis is reachable.
    #[default]
    Ready,
    /// `/-/healthy` answers 200: it serves, whatever the state of Redis.
    Healthy,
    /// Nothing: for a start that is expected to fail.
    Nothing,
}

/// Options of a [`Receiver`].
#[derive(Debug, Default, Clone)]
pub struct ReceiverBuilder {
    binary: PathBuf,
    config: String,
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
    wait: Wait,
    port: Option<Arc<Port>>,
}

impl ReceiverBuilder {
    /// Sets the text of its config file. The testkit sets the listen address.
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = toml.into();
        self
    }

    /// A file in its working directory, such as a token.
    pub fn file(mut self, relative: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.push((relative.into(), text.into()));
        self
    }

    /// An environment variable. None of `PROMPT_ROLLBACK_*` is inherited.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// What `start` waits for, instead of `/-/ready`.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Sets its port, for servers that need its address before it starts.
    pub fn port(mut self, port: Port) -> Self {
        self.port = Some(Arc::new(port));
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Receiver> {
        retry(|| self.try_start())
    }

    fn try_start(&self) -> Result<Receiver> {
        let dir = Dir::new("receiver")?;
        let port = self.port.clone().unwrap_or_else(|| Arc::new(Port::claim()));
        for (name, text) in &self.files {
            dir.write(name, text)?;
        }
        let config = dir.write("prompt-rollback.toml", &self.config)?;
        // the child runs in its own directory, where a relative path would mean something else
        let binary = std::path::absolute(&self.binary).context("path of the binary")?;
        let mut command = ProcessBuilder::new(binary, dir.path())
            .without_env("PROMPT_ROLLBACK_")
            .env("PROMPT_ROLLBACK_SERVER__LISTEN", port.addr())
            .args(["serve", "--config"])
            .arg(config);
        for (key, value) in &self.env {
            command = command.env(key, value);
        }
        let process = start_until(&command, port.number(), self.wait)?;
        Ok(Receiver { process, command, wait: self.wait, port, dir })
    }
}

fn start_until(command: &ProcessBuilder, port: u16, wait: Wait) -> Result<Process> {
    match wait {
        Wait::Ready => command.spawn_until(|| answers_ok(port, "/-/ready")),
        Wait::Healthy => command.spawn_until(|| answers_ok(port, "/-/healthy")),
        Wait::Nothing => command.spawn(),
    }
}

/// A running receiver, killed when dropped.
#[derive(Debug)]
pub struct Receiver {
    process: Process,
    command: ProcessBuilder,
    wait: Wait,
    port: Arc<Port>,
    dir: Dir,
}

impl Receiver {
    /// From this binary; in a test of the root crate that is `env!("CARGO_BIN_EXE_prompt-rollback")`.
    pub fn builder(binary: impl Into<PathBuf>) -> ReceiverBuilder {
        ReceiverBuilder { binary: binary.into(), ..Default::default() }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        self.port.addr()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// A client for its API, without a token.
    pub fn http(&self) -> Http {
        Http::new(self.url())
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to pause it or to wait for its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Replaces its config file atomically. The receiver reads it after [`hangup`](Self::hangup).
    pub fn write_config(&self, toml: &str) -> Result<()> {
        let new = self.dir.write("prompt-rollback.toml.new", toml)?;
        std::fs::rename(new, self.dir().join("prompt-rollback.toml")).context("replace the config file")
    }

    /// SIGHUP.
    pub fn hangup(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// Sends SIGTERM and returns its exit status; an error if it takes longer than two minutes.
    pub fn sigterm(&mut self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port and with the same config; stops it first if it is running.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = start_until(&self.command, self.port(), self.wait)?;
        Ok(())
    }
}
