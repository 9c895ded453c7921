//! The HTTP server. The request path uses Redis only, through the engine.

mod api;
mod auth;
mod board;
mod budget;
mod canary;
mod connections;
mod drill;
mod events;
mod explain;
mod exposition;
mod import;
mod input;
mod lanes;
mod linger;
mod login;
mod mark;
mod openapi;
mod outage;
mod page;
mod postmortem;
mod reload;
mod reply;
mod report;
mod restore;
mod route;
mod serving;
mod slack;
#[cfg(test)]
mod tests;
mod tls;
mod views;
mod wait;
mod webhook;

pub use views::prompt_row;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;

use crate::config::{Config, Labels, SourceConfig};
use crate::engine::{Engine, Readiness};
use crate::figures::FigureBook;
use crate::live::{Current, Reloader};
use crate::rules::RuleBook;
use crate::service::clicks::Clicks;
use crate::service::updates::Updates;
use crate::tls::ServerTls;
use auth::Admission;
use board::Board;
use budget::{Budget, ParsedBudget};
use connections::{Connections, Slot};
use exposition::Exposition;
use lanes::Lanes;
use linger::{Lingering, Unread};

/// Longest time for a handshake, for the head of a request to arrive, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Limits of a request's head: headers, and bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 32 << 10;
/// Longest time without the client reading any of its response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A TLS connection is closed after this time, after the current response: the certificates of its handshake may have
/// expired. A stream of events ends by then.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Connections to `metrics.listen`.
const SCRAPERS: usize = 128;
/// Memory for all bodies that anyone may send: interactions whose signature is not verified yet, and sign-ins. Each is a few kB.
const UNSIGNED_BUDGET: usize = 2 << 20;

/// The context of requests. Each request uses one, whatever is reloaded meanwhile.
#[derive(Debug)]
pub struct Context {
    engine: Arc<Engine>,
    reloader: Reloader,
    routes: route::Routes,
    tls: Option<ServerTls>,
    max_connections: usize,
    labels: Arc<Labels>,
    webhook_token: Option<SecretString>,
    sources: BTreeMap<String, SourceConfig>,
    refusals: auth::Refusals,
    /// Whether a client certificate is required besides the token.
    webhook_certificate: bool,
    admission: Admission,
    max_body_bytes: usize,
    request_timeout: Duration,
    /// For bodies and responses.
    budget: Budget,
    parsed: ParsedBudget,
    unsigned_budget: Budget,
    /// How long a sign-in lasts.
    session: Duration,
    lanes: Lanes,
    /// Limits concurrent huge deliveries.
    huge: Semaphore,
    max_prompts: usize,
    exposition: Arc<Exposition>,
    /// Whether metrics have an address of their own.
    metrics_apart: bool,
    shows_page: bool,
    /// Whether the page has an address of its own.
    page_apart: bool,
    shutdown_timeout: Duration,
    readiness: watch::Receiver<Readiness>,
    slack: Option<SlackClicks>,
    /// Whether there is an Alertmanager for the receiver's own alerts.
    posts_alerts: bool,
    books: Books,
    board: Board,
    /// For streams of events.
    updates: Updates,
    max_streams: usize,
}

/// What workers read from Prometheus for requests, which never call it themselves.
#[derive(Debug, Clone)]
pub struct Books {
    pub rules: RuleBook,
    pub figures: FigureBook,
}

/// Interactions over HTTP, if `slack.signing_secret` is configured.
#[derive(Debug)]
struct SlackClicks {
    signing_secret: SecretString,
    clicks: Arc<Clicks>,
}

impl Context {
    /// Creates a server for `max_connections` connections at once.
    pub fn new(
        config: &Config,
        max_connections: u32,
        engine: Arc<Engine>,
        readiness: watch::Receiver<Readiness>,
        reloader: Reloader,
        clicks: Option<Arc<Clicks>>,
        books: Books,
    ) -> Self {
        let slack = config.slack.signing_secret.clone().zip(clicks);
        let buffered = config.server.max_buffered_bytes.max(config.server.max_body_bytes);
        Self {
            engine,
            reloader,
            routes: route::Routes::new(),
            tls: config.server.tls.clone(),
            max_connections: max_connections as usize,
            labels: Arc::new(config.labels.clone()),
            webhook_token: config.server.webhook_token.clone(),
            sources: config.sources.clone(),
            refusals: auth::Refusals::default(),
            webhook_certificate: config.server.tls_client_ca_file.is_some(),
            admission: Admission::new(config),
            max_body_bytes: config.server.max_body_bytes,
            request_timeout: config.server.request_timeout,
            budget: Budget::new(buffered),
            parsed: ParsedBudget::new(buffered),
            unsigned_budget: Budget::unsigned(UNSIGNED_BUDGET),
            session: config.page.session,
            lanes: Lanes::new(),
            huge: Semaphore::new(webhook::HUGE_AT_ONCE),
            max_prompts: config.metrics.max_prompts as usize,
            exposition: Arc::default(),
            metrics_apart: config.metrics.listen.is_some(),
            shows_page: config.page.enabled,
            page_apart: config.page.listen.is_some(),
            shutdown_timeout: config.server.shutdown_timeout,
            readiness,
            posts_alerts: !config.alertmanager.urls.is_empty(),
            books,
            board: Board::default(),
            updates: Updates::default(),
            max_streams: config.page.max_streams as usize,
            slack: slack.map(|(signing_secret, clicks)| SlackClicks { signing_secret, clicks }),
        }
    }

