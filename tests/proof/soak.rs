//! A soak asks a real Prometheus with the shipped rules how the version served.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prompt_rollback::config::Config;
use prompt_rollback::decision::soak::SoakMeasurement;
use prompt_rollback::decision::{PromptName, Timestamp, VersionName};
use prompt_rollback::prometheus::client::{PrometheusError, Series};
use prompt_rollback::prometheus::question;
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::{Prometheus, eventually};
use serde_json::Value;

use super::servers::PromptServers;
use super::yardstick::promtool;
use super::{PROMPT, measured, prometheus};
use crate::common::{SOON, World, critical};

const HOUR: Duration = Duration::from_secs(3_600);

/// v1 is marked as known-good, v2 serves; one server without requests.
async fn quiet() -> Result<(PromptServers, Prometheus, World)> {
    let servers = PromptServers::start(1)?;
    servers.serve(0, "v2", 0, 0);
    let (prometheus, url) = prometheus(&servers)?;
    let world = World::with(&[("PROMETHEUS__URL", &url)]).await?;
    world.ship(PROMPT).await?;
    Ok((servers, prometheus, world))
}

async fn version(world: &World, name: &str) -> Option<Value> {
    let shown = world.get(&format!("/api/prompts/{PROMPT}")).await.ok()?;
    shown["versions"].as_array()?.iter().find(|version| version["version"] == name).cloned()
}

/// Advances the time to the next query of Prometheus, until `version` is as `wanted`.
async fn asked_until(world: &World, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(what, SOON, async || {
        let found = version(world, name).await?;
        if wanted(&found) {
            return Some(found);
        }
        if world.receiver.is_settled(&world.redis, &[Work::Soak]).await.ok()? {
            world.receiver.clock.advance(Duration::from_secs(60));
        }
        None
    })
    .await
}

