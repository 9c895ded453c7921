//! A receiver as a separate process, which can be killed and stopped, with a wrong local clock, and with controlled
//! time.
//!
//! The process is this test binary again: `receiver_process` runs the library's app with a `store::Clock` that follows
//! the world's time over a socket. The product contains none of this.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::app::App;
use prompt_rollback::config::LoadedConfig;
use prompt_rollback::store::Clock;
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::{Dir, Port, Process, ProcessBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The socket from which the receiver process gets the time.
const CLOCK: &str = "CHAOS_CLOCK";
/// Debian's paths; without the library no clock is skewed.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// The time that was added to Redis TIME, for all receivers of a world.
#[derive(Debug)]
pub struct Time {
    ahead: Arc<AtomicU64>,
    listeners: Arc<Mutex<Vec<TcpStream>>>,
    address: String,
}

impl Time {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (ahead, listeners) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (now, all) = (Arc::clone(&ahead), Arc::clone(&listeners));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut all = all.lock().await;
                if stream.write_u64(now.load(Ordering::SeqCst)).await.is_ok() {
                    all.push(stream);
                }
            }
        });
        Ok(Self { ahead, listeners, address })
    }

    pub fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::SeqCst)
    }

    /// Advances the time; returns once every running receiver knows.
    pub async fn advance(&self, by: Duration) {
        self.move_on(by, Duration::from_secs(5)).await;
    }

    /// Advances the time while a receiver is stopped, which learns of it when it continues.
    pub async fn advance_without(&self, by: Duration) {
        self.move_on(by, Duration::from_millis(50)).await;
    }

    async fn move_on(&self, by: Duration, patience: Duration) {
        let mut all = self.listeners.lock().await;
        let ahead = self.ahead.fetch_add(by.as_millis() as u64, Ordering::SeqCst) + by.as_millis() as u64;
        let mut alive = Vec::new();
        for mut stream in all.drain(..) {
            let told = async {
                stream.write_u64(ahead).await?;
                stream.read_u8().await
            };
            match timeout(patience, told).await {
                Ok(Err(_)) => {} // killed
                Ok(Ok(_)) | Err(_) => alive.push(stream),
            }
        }
        *all = alive;
    }
}

pub struct Node {
    pub name: String,
    pub http: Http,
    command: ProcessBuilder,
    process: Process,
    port: Port,
    _dir: Dir,
}

impl Node {
    /// `env`: config keys without the prefix. `skew`: the error of its local clock, in faketime's syntax.
    pub fn start(name: String, time: &Time, env: &[(String, String)], skew: Option<&str>) -> Result<Self> {
        let (dir, port) = (Dir::new("chaos")?, Port::claim());
        let mut command = ProcessBuilder::new(std::env::current_exe()?, dir.path())
            .args(["node::receiver_process", "--exact", "--ignored", "--nocapture"])
            .without_env("PROMPT_ROLLBACK_")
            .env(CLOCK, &time.address)
            .env("PROMPT_ROLLBACK_CANARY__ANALYSIS", "off")
            .env("PROMPT_ROLLBACK_SERVER__LISTEN", port.addr());
        for (key, value) in env {
            command = command.env(format!("PROMPT_ROLLBACK_{key}"), value);
        }
        if let (Some(skew), Some(library)) = (skew, faketime()) {
            command = command
                .env("LD_PRELOAD", library)
                .env("FAKETIME", skew)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let process = command.spawn()?;
        let http = Http::new(format!("http://{}", port.addr())).timeout(Duration::from_secs(6));
        Ok(Self { name, http, command, process, port, _dir: dir })
    }

    pub fn kill9(&mut self) {
        self.process.kill();
    }

    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = self.command.spawn()?;
        Ok(())
    }

    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.port.addr())
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it serves and reaches Redis; an error if the process has ended unexpectedly.
    pub async fn is_ready(&mut self) -> Result<bool> {
        if let Some(status) = self.process.exited()? {
            anyhow::bail!("{} ended with {status}: {}", self.name, self.process.log_tail());
        }
        let answer = self.http.clone().timeout(Duration::from_secs(2)).get("/-/ready").await;
        Ok(answer.is_ok_and(|answer| answer.status == 200))
    }
}

/// The library that changes a process' time of day, if it is installed.
pub fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).exists())
}

/// Not a test: the program of a [`Node`].
#[test]
#[ignore = "the receiver of the other tests"]
fn receiver_process() -> Result<()> {
    let Ok(address) = std::env::var(CLOCK) else { return Ok(()) };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CHAOS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let env = std::env::vars().filter(|(key, _)| key.starts_with("PROMPT_ROLLBACK_"));
    let settings = LoadedConfig::load(None, env).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut world = TcpStream::connect(address).await.context("the world")?;
        let clock = Clock::default();
        let mut ahead = world.read_u64().await?;
        clock.advance(Duration::from_millis(ahead));
        let app = App::start(&settings, clock.clone()).await?;
        loop {
            let now = world.read_u64().await?;
            clock.advance(Duration::from_millis(now - ahead));
            ahead = now;
            // time has passed: every worker checks
            app.engine.scheduled.notify_one();
            app.engine.scheduled.notify_waiters();
            app.engine.paging.notify_one();
            app.engine.notifications_due.send_replace(());
            world.write_u8(1).await?;
        }
    })
}