    /// Streams these updates to open pages.
    #[must_use]
    pub fn showing(self, updates: Updates) -> Self {
        Self { updates, ..self }
    }

    /// The settings for new connections.
    fn door(&self) -> Door {
        match &self.tls {
            None => Door::Plain,
            Some(tls) => Door::Tls { certificate: tls.certificate, authority: tls.authority },
        }
    }
}

/// The purpose of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Main,
    Metrics,
    Page,
}

/// How a client connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Plain,
    /// With which certificate of the receiver, and with which authority for client certificates, if any.
    Tls {
        certificate: u64,
        authority: Option<u64>,
    },
}

impl Door {
    fn authority(self) -> Option<u64> {
        match self {
            Door::Plain => None,
            Door::Tls { authority, .. } => authority,
        }
    }
}

/// The peer of a connection.
#[derive(Debug, Clone, Copy)]
struct Peer {
    site: Site,
    door: Door,
    since: Instant,
    /// Whether it presented a client certificate, which then was verified.
    certified: bool,
    address: IpAddr,
}

impl Peer {
    fn has_stayed_long(&self) -> bool {
        self.door != Door::Plain && self.since.elapsed() >= LONGEST
    }
}

/// Serves `listener` until `shutdown` completes, then lets requests in flight finish, within `server.shutdown_timeout`.
pub async fn serve(
    site: Site,
    listener: TcpListener,
    context: Current<Arc<Context>>,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let server = Arc::new(HttpServer::new(context));
    // dropped when no more requests are accepted: connections without a finished handshake are not waited for
    let (open, closed) = watch::channel(());
    tokio::pin!(shutdown);
    let mut id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, address) = match accepted {
            // an IPv4 address that came over an IPv6 socket counts as IPv4
            Ok((stream, from)) => (stream, from.ip().to_canonical()),
            Err(error) => {
                // out of file descriptors, or the client is gone: accepting again at once would spin
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // responses are small: send them at once
        let _ = stream.set_nodelay(true);
        id += 1;
        let most = match site {
            Site::Main | Site::Page => server.context.get().max_connections,
            Site::Metrics => server.context.get().max_connections.min(SCRAPERS),
        };
        let slot = tokio::select! {
            slot = server.connections.enter(id, most) => slot,
            () = &mut shutdown => break,
        };
        let context = server.context.get();
        let (tls, door) = (context.tls.clone(), context.door());
        let (server, watcher, mut closed) = (Arc::clone(&server), graceful.watcher(), closed.clone());
        // the shutdown waits for the whole task, not only for hyper
        let watched = graceful.watcher();
        tokio::spawn(async move {
            let _watched = watched;
            let served = async {
                let peer = Peer { site, door, since: Instant::now(), certified: false, address };
                let Some(tls) = tls else {
                    return server.converse(stream, peer, &slot, watcher).await;
                };
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HEAD_TIMEOUT, tls::handshake(stream, tls.config)) => shaken.ok().flatten(),
                    _ = closed.changed() => None,
                };
                if let Some((stream, certified)) = shaken {
                    server.converse(stream, Peer { certified, ..peer }, &slot, watcher).await;
                }
            };
            tokio::select! {
                () = served => {}
                () = slot.evicted() => {}
            }
            server.connections.leave(id);
        });
    }
    drop((listener, open));
    // the other responses end by themselves
    server.context.get().updates.close();
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(server.context.get().shutdown_timeout) => {
            tracing::warn!("some connections did not finish in time");
        }
    }
}

/// State that all connections share.
struct HttpServer {
    context: Current<Arc<Context>>,
    connections: Connections,
    http: http1::Builder,
}

impl HttpServer {
    fn new(context: Current<Arc<Context>>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
        Self { context, connections: Connections::new(), http }
    }

    /// Answers the requests of one connection until it ends.
    async fn converse<S>(&self, stream: S, peer: Peer, slot: &Arc<Slot>, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let unread = Unread::default();
        let service = service_fn(|request: Request<Incoming>| {
            let unread = &unread;
            async move {
                unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
                // the body of these is not asked for
                let bodiless = matches!(*request.method(), Method::GET | Method::HEAD);
                // not before its body is there: one that never comes must not hold the place
                let whole = || {
                    unread.fetch_and(bodiless, Ordering::Relaxed);
                    slot.busy();
                };
                let answer = route::caught(route::answer(&self.context, request, peer, whole)).await;
                self.connections.idle(slot);
                answer
            }
        });
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let written = Arc::clone(slot);
        let (stream, rest) = Lingering::new(Box::pin(stream), Unread::clone(&unread), move || written.written());
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        // a client that disconnects is no error
        let _ = watcher.watch(connection).await;
        rest.discard().await;
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Binds; port 0 selects a free port.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
