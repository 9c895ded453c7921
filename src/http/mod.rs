//! The HTTP server. The request path uses Redis only, through the engine.

mod api;
mod auth;
mod board;
mod budget;
mod canary;
mod connections;
mod context;
mod dispatch;
mod drill;
mod error;
mod event_stream;
mod events;
mod explain;
mod exposition;
mod import;
mod incoming;
mod input;
mod lanes;
mod linger;
mod login;
mod mark;
mod openapi;
mod outage;
mod page;
mod peer;
mod postmortem;
mod reload;
mod reply;
mod report;
mod restore;
mod route;
mod scrape;
mod serving;
mod slack;
#[cfg(test)]
mod tests;
mod tls;
mod views;
mod wait;
mod webhook;

pub use views::prompt_row;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;

use crate::live::Current;
use connections::{Connections, Slot};
use linger::{Lingering, Unread};
use peer::Peer;

pub use context::{Books, Context};
pub use peer::Site;

/// Longest time for a handshake, for the head of a request to arrive, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Limits of a request's head: headers, and bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 32 << 10;
/// Longest time without the client reading any of its response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to `metrics.listen`.
const SCRAPERS: usize = 128;
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
                // boxed: the connection keeps no room for its handshake
                let handshake = Box::pin(tls::handshake(stream, tls.config));
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HEAD_TIMEOUT, handshake) => shaken.ok().flatten(),
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
                // boxed: hyper keeps the room of this future while the connection is idle, or its client reads slowly
                let answer = Box::pin(dispatch::answer(&self.context, request, peer, whole));
                let answer = dispatch::caught(answer).await;
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

/// Binds; port 0 selects a free port.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
