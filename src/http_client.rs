//! Outgoing HTTP: one request, one answer, limited in time and size. Knows nothing about the content.

mod capped;
mod proxy;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::PROXY_AUTHORIZATION;
use hyper::http::uri::InvalidUri;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use tracing::Span;

use crate::config::{HttpTarget, is_server};
use crate::tls::{self, ClientTls};
use crate::trace;

pub use capped::Capped;
pub use proxy::{Proxies, ProxyConnector, Stream, innermost};

/// All characters that RFC 3986 does not call unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes one segment of a path, or the value of a query parameter: `team/greeting` → `team%2Fgreeting`.
pub fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// An http or https address without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected http://HOST:PORT or https://…, without credentials and query".to_owned();
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let plain = is_server(&uri) && uri.query().is_none() && !text.contains('#');
        let fits = matches!(uri.scheme_str(), Some("http" | "https")) && plain;
        fits.then(|| Self(text.trim_end_matches('/').to_owned())).ok_or_else(expected)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits an address into its server and the path with its query, both of which may hold a secret.
pub fn server_and_path(url: &SecretString) -> Result<(BaseUrl, Uri), String> {
    let uri: Uri = url.expose_secret().parse().map_err(|_| "expected an address".to_owned())?;
    let server = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((server.parse()?, path.parse().map_err(|_| "expected an address".to_owned())?))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the answer from {url} is larger than {max_answer} bytes")]
    TooLarge { url: String, max_answer: usize },
    #[error("no answer from {url} within {}", seconds(*timeout))]
    Timeout { url: String, timeout: Duration },
}

impl OutgoingError {
    /// What went wrong, in one word.
    fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::TooLarge { .. } => "too_large",
            Self::Timeout { .. } => "timeout",
        }
    }
}

fn seconds(timeout: Duration) -> String {
    if timeout.subsec_millis() == 0 {
        format!("{} s", timeout.as_secs())
    } else {
        format!("{} ms", timeout.as_millis())
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct Access {
    pub tls: ClientTls,
    pub proxies: Proxies,
    /// Sent with each request.
    pub headers: HeaderMap,
    /// Timeout of a whole request.
    pub timeout: Duration,
}

impl Access {
    /// Access to a server without credentials, through the proxies of the environment.
    pub fn open(timeout: Duration) -> Self {
        let (tls, proxies) = (ClientTls::default(), Proxies::of_environment());
        Self { tls, proxies, headers: HeaderMap::new(), timeout }
    }

    /// Access to a server as its section of the config says.
    pub fn of(target: &HttpTarget) -> Self {
        let (tls, proxies) = (target.tls.clone(), Proxies::of(target.proxy_url.as_ref()));
        Self { tls, proxies, headers: target.all_headers(), timeout: target.timeout }
    }
}

/// The TLS settings of a client. Reading the system's certificates takes longer than a request on loopback, so only a
/// client that uses TLS does.
#[allow(clippy::expect_used, reason = "a fact about the library")]
pub fn tls_config(uses_tls: bool, tls: &ClientTls) -> Result<Arc<rustls::ClientConfig>, String> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default TLS versions");
    let config = match &tls.roots {
        Some(roots) => config.with_root_certificates(Arc::clone(roots)),
        None if uses_tls => {
            config.with_native_roots().map_err(|error| format!("no certificate authorities on this system: {error}"))?
        }
        None => config.with_root_certificates(rustls::RootCertStore::empty()),
    };
    Ok(Arc::new(match &tls.identity {
        Some(identity) => config.with_client_cert_resolver(Arc::clone(identity) as _),
        None => config.with_no_client_auth(),
    }))
}

/// Connections to one server.
#[derive(Debug, Clone)]
pub struct Outgoing {
    http: legacy::Client<ProxyConnector, Full<Bytes>>,
    base: BaseUrl,
    access: Access,
}

impl Outgoing {
    /// `timeout` limits each whole request.
    pub fn new(base: BaseUrl, timeout: Duration) -> Result<Self, OutgoingError> {
        Self::with(base, Access::open(timeout))
    }

    pub fn with(base: BaseUrl, access: Access) -> Result<Self, OutgoingError> {
        let tls = tls_config(base.is_https(), &access.tls)
            .map_err(|reason| OutgoingError::Unreachable { url: base.to_string(), reason })?;
        let connector = ProxyConnector::new(tls, access.proxies.clone());
        Ok(Self { http: legacy::Client::builder(TokioExecutor::new()).build(connector), base, access })
    }

    /// The proxy that leads to the server, if there is one.
    pub fn proxy(&self) -> Option<String> {
        self.access.proxies.shown(&self.base.0.parse().ok()?)
    }

    pub fn timeout(&self) -> Duration {
        self.access.timeout
    }

    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Sends `request`, whose URI is a path (with query) below the base. The server is not trusted to stop: more than
    /// `max_answer` bytes are an error.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), OutgoingError> {
        self.prepare(&mut request)?;
        let span = traced(&mut request);
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            trace::answered(&span, status);
            match Limited::new(response.into_body(), max_answer).collect().await {
                Ok(body) => Ok((status, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(OutgoingError::TooLarge { url: self.base.to_string(), max_answer })
                }
                Err(error) => Err(self.unreachable(error.as_ref())),
            }
        };
        trace::call(span.clone(), self.in_time(exchange), OutgoingError::kind).await
    }

    /// Like [`send`](Self::send), but returns only the head of the answer.
    pub async fn answered(&self, mut request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap), OutgoingError> {
        const DRAINED: usize = 64 << 10;
        self.prepare(&mut request)?;
        let span = traced(&mut request);
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
            let (head, body) = response.into_parts();
            trace::answered(&span, head.status);
            // to its end, if that is near, so that the connection is used again
            let drained = Limited::new(body, DRAINED).collect();
            let _ = tokio::time::timeout(Duration::from_millis(100), drained).await;
            Ok((head.status, head.headers))
        };
        trace::call(span.clone(), self.in_time(exchange), OutgoingError::kind).await
    }

    /// Completes a request: the address below the base, and the headers of every request.
    fn prepare(&self, request: &mut Request<Full<Bytes>>) -> Result<(), OutgoingError> {
        let url = format!("{}{}", self.base, request.uri());
        let invalid =
            |error: InvalidUri| OutgoingError::Unreachable { url: self.base.to_string(), reason: error.to_string() };
        *request.uri_mut() = url.parse().map_err(invalid)?;
        let login = self.access.proxies.authorization(request.uri());
        request.headers_mut().extend(self.access.headers.clone());
        request.headers_mut().extend(login.map(|login| (PROXY_AUTHORIZATION, login)));
        Ok(())
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, OutgoingError>>) -> Result<T, OutgoingError> {
        let timeout = self.access.timeout;
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(OutgoingError::Timeout { url: self.base.to_string(), timeout }))
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> OutgoingError {
        OutgoingError::Unreachable { url: self.base.to_string(), reason: innermost(error) }
    }
}

