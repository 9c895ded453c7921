//! One request to a webhook, and the meaning of its answer.

use std::time::Duration;

use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};

use super::signature::Key;
use crate::config;
use crate::http_client::{Outgoing, OutgoingError, server_and_path};

/// For a whole request: two of them take less than a lease.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The wait after a 429 without `Retry-After`, and the longest wait that is accepted.
const USUAL_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why an event was not accepted. Contains neither the address, which may be a secret, nor the answer's body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    #[error("asks to wait for {} s", retry_after.as_secs())]
    RateLimited { retry_after: Duration },
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("answered {status}")]
    Server { status: StatusCode, retry_after: Option<Duration> },
    /// Redirects are not followed: they would send the event to another host.
    #[error("answered {0}, and redirects are not followed: webhooks.NAME.url must lead there directly")]
    Redirect(StatusCode),
    #[error("answered {0}")]
    Refused(StatusCode),
}

impl Untaken {
    /// All values of [`kind`](Self::kind).
    pub const KINDS: [&'static str; 6] =
        ["rate_limited", "unreachable", "timeout", "server_error", "redirect", "client_error"];

    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Untaken::RateLimited { .. } => "rate_limited",
            Untaken::Unreachable(_) => "unreachable",
            Untaken::Timeout => "timeout",
            Untaken::Server { .. } => "server_error",
            Untaken::Redirect(_) => "redirect",
            Untaken::Refused(_) => "client_error",
        }
    }

    /// The target is reachable and will not accept this event until someone fixes the target or its settings.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Untaken::Redirect(_) | Untaken::Refused(_))
    }
}

/// Sends to one webhook.
#[derive(Debug)]
pub struct WebhookClient {
    http: Outgoing,
    /// With its query, which may hold a secret.
    path: Uri,
    key: Key,
}

impl WebhookClient {
    /// Requires a validated config.
    pub fn new(config: &config::WebhookConfig) -> Result<Self, String> {
        let missing = || "url and secret are needed".to_owned();
        let (url, secret) = config.url.as_ref().zip(config.secret.as_ref()).ok_or_else(missing)?;
        let (base, path) = server_and_path(url)?;
        let http = Outgoing::new(base, TIMEOUT).map_err(|error| error.to_string())?;
        let key = Key::of(secret).ok_or_else(|| "secret: the part after whsec_ is not valid base64".to_owned())?;
        Ok(Self { http, path, key })
    }

    /// Scheme and host.
    pub fn shown(&self) -> String {
        self.http.base().to_string()
    }

    /// Sends an event, signed at this time in seconds since 1970: receivers refuse old signatures.
    pub async fn send(&self, id: &str, body: &str, now: i64) -> Result<(), Untaken> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.path.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.key.sign(id, now, body))
            .body(Full::from(body.to_owned()))
            .map_err(|error| Untaken::Unreachable(error.to_string()))?;
        match self.http.answered(request).await {
            Ok((status, headers)) => judge(status, &headers),
            Err(OutgoingError::Timeout { .. }) => Err(Untaken::Timeout),
            Err(error) => Err(Untaken::Unreachable(error.to_string())),
        }
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Untaken> {
    let asked: Option<u64> = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = asked.map(|seconds| Duration::from_secs(seconds).clamp(Duration::from_secs(1), LONGEST_WAIT));
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::TOO_MANY_REQUESTS => Err(Untaken::RateLimited { retry_after: retry_after.unwrap_or(USUAL_WAIT) }),
        StatusCode::REQUEST_TIMEOUT => Err(Untaken::Server { status, retry_after }),
        status if status.is_redirection() => Err(Untaken::Redirect(status)),
        status if status.is_client_error() => Err(Untaken::Refused(status)),
        status => Err(Untaken::Server { status, retry_after }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_taken_or_has_a_kind_that_says_whether_to_go_on() {
        let judged = |status: u16, wait: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.extend(wait.map(|wait| (RETRY_AFTER, wait.parse().expect("a header"))));
            judge(StatusCode::from_u16(status).expect("a status"), &headers)
        };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, None), Ok(()), "{status}");
        }
        for (status, kind, refused) in [
            (301, "redirect", true),
            (308, "redirect", true),
            (400, "client_error", true),
            (401, "client_error", true),
            (404, "client_error", true),
            (410, "client_error", true),
            (408, "server_error", false),
            (429, "rate_limited", false),
            (500, "server_error", false),
            (503, "server_error", false),
            (599, "server_error", false),
            (999, "server_error", false),
        ] {
            let untaken = judged(status, None).expect_err("not taken");
            assert_eq!((untaken.kind(), untaken.is_refusal()), (kind, refused), "{status}");
            assert!(Untaken::KINDS.contains(&kind));
        }
        for (asked, seconds) in [
            (None, 10),
            (Some("7"), 7),
            (Some("0"), 1),
            (Some("86400"), 60),
            (Some("Wed, 21 Oct 2026 07:28:00 GMT"), 10),
        ] {
            let retry_after = Duration::from_secs(seconds);
            assert_eq!(judged(429, asked), Err(Untaken::RateLimited { retry_after }), "{asked:?}");
        }
        for (asked, seconds) in [(None, None), (Some("7"), Some(7)), (Some("86400"), Some(60)), (Some("soon"), None)] {
            for status in [408, 500, 503] {
                let Err(Untaken::Server { retry_after, .. }) = judged(status, asked) else { panic!("{status}") };
                assert_eq!(retry_after, seconds.map(Duration::from_secs), "{status} {asked:?}");
            }
        }
    }
}
