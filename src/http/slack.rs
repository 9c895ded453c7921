//! `POST /slack/interactions`: answered once the decision is committed, or in time for Slack while the click is still
//! being processed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::context::Context;
use super::error::ApiError;
use super::reply::{Reply, text};
use crate::elsewhere;
use crate::metrics::Denial;
use crate::service::clicks::handle_patiently;
use crate::slack::payload::{self, Interaction};
use crate::trace::TraceContext;

/// Slack's interactions are a few kB.
pub const MAX_BODY: usize = 1 << 20;
/// Slack requires an answer within 3 s; after that it shows the user an error, whatever the result.
const ANSWER_WITHIN: Duration = Duration::from_millis(2_500);

/// Refuses a request that cannot be a click before reading its body: Slack is not configured, or the headers are not
/// from Slack within the last five minutes.
pub fn admit(context: &Context, headers: &HeaderMap) -> Result<(), ApiError> {
    if context.slack.is_none() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "slack.signing_secret is not configured"));
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match payload::may_be_signed(header("x-slack-signature"), header("x-slack-request-timestamp")) {
        true => Ok(()),
        false => Err(unsigned()),
    }
}

fn unsigned() -> ApiError {
    let message = "not signed by Slack with slack.signing_secret within the last five minutes";
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).refused(Denial::WrongSignature)
}

/// `arrived`: when the head of the request arrived.
pub async fn interactions(
    context: &Context,
    headers: &HeaderMap,
    body: &Bytes,
    arrived: Instant,
) -> Result<Reply, ApiError> {
    let Some(slack) = &context.slack else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "slack.signing_secret is not configured"));
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (signature, at) = (header("x-slack-signature"), header("x-slack-request-timestamp"));
    let (size, secret, body) = (body.len(), slack.signing_secret.clone(), body.clone());
    let read = move || {
        let signed = payload::verify(&secret, signature.as_deref(), at.as_deref(), &body);
        signed.then(|| payload::parse_form(&body))
    };
    let read = elsewhere::run_sized(size, read).await.ok_or_else(unsigned)?;
    let clicked = match read.map_err(|error| ApiError::bad_request(error.to_string()))? {
        Interaction::Clicks(clicked) => clicked,
        Interaction::Other(kind) => {
            tracing::debug!(kind, "an interaction without an action");
            return Ok(text(StatusCode::OK, ""));
        }
    };
    let (handler, caller) = (Arc::clone(&slack.clicks), TraceContext::of(headers));
    let mut handling = Box::pin(async move {
        for click in &clicked {
            handle_patiently(|| Some(Arc::clone(&handler)), click, caller.as_ref()).await;
        }
    });
    // also if the timeout of requests is shorter
    let within = ANSWER_WITHIN.min(context.request_timeout * 9 / 10);
    if timeout_at(arrived + within, &mut handling).await.is_err() {
        tracing::warn!(
            "a click takes longer than Slack waits: Slack is answered, and the click is still being processed"
        );
        let under_way = slack.clicks.acknowledged.begin();
        tokio::spawn(async move {
            handling.await;
            drop(under_way);
        });
    }
    Ok(text(StatusCode::OK, ""))
}
