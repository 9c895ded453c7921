//! Spans: in log lines, and at a collector.

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Receiver, ReceiverBuilder, Redis, eventually};
use serde_json::Value;

use crate::common::{ROLLED_BACK, SOON, critical, deliver, delivery, exchange, outcomes, ship};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

fn receiver(redis: &Redis) -> ReceiverBuilder {
    Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback")).env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
}

/// A POST with these headers, each with its line end; gives the whole answer.
async fn post(receiver: &Receiver, path: &str, headers: &str, body: &str) -> Result<String> {
    let address = receiver.addr().parse()?;
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
    exchange(address, format!("{head}{headers}\r\n{body}").as_bytes()).await
}

/// One delivery, rolled back, whose caller says this of its trace.
async fn deliver_traced(receiver: &Receiver, alerts: &[Value], headers: &str) -> Result<()> {
    let answer = post(receiver, "/webhooks/alertmanager", headers, &delivery(alerts)).await?;
    let rolled_back = answer.matches("\"rolled_back\"").count();
    ensure!(answer.starts_with("HTTP/1.1 200 ") && rolled_back == alerts.len(), "{answer}");
    Ok(())
}

const CHANGED: &str = "the active version or its traffic has changed";

/// The log lines about prompts that alerts rolled back.
async fn changed(receiver: &Receiver, count: usize) -> Result<Vec<String>> {
    let lines = || -> Vec<String> {
        let log = receiver.log();
        let rolled_back = log.lines().filter(|line| line.contains(CHANGED) && line.contains("\"rollback\""));
        rolled_back.map(str::to_owned).collect()
    };
    let found = eventually(CHANGED, SOON, async || Some(lines()).filter(|lines| lines.len() >= count)).await;
    found.with_context(|| receiver.log())
}

#[tokio::test]
async fn log_lines_carry_what_a_request_is_about_each_field_once() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = receiver(&redis).start()?;
    let http = receiver.http();
    for prompt in ["p", "q", "r"] {
        ship(&http, prompt).await?;
    }
    deliver_traced(&receiver, &[critical("p")], &format!("traceparent: {}\r\n", traceparent())).await?;
    let line = changed(&receiver, 1).await?.remove(0);
    let carried = format!("webhook{{trace_id={TRACE} prompt=p version=v2 incident=01");
    assert!(line.contains(&carried), "{line}");
    let span = &line[line.find("webhook{").context("a span")?..line.find(CHANGED).context("a message")?];
    for field in ["prompt=", "version=", "incident=", "trace_id="] {
        assert_eq!(span.matches(field).count(), 1, "{field}: {line}");
    }
    // several prompts: each line is about its own
    assert_eq!(outcomes(&deliver(&http, &[critical("q"), critical("r")]).await?)?, [ROLLED_BACK; 2]);
    let lines = changed(&receiver, 3).await?;
    for (line, prompt) in lines[1..].iter().zip(["q", "r"]) {
        assert!(line.contains("webhook:alerts{") && line.contains(&format!("{{prompt={prompt} version=v2 ")), "{line}");
    }
    let request = serde_json::json!({"prompt": "p", "target_version": "v2", "operator": "mia", "force": true});
    assert_eq!(http.post_json("/api/rollback", &request).await?.status, 200);
    let line = changed(&receiver, 4).await?.pop().context("a line")?;
    assert!(line.contains("api{prompt=p version=v1"), "{line}");
    Ok(())
}

