//! A real Prometheus.

use crate::http::Http;
use crate::process::{Process, ProcessBuilder, answers_ok, retry};
use crate::{Dir, Port};
use anyhow::{Result, ensure};
use std::path::Path;
use std::sync::Arc;

/// Options of a [`Prometheus`].
#[derive(Debug, Default, Clone)]
pub struct PrometheusBuilder {
    config: String,
    files: Vec<(String, String)>,
    flags: Vec<String>,
    port: Option<Arc<Port>>,
}

impl PrometheusBuilder {
    /// Adds a file beside prometheus.yml, such as `rules/alerts.yml` or `token`; the config names it by that relative
    /// path.
    pub fn file(mut self, relative: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.push((relative.into(), text.into()));
        self
    }

    /// Sets its port, for servers that need its address before it starts.
    pub fn on(mut self, port: Arc<Port>) -> Self {
        self.port = Some(port);
        self
    }

    /// A command-line flag.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Starts it and blocks until it is ready.
    pub fn start(self) -> Result<Prometheus> {
        retry(|| self.try_start())
    }

    fn try_start(&self) -> Result<Prometheus> {
        let dir = Dir::new("prometheus")?;
        let port = self.port.clone().unwrap_or_else(|| Arc::new(Port::claim()));
        for (name, text) in &self.files {
            dir.write(name, text)?;
        }
        let config = dir.write("prometheus.yml", self.config.replace("$ADDR", &port.addr()))?;
        // with a password or under another path, it answers nobody here
        let other = ["--web.config.file", "--web.route-prefix"];
        let locked = self.flags.iter().any(|flag| other.iter().any(|name| flag.starts_with(name)));
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port.number())).is_ok();
        let process = ProcessBuilder::new("prometheus", dir.path())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.addr()))
            // by default its links contain the machine's name, but it listens on loopback
            .arg(format!("--web.external-url=http://{}", port.addr()))
            // an alert that Alertmanager missed is sent again after seconds instead of a minute
            .args(["--rules.alert.resend-delay=5s", "--web.enable-lifecycle"])
            .args(&self.flags)
            .spawn_until(|| if locked { listens() } else { answers_ok(port.number(), "/-/ready") })?;
        Ok(Prometheus { process, port, dir })
    }
}

/// A running Prometheus, killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: Arc<Port>,
    dir: Dir,
}

impl Prometheus {
    /// With this prometheus.yml, in which `$ADDR` stands for its own address.
    pub fn builder(config: impl Into<String>) -> PrometheusBuilder {
        PrometheusBuilder { config: config.into(), ..Default::default() }
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        self.port.addr()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// A client for its API.
    pub fn http(&self) -> Http {
        Http::new(self.url())
    }

    /// The directory of prometheus.yml.
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

    /// Replaces a file (`prometheus.yml`, `rules/…`) and makes Prometheus read all files again.
    pub async fn reload(&self, relative: &str, text: &str) -> Result<()> {
        self.dir.write(relative, text.replace("$ADDR", &self.addr()))?;
        let answer = self.http().post("/-/reload", "").await?;
        ensure!(answer.status == 200, "reload: {}", answer.text());
        Ok(())
    }

    /// The current instant vector of `query`: labels and value of each series.
    pub async fn query(&self, query: &str) -> Result<Vec<(serde_json::Value, f64)>> {
        let path = format!("/api/v1/query?query={}", crate::http::encode(query));
        let answer = self.http().get(&path).await?;
        ensure!(answer.status == 200, "{query}: {}", answer.text());
        let body = answer.json()?;
        let series = body["data"]["result"].as_array().map(Vec::as_slice).unwrap_or_default();
        let value = |one: &serde_json::Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().map(|one| (one["metric"].clone(), value(one).unwrap_or(f64::NAN))).collect())
    }

    /// Its alerts, pending and firing, as `/api/v1/alerts` lists them.
    pub async fn alerts(&self) -> Result<Vec<serde_json::Value>> {
        let body = self.http().get("/api/v1/alerts").await?.json()?;
        Ok(body["data"]["alerts"].as_array().cloned().unwrap_or_default())
    }
}
