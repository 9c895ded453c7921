//! A small HTTP client: one request, one response, ten seconds.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use rustls::RootCertStore;
use serde_json::Value;

use crate::api::{Reason, Refused};
use crate::config::{bare, unfit};
use crate::http_client::{Access, Outgoing, OutgoingError, Proxies};
pub use crate::http_client::{BaseUrl, encode};
use crate::tls::ClientTls;

/// For a whole request; the receiver itself answers within 5 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest response: a page of 1,000 incidents takes a few MiB.
const MAX_ANSWER: usize = 64 << 20;

/// A bearer token, or none. A token that no header can carry is an error only when it is used, because an error of the
/// argument parser would show it.
#[derive(Clone)]
pub struct Token(Result<Option<HeaderValue>, String>);

impl Token {
    /// Removes what editors add around a token.
    pub fn new(text: &str) -> Self {
        let text = bare(text);
        if text.is_empty() {
            return Self::default();
        }
        let header = match unfit(text) {
            Some(why) => Err(why),
            None => HeaderValue::from_str(&format!("Bearer {text}")).map_err(|error| error.to_string()),
        };
        Self(header.map(|mut value| {
            value.set_sensitive(true);
            Some(value)
        }))
    }

    pub fn is_none(&self) -> bool {
        matches!(self.0, Ok(None))
    }

    pub fn header(self) -> Result<Option<HeaderValue>, String> {
        self.0
    }
}

impl Default for Token {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl FromStr for Token {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Ok(Some(_)) => "Token(set)",
            Ok(None) => "Token(none)",
            Err(_) => "Token(unfit)",
        })
    }
}

/// Why there is no response to show.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    NoAnswer(#[from] OutgoingError),
    /// The receiver refused the request, with this reason.
    #[error("{message} ({code})")]
    Refused { status: StatusCode, code: String, message: String },
    /// The response is not from the receiver.
    #[error("{url} answered {status}: {text}")]
    Unexpected { url: String, status: StatusCode, text: String },
}

impl ClientError {
    /// `None`: there was no answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::NoAnswer(_) => None,
            Self::Refused { status, .. } | Self::Unexpected { status, .. } => Some(*status),
        }
    }
}

pub struct ApiClient {
    http: Outgoing,
}

impl ApiClient {
    /// With `roots`, only these authorities are trusted.
    pub fn new(base: BaseUrl, token: Option<HeaderValue>, roots: Option<RootCertStore>) -> Result<Self, ClientError> {
        let tls = ClientTls { roots: roots.map(Into::into), identity: None };
        let headers = token.map(|token| (AUTHORIZATION, token)).into_iter().collect();
        Ok(Self::of(Outgoing::with(base, Access { tls, headers, proxies: Proxies::none(), ..Access::open(TIMEOUT) })?))
    }

    /// For another server.
    pub fn of(http: Outgoing) -> Self {
        Self { http }
    }

    /// The text of the response, if its status is 200.
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

    /// A list of up to `limit` items that the receiver returns in pages: `{"<items>": […], "next": …}`.
    pub async fn list(&self, path: &str, query: &str, items: &str, limit: u32) -> Result<Value, ClientError> {
        const PAGE: usize = 500;
        let limit = limit as usize;
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        let mut next = Value::Null;
        loop {
            let page = PAGE.min(limit - all.len());
            let cursor = next.as_str().map(|cursor| format!("&cursor={}", encode(cursor))).unwrap_or_default();
            let mut answer = self.get(&format!("{path}?limit={page}{query}{cursor}")).await?;
            if !answer.is_object() {
                return Err(self.not_ours(StatusCode::OK, "no JSON object".to_owned()));
            }
            let last = next;
            next = answer["next"].take();
            match answer[items].take() {
                Value::Array(more) => all.extend(more),
                _ => return Err(self.not_ours(StatusCode::OK, format!("no list of {items} in it"))),
            }
            if let Value::Array(more) = answer["unreadable"].take() {
                unreadable.extend(more);
            }
            // A cursor that does not move would cause an endless loop.
            if next.is_null() || all.len() >= limit || next == last {
                let mut list = serde_json::json!({ items: all, "next": next });
                if !unreadable.is_empty() {
                    list["unreadable"] = Value::Array(unreadable);
                }
                return Ok(list);
            }
        }
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let (status, body) = self.request(method, path, body).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.not_ours(status, format!("not JSON: {error}")))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body)).map_err(|error| OutgoingError::Unreachable {
            url: self.http.base().to_string(),
            reason: error.to_string(),
        })?;
        Ok(self.http.send(request, MAX_ANSWER).await?)
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(Refused { error: Reason { code, message } }) => ClientError::Refused { status, code, message },
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                let line = text.lines().next().unwrap_or_default().chars().take(200).collect();
                self.not_ours(status, line)
            }
        }
    }

    fn not_ours(&self, status: StatusCode, text: String) -> ClientError {
        ClientError::Unexpected { url: self.http.base().to_string(), status, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_show_and_fit_in_a_header() {
        let token = |text: &str| text.parse::<Token>().unwrap();
        assert_eq!(format!("{:?}", token("hunter2")), "Token(set)");
        for accidental in ["hunter2", " hunter2\r\n", "\u{feff}hunter2\n"] {
            assert_eq!(token(accidental).header().unwrap().unwrap().as_bytes(), b"Bearer hunter2", "{accidental:?}");
        }
        assert!(token("").header().unwrap().is_none() && token(" \n").header().unwrap().is_none());
        for unfit in ["hunter2\nx", "hunter2 x", "hunter2\u{e9}", "hunter2\u{200b}x"] {
            let why = token(unfit).header().unwrap_err();
            assert!(why.contains("expected one word of visible ASCII") && !why.contains("hunter2"), "{why}");
        }
    }
}
