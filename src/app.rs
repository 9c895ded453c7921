//! Wires the parts together, runs them, and ends them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::alertmanager::client::{AlertmanagerError, Alertmanagers};
use crate::baseline::Baseline;
use crate::clicks::Clicks;
use crate::config::{Config, LogFormat};
use crate::engine::Engine;
use crate::http;
use crate::http::tls::Certificates;
use crate::prometheus::client::{Prometheus, PrometheusError};
use crate::reconciler::act::Actor;
use crate::reconciler::archive::files::Files;
use crate::reconciler::archive::{self, Archive};
use crate::reconciler::health::Health;
use crate::reconciler::look;
use crate::reconciler::mass::Coordinator;
use crate::reconciler::prove::Prover;
use crate::reconciler::slack::{Announcer, PACE};
use crate::slack::client::{Slack, SlackError};
use crate::slack::payload::Interaction;
use crate::slack::socket;
use crate::store::{Clock, Store, StoreError};
use crate::tls::TlsError;

/// Refusals that wait for Slack, and clicks that wait for Redis, at most.
const TELLS: usize = 256;
const CLICKS: usize = 256;
/// Workers for what is due.
const ACTORS: usize = 2;
/// A click that can't be committed is tried for half a minute.
const CLICK_TRIES: u32 = 15;
const CLICK_RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("server.listen: can't listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("slack: {0}")]
    Slack(#[from] SlackError),
    #[error(transparent)]
    Alertmanager(#[from] AlertmanagerError),
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    #[error("registry.baseline_url: {0}")]
    Baseline(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("can't listen for signals: {0}")]
    Signals(std::io::Error),
}

/// A running receiver.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    pub engine: Arc<Engine>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
}

impl App {
    /// Starts everything. Does not wait for Redis: `/-/ready` tells, and requests are answered 503 until it is there.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, AppError> {
        // the default provider of TLS, once for the process; a second start finds it there
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::new(&config.redis, clock)?.announcing(config.slack.bot_token.is_some());
        let engine = Arc::new(Engine::new(store, config.policy()));
        let listen = |error| AppError::Listen { address: config.server.listen, error };
        let listener = http::bind(config.server.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (health, readiness) = Health::new(Arc::clone(&engine));
        let slack = Slack::new(&config.slack)?;
        let (tells, told) = mpsc::channel(TELLS);
        let clicks =
            slack.is_some().then(|| Arc::new(Clicks::new(Arc::clone(&engine), config.deciders.clone(), tells)));
        let context = http::Context::new(config, Arc::clone(&engine), readiness, clicks.clone());
        let actor = Arc::new(Actor {
            engine: Arc::clone(&engine),
            alertmanagers: Alertmanagers::new(&config.alertmanager.urls)?,
            prover: Prover {
                engine: Arc::clone(&engine),
                prometheus: config.prometheus.url.as_deref().map(Prometheus::new).transpose()?,
                baseline: config
                    .registry
                    .baseline_url
                    .as_deref()
                    .map(Baseline::new)
                    .transpose()
                    .map_err(AppError::Baseline)?,
                labels: config.labels.clone(),
                abort_query: config.gradual.abort_query.clone(),
            },
            archive: config.retention.archive.as_deref().map(Files::new).map(Archive::new),
            prompt_label: config.labels.prompt.clone(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let max_connections = config.server.max_connections as usize;
        let certificates = config.server.tls().map(Certificates::load).transpose()?;
        let tls = certificates.as_ref().map(Certificates::subscribe);
        let encrypted = tls.is_some();
        let server = tokio::spawn(http::serve(listener, context, max_connections, tls, async {
            let _ = stopped.await;
        }));
        let mut workers = vec![tokio::spawn(health.run()), tokio::spawn(look::run(Arc::clone(&engine)))];
        workers.extend(certificates.map(|certificates| tokio::spawn(certificates.run())));
        let follower = Arc::clone(&engine);
        workers.push(tokio::spawn(async move { follower.store.follow_master().await }));
        workers.push(tokio::spawn(archive::run(Arc::clone(&engine))));
        workers.extend((0..ACTORS).map(|_| tokio::spawn(Arc::clone(&actor).run())));
        workers.push(tokio::spawn(Coordinator { engine: Arc::clone(&engine) }.run()));
        if let (Some(slack), Some(clicks)) = (slack, clicks) {
            let announcer = Announcer {
                engine: Arc::clone(&engine),
                slack,
                deciders: config.deciders.clone(),
                incident_channel: config.slack.incident_channel.clone(),
                weekly: config.report.weekly,
                pace: PACE,
            };
            workers.push(tokio::spawn(Arc::new(announcer).run(told)));
            if config.slack.app_token.is_some() {
                let (sender, receiver) = mpsc::channel(CLICKS);
                workers.push(tokio::spawn(socket::run(config.slack.clone(), sender)));
                workers.push(tokio::spawn(clicked(clicks, receiver)));
            }
        }
        tracing::info!(%address, tls = encrypted, "listening");
        Ok(Self { address, engine, stop, server, workers })
    }

    /// Ends it: no new connections, requests under way finish, then the workers stop. What they had claimed is done
    /// by another replica once the lease expires.
    pub async fn shutdown(self) {
        let _ = self.stop.send(());
        let _ = self.server.await;
        for worker in self.workers {
            worker.abort();
        }
    }
}

/// Handles what Socket Mode brings. It is acknowledged already, so a fault is waited out.
async fn clicked(clicks: Arc<Clicks>, mut interactions: mpsc::Receiver<Interaction>) {
    while let Some(interaction) = interactions.recv().await {
        let Interaction::Clicks(all) = interaction else { continue };
        for click in &all {
            for attempt in 1..=CLICK_TRIES {
                match clicks.handle(click).await {
                    Ok(()) => break,
                    Err(error) if attempt == CLICK_TRIES => tracing::error!(%error, "a click is lost"),
                    Err(_) => tokio::time::sleep(CLICK_RETRY).await,
                }
            }
        }
    }
}

/// `prompt-rollback serve`: runs until SIGTERM or SIGINT.
pub async fn serve(config: &Config) -> Result<(), AppError> {
    init_logging(config);
    let mut config = config.clone();
    config.server.max_connections = within_open_files(config.server.max_connections);
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(AppError::Signals)?;
    let app = App::start(&config, Clock::default()).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(AppError::Signals)?,
    }
    tracing::info!("shutting down");
    app.shutdown().await;
    Ok(())
}

/// Raises the limit of open files, whose soft value is often 1024, for that many connections and what we open ourselves;
/// what it allows of them. Where connections took the last descriptor, nobody could be asked to give way.
fn within_open_files(connections: u32) -> u32 {
    const OURS: u64 = 256;
    let limit = match rlimit::increase_nofile_limit(u64::from(connections) + OURS) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            return connections;
        }
    };
    let fit = u32::try_from(limit.saturating_sub(OURS).max(limit / 2)).unwrap_or(u32::MAX);
    if fit < connections {
        tracing::warn!(limit, connections = fit, "fewer than server.max_connections: raise the limit of open files");
    }
    connections.min(fit)
}

fn init_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PROMPT_ROLLBACK_LOG_FILTER")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(config.log.level.as_str()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
}
