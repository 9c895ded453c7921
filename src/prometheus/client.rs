//! Prometheus' HTTP API: instant and range queries.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;

use crate::decision::Timestamp;
use crate::outgoing::{BaseUrl, Outgoing, OutgoingError, encode};

/// For one query. A rollback that waits for it waits no longer than this.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of what Prometheus says about a query that it refuses.
const MAX_MESSAGE: usize = 200;

#[derive(Debug, Clone, thiserror::Error)]
pub enum PrometheusError {
    #[error("prometheus: {0}")]
    NoAnswer(String),
    /// Such as an expression that does not parse.
    #[error("prometheus refuses the query ({status}): {message}")]
    Refused { status: StatusCode, message: String },
    #[error("prometheus answered what is no result of a query")]
    Unreadable,
    /// Behind one address, as of Thanos or VictoriaMetrics, not all stores answered.
    #[error("prometheus gave a partial answer: {0}")]
    Partial(String),
    #[error("prometheus.url: {0}")]
    Config(String),
}

impl From<OutgoingError> for PrometheusError {
    fn from(error: OutgoingError) -> Self {
        Self::NoAnswer(error.to_string())
    }
}

/// One series of a result: its labels without the name, and its points, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub points: Vec<(Timestamp, f64)>,
}

impl Series {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The newest value. NaN and infinities are values of Prometheus.
    pub fn value(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |(_, value)| *value)
    }
}

#[derive(Debug, Clone)]
pub struct Prometheus(Outgoing);

#[derive(Deserialize)]
struct Reply {
    data: Option<Data>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    /// VictoriaMetrics.
    #[serde(default, rename = "isPartial")]
    partial: bool,
}

impl Reply {
    /// What keeps the answer from being whole. Prometheus' remarks on the expression do not.
    fn missing(&self) -> Option<&str> {
        let remark = |warning: &&String| warning.starts_with("PromQL info:") || warning.starts_with("PromQL warning:");
        let warning = self.warnings.iter().find(|warning| !remark(warning)).map(String::as_str);
        warning.or(self.partial.then_some("isPartial"))
    }
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar((f64, String)),
    Vector(Vec<VectorItem>),
    Matrix(Vec<MatrixItem>),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct VectorItem {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct MatrixItem {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Prometheus {
    pub fn new(url: &str) -> Result<Self, PrometheusError> {
        let base: BaseUrl = url.parse().map_err(PrometheusError::Config)?;
        Ok(Self(Outgoing::new(base, TIMEOUT)?))
    }

    /// Evaluates `query` now, by the clock of Prometheus. A scalar is one series without labels.
    pub async fn instant(&self, query: &str) -> Result<Vec<Series>, PrometheusError> {
        self.ask("/api/v1/query", format!("query={}", encode(query))).await
    }

    /// Evaluates `query` at each `step` from `from` to `to`.
    pub async fn range(
        &self,
        query: &str,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Series>, PrometheusError> {
        let [from, to] = [from, to].map(|at| at.0 as f64 / 1e3);
        let step = step.as_secs_f64();
        self.ask("/api/v1/query_range", format!("query={}&start={from}&end={to}&step={step}", encode(query))).await
    }

    async fn ask(&self, path: &str, form: String) -> Result<Vec<Series>, PrometheusError> {
        // POST: a query about many prompts is longer than an address may be
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))
            .map_err(|error| PrometheusError::Config(error.to_string()))?;
        let (status, body) = self.0.send(request).await?;
        read_answer(status, &body)
    }
}

/// Reads what Prometheus answered to a query. Pure.
pub fn read_answer(status: StatusCode, body: &[u8]) -> Result<Vec<Series>, PrometheusError> {
    let reply: Result<Reply, _> = serde_json::from_slice(body);
    if !status.is_success() {
        let message = shortened(&reply.map_or_else(|_| String::new(), |reply| reply.error));
        return Err(PrometheusError::Refused { status, message });
    }
    if let Some(missing) = reply.as_ref().ok().and_then(Reply::missing) {
        return Err(PrometheusError::Partial(shortened(missing)));
    }
    match reply.ok().and_then(|reply| reply.data) {
        Some(Data::Scalar(point)) => Ok(vec![Series { labels: BTreeMap::new(), points: vec![read(&point)?] }]),
        Some(Data::Vector(items)) => {
            items.into_iter().map(|item| Ok(Series { labels: item.metric, points: vec![read(&item.value)?] })).collect()
        }
        Some(Data::Matrix(items)) => items
            .into_iter()
            .map(|item| {
                let points = item.values.iter().map(read).collect::<Result<_, _>>()?;
                Ok(Series { labels: item.metric, points })
            })
            .collect(),
        Some(Data::String(_)) | None => Err(PrometheusError::Unreadable),
    }
}

fn shortened(message: &str) -> String {
    message.chars().filter(|c| !crate::visible::is_hidden(*c)).take(MAX_MESSAGE).collect()
}

fn read((at, value): &(f64, String)) -> Result<(Timestamp, f64), PrometheusError> {
    let value = match value.as_str() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().map_err(|_| PrometheusError::Unreadable)?,
    };
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    let at = Timestamp((at * 1e3).round() as i64);
    Ok((at, value))
}
