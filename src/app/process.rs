//! The process: its signals, its open files, and how it ends.

use std::convert::Infallible;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::AppError;
use super::otlp::Exporter;
use super::{App, logging};
use crate::config::{LoadedConfig, LogLevel};
use crate::live::Current;
use crate::store::Clock;

/// The signals that control the process. One that arrives before the process serves is kept, and does not kill it.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self, AppError> {
        let listen = |kind| signal(kind).map_err(AppError::Signals);
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Completes at SIGTERM or SIGINT.
    pub async fn ended(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs `prompt-rollback serve` until SIGTERM or SIGINT, and reloads at SIGHUP.
pub async fn serve(settings: &LoadedConfig, mut signals: Signals) -> Result<(), AppError> {
    let exporter = Exporter::new(&settings.config.tracing);
    let set_log_level = logging::init(&settings.config, exporter.as_ref());
    let mut app = App::start(settings, Clock::default()).await?;
    app.exporting = exporter.map(|exporter| exporter.start(app.tracing.clone(), &app.engine.metrics)).transpose()?;
    last_resort(app.shutdown_timeout.clone()).map_err(AppError::Signals)?;
    run(app, &mut signals, set_log_level).await
}

/// The last part of `server.shutdown_timeout`. A shutdown that needs any of it counts as hung, and the process exits.
const HANGS: Duration = Duration::from_secs(1);

/// How much of `limit` a shutdown that does not hang may take.
pub(super) fn graceful(limit: Duration) -> Duration {
    limit - HANGS.min(limit / 2)
}

/// Starts a thread that ends the process at a second signal, or if the first one does not end it in time, even if the
/// serving thread hangs.
fn last_resort(limit: Current<Duration>) -> std::io::Result<()> {
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Signals);
        let Err(error) = runtime.and_then(|runtime| runtime.block_on(insist(limit)));
        tracing::error!(%error, "the watchdog cannot run: a hanging shutdown would not be ended");
    };
    std::thread::Builder::new().name("last-resort".to_owned()).spawn(watch).map(drop)
}

/// Does not log before it exits: the process may hang because its log pipe is full.
async fn insist(limit: Current<Duration>) -> Result<Infallible, AppError> {
    let mut signals = Signals::listen()?;
    signals.ended().await;
    let _second = tokio::time::timeout(limit.get(), signals.ended()).await;
    std::process::exit(1)
}

/// Runs until a signal. If a task ends, the process ends as well, so that the service manager restarts it: a receiver
/// without one of its workers would look ready and leave work undone.
pub(super) async fn run(mut app: App, signals: &mut Signals, set_log_level: impl Fn(LogLevel)) -> Result<(), AppError> {
    let ended = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => app.reloader.reload_soon("SIGHUP"),
            () = app.log_level.replaced() => set_log_level(app.log_level.get()),
            ended = app.tasks.ended() => break Err(ended),
        }
    };
    match &ended {
        Ok(()) => tracing::info!("shutting down"),
        Err(ended) => tracing::error!("{ended}; shutting down"),
    }
    app.shutdown().await;
    Ok(ended?)
}

/// Raises the limit of open files, whose soft value is often 1024, for this many connections, as many of the page if it
/// has its own address, and the receiver's own files. Returns the connections that the limit allows: without a free
/// descriptor, no new connection could be accepted to evict another.
pub(super) fn within_open_files(connections: u32, page_apart: bool) -> u32 {
    const OURS: u64 = 256;
    let listeners = if page_apart { 2 } else { 1 };
    let limit = match rlimit::increase_nofile_limit(u64::from(connections) * listeners + OURS) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            return connections;
        }
    };
    let fit = u32::try_from(limit.saturating_sub(OURS).max(limit / 2) / listeners).unwrap_or(u32::MAX);
    if fit < connections {
        tracing::warn!(limit, connections = fit, "fewer than server.max_connections: raise the limit of open files");
    }
    connections.min(fit)
}
