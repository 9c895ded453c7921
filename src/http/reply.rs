//! Responses, and their bodies.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::budget::{Budget, ReservedBytes};
use super::error::ApiError;
use super::event_stream::EventStream;
use super::exposition::{CutOff, Reading};
use crate::api;
use crate::elsewhere;
use crate::visible::escape_hidden;

pub type Reply = Response<ResponseBody>;

/// Assumed size of a row of a list, in bytes of JSON.
const ROW: usize = 1 << 10;
/// Initial capacity for a short answer, in bytes.
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

impl ApiError {
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
