//! Connections to servers, directly or through a proxy: https through a tunnel (CONNECT), http by requests with the whole
//! address.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use hyper::header::HeaderValue;
use hyper::http::Extensions;
use hyper::http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Uri, rt};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use secrecy::{ExposeSecret, SecretString};
use tower_service::Service;

use crate::config::{HttpTarget, is_server};

const PROXY_VARIABLES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which proxy leads to a server, if any.
#[derive(Clone)]
pub struct Proxies {
    /// `None`: no server is reached through a proxy.
    matcher: Option<Arc<Matcher>>,
    /// A proxy of the environment leads to no server on this machine, one of the config does.
    loopback: bool,
}

/// Omits the credentials.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matcher.fmt(f)
    }
}

impl Proxies {
    /// Those of `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY`, except for `NO_PROXY` and servers on this machine.
    pub fn of_environment() -> Self {
        Self { matcher: Some(Arc::new(Matcher::from_env())), loopback: false }
    }

    /// Describes each variable of the environment that does not name an HTTP proxy, and each exception that matches no
    /// server. The library ignores most of them.
    pub fn invalid_variables() -> impl Iterator<Item = String> {
        let invalid = |name: &&str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.is_some_and(|value| !value.to_str().is_some_and(names_a_proxy))
        };
        let described =
            |name| format!("the environment variable {name} does not name a proxy: expected http://HOST:PORT");
        let exceptions = NO_PROXY_VARIABLES.into_iter().flat_map(|name| {
            let value = std::env::var(name).unwrap_or_default();
            let entries: Vec<_> = value.split(',').map(str::trim).filter(|entry| matches_nothing(entry)).collect();
            entries.into_iter().map(move |entry| format!(
                "the environment variable {name}: {entry:?} matches no server: expected a host or domain, an IP address or a range such as 10.0.0.0/8, without a port"
            )).collect::<Vec<_>>()
        });
        PROXY_VARIABLES.into_iter().filter(invalid).map(described).chain(exceptions)
    }

    /// Straight to the server.
    pub fn none() -> Self {
        Self { matcher: None, loopback: true }
    }

    /// As `proxy_url` says: an address, [`HttpTarget::NO_PROXY`], or nothing for the proxies of the environment.
    pub fn of(proxy_url: Option<&SecretString>) -> Self {
        match proxy_url.map(ExposeSecret::expose_secret) {
            None => Self::of_environment(),
            Some(HttpTarget::NO_PROXY) => Self::none(),
            Some(url) => Self { matcher: Some(Arc::new(Matcher::builder().all(url).build())), loopback: true },
        }
    }

    fn to(&self, target: &Uri) -> Option<Intercept> {
        let here = target.host().is_some_and(is_loopback);
        self.matcher.as_ref().filter(|_| self.loopback || !here)?.intercept(target)
    }

    /// The proxy that leads to `target`, without its credentials.
    pub fn shown(&self, target: &Uri) -> Option<String> {
        self.to(target).map(|proxy| shown(&proxy))
    }

    /// The proxy's credentials for a request with the whole address. A tunnel has sent them before.
    pub fn authorization(&self, target: &Uri) -> Option<HeaderValue> {
        let proxy = self.to(target).filter(|_| target.scheme() == Some(&Scheme::HTTP))?;
        proxy.basic_auth().cloned()
    }
}

/// Whether an entry of `NO_PROXY` is one of those that the library ignores.
fn matches_nothing(entry: &str) -> bool {
    let (host, prefix) = entry.split_once('/').map_or((entry, None), |(host, prefix)| (host, Some(prefix)));
    match host.parse::<IpAddr>() {
        Ok(address) => prefix.is_some_and(|prefix| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            !prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest)
        }),
        Err(_) => entry != "*" && (prefix.is_some() || host.contains([':', '[', '*']) || host.ends_with('.')),
    }
}

fn names_a_proxy(value: &str) -> bool {
    let matcher = Matcher::builder().all(value).build();
    let proxy = matcher.intercept(&Uri::from_static("http://server"));
    proxy.is_some_and(|proxy| proxy.uri().scheme() == Some(&Scheme::HTTP) && is_server(proxy.uri()))
}

