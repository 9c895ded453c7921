//! `config/grafana/`: every query is valid in Prometheus, and names what exists.

use super::world::{SOON, World, metrics_of};
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::{Dir, eventually, shipped};
use serde_json::Value;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// No data without a day of traffic, an outage, or a decision before its deadline.
const MAY_BE_EMPTY: &[&str] = &["baseline", "redis_errors", "decision_deadlines"];

fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&shipped::text("config/grafana/dashboards/prompt-rollback.json")?)?)
}

/// The query that Grafana would send; `$prompt` is escaped as for a variable with several values.
fn filled_in(query: &str) -> String {
    let variables = [
        // holds what the test does at its start: some panels wait for rules that run every 15 s
        ("$__rate_interval", "5m"),
        ("$__interval_ms", "10000"),
        ("$__interval", "10s"),
        ("$__range", "1h"),
        ("$prompt", r"team/greeting\\.v2"),
    ];
    variables.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
}

fn panels(dashboard: &Value) -> Result<Vec<(&str, &str)>> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")?.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().context("title")?;
        for target in panel["targets"].as_array().context("targets")? {
            for part in [panel, target] {
                ensure!(part["datasource"]["uid"] == "${datasource}", "{title}: {}", part["datasource"]);
            }
            queries.push((title, target["expr"].as_str().context("expr")?));
        }
    }
    Ok(queries)
}

fn annotation(dashboard: &Value, name: &str) -> Result<String> {
    let list = dashboard["annotations"]["list"].as_array().context("annotations")?;
    let one = list.iter().find(|one| one["name"] == name).with_context(|| format!("no annotation {name}"))?;
    Ok(filled_in(one["expr"].as_str().context("expr")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_something() -> Result<()> {
    let prompt = "team/greeting.v2";
    let world = World::start(&[prompt]).await?;
    ensure!(world.alert(prompt, "critical").await?["outcome"] == "rolled_back");
    let dashboard = dashboard()?;
    let variable = &dashboard["templating"]["list"][1];
    ensure!(variable["query"]["query"] == "label_values(prompt_version:requests:increase5m, prompt)", "{variable}");

    let metrics = world.metrics().await?;
    let mut queries = panels(&dashboard)?;
    let annotations =
        ["Rolled back", "Shipped"].map(|name| Ok::<_, anyhow::Error>((name, annotation(&dashboard, name)?)));
    let annotations = annotations.into_iter().collect::<Result<Vec<_>>>()?;
    queries.extend(annotations.iter().map(|(name, query)| (*name, query.as_str())));
    for (title, query) in queries {
        let named = metrics_of(query);
        ensure!(!named.is_empty(), "{title} names no metric: {query}");
        for name in named {
            let buckets = name.strip_suffix("_bucket").unwrap_or(name);
            let there = metrics.contains(name) || metrics.contains(buckets);
            ensure!(there, "{title}: there is no {name}");
        }
        let query = filled_in(query);
        ensure!(!query.contains('$'), "{title}: unknown variable in {query}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let range = format!("/api/v1/query_range?query={}&start={}&end={now}&step=10", encode(&query), now - 60);
        let answer = world.prometheus.http().get(&range).await?;
        ensure!(answer.status == 200, "{title}: {query}: {}", answer.text());
        if ["Rolled back", "Shipped"].contains(&title) || MAY_BE_EMPTY.iter().any(|word| query.contains(word)) {
            continue;
        }
        eventually(&format!("{title} shows something: {query}"), SOON, async || {
            let series = world.prometheus.query(&query).await.ok()?;
            series.iter().any(|(_, value)| value.is_finite()).then_some(())
        })
        .await?;
    }
    Ok(())
}

/// The time is promtool's here: switches are minutes apart.
#[test]
fn each_switch_is_annotated_once_and_a_restart_of_the_receiver_is_none() -> Result<()> {
    let dashboard = dashboard()?;
    // v1 from the start, v2 from 5m, v1 again from 8m; the receiver is down from 10m to 11m
    let v1 = |value: &str| format!("{value}x29 stale _x17 {value}x11 stale _x5 {value}x30");
    let v2 = |value: &str| format!("_x30 {value}x17 stale");
    let series = [
        ("active_version_info", r#"version="v1",previous="v0""#, v1("1+0")),
        ("active_version_info", r#"version="v2",previous="v1""#, v2("1+0")),
        ("active_version_activated_timestamp_seconds", r#"version="v1""#, v1("0+0")),
        ("active_version_activated_timestamp_seconds", r#"version="v2""#, v2("295+0")),
    ];
    let prompt = r#"prompt="team/greeting.v2""#;
    let mut test = "rule_files: []\nevaluation_interval: 10s\ntests:\n- interval: 10s\n  input_series:\n".to_owned();
    for (name, labels, values) in series {
        test += &format!("  - {{series: 'prompt_rollback_{name}{{{prompt},{labels}}}', values: '{values}'}}\n");
    }
    test += "  - {series: 'prompt_rollback_ready', values: '1+0x59 stale _x5 1+0x30'}\n  promql_expr_test:\n";
    for (name, version, at, value) in [("Rolled back", "v1", 48, 0), ("Shipped", "v2", 30, 295)] {
        let query = annotation(&dashboard, name)?.replace('\'', "''");
        for tick in 1..90 {
            let label = format!("{{labels: '{{{prompt},version=\"{version}\"}}', value: {value}}}");
            let expected = if tick == at { label } else { String::new() };
            test += &format!("  - {{expr: '{query}', eval_time: {}s, exp_samples: [{expected}]}}\n", tick * 10);
        }
    }
    let dir = Dir::new("annotations")?;
    let file = dir.write("test.yml", &test)?;
    let output = Command::new("promtool").args(["test", "rules"]).arg(file).output()?;
    ensure!(output.status.success(), "{}\n{test}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
