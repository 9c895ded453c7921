//! The team's own test of a version before people roll back to it: `POST registry.baseline_url {prompt, version}`.

use std::time::Duration;

use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};

use crate::decision::{PromptName, VersionName};
use crate::outgoing::{BaseUrl, Outgoing};

/// A rollback waits for it.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Of what a failed test says.
const MAX_TEXT: usize = 200;

#[derive(Debug, Clone)]
pub struct Baseline {
    http: Outgoing,
    path: String,
}

impl Baseline {
    pub fn new(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "expected http://HOST:PORT/PATH or https://…".to_owned())?;
        let base = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()));
        let base: BaseUrl = base.parse()?;
        let http = Outgoing::new(base, TIMEOUT).map_err(|error| error.to_string())?;
        Ok(Self { http, path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string) })
    }

    /// `Err`: it failed, or there is no answer; both are reasons to ask again.
    pub async fn test(&self, prompt: &PromptName, version: &VersionName) -> Result<(), String> {
        let body = serde_json::json!({ "prompt": prompt.as_str(), "version": version.as_str() }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let (status, body) = self.http.send(request).await.map_err(|error| error.to_string())?;
        if status.is_success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body);
        let text: String = text.trim().chars().filter(|c| !crate::visible::is_hidden(*c)).take(MAX_TEXT).collect();
        Err(if text.is_empty() { format!("answered {status}") } else { format!("answered {status}: {text}") })
    }
}
