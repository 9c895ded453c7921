//! Prometheus' HTTP API: instant and range queries, and alert rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{PrometheusConfig, format_prometheus_duration};
use crate::decision::Timestamp;
use crate::elsewhere;
use crate::http_client::{Access, BaseUrl, Outgoing, OutgoingError, encode};
use crate::rules::{self, AlertRule};

/// Concurrent queries. Others wait for a slot as long as for an answer.
const AT_ONCE: usize = 8;
/// Longest answer: measurements of many prompts, and the result of an alert's own expression, which has one value per
/// prompt.
pub(super) const MAX_ANSWER: usize = 16 << 20;
const MAX_VERIFY: usize = 1 << 20;
/// Most series that an alert's own expression may return. Prometheus before 3.0 does not know the parameter.
const MAX_SERIES: usize = 1_000;
/// Longest part of Prometheus' error message about a rejected query.
const MAX_MESSAGE: usize = 200;

#[derive(Debug, Clone, thiserror::Error)]
pub enum PrometheusError {
    #[error("prometheus: {0}")]
    NoAnswer(String),
    #[error("prometheus: {0}")]
    TooLarge(String),
    /// For example an expression that does not parse.
    #[error("Prometheus rejected the query ({status}): {message}")]
    Refused { status: StatusCode, message: String },
    #[error("Prometheus returned an unexpected response")]
    Unreadable,
    /// Not all stores behind one address (Thanos, VictoriaMetrics) answered.
    #[error("Prometheus returned a partial answer: {0}")]
    Partial(String),
    #[error("prometheus.url: {0}")]
    Config(String),
}

impl From<OutgoingError> for PrometheusError {
    fn from(error: OutgoingError) -> Self {
        match error {
            OutgoingError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            OutgoingError::Unreachable { .. } | OutgoingError::Timeout { .. } => Self::NoAnswer(error.to_string()),
        }
    }
}

/// The answer to a query.
pub type QueryResult = Result<Vec<Series>, PrometheusError>;

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

    /// The newest value. Prometheus' values include NaN and infinities.
    pub fn value(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |(_, value)| *value)
    }
}

#[derive(Debug, Clone)]
pub struct Prometheus {
    http: Outgoing,
    permits: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct QueryResponse {
    #[serde(default)]
    status: String,
    data: Option<QueryData>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    /// VictoriaMetrics' flag for a partial response.
    #[serde(default, rename = "isPartial")]
    partial: bool,
}

impl QueryResponse {
    /// What is missing in the answer. Remarks of Prometheus on the expression do not count.
    fn missing(&self) -> Option<&str> {
        let remark = |warning: &&String| warning.starts_with("PromQL info:") || warning.starts_with("PromQL warning:");
        let warning = self.warnings.iter().find(|warning| !remark(warning)).map(String::as_str);
        warning.or(self.partial.then_some("isPartial"))
    }
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum QueryData {
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
    /// `None` without `prometheus.url`.
    pub fn new(config: &PrometheusConfig) -> Result<Option<Self>, PrometheusError> {
        let Some(url) = &config.url else { return Ok(None) };
        let base: BaseUrl = url.parse().map_err(PrometheusError::Config)?;
        let http = Outgoing::with(base, Access::of(&config.http))?;
        Ok(Some(Self { http, permits: Arc::new(Semaphore::new(AT_ONCE)) }))
    }

    /// Evaluates `query` now, by Prometheus' clock. A scalar becomes one series without labels.
    pub async fn instant(&self, query: &str) -> Result<Vec<Series>, PrometheusError> {
        self.ask("/api/v1/query", format!("query={}", encode(query)), MAX_ANSWER).await
    }

    /// Like [`Prometheus::instant`], for the `verify` expressions of alerts: their author is anyone who sends alerts,
    /// so the answer is limited.
    pub async fn verify(&self, query: &str) -> Result<Vec<Series>, PrometheusError> {
        self.ask("/api/v1/query", format!("query={}&limit={MAX_SERIES}", encode(query)), MAX_VERIFY).await
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
        let form = format!("query={}&start={from}&end={to}&step={step}", encode(query));
        self.ask("/api/v1/query_range", form, MAX_ANSWER).await
    }

    /// Its alert rules. Older versions ignore `exclude_alerts`, and list the active alerts of each rule as well.
    pub async fn alert_rules(&self) -> Result<Vec<AlertRule>, PrometheusError> {
        let request = Request::get("/api/v1/rules?type=alert&exclude_alerts=true").body(Full::default());
        let (status, body) = self.send(request, MAX_ANSWER).await?;
        elsewhere::run_sized(body.len(), move || read_rules(status, &body)).await
    }

    async fn ask(&self, path: &str, form: String, max_answer: usize) -> Result<Vec<Series>, PrometheusError> {
        // no one reads a later answer, so it need not be computed
        let form = format!("{form}&timeout={}", format_prometheus_duration(self.http.timeout()));
        // POST, because a query about many prompts is longer than an address may be
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form));
        let (status, body) = self.send(request, max_answer).await?;
        elsewhere::run_sized(body.len(), move || read_answer(status, &body)).await
    }

    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), PrometheusError> {
        let request = request.map_err(|error| PrometheusError::Config(error.to_string()))?;
        let permit = timeout(self.http.timeout(), self.permits.acquire()).await;
        let _turn = permit.map_err(|_| PrometheusError::NoAnswer(format!("{AT_ONCE} queries are in progress")))?;
        Ok(self.http.send(request, max_answer).await?)
    }
}

