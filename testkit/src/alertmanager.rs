//! A real Alertmanager.

use crate::http::Http;
use crate::process::{Process, ProcessBuilder, answers_ok, retry};
use crate::{Dir, Port};
use anyhow::{Result, ensure};
use std::path::Path;

/// Options of an [`Alertmanager`].
#[derive(Debug, Default, Clone)]
pub struct AlertmanagerBuilder {
    config: String,
    files: Vec<(String, String)>,
    flags: Vec<String>,
    clustered: bool,
    peers: Vec<String>,
}

impl AlertmanagerBuilder {
    /// Adds a file beside alertmanager.yml, such as `token`.
    pub fn file(mut self, relative: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.push((relative.into(), text.into()));
        self
    }

    /// A command-line flag.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Makes it the first of a cluster; the others name it with [`peer`](Self::peer).
    pub fn clustered(mut self) -> Self {
        self.clustered = true;
        self
    }

    /// Joins the cluster of another.
    pub fn peer(mut self, other: &Alertmanager) -> Self {
        self.peers.push(other.cluster_addr());
        self.clustered()
    }

    /// Starts it and blocks until it is ready.
    pub fn start(self) -> Result<Alertmanager> {
        retry(|| self.try_start())
    }

    fn try_start(&self) -> Result<Alertmanager> {
        let dir = Dir::new("alertmanager")?;
        let port = Port::claim();
        for (name, text) in &self.files {
            dir.write(name, text)?;
        }
        let config = dir.write("alertmanager.yml", &self.config)?;
        let cluster = self.clustered.then(Port::claim);
        let cluster_addr = cluster.as_ref().map(Port::addr).unwrap_or_default();
        let mut command = ProcessBuilder::new("prometheus-alertmanager", dir.path())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.addr()))
            // by default its links contain the machine's name, but it listens on loopback
            .arg(format!("--web.external-url=http://{}", port.addr()))
            .arg(format!("--cluster.listen-address={cluster_addr}"))
            .args(&self.flags);
        if self.clustered {
            // it cannot find a loopback address to advertise by itself
            command = command.arg(format!("--cluster.advertise-address={cluster_addr}"));
        }
        for peer in &self.peers {
            command = command.arg(format!("--cluster.peer={peer}"));
        }
        // with a password or under another path, it answers nobody here
        let other = ["--web.config.file", "--web.route-prefix"];
        let locked = self.flags.iter().any(|flag| other.iter().any(|name| flag.starts_with(name)));
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port.number())).is_ok();
        let process = command.spawn_until(|| if locked { listens() } else { answers_ok(port.number(), "/-/ready") })?;
        Ok(Alertmanager { process, command, port, cluster, dir })
    }
}

/// A running Alertmanager, killed when dropped.
#[derive(Debug)]
pub struct Alertmanager {
    process: Process,
    command: ProcessBuilder,
    port: Port,
    cluster: Option<Port>,
    dir: Dir,
}

impl Alertmanager {
    /// With this alertmanager.yml.
    pub fn builder(config: impl Into<String>) -> AlertmanagerBuilder {
        AlertmanagerBuilder { config: config.into(), ..Default::default() }
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        self.port.addr()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where its gossip listens.
    ///
    /// # Panics
    /// When it is not clustered.
    pub fn cluster_addr(&self) -> String {
        self.cluster.as_ref().expect("started without a cluster").addr()
    }

    /// A client for its API.
    pub fn http(&self) -> Http {
        Http::new(self.url())
    }

    /// The directory of alertmanager.yml.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to stop and pause it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends SIGKILL. Its alerts are lost.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port and in the same directory; stops it first if it is running.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = self.command.spawn_until(|| answers_ok(self.port.number(), "/-/ready"))?;
        Ok(())
    }

    /// Posts alerts (the array of `/api/v2/alerts`) as Prometheus would.
    pub async fn post_alerts(&self, alerts: &serde_json::Value) -> Result<()> {
        let answer = self.http().post_json("/api/v2/alerts", alerts).await?;
        ensure!(answer.status == 200, "post alerts: {} {}", answer.status, answer.text());
        Ok(())
    }
}
