//! Alertmanager's API v2: posts the receiver's own alerts, and lists the alerts that Alertmanager has.

use std::collections::{BTreeMap, HashSet};

use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::AlertmanagerConfig;
use crate::elsewhere;
use crate::http_client::{Access, BaseUrl, Outgoing, OutgoingError, encode};

/// Longest answer: about 2,000 alerts of one prompt.
const MAX_ANSWER: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum AlertmanagerError {
    #[error("alertmanager: {0}")]
    NoAnswer(#[from] OutgoingError),
    #[error("alertmanager at {url} answered {status}")]
    Refused { url: String, status: StatusCode },
    #[error("alertmanager at {url} answered with something other than a list of alerts")]
    Unreadable { url: String },
    #[error("alertmanager.urls: {0}")]
    Config(String),
}

/// An alert of the receiver itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAlert {
    /// Its identity in Alertmanager, complete: see [`Alertmanagers::labels`].
    pub labels: BTreeMap<String, String>,
    pub annotations: Vec<(&'static str, String)>,
    /// RFC 3339.
    pub starts_at: String,
    /// When it ends unless it is posted again; a past time ends it now.
    pub ends_at: String,
}

/// All Alertmanagers of the config: each peer of a cluster needs the alerts.
#[derive(Debug, Default)]
pub struct Alertmanagers {
    all: Vec<Outgoing>,
    /// `alertmanager.labels`.
    labels: BTreeMap<String, String>,
}

impl Alertmanagers {
    pub fn new(config: &AlertmanagerConfig) -> Result<Self, AlertmanagerError> {
        let outgoing = |url: &String| {
            let base: BaseUrl = url.parse().map_err(AlertmanagerError::Config)?;
            Ok(Outgoing::with(base, Access::of(&config.http))?)
        };
        let all = config.urls.iter().map(outgoing).collect::<Result<_, AlertmanagerError>>()?;
        Ok(Self { all, labels: config.labels.clone() })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All labels of an alert: `alertmanager.labels`, and its `own`, which win.
    pub fn labels(&self, own: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        labels
    }

    /// Posts `alert` to all. Each answers when it can: with its address, and whether it accepted the alert.
    pub fn post_each(
        &self,
        alert: &OwnAlert,
    ) -> FuturesUnordered<impl Future<Output = (String, Result<(), AlertmanagerError>)>> {
        let annotations: Value =
            alert.annotations.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
        let body = json!([{
            "labels": alert.labels, "annotations": annotations, "startsAt": alert.starts_at, "endsAt": alert.ends_at,
        }])
        .to_string();
        let post = |one| {
            let body = body.clone();
            async move {
                let sent = self.send(one, Method::POST, "/api/v2/alerts".to_owned(), body).await;
                if let Err(error) = &sent {
                    tracing::warn!(%error, "Alertmanager did not accept an alert of the receiver");
                }
                (one.base().to_string(), sent.map(drop))
            }
        };
        self.all.iter().map(post).collect()
    }

    /// Fingerprints of the alerts with this label that any Alertmanager has, including silenced and inhibited ones.
    /// Fails if one does not answer, because its alerts are unknown then.
    pub async fn fingerprints(&self, label: &str, value: &str) -> Result<HashSet<String>, AlertmanagerError> {
        // as both syntaxes of Alertmanager's matchers read it
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let filter = format!("{label}=\"{value}\"");
        let path = format!(
            "/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true&filter={}",
            encode(&filter)
        );
        let mut all = HashSet::new();
        let lists = self.all.iter().map(|one| self.send(one, Method::GET, path.clone(), String::new()));
        for (one, body) in self.all.iter().zip(futures_util::future::join_all(lists).await) {
            let body = body?;
            let listed = elsewhere::run_sized(body.len(), move || read_list(&body)).await;
            all.extend(listed.ok_or_else(|| AlertmanagerError::Unreadable { url: one.base().to_string() })?);
        }
        Ok(all)
    }

    async fn send(
        &self,
        one: &Outgoing,
        method: Method,
        path: String,
        body: String,
    ) -> Result<bytes::Bytes, AlertmanagerError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| AlertmanagerError::Config(error.to_string()))?;
        match one.send(request, MAX_ANSWER).await? {
            (status, body) if status.is_success() => Ok(body),
            (status, _) => Err(AlertmanagerError::Refused { url: one.base().to_string(), status }),
        }
    }
}

/// Fingerprints of the alerts that an Alertmanager lists. Pure.
pub fn read_list(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct ListedAlert {
        fingerprint: String,
    }
    let listed: Vec<ListedAlert> = serde_json::from_slice(body).ok()?;
    Some(listed.into_iter().map(|alert| alert.fingerprint).collect())
}

#[cfg(test)]
mod tests {
    use prompt_rollback_testkit::Flood;

    use futures_util::StreamExt;

    use super::*;
    use crate::config::Config;

    fn of(flood: &Flood) -> Alertmanagers {
        Alertmanagers::new(&AlertmanagerConfig { urls: vec![flood.url()], ..Config::default().alertmanager }).unwrap()
    }

    const ONE: &str = r#"[{"fingerprint":"0123456789abcdef"}]"#;

    #[tokio::test]
    async fn a_list_is_read_up_to_its_limit() {
        let flood = Flood::start(ONE, Some(MAX_ANSWER)).await.unwrap();
        let listed = of(&flood).fingerprints("prompt", "p").await.unwrap();
        assert_eq!(listed, HashSet::from(["0123456789abcdef".to_owned()]));
    }

    #[tokio::test]
    async fn an_alertmanager_that_answers_too_much_or_without_end_is_named() {
        for length in [Some(MAX_ANSWER + 1), None] {
            let flood = Flood::start(ONE, length).await.unwrap();
            let expected = format!("alertmanager: the answer from {} is larger than 4194304 bytes", flood.url());
            let error = of(&flood).fingerprints("prompt", "p").await.unwrap_err();
            assert_eq!(error.to_string(), expected);
            let alert = OwnAlert {
                labels: BTreeMap::new(),
                annotations: Vec::new(),
                starts_at: "2026-11-21T00:38:16Z".to_owned(),
                ends_at: "2026-11-21T00:48:16Z".to_owned(),
            };
            let posted = of(&flood).post_each(&alert).next().await.unwrap();
            assert_eq!(posted.1.unwrap_err().to_string(), expected);
        }
    }
}
