//! The HTTP server. Its request path talks to Redis only, through the engine.

mod api;
mod auth;
mod drill;
mod import;
mod input;
mod mass;
mod postmortem;
mod reply;
mod report;
mod restore;
mod route;
mod serving;
mod slack;
mod views;
mod wait;
mod webhook;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::clicks::Clicks;
use crate::config::{Config, Labels};
use crate::engine::{Engine, Readiness};

/// Longest time for the head of a request to arrive, and for a connection to be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that a shutdown waits for requests under way; each takes at most `server.request_timeout`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// What every request can see.
#[derive(Debug)]
pub struct Context {
    engine: Arc<Engine>,
    routes: route::Routes,
    labels: Labels,
    webhook_token: Option<SecretString>,
    api_token: Option<SecretString>,
    max_body_bytes: usize,
    request_timeout: Duration,
    max_prompts: usize,
    readiness: watch::Receiver<Readiness>,
    slack: Option<SlackClicks>,
    /// There is an Alertmanager that takes our own alerts.
    posts_alerts: bool,
}

/// Interactions by HTTP: where `slack.signing_secret` is configured.
#[derive(Debug)]
struct SlackClicks {
    signing_secret: SecretString,
    clicks: Arc<Clicks>,
}

impl Context {
    pub fn new(
        config: &Config,
        engine: Arc<Engine>,
        readiness: watch::Receiver<Readiness>,
        clicks: Option<Arc<Clicks>>,
    ) -> Self {
        let slack = config.slack.signing_secret.clone().zip(clicks);
        Self {
            engine,
            routes: route::Routes::new(),
            labels: config.labels.clone(),
            webhook_token: config.server.webhook_token.clone(),
            api_token: config.server.api_token.clone(),
            max_body_bytes: config.server.max_body_bytes,
            request_timeout: config.server.request_timeout,
            max_prompts: config.metrics.max_prompts as usize,
            readiness,
            posts_alerts: !config.alertmanager.urls.is_empty(),
            slack: slack.map(|(signing_secret, clicks)| SlackClicks { signing_secret, clicks }),
        }
    }
}

/// A connection, as its eviction sees it.
#[derive(Debug)]
struct Slot {
    busy: AtomicBool,
    /// Milliseconds since the server started.
    idle_since: AtomicU64,
    evict: Notify,
}

/// The open connections, at most `max`. When they are all taken, the one longest without a whole request gives way:
/// clients that say nothing, or slowly, can't keep Alertmanager out.
#[derive(Debug)]
struct Connections {
    max: usize,
    started: Instant,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    freed: Notify,
}

impl Connections {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, id: u64) -> Arc<Slot> {
        loop {
            let freed = self.freed.notified();
            {
                let mut slots = self.slots();
                if slots.len() < self.max {
                    let slot = Arc::new(Slot {
                        busy: AtomicBool::new(false),
                        idle_since: AtomicU64::new(self.now()),
                        evict: Notify::new(),
                    });
                    slots.insert(id, Arc::clone(&slot));
                    return slot;
                }
                let idle = slots.values().filter(|slot| !slot.busy.load(Ordering::Relaxed));
                if let Some(slot) = idle.min_by_key(|slot| slot.idle_since.load(Ordering::Relaxed)) {
                    slot.evict.notify_one();
                }
            }
            freed.await;
        }
    }

    fn leave(&self, id: u64) {
        self.slots().remove(&id);
        self.freed.notify_one();
    }
}

/// Serves `listener` until `shutdown` completes, then lets the requests under way finish.
pub async fn serve(
    listener: TcpListener,
    context: Context,
    max_connections: usize,
    shutdown: impl Future<Output = ()>,
) {
    let context = Arc::new(context);
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Connections {
        max: max_connections,
        started: Instant::now(),
        slots: Mutex::default(),
        freed: Notify::new(),
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64).max_buf_size(64 << 10);
    tokio::pin!(shutdown);
    let mut id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // out of file descriptors, or the client is gone: accepting at once again would spin
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // answers are small: sent at once
        let _ = stream.set_nodelay(true);
        id += 1;
        let slot = tokio::select! {
            slot = connections.enter(id) => slot,
            () = &mut shutdown => break,
        };
        let service = {
            let (context, slot, connections) = (Arc::clone(&context), Arc::clone(&slot), Arc::clone(&connections));
            tower::service_fn(move |request: Request<Incoming>| {
                let (context, slot, connections) = (Arc::clone(&context), Arc::clone(&slot), Arc::clone(&connections));
                async move {
                    // not before its body is there: one that never comes must not hold the place
                    let whole = || slot.busy.store(true, Ordering::Relaxed);
                    let answer = route::answer(context, request, whole).await;
                    slot.idle_since.store(connections.now(), Ordering::Relaxed);
                    slot.busy.store(false, Ordering::Relaxed);
                    answer
                }
            })
        };
        let service = ServiceBuilder::new().layer(CatchPanicLayer::custom(route::panicked)).service(service);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        let connections = Arc::clone(&connections);
        tokio::spawn(async move {
            tokio::select! {
                // a client that breaks off is its own affair
                _ = connection => {}
                () = slot.evict.notified() => {}
            }
            connections.leave(id);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(SHUTDOWN_TIMEOUT) => tracing::warn!("some connections did not end in time"),
    }
}

/// Binds; port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
