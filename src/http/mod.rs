//! The HTTP server. Its request path talks to Redis only, through the engine.

mod api;
mod auth;
mod canary;
mod connections;
mod drill;
mod import;
mod input;
mod mark;
mod mass;
mod postmortem;
mod reload;
mod reply;
mod report;
mod restore;
mod route;
mod serving;
mod slack;
mod tls;
mod views;
mod wait;
mod webhook;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::clicks::Clicks;
use crate::config::{Config, Labels, Source};
use crate::engine::{Engine, Readiness};
use crate::live::{Current, Reloader};
use crate::tls::ServerTls;
use connections::{Connections, Slot};

/// Longest time for a handshake, for the head of a request to arrive, and for a connection to be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a request's head: headers, and bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 64 << 10;
/// Longest time that a shutdown waits for requests under way; each takes at most `server.request_timeout`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// What every request can see: one of these, whatever is reloaded meanwhile.
#[derive(Debug)]
pub struct Context {
    engine: Arc<Engine>,
    reloader: Reloader,
    routes: route::Routes,
    tls: Option<ServerTls>,
    max_connections: usize,
    labels: Labels,
    webhook_token: Option<SecretString>,
    sources: BTreeMap<String, Source>,
    refusals: auth::Refusals,
    /// Besides its token: where clients' certificates can be verified.
    webhook_certificate: bool,
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
    /// Serves `max_connections` at once.
    pub fn new(
        config: &Config,
        max_connections: u32,
        engine: Arc<Engine>,
        readiness: watch::Receiver<Readiness>,
        reloader: Reloader,
        clicks: Option<Arc<Clicks>>,
    ) -> Self {
        let slack = config.slack.signing_secret.clone().zip(clicks);
        Self {
            engine,
            reloader,
            routes: route::Routes::new(),
            tls: config.server.tls.clone(),
            max_connections: max_connections as usize,
            labels: config.labels.clone(),
            webhook_token: config.server.webhook_token.clone(),
            sources: config.sources.clone(),
            refusals: auth::Refusals::default(),
            webhook_certificate: config.server.tls_client_ca_file.is_some(),
            api_token: config.server.api_token.clone(),
            max_body_bytes: config.server.max_body_bytes,
            request_timeout: config.server.request_timeout,
            max_prompts: config.metrics.max_prompts as usize,
            readiness,
            posts_alerts: !config.alertmanager.urls.is_empty(),
            slack: slack.map(|(signing_secret, clicks)| SlackClicks { signing_secret, clicks }),
        }
    }

    /// What a connection is made by now.
    fn door(&self) -> Door {
        match &self.tls {
            None => Door::Plain,
            Some(_) if self.webhook_certificate => Door::TlsWithCertificates,
            Some(_) => Door::Tls,
        }
    }
}

/// How a client came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Plain,
    Tls,
    /// Clients were asked for a certificate.
    TlsWithCertificates,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
struct Peer {
    door: Door,
    /// It has shown a certificate, which then is one of our authority.
    certified: bool,
    address: IpAddr,
}

/// Serves `listener` until `shutdown` completes, then lets the requests under way finish.
pub async fn serve(listener: TcpListener, context: Current<Arc<Context>>, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    let server = Arc::new(Server { context, connections: Connections::new(), http });
    // gone when no more requests are taken: what has not even shaken hands is not waited for
    let (open, closed) = watch::channel(());
    tokio::pin!(shutdown);
    let mut id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, address) = match accepted {
            Ok((stream, from)) => (stream, from.ip()),
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
            slot = server.connections.enter(id, server.context.get().max_connections) => slot,
            () = &mut shutdown => break,
        };
        let context = server.context.get();
        let (tls, door) = (context.tls.clone(), context.door());
        let (server, watcher, mut closed) = (Arc::clone(&server), graceful.watcher(), closed.clone());
        tokio::spawn(async move {
            let served = async {
                let Some(ServerTls(tls)) = tls else {
                    return server.converse(stream, Peer { door, certified: false, address }, &slot, watcher).await;
                };
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HEAD_TIMEOUT, tls::handshake(stream, tls)) => shaken.ok().flatten(),
                    _ = closed.changed() => None,
                };
                if let Some((stream, certified)) = shaken {
                    server.converse(stream, Peer { door, certified, address }, &slot, watcher).await;
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
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(SHUTDOWN_TIMEOUT) => tracing::warn!("some connections did not end in time"),
    }
}

/// What all connections share.
struct Server {
    context: Current<Arc<Context>>,
    connections: Connections,
    http: http1::Builder,
}

impl Server {
    /// Answers the requests of one connection until it ends.
    async fn converse<S>(&self, stream: S, peer: Peer, slot: &Arc<Slot>, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let service = tower::service_fn(|request: Request<Incoming>| {
            async move {
                // not before its body is there: one that never comes must not hold the place
                let answer = route::answer(&self.context, request, peer, || slot.busy()).await;
                self.connections.idle(slot);
                answer
            }
        });
        let service = ServiceBuilder::new().layer(CatchPanicLayer::custom(route::panicked)).service(service);
        let connection = self.http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        // a client that breaks off is its own affair
        let _ = watcher.watch(connection).await;
    }
}

/// Binds; port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
