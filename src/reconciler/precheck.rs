//! The team's own test of a version before people roll back to it: `POST registry.precheck_url {prompt, version}`.

use std::time::Duration;

use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode, Uri};

use crate::decision::{PromptName, VersionName};
use crate::http_client::{BaseUrl, Outgoing};
use crate::visible::is_hidden;

/// A rollback waits for the answer.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Longest answer.
const MAX_ANSWER: usize = 1 << 20;
/// Longest part of the answer of a failed test.
const MAX_TEXT: usize = 200;

#[derive(Debug, Clone)]
pub struct Precheck {
    http: Outgoing,
    path: String,
}

impl Precheck {
    pub fn new(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "expected http://HOST:PORT/PATH or https://…".to_owned())?;
        let base = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()));
        let base: BaseUrl = base.parse()?;
        let http = Outgoing::new(base, TIMEOUT).map_err(|error| error.to_string())?;
        Ok(Self { http, path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string) })
    }

    /// `Err`: the test failed, or did not answer; both are reasons to ask a person again.
    pub async fn test(&self, prompt: &PromptName, version: &VersionName) -> Result<(), String> {
        let body = serde_json::json!({ "prompt": prompt.as_str(), "version": version.as_str() }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let (status, body) = self.http.send(request, MAX_ANSWER).await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(()) } else { Err(failed(status, &body)) }
    }
}

/// Describes a failed test.
fn failed(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().filter(|c| !is_hidden(*c)).take(MAX_TEXT).collect();
    if text.is_empty() { format!("answered {status}") } else { format!("answered {status}: {text}") }
}

#[cfg(test)]
mod tests {
    use prompt_rollback_testkit::Flood;

    use super::*;

    #[test]
    fn what_a_failed_test_says_is_short_and_has_no_hidden_characters() {
        let failed = |text: &str| failed(StatusCode::BAD_GATEWAY, text.as_bytes());
        assert_eq!(failed(" 3 of\u{202e} 9\u{9b}2J \n"), "answered 502 Bad Gateway: 3 of 92J");
        assert_eq!(failed("\u{200b}\n"), "answered 502 Bad Gateway");
        assert!(failed(&"é".repeat(1_000)).ends_with(&"é".repeat(MAX_TEXT)));
        assert!(failed(&"é".repeat(1_000)).chars().count() < 2 * MAX_TEXT);
    }

    #[tokio::test]
    async fn a_test_that_answers_too_much_or_without_end_has_failed() {
        let (prompt, version) = (PromptName::parse("p").unwrap(), VersionName::parse("v1").unwrap());
        for (length, fails) in [(Some(MAX_ANSWER), false), (Some(MAX_ANSWER + 1), true), (None, true)] {
            let flood = Flood::start("passed", length).await.unwrap();
            let tested = Precheck::new(&flood.url()).unwrap().test(&prompt, &version).await;
            let too_large = format!("the answer from {} is larger than 1048576 bytes", flood.url());
            assert_eq!(tested, if fails { Err(too_large) } else { Ok(()) }, "{length:?}");
        }
    }
}
