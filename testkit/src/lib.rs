//! Real servers for tests, benches and the demo: each one on loopback, in a directory of its own, gone when dropped.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use prompt_rollback_testkit::{Receiver, Redis};
//! let redis = Redis::start()?;
//! let receiver = Receiver::builder("target/debug/prompt-rollback")
//!     .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
//!     .start()?;
//! redis.cmd::<()>(&["SET", "{prompts}:active:greeting", "v2"]).await?;
//! let prompts = receiver.http().get("/api/prompts").await?.json()?;
//! # drop(prompts);
//! # Ok(()) }
//! ```
//!
//! `start` blocks until the server answers (tens of milliseconds, a second for Prometheus), so it may be called with
//! or without a runtime. Everything that talks to a running server is async.
//!
//! A server is killed when its handle is dropped, and by the kernel when the process that started it dies in any way.

mod alertmanager;
pub mod alerts;
pub mod between;
mod browser;
pub mod cluster;
mod dir;
mod flood;
pub mod http;
mod linear;
pub mod lying_target;
mod port;
mod process;
mod prometheus;
pub mod prompts;
pub mod proxy;
pub mod readers;
mod receiver;
mod redis;
mod rng;
pub mod sentinels;
pub mod shipped;
pub mod slack;
pub mod tls;
pub mod webhook;

pub use alertmanager::{Alertmanager, AlertmanagerBuilder};
pub use browser::Browser;
pub use dir::Dir;
pub use flood::Flood;
pub use linear::{least, linear};
pub use port::{Port, free_port};
pub use process::{Process, ProcessBuilder};
pub use prometheus::{Prometheus, PrometheusBuilder};
pub use proxy::FaultProxy;
pub use receiver::{Receiver, ReceiverBuilder, Wait};
pub use redis::{Redis, RedisBuilder, User, connect};
pub use rng::Rng;

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How long to wait for a server: far longer than any needs, because only a failing test waits this long, and a busy
/// machine may be many times slower.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The CPU time of this thread so far: time spent waiting for a core does not count.
pub fn computed() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Calls `probe` every 20 ms until it returns `Some`, and fails with `what` after `within`.
pub async fn eventually<T, F>(what: &str, within: Duration, mut probe: F) -> anyhow::Result<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe().await {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
