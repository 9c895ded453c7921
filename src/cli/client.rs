//! A small HTTP client: one request, one answer, ten seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::Value;

pub use crate::outgoing::{BaseUrl, encode};
use crate::outgoing::{Outgoing, OutgoingError};

/// For one request in all; the receiver itself promises an answer within 5 s.
const TIMEOUT: Duration = Duration::from_secs(10);

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
        f.write_str(if self.0.is_some() { "Token(set)" } else { "Token(none)" })
    }
}

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    NoAnswer(#[from] OutgoingError),
    /// The receiver said no, and why.
    #[error("{message} ({code})")]
    Refused { status: StatusCode, code: String, message: String },
    /// Somebody said something, but not in the receiver's words.
    #[error("{url} answered {status}: {text}")]
    Unexpected { url: String, status: StatusCode, text: String },
}

pub struct Client {
    http: Outgoing,
    token: Token,
}

impl Client {
    /// With `roots`, these authorities alone are trusted.
    pub fn new(base: BaseUrl, token: Token, roots: Option<RootCertStore>) -> Result<Self, ClientError> {
        Ok(Self { http: Outgoing::trusting(base, roots, TIMEOUT)?, token })
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
    pub async fn list(&self, path: &str, query: &str, items: &str, limit: u32) -> Result<Value, ClientError> {
        const PAGE: usize = 500;
        let limit = limit as usize;
        let mut all = Vec::new();
        let mut next = Value::Null;
        loop {
            let page = PAGE.min(limit - all.len());
            let cursor = next.as_str().map(|cursor| format!("&cursor={}", encode(cursor))).unwrap_or_default();
            let mut answer = self.get(&format!("{path}?limit={page}{query}{cursor}")).await?;
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
        if let Some(token) = &self.token.0 {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body)).map_err(|error| OutgoingError::Unreachable {
            url: self.http.base().to_string(),
            reason: error.to_string(),
        })?;
        Ok(self.http.send(request).await?)
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
            Ok(Body { error: Reason { code, message } }) => ClientError::Refused { status, code, message },
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
        let token: Token = "hunter2".parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(set)");
        assert_eq!(token.0.unwrap().as_bytes(), b"Bearer hunter2");
        assert!("".parse::<Token>().unwrap().0.is_none());
        assert!("a\nb".parse::<Token>().is_err());
    }
}
