//! Which prompt server recorded series are about. Pure.
//!
//! The rules keep the label `instance`. Behind one address for several Prometheus servers (Thanos, Mimir), series have
//! further labels, such as the cluster, and the same `instance` may exist in several clusters.

use std::time::Duration;

use hyper::StatusCode;

use super::client::{PrometheusError, Series};
use super::quoting::text_in_pattern;
use crate::config::Labels;
use crate::decision::Timestamp;

/// Labels by which Prometheus servers of a high-availability pair differ. They measure the same prompt servers.
const REPLICAS: [&str; 5] = ["replica", "prometheus_replica", "__replica__", "rule_replica", "receive_replica"];
/// Two jobs that scrape one instance measure the same prompt server too.
const JOB: &str = "job";

/// The labels by which only those differ that measured the same.
pub fn replica_labels(labels: &Labels) -> impl Iterator<Item = &str> {
    REPLICAS.into_iter().chain([JOB]).chain(labels.replicas.iter().map(String::as_str))
}

/// Recorded at each evaluation of the rules, whatever is scraped.
const EVALUATED: &str = "prompt_rollback:rules_evaluated:timestamp_seconds";
/// An instance whose counters Prometheus has not had for this long, while it had others, has vanished. It has gone unless Prometheus
/// still tries to scrape it.
pub const VANISHED: Duration = Duration::from_secs(60);

/// Whether a server, whose counters Prometheus last had at `recorded`, has vanished. A single scrape may fail just when a point is
/// taken, so it lacks more than two of the points, which are `every` apart.
pub fn has_vanished(recorded: Timestamp, newest: Timestamp, every: Duration) -> bool {
    newest.since(recorded) > VANISHED.max(every.saturating_mul(2))
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

    /// Whether the series `up` is about this server. A label that `up` does not have tells nothing.
    fn is_target(&self, up: &Series) -> bool {
        let agrees = |(name, value): &(&str, &str)| ["", *value].contains(&up.label(name));
        up.label("instance") == self.instance && self.others.iter().all(agrees)
    }
}

/// Which prompt servers Prometheus scrapes now, or tries to.
#[derive(Debug, Clone)]
pub enum ScrapeTargets {
    Known {
        /// The series `up` of the servers that were asked about.
        up: Vec<Series>,
        /// When the rules were last evaluated.
        evaluated: Timestamp,
    },
    /// Prometheus did not say.
    Unknown,
}

impl ScrapeTargets {
    pub const NONE: Self = Self::Known { up: Vec::new(), evaluated: Timestamp(0) };

    /// The query for those of `instances`.
    pub fn question<'a>(instances: impl IntoIterator<Item = &'a str>) -> String {
        let any: Vec<_> = instances.into_iter().map(text_in_pattern).collect();
        format!("up{{instance=~\"{}\"}} or max({EVALUATED})", any.join("|"))
    }

    /// Parses the answer; `None`: there was none.
    pub fn read(answer: Option<Result<Vec<Series>, PrometheusError>>) -> Self {
        match answer {
            Some(Ok(series)) => {
                let (up, evaluated): (Vec<_>, Vec<_>) = series.into_iter().partition(|one| !one.labels.is_empty());
                #[allow(clippy::cast_possible_truncation, reason = "saturates")]
                let evaluated = evaluated.first().map_or(Timestamp(0), |one| Timestamp((one.value() * 1e3) as i64));
                Self::Known { up, evaluated }
            }
            // a proxy that permits no query without the label of a tenant would never answer this one
            Some(Err(PrometheusError::Refused { status: StatusCode::FORBIDDEN, .. })) => Self::NONE,
            Some(Err(_)) | None => Self::Unknown,
        }
    }

    /// Whether `server`, whose counters Prometheus last had at `recorded`, has gone, and serves nothing. `newest`: when Prometheus
    /// last had the counters of any server of the prompt. `every`: how far apart the points of the answer are. The last point
    /// may be that old although the server is scraped.
    pub fn is_gone(&self, server: &Server<'_>, recorded: Timestamp, newest: Timestamp, every: Duration) -> bool {
        let Self::Known { up, evaluated } = self else { return false };
        let of_server = || up.iter().filter(|up| server.is_target(up));
        if has_vanished(recorded, newest, every) {
            // Prometheus may still try to scrape it; it may then serve anything
            return of_server().all(|up| up.value() != 0.0);
        }
        // the last server of its prompt: its counters also stop when no rules are evaluated, or when the scrapes fail
        evaluated.since(recorded) > VANISHED + every && of_server().next().is_none()
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