fn note(version: &Value) -> &str {
    version["soak_note"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_traffic_makes_a_version_known_good_and_a_quiet_night_does_not() -> Result<()> {
    let (servers, prometheus, world) = quiet().await?;
    world.receiver.clock.advance(8 * HOUR);
    let found = asked_until(&world, "v2", "an answer", |version| !note(version).is_empty()).await?;
    ensure!(note(&found) == "0 of 20 requests measured" && found["known_good"] == false, "{found:#}");

    servers.serve(0, "v2", 50, 0);
    measured(&prometheus, "v2").await?;
    let found = asked_until(&world, "v2", "known-good", |version| version["known_good"] == true).await?;
    ensure!(found["known_good_by"] == "evidence", "{found:#}");
    let entry = world.log(PROMPT).await?.into_iter().find(|entry| entry["event"] == "soaked");
    ensure!(entry.as_ref().is_some_and(|entry| entry["reason"].contains("at least 20 requests")), "{entry:?}");

    // it is the rollback target of the next one
    for (what, body) in [("versions", r#"{"version":"v3"}"#), ("activate", r#"{"version":"v3"}"#)] {
        world.post(&format!("/api/prompts/{PROMPT}/{what}"), serde_json::from_str(body)?).await?;
    }
    let mut alert = critical(PROMPT);
    alert["labels"]["version"] = "v3".into();
    world.receiver.outcomes(&[alert]).await?;
    ensure!(world.active(PROMPT).await?.as_deref() == Some("v2"));
    Ok(())
}

/// No alerts are delivered here: what Prometheus recorded about its rules is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_never_soaks_although_no_alert_arrives() -> Result<()> {
    let (servers, prometheus, world) = quiet().await?;
    servers.serve(0, "v2", 100, 0);
    measured(&prometheus, "v2").await?;
    servers.serve(0, "v2", 50, 50);
    let fires = format!(r#"ALERTS{{alertname="PromptErrorRateCritical",prompt="{PROMPT}",version="v2"}}"#);
    eventually("the row fires", SOON, async || {
        prometheus.query(&fires).await.ok().filter(|found| !found.is_empty()).map(drop)
    })
    .await?;
    // the failures of a moment are few in relation to all requests
    servers.serve(0, "v2", 5_000, 0);
    let sum = |rule: &str| {
        format!(r#"sum_over_time(prompt_version:{rule}:increase1m{{prompt="{PROMPT}",version="v2"}}[1h:15s])"#)
    };
    let few = format!("{} / {} < 0.01", sum("request_errors"), sum("requests"));
    eventually(&few, SOON, async || prometheus.query(&few).await.ok().filter(|found| !found.is_empty()).map(drop))
        .await?;
    world.receiver.clock.advance(HOUR);
    let judged = |version: &Value| version["known_good"] == true || note(version).contains("restarted");
    let found = asked_until(&world, "v2", "a verdict", judged).await?;
    let restarted = note(&found).contains("soak restarted: an alert fired or an error threshold was exceeded");
    if !restarted || found["known_good"] == true || !found["soak_ends_at"].is_string() {
        let ages = format!(r#"time() - max_over_time(timestamp(ALERTS{{prompt="{PROMPT}",version="v2"}})[2h:1s])"#);
        bail!("{found:#}, although rows fired so many seconds ago: {:?}", prometheus.query(&ages).await);
    }
    Ok(())
}

/// A rule that fires during a single evaluation, at each second of a step, in windows that are sampled at each
/// interval.
#[test]
fn a_row_that_fires_for_a_second_is_found_in_a_window_of_any_length() -> Result<()> {
    const END: u64 = 6 * 3_600;
    let mut yaml = "evaluation_interval: 1s\ntests:\n  - interval: 1s\n    input_series:\n".to_owned();
    let mut asks = String::new();
    let names = Config::default().labels;
    for moment in 0..10 {
        for (state, name) in [("firing", "PromptLatencyP99Doubled"), ("pending", "PromptErrorRateCritical")] {
            let labels = format!(r#"alertname="{name}",alertstate="{state}",prompt="p{moment}-{state}",version="v2""#);
            writeln!(yaml, "      - {{series: 'ALERTS{{{labels}}}', values: '_x{} 1 stale'}}", END - 600 + moment)?;
            let (prompt, version) = (
                PromptName::parse(&format!("p{moment}-{state}")).ok().context("a prompt")?,
                VersionName::parse("v2").ok().context("v2")?,
            );
            for hours in 1..6 {
                let query = question::soak(&names, &prompt, &version, hours * HOUR);
                writeln!(
                    asks,
                    "      - {{expr: 'count({query})', eval_time: {END}s, exp_samples: [{{labels: '{{}}', value: 1}}]}}"
                )?;
            }
        }
    }
    promtool(&format!("{yaml}    promql_expr_test:\n{asks}"))
}

#[test]
fn an_answer_about_a_soak_is_read_whatever_it_holds() {
    let series = |figure: &str, value: f64| Series {
        labels: [("figure".to_owned(), figure.to_owned())].into(),
        points: vec![(Timestamp(0), value)],
    };
    let read = |all: &[(&str, f64)]| {
        question::read_soak(&Ok(all.iter().map(|(figure, value)| series(figure, *value)).collect()))
    };
    let measured = |requests, failed, exceeded: Option<u64>| {
        Ok(SoakMeasurement { requests, failed, exceeded: exceeded.map(Duration::from_secs) })
    };
    assert_eq!(read(&[]), measured(0, 0, None), "its requests are not counted");
    assert_eq!(read(&[("requests", 19.6), ("failed", 0.4), ("exceeded", 30.0)]), measured(20, 0, Some(30)));
    for odd in [f64::NAN, f64::INFINITY, -3.0] {
        assert_eq!(read(&[("requests", odd), ("failed", odd)]), measured(0, 0, None), "{odd}");
    }
    assert_eq!(read(&[("exceeded", -0.2)]), measured(0, 0, Some(0)), "its clock is a little ahead of itself");
    let away = question::read_soak(&Err(PrometheusError::NoAnswer("connection refused".to_owned())));
    assert_eq!(away, Err("prometheus: connection refused".to_owned()));
}