fn shown(proxy: &Intercept) -> String {
    // never the whole address: what looks like a host may be part of a password
    let (host, port) = (proxy.uri().host().unwrap_or_default(), proxy.uri().port_u16());
    format!("http://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Opens connections. Trusts and presents certificates as `tls` says.
#[derive(Debug, Clone)]
pub struct ProxyConnector {
    http: HttpConnector,
    tls: Arc<rustls::ClientConfig>,
    proxies: Proxies,
}

/// Why a proxy did not lead to the server.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} {reason}")]
struct ProxyError {
    proxy: String,
    reason: String,
}

impl ProxyConnector {
    pub fn new(tls: Arc<rustls::ClientConfig>, proxies: Proxies) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        Self { http, tls, proxies }
    }

    /// A connection of its own for another protocol than HTTP, which a proxy only forwards in a tunnel.
    pub async fn tunnel(&self, target: Uri) -> Result<Stream, BoxError> {
        self.clone().open(target, true).await
    }

    async fn open(self, target: Uri, tunneled: bool) -> Result<Stream, BoxError> {
        let Self { mut http, tls, proxies } = self;
        let Some(proxy) = proxies.to(&target) else {
            let io = HttpsConnector::from((http, tls)).call(target).await?;
            return Ok(Stream::new(io, false));
        };
        let failed = |reason: String| ProxyError { proxy: shown(&proxy), reason };
        if proxy.uri().scheme() != Some(&Scheme::HTTP) {
            return Err(failed("is not supported: expected http://HOST:PORT".to_owned()).into());
        }
        if target.scheme() == Some(&Scheme::HTTP) && !tunneled {
            let io = http.call(proxy.uri().clone()).await.map_err(|error| failed(reason(&error)))?;
            return Ok(Stream::new(io, true));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), http);
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let target = with_port(target)?;
        let opened = HttpsConnector::from((tunnel, tls)).call(target).await;
        let io = opened.map_err(|error| failed(reason(error.as_ref())))?;
        Ok(Stream::new(io, false))
    }
}

/// The address with its port spelled out, because the default port of a tunnel is that of https.
fn with_port(target: Uri) -> Result<Uri, BoxError> {
    if target.port().is_some() || target.scheme() != Some(&Scheme::HTTP) {
        return Ok(target);
    }
    let mut parts = target.into_parts();
    parts.authority = parts.authority.map(|authority| format!("{}:80", authority.host()).parse()).transpose()?;
    Ok(Uri::from_parts(parts)?)
}

/// What the proxy did, as the end of a sentence about it. The library's tunnel has no public error type.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    match innermost(error).as_str() {
        "tunnel error: proxy authorization required" => "refuses the login (407)".to_owned(),
        "tunnel error: unsuccessful" => "refuses to connect to this server".to_owned(),
        other => format!("does not lead there: {other}"),
    }
}

/// The outer errors only say that it failed; the innermost one says why.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut reason = error;
    loop {
        if let Some(failure) = reason.downcast_ref().and_then(ReadFailure::of) {
            return failure;
        }
        if reason.downcast_ref().is_some_and(hyper::Error::is_canceled) {
            return "the server closed the connection before the request was sent".to_owned();
        }
        match reason.source() {
            Some(source) => reason = source,
            None => return reason.to_string(),
        }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().open(target, false))
    }
}

trait Io: Read + Write + Connection + Send + Unpin {}

impl<T: Read + Write + Connection + Send + Unpin> Io for T {}

/// A connection to a server or, for requests with the whole address, to a proxy.
pub struct Stream {
    io: Box<dyn Io>,
    forwarded: bool,
    failure: ReadFailure,
}

/// Why reading from a connection failed. With TLS 1.3 a server refuses a client's certificate only after the handshake: the
/// connection ends before a request is on it, and the error of the request does not say why.
#[derive(Debug, Clone, Default)]
struct ReadFailure(Arc<OnceLock<String>>);

impl ReadFailure {
    /// Of the connection that a request failed on.
    fn of(error: &legacy::Error) -> Option<String> {
        let mut extras = Extensions::new();
        error.connect_info()?.get_extras(&mut extras);
        extras.get::<Self>()?.0.get().cloned()
    }
}

