//! Which prompt server recorded series are about. Pure.
//!
//! The rules keep the label `instance`. Behind one address for several Prometheus servers (Thanos, Mimir), series have
//! further labels, such as the cluster, and the same `instance` may exist in several clusters.

use hyper::StatusCode;

use super::client::{PrometheusError, Series};
use super::quoting::text_in_pattern;
use crate::config::Labels;

/// Labels by which Prometheus servers of a high-availability pair differ. They measure the same prompt servers.
const REPLICAS: [&str; 5] = ["replica", "prometheus_replica", "__replica__", "rule_replica", "receive_replica"];
/// Two jobs that scrape one instance measure the same prompt server too.
const JOB: &str = "job";

/// The labels by which only those differ that measured the same.
pub fn replica_labels(labels: &Labels) -> impl Iterator<Item = &str> {
    REPLICAS.into_iter().chain([JOB]).chain(labels.replicas.iter().map(String::as_str))
}

/// A prompt server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server<'a> {
    pub instance: &'a str,
    /// The other labels that tell servers apart.
    pub others: Vec<(&'a str, &'a str)>,
}

impl<'a> Server<'a> {
    pub fn of(labels: &Labels, series: &'a Series) -> Self {
        let known = ["__name__", "instance", labels.prompt.as_str(), labels.version.as_str()];
        let others = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let tells_apart = |name: &str| !known.contains(&name) && replica_labels(labels).all(|replica| replica != name);
        let others = others.filter(|(name, _)| tells_apart(name)).collect();
        Self { instance: series.label("instance"), others }
    }
}

/// Prompt servers that Prometheus knows, but cannot scrape now. Whether they still serve, and what, is unknown.
#[derive(Debug, Clone)]
pub enum Unscraped {
    Known(Vec<Series>),
    /// Prometheus did not say.
    Unknown,
}

impl Unscraped {
    /// The query for those of `instances`.
    pub fn question<'a>(instances: impl IntoIterator<Item = &'a str>) -> String {
        let any: Vec<_> = instances.into_iter().map(text_in_pattern).collect();
        format!("up{{instance=~\"{}\"}} == 0", any.join("|"))
    }

    /// Parses the answer; `None`: there was none.
    pub fn read(answer: Option<Result<Vec<Series>, PrometheusError>>) -> Self {
        match answer {
            Some(Ok(unscraped)) => Self::Known(unscraped),
            // a proxy that permits no query without the label of a tenant would never answer this one
            Some(Err(PrometheusError::Refused { status: StatusCode::FORBIDDEN, .. })) => Self::Known(Vec::new()),
            Some(Err(_)) | None => Self::Unknown,
        }
    }

    /// Whether `server` may be one. A label that `up` does not have tells nothing.
    pub fn may_hold(&self, server: &Server<'_>) -> bool {
        let Self::Known(unscraped) = self else { return true };
        unscraped.iter().any(|up| {
            let agrees = |(name, value): &(&str, &str)| ["", *value].contains(&up.label(name));
            up.label("instance") == server.instance && server.others.iter().all(agrees)
        })
    }
}

/// Which Prometheus server of a pair recorded the series, and which of its jobs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica<'a>(Vec<&'a str>);

impl<'a> Replica<'a> {
    pub fn of(labels: &Labels, series: &'a Series) -> Self {
        Self(replica_labels(labels).map(|name| series.label(name)).collect())
    }
}