#[tokio::test]
async fn log_lines_as_json_carry_it_too_at_every_level() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = receiver(&redis).config("[log]\nformat = \"json\"\n").start()?;
    ship(&receiver.http(), "p").await?;
    deliver_traced(&receiver, &[critical("p")], "").await?;
    let line: Value = serde_json::from_str(&changed(&receiver, 1).await?[0])?;
    let span = &line["span"];
    assert_eq!((&span["name"], &span["prompt"], &span["version"]), (&"webhook".into(), &"p".into(), &"v2".into()));
    assert_eq!(span["incident"], line["fields"]["incident"]);
    receiver.write_config("[log]\nformat = \"json\"\nlevel = \"warn\"\n")?;
    assert_eq!(receiver.http().post("/-/reload", "").await?.status, 200);
    // a warning that a request causes
    let mut unknown = critical("p");
    unknown["labels"]["version"] = "v9".into();
    deliver(&receiver.http(), &[unknown]).await?;
    let warned = eventually("a warning", SOON, async || {
        let log = receiver.log();
        let line = log.lines().rfind(|line| line.contains("a version that its prompt never had"))?;
        serde_json::from_str::<Value>(line).ok()
    });
    assert_eq!(warned.await?["span"]["name"], "webhook");
    Ok(())
}

#[tokio::test]
async fn a_malformed_trace_is_ignored() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = receiver(&redis).start()?;
    for (prompt, headers) in [
        ("a", "traceparent: garbage\r\n".to_owned()),
        ("b", format!("traceparent: {}\r\ntracestate: \u{e9}\r\n", traceparent().to_uppercase())),
        ("c", format!("traceparent: {}\r\ntraceparent: {}\r\n", traceparent(), traceparent())),
        ("d", format!("traceparent: 00-{TRACE}-0000000000000000-01\r\ntracestate: {}\r\n", "x".repeat(2_000))),
    ] {
        ship(&receiver.http(), prompt).await?;
        deliver_traced(&receiver, &[critical(prompt)], &headers).await?;
    }
    for line in changed(&receiver, 4).await? {
        assert!(!line.contains(TRACE) && !line.contains(&TRACE.to_uppercase()), "{line}");
    }
    Ok(())
}

#[cfg(feature = "otlp")]
mod exported {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{HeaderMap, Request, Response};
    use hyper_util::rt::TokioIo;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::KeyValue;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::trace::v1::Span as Exported;
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use prompt_rollback_testkit::slack::Slack;
    use prompt_rollback_testkit::webhook::Webhook;
    use prompt_rollback_testkit::{Port, Prometheus};
    use prost::Message;
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::common::{alert, incidents};

