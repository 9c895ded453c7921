//! Wires the parts together, runs them, and ends them in order.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::alertmanager::client::{AlertmanagerError, Alertmanagers};
use crate::config::{Config, LogFormat};
use crate::engine::Engine;
use crate::reconciler::health::Health;
use crate::reconciler::act::Actor;
use crate::reconciler::look;
use crate::http;
use crate::store::{Clock, Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("server.listen: can't listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Alertmanager(#[from] AlertmanagerError),
    #[error("{0}")]
    Unsupported(String),
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
        config.validate_supported().map_err(AppError::Unsupported)?;
        // the default provider of TLS, once for the process; a second start finds it there
        let _ = rustls::crypto::ring::default_provider().install_default();
        let engine = Arc::new(Engine::new(Store::new(&config.redis, clock)?, config.policy()));
        let listen = |error| AppError::Listen { address: config.server.listen, error };
        let listener = http::bind(config.server.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (health, readiness) = Health::new(Arc::clone(&engine));
        let context = http::Context::new(config, Arc::clone(&engine), readiness);
        let actor = Actor {
            engine: Arc::clone(&engine),
            alertmanagers: Alertmanagers::new(&config.alertmanager.urls)?,
            prompt_label: config.labels.prompt.clone(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let max_connections = config.server.max_connections as usize;
        let server = tokio::spawn(http::serve(listener, context, max_connections, async {
            let _ = stopped.await;
        }));
        let workers = vec![
            tokio::spawn(health.run()),
            tokio::spawn(actor.run()),
            tokio::spawn(look::run(Arc::clone(&engine))),
        ];
        tracing::info!(%address, "listening");
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

/// `prompt-rollback serve`: runs until SIGTERM or SIGINT.
pub async fn serve(config: &Config) -> Result<(), AppError> {
    init_logging(config);
    // thousands of connections need as many descriptors; the soft limit is often 1024
    if let Err(error) = rlimit::increase_nofile_limit(u64::from(config.server.max_connections) + 256) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(AppError::Signals)?;
    let app = App::start(config, Clock::default()).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(AppError::Signals)?,
    }
    tracing::info!("shutting down");
    app.shutdown().await;
    Ok(())
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
