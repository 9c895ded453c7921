//! `POST /slack/interactions`: answered at once, after the decision is committed.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;

use super::Context;
use super::reply::{Failure, Reply, text};
use crate::slack::payload::{self, Interaction};

/// Slack's interactions are a few kB.
pub const MAX_BODY: usize = 1 << 20;

pub async fn interactions(context: &Context, headers: &HeaderMap, body: &Bytes) -> Result<Reply, Failure> {
    let Some(slack) = &context.slack else {
        return Err(Failure::new(StatusCode::NOT_FOUND, "not_found", "slack.signing_secret is not configured"));
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let signed =
        payload::verify(&slack.signing_secret, header("x-slack-signature"), header("x-slack-request-timestamp"), body);
    if !signed {
        let message = "not signed by Slack with slack.signing_secret within the last five minutes";
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    match payload::parse_form(body).map_err(|error| Failure::bad_request(error.to_string()))? {
        Interaction::Clicks(clicks) => {
            for click in &clicks {
                slack.clicks.handle(click).await?;
            }
        }
        Interaction::Other(kind) => tracing::debug!(kind, "an interaction that asks for nothing"),
    }
    Ok(text(StatusCode::OK, ""))
}