    /// A span as the collector got it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Span {
        name: String,
        kind: i32,
        trace: String,
        id: String,
        parent: String,
        state: String,
        failed: bool,
        attributes: BTreeMap<String, String>,
        /// Traces that it is linked to.
        links: Vec<String>,
        /// All that is said in it.
        text: String,
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
        let value = |pair: &KeyValue| match pair.value.as_ref()?.value.as_ref()? {
            Any::StringValue(text) => Some(text.clone()),
            Any::IntValue(number) => Some(number.to_string()),
            other => Some(format!("{other:?}")),
        };
        attributes.iter().map(|pair| (pair.key.clone(), value(pair).unwrap_or_default())).collect()
    }

    impl Span {
        fn read(span: &Exported) -> Self {
            Self {
                name: span.name.clone(),
                kind: span.kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                state: span.trace_state.clone(),
                failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                attributes: attributes(&span.attributes),
                links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                text: format!("{span:?}"),
            }
        }

        fn said(&self, name: &str) -> &str {
            self.attributes.get(name).map_or("", String::as_str)
        }
    }

    #[derive(Debug, Default)]
    struct Received {
        spans: Vec<Span>,
        resources: Vec<BTreeMap<String, String>>,
        /// Head and body of each request.
        requests: Vec<(String, HeaderMap, Bytes)>,
    }

    /// Answers every POST with 200. What comes to the path of OTLP is read as such.
    struct Collector {
        address: SocketAddr,
        received: Arc<Mutex<Received>>,
        task: JoinHandle<()>,
    }

    impl Drop for Collector {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Collector {
        async fn start() -> Result<Self> {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let (address, received) = (listener.local_addr()?, Arc::<Mutex<Received>>::default());
            let theirs = Arc::clone(&received);
            let task = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let received = Arc::clone(&theirs);
                    tokio::spawn(async move {
                        let service = service_fn(|request| take(request, &received));
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
            Ok(Self { address, received, task })
        }

        fn url(&self) -> String {
            format!("http://{}", self.address)
        }

        fn with<T>(&self, read: impl FnOnce(&Received) -> T) -> T {
            read(&self.received.lock().unwrap_or_else(PoisonError::into_inner))
        }

        fn spans(&self) -> Vec<Span> {
            self.with(|received| received.spans.clone())
        }

        /// Waits for spans of these names in a trace, and gives all spans of the trace.
        async fn trace(&self, trace: &str, names: &[&str]) -> Result<Vec<Span>> {
            let of_trace = || -> Vec<Span> { self.spans().into_iter().filter(|span| span.trace == trace).collect() };
            let found = eventually("the spans of a trace", SOON, async || {
                let spans = of_trace();
                names.iter().all(|name| spans.iter().any(|span| span.name == *name)).then_some(spans)
            });
            let named =
                || self.spans().iter().map(|span| format!("{} {}", span.trace, span.name)).collect::<BTreeSet<_>>();
            found.await.with_context(|| format!("{names:?} in {:#?}", named()))
        }
    }

    async fn take(
        request: Request<Incoming>,
        received: &Mutex<Received>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        if head.uri.path() == "/v1/traces" {
            let export = ExportTraceServiceRequest::decode(body.clone()).expect("an export");
            for of_resource in &export.resource_spans {
                let resource = of_resource.resource.as_ref().map(|resource| attributes(&resource.attributes));
                received.resources.extend(resource);
                let spans = of_resource.scope_spans.iter().flat_map(|scope| &scope.spans);
                received.spans.extend(spans.map(Span::read));
            }
        }
        received.requests.push((head.uri.to_string(), head.headers, body));
        Ok(Response::new(Full::default()))
    }

    fn exporting(redis: &Redis, endpoint: &str) -> ReceiverBuilder {
        receiver(redis).env("PROMPT_ROLLBACK_TRACING__OTLP_ENDPOINT", endpoint)
    }

    /// The one span of this name.
    fn one<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
        let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        ensure!(found.len() == 1, "{} spans {name}: {found:#?}", found.len());
        Ok(found[0])
    }

    const DELIVERY: &str = "POST /webhooks/alertmanager";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_trace_leads_from_a_delivery_to_its_verification_and_notifications() -> Result<()> {
        const SECRETS: [&str; 6] = [
            "webhook-token-s3cret",
            "api-token-s3cret",
            "webhook-signing-s3cret",
            "query-secret",
            "otlp-s3cret",
            "hunter2-in-the-body",
        ];
        let (redis, collector) = (Redis::start()?, Collector::start().await?);
        let prometheus = Prometheus::builder("global:\n  scrape_interval: 1s\n").start()?;
        let slack = Slack::builder().user("U1", "maya", "Maya Lind").channel("C1", "incidents").start()?;
        let hook = Webhook::start(SECRETS[2]).await?;
        let receiver = exporting(&redis, &collector.url())
            .file("otlp_headers", format!("authorization=Bearer%20{},x-tenant=team-a\n", SECRETS[4]))
            .config("[tracing]\notlp_headers_file = \"otlp_headers\"\n")
            .env("OTEL_SERVICE_NAME", "rollbacks")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
            .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", SECRETS[0])
            .env("PROMPT_ROLLBACK_SERVER__API_TOKEN", SECRETS[1])
            .env("PROMPT_ROLLBACK_PROMETHEUS__URL", prometheus.url())
            .env("PROMPT_ROLLBACK_VERIFICATION__EVERY", "1s")
            .env("PROMPT_ROLLBACK_SLACK__BOT_TOKEN", slack.bot_token())
            .env("PROMPT_ROLLBACK_SLACK__SIGNING_SECRET", slack.signing_secret())
            .env("PROMPT_ROLLBACK_SLACK__API_URL", slack.api_url())
            .env("PROMPT_ROLLBACK_WEBHOOKS__AUDIT__URL", hook.url())
            .env("PROMPT_ROLLBACK_WEBHOOKS__AUDIT__SECRET", SECRETS[2])
            .start()?;
        ship(&receiver.http().token(SECRETS[1]), "p").await?;
        // one notification is about what happened since the last one
        eventually("the events of shipping", SOON, async || (hook.taken().len() >= 2).then_some(())).await?;
        let mut critical = critical("p");
        critical["annotations"]["password"] = SECRETS[5].into();
        critical["labels"]["password"] = SECRETS[5].into();
        let headers = format!(
            "traceparent: {}\r\ntracestate: vendor=abc\r\nAuthorization: Bearer {}\r\n",
            traceparent(),
            SECRETS[0]
        );
        deliver_traced(&receiver, &[critical], &headers).await?;
        let names = [
            DELIVERY,
            "load",
            "commit",
            "task check",
            "task act",
            "notify slack",
            "chat.postMessage",
            "notify webhook.audit",
        ];
        let spans = collector.trace(TRACE, &names).await?;
        let incident = incidents(&redis, "p").await?.pop().context("an incident")?;
        let id = incident["id"].as_str().context("an id")?;

        let root = one(&spans, DELIVERY)?;
        assert_eq!((root.parent.as_str(), root.state.as_str()), (CALLER, "vendor=abc"));
        assert_eq!((root.kind, root.failed), (SpanKind::Server as i32, false));
        for (name, value) in [
            ("prompt", "p"),
            ("version", "v2"),
            ("incident", id),
            ("http.request.method", "POST"),
            ("http.route", "/webhooks/alertmanager"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(root.said(name), value, "{name}");
        }
        for name in ["load", "commit"] {
            let calls: Vec<_> = spans.iter().filter(|span| span.name == name && span.parent == root.id).collect();
            assert_eq!(
                (calls.len(), calls[0].kind, calls[0].said("db.system.name")),
                (1, SpanKind::Client as i32, "redis")
            );
        }
        // whoever picks the work up finds the trace with the incident
        assert_eq!(incident["trace"]["parent"], format!("00-{TRACE}-{}-01", root.id));
        let below = |parent: &Span, name: &str| spans.iter().find(|s| s.name == name && s.parent == parent.id).cloned();
        let check = below(root, "task check").context("a check below the delivery")?;
        let asked = below(&check, "POST").context("Prometheus is asked")?;
        assert_eq!((asked.said("server.address"), asked.said("http.response.status_code")), ("127.0.0.1", "200"));
        let act = below(root, "task act").context("a task below the delivery")?;
        assert_eq!((act.said("incident"), act.said("prompt"), act.said("version")), (id, "p", "v2"));
        let told = below(root, "notify slack").context("a notification below the delivery")?;
        assert_eq!((told.kind, told.said("incident")), (SpanKind::Consumer as i32, id));
        below(&told, "chat.postMessage").context("a call of Slack below its notification")?;
        let done = async || hook.taken().into_iter().find(|event| event.kind() == "rollback.done");
        let got = eventually("an event", SOON, done).await?;
        assert_eq!(got.event["traceparent"], format!("00-{TRACE}-{}-01", root.id));
        assert_eq!(got.event["tracestate"], "vendor=abc");
        let handed = got.header("traceparent").to_owned();
        let sent = eventually("the span that the webhook was told", SOON, async || {
            let spans = collector.spans();
            let sent = spans.iter().find(|span| handed == format!("00-{TRACE}-{}-01", span.id))?;
            spans.iter().find(|span| span.id == sent.parent).cloned()
        });
        let sent = sent.await.with_context(|| handed.clone())?;
        assert_eq!((sent.name.as_str(), &sent.parent), ("notify webhook.audit", &root.id));
        assert_eq!(got.header("tracestate"), "vendor=abc");

        let resource = collector.with(|received| received.resources[0].clone());
        for (name, value) in [("service.name", "rollbacks"), ("deployment.environment.name", "test")] {
            assert_eq!(resource.get(name).map(String::as_str), Some(value), "{resource:?}");
        }
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        collector.with(|received| {
            for (path, headers, _) in &received.requests {
                assert_eq!(
                    (path.as_str(), &headers["content-type"]),
                    ("/v1/traces", &"application/x-protobuf".parse().unwrap())
                );
                assert_eq!(headers["authorization"], format!("Bearer {}", SECRETS[4]));
                assert_eq!(headers["x-tenant"], "team-a");
                assert!(!headers.contains_key("traceparent"), "exports are in no trace");
            }
        });
        let text: String = collector.spans().iter().map(|span| span.text.as_str()).collect();
        for secret in SECRETS.into_iter().chain([slack.bot_token(), slack.signing_secret()]) {
            assert!(!text.contains(secret), "{secret} is in a span");
            assert!(!receiver.log().contains(secret), "{secret} is in the log");
        }
        let metrics = receiver.http().get("/metrics").await?.text();
        assert!(!metrics.contains("trace_spans_total{result=\"exported\"} 0\n"), "{metrics}");
        for result in ["failed", "dropped"] {
            assert!(metrics.contains(&format!("trace_spans_total{{result=\"{result}\"}} 0\n")), "{result}: {metrics}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_trace_that_a_caller_of_the_api_began_reaches_the_teams_own_test() -> Result<()> {
        let (redis, collector, test) = (Redis::start()?, Collector::start().await?, Collector::start().await?);
        let receiver = exporting(&redis, &collector.url())
            .env("PROMPT_ROLLBACK_REGISTRY__BASELINE_URL", format!("{}/try", test.url()))
            .start()?;
        ship(&receiver.http(), "p").await?;
        let body = json!({"prompt": "p", "operator": "mia"}).to_string();
        let answer = post(&receiver, "/api/rollback", &format!("traceparent: {}\r\n", traceparent()), &body).await?;
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        let spans = collector.trace(TRACE, &["POST /api/rollback", "task act", "POST"]).await?;
        let root = one(&spans, "POST /api/rollback")?;
        assert_eq!((root.parent.as_str(), root.said("prompt"), root.said("version")), (CALLER, "p", "v2"));
        let act = spans.iter().find(|span| span.name == "task act").context("a task")?;
        assert_eq!(act.parent, root.id);
        let asked = spans.iter().find(|span| span.name == "POST").context("a request")?;
        let (path, headers, _) = test.with(|received| received.requests[0].clone());
        assert_eq!(
            (path.as_str(), headers["traceparent"].to_str()?),
            ("/try", &*format!("00-{TRACE}-{}-01", asked.id))
        );
        Ok(())
    }

    #[tokio::test]
    async fn the_sampling_decision_of_the_caller_is_kept() -> Result<()> {
        let (redis, collector) = (Redis::start()?, Collector::start().await?);
        let mut receiver =
            exporting(&redis, &collector.url()).env("PROMPT_ROLLBACK_TRACING__SAMPLE_RATIO", "0").start()?;
        for prompt in ["a", "b", "c"] {
            ship(&receiver.http(), prompt).await?;
        }
        deliver_traced(&receiver, &[critical("a")], "").await?;
        let unsampled = traceparent().replace("-01", "-00");
        deliver_traced(&receiver, &[critical("b")], &format!("traceparent: {unsampled}\r\n")).await?;
        let kept = incidents(&redis, "b").await?.pop().context("an incident")?;
        assert_eq!(kept.get("trace"), None, "nobody continues what nobody sees");
        deliver_traced(&receiver, &[critical("c")], &format!("traceparent: {}\r\n", traceparent())).await?;
        // the last spans are exported before the end
        let status = tokio::task::spawn_blocking(move || receiver.sigterm()).await??;
        assert_eq!(status.code(), Some(0));
        let spans = collector.trace(TRACE, &[DELIVERY]).await?;
        assert_eq!(one(&spans, DELIVERY)?.said("prompt"), "c");
        let foreign: Vec<_> = collector.spans().into_iter().filter(|span| span.trace != TRACE).collect();
        assert!(foreign.is_empty(), "{foreign:#?}");
        Ok(())
    }

    /// Takes connections and never answers.
    async fn black_hole() -> Result<(String, JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(stream);
            }
        });
        Ok((url, task))
    }

    async fn counted(receiver: &Receiver, result: &str) -> Result<u64> {
        let metrics = receiver.http().get("/metrics").await?.text();
        let name = format!("prompt_rollback_trace_spans_total{{result=\"{result}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).context("the series")?;
        Ok(line.parse()?)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hanging_collector_delays_nothing_and_drops_are_counted() -> Result<()> {
        let redis = Redis::start()?;
        let (hole, _task) = black_hole().await?;
        let mut receiver = exporting(&redis, &hole).env("PROMPT_ROLLBACK_SERVER__SHUTDOWN_TIMEOUT", "2s").start()?;
        let http = receiver.http();
        ship(&http, "p").await?;
        // each of these has two spans or more
        for _ in 0..16 {
            let unknown: Vec<Value> = (0..250).map(|n| alert(&format!("unknown-{n}"), "v1", "critical")).collect();
            assert_eq!(deliver(&http, &unknown).await?.status, 200);
        }
        assert_eq!(outcomes(&deliver(&http, &[critical("p")]).await?)?, [ROLLED_BACK]);
        assert!(counted(&receiver, "dropped").await? > 0);
        assert_eq!(counted(&receiver, "exported").await?, 0);
        let began = Instant::now();
        let (status, receiver) =
            tokio::task::spawn_blocking(move || receiver.sigterm().map(|status| (status, receiver))).await??;
        let took = began.elapsed();
        assert_eq!(status.code(), Some(0), "{}", receiver.log());
        assert!(receiver.log().contains("the last spans could not be exported in time"), "{}", receiver.log());
        assert!(took < Duration::from_secs(60), "{took:?}");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn check_connect_asks_the_collector() -> Result<()> {
        let (redis, collector) = (Redis::start()?, Collector::start().await?);
        let away = Port::claim();
        for (endpoint, says) in [
            (collector.url(), format!("{} accepts spans", collector.url())),
            (format!("http://{}", away.addr()), format!("cannot reach http://{}", away.addr())),
        ] {
            let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
            check.args(["check", "--connect"]).env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url());
            check.env("PROMPT_ROLLBACK_TRACING__OTLP_ENDPOINT", &endpoint);
            let checked = tokio::task::spawn_blocking(move || check.output()).await??;
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(said.contains("otlp collector") && said.contains(&says), "{said}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_collector_that_is_away_is_reported_once() -> Result<()> {
        let redis = Redis::start()?;
        let port = Port::claim();
        let receiver = exporting(&redis, &format!("http://{}", port.addr())).start()?;
        ship(&receiver.http(), "p").await?;
        deliver_traced(&receiver, &[critical("p")], "").await?;
        eventually("spans that were not taken", SOON, async || {
            counted(&receiver, "failed").await.ok().filter(|failed| *failed > 0)
        })
        .await?;
        let told = |text: &str| receiver.log().matches(text).count();
        eventually("a warning", SOON, async || (told("spans cannot be exported") == 1).then_some(())).await?;
        assert!(receiver.log().contains(&format!("cannot reach http://{}", port.addr())), "{}", receiver.log());
        Ok(())
    }
}