/// Parses the answer to a request for alert rules. Pure.
fn read_rules(status: StatusCode, body: &[u8]) -> Result<Vec<AlertRule>, PrometheusError> {
    if !status.is_success() {
        return Err(refused(status, body));
    }
    rules::parse(body).ok_or(PrometheusError::Unreadable)
}

/// Parses the answer to a query. Pure.
pub fn read_answer(status: StatusCode, body: &[u8]) -> Result<Vec<Series>, PrometheusError> {
    if !status.is_success() {
        return Err(refused(status, body));
    }
    let reply: QueryResponse = serde_json::from_slice(body).map_err(|_| PrometheusError::Unreadable)?;
    // a proxy may answer 200, with whatever data it has
    if reply.status != "success" {
        return Err(refused(status, body));
    }
    if let Some(missing) = reply.missing() {
        return Err(PrometheusError::Partial(shortened(missing)));
    }
    match reply.data {
        Some(QueryData::Scalar(point)) => Ok(vec![Series { labels: BTreeMap::new(), points: vec![read(&point)?] }]),
        Some(QueryData::Vector(items)) => {
            items.into_iter().map(|item| Ok(Series { labels: item.metric, points: vec![read(&item.value)?] })).collect()
        }
        Some(QueryData::Matrix(items)) => items
            .into_iter()
            .map(|item| {
                let points = item.values.iter().map(read).collect::<Result<_, _>>()?;
                Ok(Series { labels: item.metric, points })
            })
            .collect(),
        Some(QueryData::String(_)) | None => Err(PrometheusError::Unreadable),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> PrometheusError {
    let reply: Result<QueryResponse, _> = serde_json::from_slice(body);
    let message = shortened(&reply.map_or_else(|_| String::new(), |reply| reply.error));
    PrometheusError::Refused { status, message }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Config;

    /// The queries that a Prometheus got, and how many were concurrent.
    #[derive(Default)]
    struct RecordedQueries {
        forms: Vec<String>,
        under_way: usize,
        most: usize,
    }

    /// Answers each query with as many bytes as it asks for, after a moment.
    async fn play() -> (Prometheus, Arc<Mutex<RecordedQueries>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Some(format!("http://{}", listener.local_addr().unwrap()));
        let config = PrometheusConfig { url, ..Config::default().prometheus };
        let prometheus = Prometheus::new(&config).unwrap().unwrap();
        let asked = Arc::new(Mutex::new(RecordedQueries::default()));
        let theirs = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let asked = Arc::clone(&theirs);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut request).await {
                        let text = String::from_utf8_lossy(&request[..read]).into_owned();
                        let form = text.rsplit("\r\n").next().unwrap_or_default().to_owned();
                        let bytes = form.strip_prefix("query=").and_then(|form| form.split('&').next()?.parse().ok());
                        {
                            let mut asked = asked.lock().unwrap();
                            asked.forms.push(form);
                            asked.under_way += 1;
                            asked.most = asked.most.max(asked.under_way);
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        asked.lock().unwrap().under_way -= 1;
                        let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
                        let body = format!("{body}{}", " ".repeat(bytes.unwrap_or(0_usize)));
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                    }
                });
            }
        });
        (prometheus, asked)
    }

    #[test]
    fn what_prometheus_says_has_no_hidden_characters() {
        let refused = "{\"status\":\"error\",\"error\":\"bad\u{202e} \\u009b2Jname\"}";
        let error = read_answer(StatusCode::BAD_REQUEST, refused.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "Prometheus rejected the query (400 Bad Request): bad 2Jname");
        let partial = "{\"status\":\"success\",\"warnings\":[\"a\u{2028}store is away\"]}";
        let error = read_answer(StatusCode::OK, partial.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "Prometheus returned a partial answer: astore is away");
    }

    #[test]
    fn only_an_answer_that_says_success_is_one() {
        let answer = |status: &str| {
            let data = r#""data":{"resultType":"scalar","result":[1800000000,"1"]}"#;
            read_answer(StatusCode::OK, format!(r#"{{{status}{data},"error":"store is away"}}"#).as_bytes())
        };
        assert_eq!(answer(r#""status":"success","#).unwrap().len(), 1);
        for status in [r#""status":"error","#, r#""status":"","#, ""] {
            let error = answer(status).unwrap_err().to_string();
            assert_eq!(error, "Prometheus rejected the query (200 OK): store is away");
        }
    }

    #[tokio::test]
    async fn answers_to_verify_expressions_have_a_smaller_size_limit() {
        let (prometheus, asked) = play().await;
        assert_eq!(prometheus.verify("1000").await.unwrap(), []);
        let error = prometheus.verify("1100000").await.unwrap_err().to_string();
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
        assert_eq!(prometheus.instant("1100000").await.unwrap(), []);
        let forms = &asked.lock().unwrap().forms;
        assert_eq!(forms[0], "query=1000&limit=1000&timeout=2s", "Prometheus stops when the client has given up");
        assert_eq!(forms[2], "query=1100000&timeout=2s");
    }

    #[tokio::test]
    async fn sixty_confirmations_at_once_ask_eight_at_a_time() {
        let (prometheus, asked) = play().await;
        let all = futures_util::future::join_all((0..120).map(|_| prometheus.verify("0"))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(asked.lock().unwrap().most, AT_ONCE);
    }
}
