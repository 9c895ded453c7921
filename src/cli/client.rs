//! A small HTTP client: one request, one answer, ten seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

/// For one request in all; the receiver itself promises an answer within 5 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any page of a list; whatever answers is not trusted to stop by itself.
const MAX_BODY: usize = 64 << 20;
/// All but what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One segment of a path, or the value of a query parameter: `team/greeting` → `team%2Fgreeting`.
pub fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// An http or https address without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "expected http://HOST:PORT or https://…, without credentials and query".to_owned();
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let plain =
            uri.authority().is_some_and(|a| !a.as_str().contains('@')) && uri.query().is_none();
        let fits = matches!(uri.scheme_str(), Some("http" | "https")) && plain;
        fits.then(|| Self(text.trim_end_matches('/').to_owned()))
            .ok_or_else(expected)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bearer token, perhaps none.
#[derive(Clone, Default)]
pub struct Token(Option<HeaderValue>);

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}"))
            .map_err(|_| "a token is one line of visible characters".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Token(set)"
        } else {
            "Token(none)"
        })
    }
}

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("no answer from {url} within {} s", TIMEOUT.as_secs())]
    Timeout { url: String },
    /// The receiver said no, and why.
    #[error("{message} ({code})")]
    Refused {
        status: StatusCode,
        code: String,
        message: String,
    },
    /// Somebody said something, but not in the receiver's words.
    #[error("{url} answered {status}: {text}")]
    Unexpected {
        url: String,
        status: StatusCode,
        text: String,
    },
}

pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: BaseUrl,
    token: Token,
}

impl Client {
    pub fn new(base: BaseUrl, token: Token) -> Result<Self, ClientError> {
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default TLS versions");
        // Reading the system's certificates takes longer than a request on loopback.
        let tls = if base.0.starts_with("https:") {
            tls.with_native_roots()
                .map_err(|error| ClientError::Unreachable {
                    url: base.to_string(),
                    reason: format!("no certificate authorities on this system: {error}"),
                })?
        } else {
            tls.with_root_certificates(rustls::RootCertStore::empty())
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
            base,
            token,
        })
    }

    /// Whatever was answered, as text, if the status is 200.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let (status, body) = self.request(Method::GET, path, None).await?;
        if status == StatusCode::OK {
            return Ok(String::from_utf8_lossy(&body).trim().to_owned());
        }
        Err(self.refusal(status, &body))
    }

    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// A list of up to `limit` items that the receiver hands out in pages: `{"<items>": […], "next": …}`.
    pub async fn list(
        &self,
        path: &str,
        query: &str,
        items: &str,
        limit: u32,
    ) -> Result<Value, ClientError> {
        const PAGE: usize = 500;
        let limit = limit as usize;
        let mut all = Vec::new();
        let mut next = Value::Null;
        loop {
            let page = PAGE.min(limit - all.len());
            let cursor = next
                .as_str()
                .map(|cursor| format!("&cursor={}", encode(cursor)))
                .unwrap_or_default();
            let mut answer = self
                .get(&format!("{path}?limit={page}{query}{cursor}"))
                .await?;
            let last = next;
            next = answer["next"].take();
            match answer[items].take() {
                Value::Array(more) => all.extend(more),
                _ => return Err(self.not_ours(StatusCode::OK, format!("no list of {items} in it"))),
            }
            // A cursor that does not move would have us ask for ever.
            if next.is_null() || all.len() >= limit || next == last {
                return Ok(serde_json::json!({ items: all, "next": next }));
            }
        }
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let (status, body) = self.request(method, path, body).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| self.not_ours(status, format!("not JSON: {error}")))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token.0 {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(Full::from(body))
            .map_err(|error| ClientError::Unreachable {
                url: url.clone(),
                reason: error.to_string(),
            })?;
        let exchange = async {
            let response = self
                .http
                .request(request)
                .await
                .map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            match Limited::new(response.into_body(), MAX_BODY).collect().await {
                Ok(body) => Ok((status, body.to_bytes())),
                Err(error) => Err(self.unreachable(error.as_ref())),
            }
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout {
                url: self.base.to_string(),
            }),
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        // The outer errors only say that it failed; the innermost says why.
        let mut reason = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        ClientError::Unreachable {
            url: self.base.to_string(),
            reason: reason.to_string(),
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        #[derive(Deserialize)]
        struct Body {
            error: Reason,
        }
        #[derive(Deserialize)]
        struct Reason {
            code: String,
            message: String,
        }
        match serde_json::from_slice::<Body>(body) {
            Ok(Body {
                error: Reason { code, message },
            }) => ClientError::Refused {
                status,
                code,
                message,
            },
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                let line = text
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(200)
                    .collect();
                self.not_ours(status, line)
            }
        }
    }

    fn not_ours(&self, status: StatusCode, text: String) -> ClientError {
        ClientError::Unexpected {
            url: self.base.to_string(),
            status,
            text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(
            encode("team/greeting v1?#%é").to_string(),
            "team%2Fgreeting%20v1%3F%23%25%C3%A9"
        );
        assert_eq!(encode("a-b.c_d~e").to_string(), "a-b.c_d~e");
    }

    #[test]
    fn addresses_that_can_be_called() {
        for (text, url) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            (
                "https://rollback.example/base/",
                "https://rollback.example/base",
            ),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ] {
            assert_eq!(text.parse(), Ok(BaseUrl(url.to_owned())));
        }
        for text in [
            "",
            "localhost:8000",
            "/x",
            "ftp://h",
            "http://",
            "http://u:p@h",
            "http://h?x=1",
            "http://h h",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_do_not_show_and_fit_in_a_header() {
        let token: Token = "hunter2".parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(set)");
        assert_eq!(token.0.unwrap().as_bytes(), b"Bearer hunter2");
        assert!("".parse::<Token>().unwrap().0.is_none());
        assert!("a\nb".parse::<Token>().is_err());
    }
}