impl Stream {
    fn new(io: impl Io + 'static, forwarded: bool) -> Self {
        Self { io: Box::new(io), forwarded, failure: ReadFailure::default() }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("forwarded", &self.forwarded).finish_non_exhaustive()
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.forwarded).extra(self.failure.clone())
    }
}

impl rt::Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            let _ = self.failure.0.set(error.to_string());
        }
        read
    }
}

impl rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(proxies: &Proxies, target: &str) -> Option<String> {
        proxies.shown(&target.parse().unwrap())
    }

    #[test]
    fn an_exception_that_the_library_ignores_is_found() {
        for entry in ["prom.internal:9090", "10.1.2.3:9090", "*.internal", "[fd00::1]", "prom.internal.", "10.1.2.3/33"]
        {
            assert!(matches_nothing(entry), "{entry}");
            let matcher = Matcher::builder().all("http://proxy:3128").no(entry).build();
            for url in ["http://prom.internal:9090", "http://10.1.2.3:9090", "http://a.internal", "http://[fd00::1]"] {
                assert!(matcher.intercept(&url.parse().expect("a URL")).is_some(), "{entry} {url}");
            }
        }
        for entry in ["", "*", "prom.internal", ".internal", "10.1.2.3", "10.0.0.0/8", "fd00::1", "fd00::/8"] {
            assert!(!matches_nothing(entry), "{entry}");
        }
    }

    #[test]
    fn the_config_names_a_proxy_for_every_server_or_none() {
        let given = SecretString::from("http://me:hunter2@proxy:3128");
        let proxies = Proxies::of(Some(&given));
        for target in ["http://prometheus:9090", "https://prometheus", "http://127.0.0.1:9090"] {
            assert_eq!(through(&proxies, target).as_deref(), Some("http://proxy:3128"), "{target}");
            assert_eq!(through(&Proxies::of(Some(&HttpTarget::NO_PROXY.into())), target), None);
        }
        assert!(!format!("{proxies:?}").contains("hunter2"), "{proxies:?}");
        // a tunnel sends the credentials once; the server behind it never gets them
        assert!(proxies.authorization(&"https://prometheus".parse().unwrap()).is_none());
        let header = proxies.authorization(&"http://prometheus:9090".parse().unwrap()).unwrap();
        assert!(header.is_sensitive() && header == "Basic bWU6aHVudGVyMg==", "{header:?}");
    }

    #[test]
    fn a_value_that_is_no_proxy_of_http_is_recognized() {
        for value in ["http://proxy:3128", "http://me:hunter2@proxy:3128", "proxy:3128", "proxy"] {
            assert!(names_a_proxy(value), "{value}");
        }
        for value in ["http://", "http:// proxy", "http://proxy:port", "https://proxy", "socks5://proxy:1080", " "] {
            assert!(!names_a_proxy(value), "{value}");
        }
    }

    #[test]
    fn a_proxy_of_the_environment_leads_to_no_server_on_this_machine() {
        let matcher = Matcher::builder().all("http://proxy:3128").no("internal,10.0.0.0/8").build();
        let proxies = Proxies { matcher: Some(Arc::new(matcher)), loopback: false };
        for target in ["http://localhost:9090", "http://127.0.0.2:9090", "https://[::1]:9090", "http://LOCALHOST"] {
            assert_eq!(through(&proxies, target), None, "{target}");
        }
        for target in ["http://am.internal", "http://10.1.2.3:9093"] {
            assert_eq!(through(&proxies, target), None, "{target}");
        }
        assert_eq!(through(&proxies, "https://slack.com/api").as_deref(), Some("http://proxy:3128"));
    }

    #[test]
    fn a_tunnel_to_a_server_without_tls_leads_to_the_port_of_http() {
        let with = |target: &str| with_port(target.parse().unwrap()).unwrap().to_string();
        assert_eq!(with("http://slack.test/x?y=1"), "http://slack.test:80/x?y=1");
        assert_eq!(with("http://slack.test:8080/x"), "http://slack.test:8080/x");
        assert_eq!(with("https://slack.test/x"), "https://slack.test/x");
    }
}
