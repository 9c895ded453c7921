//! The load on Prometheus while 1,000 rollbacks are verified at once: two receivers, built for release, on one
//! redis-server, and a double of Prometheus that counts.
//!
//! `cargo bench --bench proof [-- --fails]`
//!
//! Half of the alerts have a `verify` expression of their own. With `--fails` all have one, and none is ever healthy:
//! the largest possible number of checks, until the deadline. Fails if a target is missed.

#[allow(dead_code, reason = "shared with the other benches")]
#[path = "../shared/figures.rs"]
mod figures;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use figures::{Figure, table};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::lying_target::{self, LyingTarget, vector};
use prompt_rollback_testkit::{Receiver, Redis};
use serde_json::{Value, json};

const MANY: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(300);
/// Part of a team's own expression in a request.
const CUSTOM: &str = "expression_of_a_team";

fn receiver(redis: &Redis, prometheus: &str) -> Result<Receiver> {
    Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .config("[guards]\nmax_auto_rollbacks = 1000000000\n")
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .env("PROMPT_ROLLBACK_PROMETHEUS__URL", prometheus)
        .start()
}

fn name(number: usize) -> String {
    format!("bench-{number:04}")
}

/// The prompts in a request.
fn prompts(request: &str) -> BTreeSet<&str> {
    let names = request.match_indices("bench-").filter_map(|(at, _)| request.get(at..at + 10));
    names.filter(|name| name[6..].bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// The answer of a Prometheus that measures every prompt's `v1`.
fn answer(request: &str, healthy: bool) -> (u16, String) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let matrix = |series: Vec<String>| {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, series.join(","))
    };
    let about = prompts(request);
    if request.contains("query_range") {
        let series = |prompt: &&str| {
            format!(
                r#"{{"metric":{{"prompt":"{prompt}","version":"v2"}},"values":[[{},"0.07"],[{now},"0.07"]]}}"#,
                now - 30
            )
        };
        return (200, matrix(about.iter().map(series).collect()));
    }
    if request.contains(CUSTOM) {
        return (200, lying_target::to_each(request, if healthy { "1" } else { "0" }));
    }
    if lying_target::asks_for_counters(request) {
        let prompts: Vec<_> = about.iter().map(|prompt| (*prompt).to_owned()).collect();
        return (200, lying_target::served(&prompts, "v1", if healthy { 1 } else { 500 }));
    }
    if request.contains("count%28") {
        return (200, vector(&[]));
    }
    let metrics: Vec<String> =
        about.iter().map(|prompt| format!(r#"{{"prompt":"{prompt}","version":"v1"}}"#)).collect();
    let value = if healthy { "0.001" } else { "0.5" };
    (200, vector(&metrics.iter().map(|metric| (metric.as_str(), value)).collect::<Vec<_>>()))
}

async fn post(http: &Http, path: &str, body: &Value) -> Result<Value> {
    let answer = http.post_json(path, body).await?;
    ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
    answer.json()
}

/// All incidents, page by page.
async fn incidents(http: &Http) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut path = "/api/incidents?limit=100".to_owned();
    loop {
        let page = http.get(&path).await?.json()?;
        all.extend(page["incidents"].as_array().context("incidents")?.iter().cloned());
        let Some(next) = page["next"].as_str() else { return Ok(all) };
        path = format!("/api/incidents?limit=100&cursor={next}");
    }
}

/// The most requests within `window`, at any time.
fn most(asked: &[Instant], window: Duration) -> usize {
    let mut first = 0;
    let counts = asked.iter().enumerate().map(|(at, time)| {
        while time.duration_since(asked[first]) >= window {
            first += 1;
        }
        at + 1 - first
    });
    counts.max().unwrap_or_default()
}

async fn run(fails: bool) -> Result<Vec<Figure>> {
    let prometheus = LyingTarget::start(move |request| answer(request, !fails))?;
    let redis = Redis::start()?;
    let receivers = [receiver(&redis, &prometheus.url())?, receiver(&redis, &prometheus.url())?];
    let http = receivers[0].http();
    for number in 0..MANY {
        let path = format!("/api/prompts/{}", name(number));
        post(&http, &format!("{path}/versions"), &json!({ "version": "v1", "known_good": true })).await?;
        post(&http, &format!("{path}/activate"), &json!({ "version": "v1" })).await?;
        post(&http, &format!("{path}/versions"), &json!({ "version": "v2" })).await?;
        post(&http, &format!("{path}/activate"), &json!({ "version": "v2" })).await?;
    }
    let start = Instant::now();
    for numbers in (0..MANY).collect::<Vec<_>>().chunks(100) {
        let alert = |number: &usize| {
            let own = fails || number.is_multiple_of(2);
            json!({
                "status": "firing",
                "labels": {
                    "alertname": "PromptErrorRateCritical", "prompt": name(*number), "version": "v2",
                    "severity": "critical", "action": "rollback", "decider": "system",
                },
                "annotations": {
                    "verify": if own { format!(r#"{CUSTOM}{{prompt="$prompt",version="$version"}}"#) } else { String::new() },
                },
                "startsAt": "2026-01-01T00:00:00Z",
                "fingerprint": format!("{number:016x}"),
            })
        };
        let alerts: Vec<Value> = numbers.iter().map(alert).collect();
        let body = json!({ "version": "4", "status": "firing", "alerts": alerts });
        let text = post(&http, "/webhooks/alertmanager", &body).await?.to_string();
        ensure!(text.matches("rolled_back").count() == numbers.len(), "{text}");
    }
    let switched = start.elapsed();
    let end = if fails { "escalated" } else { "recovered" };
    let done = loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let left = incidents(&http).await?.iter().filter(|one| one["phase"] == "verifying").count();
        if left == 0 {
            break start.elapsed();
        }
        ensure!(start.elapsed() < 2 * DEADLINE, "{left} are still being verified");
    };
    let all = incidents(&http).await?;
    ensure!(all.len() == MANY, "{} incidents", all.len());
    let ended = all.iter().filter(|one| one["phase"] == end).count();
    let checks: Vec<u64> = all.iter().filter_map(|one| one["verification"]["checks"].as_u64()).collect();
    // samples for pictures are queried as well, in spare slots
    let measured = async || -> Result<usize> {
        let keys: Vec<String> = redis.cmd(&["KEYS", "{prompts}:samples:*"]).await?;
        Ok(keys.len())
    };
    let wait = Instant::now();
    while measured().await? < MANY && wait.elapsed() < Duration::from_secs(660) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let pictures = measured().await?;
    let pictured = start.elapsed();

    let requests = prometheus.requests();
    let asked: Vec<Instant> = requests.iter().map(|(at, _)| *at).collect();
    let mut of: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for (at, request) in requests.iter().filter(|(_, request)| request.contains(CUSTOM)) {
        for prompt in prompts(request) {
            of.entry(prompt).or_default().push(*at);
        }
    }
    let gaps = of.values().flat_map(|times| times.windows(2).map(|pair| pair[1].duration_since(pair[0])));
    let gap = gaps.max().unwrap_or_default();
    let seconds = |duration: Duration| format!("{:.0} s", duration.as_secs_f64());
    let (least, largest) = (most(&asked, Duration::from_secs(1)), most(&asked, Duration::from_secs(5)));
    let [fewest, most_checks] = [checks.iter().min(), checks.iter().max()].map(|n| n.copied().unwrap_or_default());
    println!(
        "{} queries; switches took {}; longest between two checks of one rollback {}",
        asked.len(),
        seconds(switched),
        seconds(gap)
    );
    let outcome = format!("{ended} of {MANY} {end} in {}", seconds(done));
    let limit = if fails { DEADLINE + Duration::from_secs(20) } else { DEADLINE };
    Ok(vec![
        Figure { what: "queries within any second", found: least.to_string(), target: "< 20", met: least < 20 },
        Figure {
            what: "queries within any five seconds",
            found: largest.to_string(),
            target: "< 100",
            met: largest < 100,
        },
        Figure {
            what: "checks of each rollback",
            found: format!("{fewest} to {most_checks}"),
            target: ">= 2",
            met: checks.len() == MANY && fewest >= 2,
        },
        Figure {
            what: "all ended",
            found: outcome,
            target: if fails { "in 320 s" } else { "in 300 s" },
            met: ended == MANY && done <= limit,
        },
        Figure {
            what: "measured for picture and draft",
            found: format!("{pictures} in {}", seconds(pictured)),
            target: "all",
            met: pictures == MANY,
        },
    ])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let figures = run(std::env::args().any(|arg| arg == "--fails")).await?;
    Ok(table(&figures))
}
