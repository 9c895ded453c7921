//! Responses: JSON bodies, and the common form of errors.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::budget::{Budget, ReservedBytes};
use super::events::EventStream;
use super::exposition::{CutOff, Reading};
use crate::api;
use crate::decision::{IncidentId, PromptName, Refusal};
use crate::elsewhere;
use crate::engine::EngineError;
use crate::metrics::Denial;
use crate::store::StoreError;
use crate::visible::{escape_hidden, shown};

pub type Reply = Response<ResponseBody>;

/// What a row of a list costs, in bytes of JSON.
const ROW: usize = 1 << 10;
/// Room for a short answer.
const SHORT: usize = 128;

/// The body of a response.
#[derive(Debug)]
pub enum ResponseBody {
    Whole(Option<Bytes>),
    /// A part of the program, which takes no memory.
    Shipped(Option<&'static str>),
    Exposition(Reading),
    /// Boxed: most responses are whole.
    Events(Box<EventStream>),
}

impl ResponseBody {
    pub fn whole(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::Whole((!body.is_empty()).then_some(body))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, polling: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            ResponseBody::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            ResponseBody::Shipped(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body.into())))),
            ResponseBody::Exposition(body) => Pin::new(body).poll_frame(polling),
            ResponseBody::Events(body) => Pin::new(body.as_mut()).poll_frame(polling),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Whole(body) => body.is_none(),
            ResponseBody::Shipped(body) => body.is_none(),
            ResponseBody::Exposition(body) => body.is_end_stream(),
            ResponseBody::Events(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            ResponseBody::Shipped(body) => SizeHint::with_exact(body.map_or(0, |body| body.len() as u64)),
            ResponseBody::Exposition(body) => body.size_hint(),
            ResponseBody::Events(body) => body.size_hint(),
        }
    }
}

/// Bytes with their part of the budget, which is returned once the bytes are written.
struct Paid(Bytes, #[allow(dead_code, reason = "dropped with the bytes")] ReservedBytes);

impl AsRef<[u8]> for Paid {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reserves memory for `reply` until it is written, if there is enough.
pub fn within(budget: &Budget, mut reply: Reply) -> Result<Reply, ApiError> {
    if let ResponseBody::Whole(Some(body)) = reply.body_mut() {
        let mut held = ReservedBytes::default();
        budget.hold(&mut held, body.len())?;
        if !held.is_none() {
            *body = Bytes::from_owner(Paid(std::mem::take(body), held));
        }
    }
    Ok(reply)
}

/// An error, `{"error":{"code","message"}}`. Alertmanager retries 5xx and drops 4xx, so the status says whether a retry
/// helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// The metric label for why access was refused; `None` for other errors.
    pub refused: Option<Denial>,
    /// The methods that the path has, if that is what is wrong.
    allow: Option<&'static str>,
    /// In how many seconds to try again, where the client cannot know.
    retry_after: Option<&'static str>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), refused: None, allow: None, retry_after: None }
    }

    /// Marks the request as refused.
    #[must_use]
    pub fn refused(self, denial: Denial) -> Self {
        Self { refused: Some(denial), ..self }
    }

    /// Says in how many seconds to try again.
    #[must_use]
    pub fn retry_after(self, seconds: &'static str) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn method_not_allowed(expected: &Method) -> Self {
        let allow = if expected == Method::GET { "GET, HEAD" } else { "POST" };
        let message = format!("expected {expected}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub fn into_reply(self) -> Reply {
        let error = api::Reason { code: self.code.to_owned(), message: self.message };
        let mut reply = answer(self.status, &api::Refused { error });
        if self.status == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if let Some(allow) = self.allow {
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        reply
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            code if code.is_bad_input() => StatusCode::BAD_REQUEST,
            code if code.is_not_found() => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code.as_str(), refusal.message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Unavailable { .. } => "redis_unavailable",
            StoreError::NotReplicated { .. } => "not_replicated",
            StoreError::NewerRecord { .. } => "newer_record",
            StoreError::Broken { .. } => {
                return Self::new(StatusCode::CONFLICT, "broken_state", error.to_string());
            }
            StoreError::Config(_) => "misconfigured",
        };
        Self::unavailable(code, error.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Contended => Self::unavailable("contended", error.to_string()),
        }
    }
}

pub fn no_incident(id: &IncidentId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_incident", format!("no incident {id}: it may have expired"))
}

pub fn no_prompt(prompt: &PromptName) -> ApiError {
    let message = format!("no prompt {} is registered or active", shown(prompt));
    ApiError::new(StatusCode::NOT_FOUND, "unknown_prompt", message)
}

pub fn unexpected() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "unexpected answer of the decision core")
}

/// A response of the API, with its fields sorted by name.
pub fn answer<T: Serialize>(status: StatusCode, body: &T) -> Reply {
    json(status, &serde_json::to_value(body).unwrap_or_default())
}

/// A list of `rows`, which `make` builds: on another thread, if they are many.
pub async fn list<T: Serialize>(rows: usize, make: impl FnOnce() -> T + Send + 'static) -> Reply {
    elsewhere::run_sized(rows * ROW, move || answer(StatusCode::OK, &make())).await
}

pub fn json<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Reply {
    json_of_length(status, body, SHORT)
}

/// Like [`json`]. `length`: about that of the text, which then is not copied as it grows.
pub fn json_of_length<T: Serialize + ?Sized>(status: StatusCode, body: &T, length: usize) -> Reply {
    let mut text = Vec::with_capacity(length.max(SHORT));
    let written = serde_json::to_writer(&mut text, body).ok();
    match written.and_then(|()| String::from_utf8(text).ok()) {
        Some(body) => {
            // `curl` shows it in a terminal
            let escaped = match escape_hidden(&body) {
                Cow::Borrowed(_) => None,
                Cow::Owned(escaped) => Some(escaped),
            };
            reply(status, "application/json", escaped.unwrap_or(body))
        }
        None => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", "answer can't be written\n"),
    }
}

pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

pub fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    reply_with(status, content_type, ResponseBody::whole(body))
}

/// A file that is a part of the program.
pub fn shipped(content_type: &'static str, content: &'static str) -> Reply {
    reply_with(StatusCode::OK, content_type, ResponseBody::Shipped(Some(content)))
}

pub fn reply_with(status: StatusCode, content_type: &'static str, body: ResponseBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
