//! `GET /events`: what has changed, as Server-Sent Events. Each event names a prompt whose state the
//! client then reads from the API: an event carries no state, so none can be outdated.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONNECTION, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;

use super::auth::{Caller, unix_seconds};
use super::context::Context;
use super::error::ApiError;
use super::event_stream::EventStream;
use super::peer::Peer;
use super::reply::{Reply, ResponseBody, reply, reply_with};
use super::route::Route;
use crate::live::Current;

const CONTENT_TYPE: &str = "text/event-stream";
/// How soon a page may ask again when there are too many, in seconds.
const ASK_AGAIN: &str = "30";

/// The changes that this caller may see.
pub fn events(
    context: &Context,
    contexts: &Current<Arc<Context>>,
    caller: Caller,
    (head, peer): (Parts, Peer),
    only_head: bool,
) -> Result<Reply, ApiError> {
    let (contexts, admitted) = (contexts.clone(), caller.clone());
    // a stream must not outlive the page, what admitted it, or the certificates of its connection
    let still_admitted = move || {
        let now = contexts.get();
        let caller = now.admission.caller(&head, &peer, unix_seconds());
        now.serves(peer.site, Route::Events) && now.door() == peer.door && caller.is_ok_and(|caller| caller == admitted)
    };
    // without tokens, everybody on this machine is one caller
    let owner = (!context.admission.is_open()).then(|| caller.owner());
    stream(context, owner, move |prompt| caller.may_see(prompt), still_admitted, only_head)
}

/// A stream of the prompts that are `visible`. It ends once a reload has made `still_admitted` false.
pub fn stream(
    context: &Context,
    owner: Option<String>,
    visible: impl Fn(&str) -> bool + Send + Sync + 'static,
    still_admitted: impl Fn() -> bool + Send + Sync + 'static,
    head: bool,
) -> Result<Reply, ApiError> {
    let mut reply = if head {
        reply(StatusCode::OK, CONTENT_TYPE, "")
    } else {
        let max = context.max_streams();
        let subscription = context.updates.subscribe(max, owner).map_err(|limit| {
            let whose = if limit < max { " by one caller" } else { "" };
            let limits = "page.max_streams, and half of server.max_connections";
            let message =
                format!("at most {limit} streams may be open at once{whose} ({limits}): try again in {ASK_AGAIN} s");
            ApiError::unavailable("too_many_streams", message).retry_after(ASK_AGAIN)
        })?;
        let stream = EventStream::new(subscription, visible, still_admitted);
        reply_with(StatusCode::OK, CONTENT_TYPE, ResponseBody::Events(Box::new(stream)))
    };
    headers(reply.headers_mut());
    Ok(reply)
}

fn headers(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // tells nginx, and proxies that follow it, to pass each event on at once
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    // the next stream has a connection of its own, with the certificates of then
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

impl Context {
    /// Most streams: half of all connections are left for requests.
    fn max_streams(&self) -> usize {
        self.max_streams.min(self.max_connections / 2)
    }
}