/// The span of this request, and adds the header that names its trace.
fn traced(request: &mut Request<Full<Bytes>>) -> Span {
    let uri = request.uri();
    let span = trace::http(request.method(), uri.host().unwrap_or_default(), uri.port_u16());
    trace::hand_on(&span, request.headers_mut());
    span
}

#[cfg(test)]
mod tests {
    use prompt_rollback_testkit::Flood;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(encode("team/greeting v1?#%é").to_string(), "team%2Fgreeting%20v1%3F%23%25%C3%A9");
        assert_eq!(encode("a-b.c_d~e").to_string(), "a-b.c_d~e");
    }

    #[test]
    fn addresses_that_can_be_called() {
        for (text, url) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("https://rollback.example/base/", "https://rollback.example/base"),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ] {
            assert_eq!(text.parse(), Ok(BaseUrl(url.to_owned())));
        }
        for text in ["", "localhost:8000", "/x", "ftp://h", "http://", "http://u:p@h", "http://h?x=1", "http://h h"] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_the_caller_wants() {
        const ENOUGH: usize = 100_000;
        let flood = Flood::start("", None).await.unwrap();
        let outgoing = Outgoing::new(flood.url().parse().unwrap(), Duration::from_secs(60)).unwrap();
        let request = || Request::get("/").body(Full::default()).unwrap();
        let error = outgoing.send(request(), ENOUGH).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the answer from {} is larger than 100000 bytes", flood.url()));
        drop(outgoing);
        // plus what the kernel buffers for both ends
        assert!(flood.sent() < ENOUGH + (32 << 20), "{}", flood.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_byte_by_byte_is_given_up_in_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: BaseUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
        });
        let outgoing = Outgoing::new(base.clone(), Duration::from_secs(5)).unwrap();
        let request = Request::get("/").body(Full::default()).unwrap();
        let error = outgoing.send(request, 1_000).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no answer from {base} within 5 s"));
    }
}
