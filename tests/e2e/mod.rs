//! End to end: a rule fires, and every prompt server serves the last known-good version: real Prometheus, Alertmanager
//! and Redis with the shipped files, and the receiver as a process. Rules that wait (`for: 30s`, a minute without
//! requests) wait here too, so all tests run at the same time.

mod demo;
mod lying_target;
pub mod server;
mod stack;
mod yardstick;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::shipped::Source;
use serde_json::json;
use stack::{BAD, GOOD, Plan, Stack, metric};

const PROMPT: &str = "customer-support";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_version_is_rolled_back_and_the_end_of_its_alert_changes_nothing() -> Result<()> {
    let stack = Stack::start(Plan::default()).await?;
    stack.serve_good(PROMPT).await?;
    stack.ship_bad(PROMPT, 0.3).await?;
    let failed = async || (stack.server.served(PROMPT, BAD).failed > 0).then_some(());
    stack.until("the first bad response", failed).await?;
    let first = std::time::Instant::now();
    stack.until_active(PROMPT, GOOD).await?;
    println!("first bad response to SET: {:.1} s", first.elapsed().as_secs_f64()); // scripts/compat reads it
    stack.traffic_is_back(PROMPT).await?;
    let incident = stack.rolled_back_once(PROMPT).await?;
    ensure!(incident["alerts"][0]["alertname"] == "PromptErrorRateCritical", "{incident:#}");
    ensure!(stack.server.served(PROMPT, BAD).failed > 0 && stack.server.served(PROMPT, GOOD).failed == 0);

    let receiver = &stack.receivers[0];
    for (name, labels) in [
        ("prompt_rollback_alerts_total", &[r#"severity="critical""#, r#"outcome="rolled_back""#][..]),
        ("prompt_rollback_rollbacks_total", &[r#"mode="auto""#, r#"result="ok""#]),
        ("prompt_rollback_alert_to_rollback_seconds_count", &[]),
        ("prompt_rollback_incidents", &[r#"phase="verifying""#]),
    ] {
        let value = metric(receiver, name, labels).await?;
        ensure!(value == 1.0, "{name} {labels:?} is {value}");
    }
    let seen = r#"prompt_rollback_rollbacks_total{mode="auto",result="ok"} == 1"#;
    stack.until("Prometheus sees the rollback", async || (stack.count(seen).await? == 1).then_some(())).await?;

    // the target is healthy, and no one is served the bad version any more
    let recovered = async || {
        let incident = stack.incidents(PROMPT).await.ok()?.pop()?;
        (incident["phase"] == "recovered").then_some(incident)
    };
    let incident = stack.until("the recovery is confirmed", recovered).await?;
    let said = incident["events"].as_array().and_then(|events| events.last()?["text"].as_str()).unwrap_or_default();
    ensure!(said.contains("(0.00 %, at most 0.") && said.contains("1 of 1 instances follow"), "{incident:#}");

    // what `prompt-rollback status` shows
    stack
        .until("the errors of the active version are measured", async || {
            let view = stack.get(&format!("/api/prompts/{PROMPT}")).await.ok()?;
            (view["coverage"]["errors"] == "measured").then_some(())
        })
        .await?;

    // a minute without requests ends the alert of the rolled-back version
    stack
        .until("the alert resolves", async || {
            let resolved = metric(receiver, "prompt_rollback_alerts_total", &[r#"outcome="resolved""#]).await.ok()?;
            // one alert always fires; and on a small machine, two stacks cannot evaluate every second, which is an
            // alert too
            let others = ["PromptRollbackHeartbeat", "PromptRollbackRulesLate"];
            let other = |alert: &serde_json::Value| others.iter().any(|name| alert["labels"]["alertname"] == *name);
            let alerts = stack.prometheus.alerts().await.ok()?;
            (resolved > 0.0 && alerts.iter().all(other)).then_some(())
        })
        .await?;
    let incident = stack.rolled_back_once(PROMPT).await?;
    // closed before its alert ended: the record is unchanged
    ensure!(incident["phase"] == "recovered", "{incident:#}");
    let switches = metric(receiver, "prompt_rollback_rollbacks_total", &[]).await?;
    ensure!(switches == 1.0, "{switches} rollbacks");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_canary_is_taken_back_before_most_users_meet_it() -> Result<()> {
    let stack = Stack::start(Plan::default()).await?;
    stack.serve_good(PROMPT).await?;
    stack.server.misbehave(PROMPT, BAD, 0.3);
    let path = format!("/api/prompts/{PROMPT}");
    stack.post(&format!("{path}/versions"), json!({ "version": BAD })).await?;
    let canary = json!({ "version": BAD, "canary": true, "stages": [30, 100], "hold": "1h" });
    let answer = stack.post(&format!("{path}/activate"), canary).await?;
    ensure!(answer["percent"] == 30, "{answer}");
    let end = stack
        .until("the canary is over", async || {
            let end = stack.get(&path).await.ok()?["canary"]["end"].clone();
            end.is_object().then_some(end)
        })
        .await?;
    ensure!(end["promoted"] == false, "{end}");
    stack.traffic_is_back(PROMPT).await?;
    stack.rolled_back_once(PROMPT).await?;
    let (good, bad) = (stack.server.served(PROMPT, GOOD), stack.server.served(PROMPT, BAD));
    ensure!(bad.answers() > 0 && good.answers() > bad.answers() && good.failed == 0, "{good:?} {bad:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_canary_waits_for_a_heartbeat_and_then_goes_on() -> Result<()> {
    let mut stack = Stack::start(Plan::default()).await?;
    stack.serve_good(PROMPT).await?;
    let path = format!("/api/prompts/{PROMPT}");
    stack.post(&format!("{path}/versions"), json!({ "version": BAD })).await?;
    let last =
        async |stack: &Stack| metric(&stack.receivers[0], "prompt_rollback_heartbeat_timestamp_seconds", &[]).await;
    let first = stack.until("a heartbeat", async || last(&stack).await.ok().filter(|at| *at > 0.0)).await?;

    stack.alertmanagers[0].kill();
    let canary = json!({ "version": BAD, "canary": true, "stages": [10, 50, 100], "hold": "5s" });
    stack.post(&format!("{path}/activate"), canary).await?;
    let shown = async |stack: &Stack| Some(stack.get(&path).await.ok()?["canary"].clone());
    let canary = stack
        .until("the canary says why it waits", async || {
            shown(&stack).await.filter(|canary| canary["waits"].is_string())
        })
        .await?;
    let why = canary["waits"].as_str().unwrap_or_default();
    ensure!(why.contains("rules were evaluated for 0 s of 5 s of this stage"), "{canary:#}");
    ensure!(canary["percent"] == 10 && last(&stack).await? == first, "{canary:#}");

    stack.alertmanagers[0].restart()?;
    stack.until("the next step", async || shown(&stack).await.filter(|canary| canary["percent"] == 50)).await?;
    ensure!(last(&stack).await? > first);
    ensure!(stack.incidents(PROMPT).await?.is_empty(), "a heartbeat is no incident");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lesser_error_rate_asks_a_person_and_rolls_back_when_approved() -> Result<()> {
    // the second one fires the rule for new versions only, which needs the receiver's own metrics
    let (prompt, new) = (PROMPT, "team/new.release");
    let stack = Stack::start(Plan { prompts: &[prompt, new], ..Plan::default() }).await?;
    for (prompt, error_ratio) in [(prompt, 0.045), (new, 0.018)] {
        stack.serve_good(prompt).await?;
        stack.ship_bad(prompt, error_ratio).await?;
    }

    for query in [
        r#"prompt_rollback_active_version_info{prompt="$prompt",version="v2.0.0",previous="v1.9.0"} == 1"#,
        r#"prompt_version:rollback_target:info{prompt="$prompt",version="v2.0.0",previous="v1.9.0"}"#,
        r#"prompt_version:age:seconds{prompt="$prompt",version="v2.0.0"} < 3600"#,
    ] {
        let query = query.replace("$prompt", new);
        stack.until(&query, async || (stack.count(&query).await? == 1).then_some(())).await?;
    }

    for (prompt, alertname) in [(prompt, "PromptErrorRateHigh"), (new, "PromptErrorRateNewVersion")] {
        let incident = stack.until(alertname, async || stack.incidents(prompt).await.ok()?.pop()).await?;
        let as_told = ["phase", "severity", "action", "decider", "target"].map(|key| incident[key].as_str());
        ensure!(as_told == ["awaiting_decision", "high", "page", "on-call", GOOD].map(Some), "{incident:#}");
        ensure!(incident["alerts"][0]["alertname"] == alertname && incident["flip"].is_null(), "{incident:#}");
        ensure!(incident["deadline"].is_string(), "{incident:#}");
    }
    for prompt in [prompt, new] {
        ensure!(
            stack.active(prompt).await? == BAD && stack.rollbacks(prompt).await?.is_empty(),
            "{prompt} was rolled back"
        );
        ensure!(stack.incidents(prompt).await?.len() == 1, "{prompt}: {:#?}", stack.incidents(prompt).await?);
    }

    let id = stack.incidents(new).await?[0]["id"].as_str().context("id")?.to_owned();
    let answer = stack
        .post(&format!("/api/incidents/{id}/decide"), json!({ "decision": "approve", "operator": "alice" }))
        .await?;
    ensure!(answer["success"] == true, "{answer}");
    stack.until_active(new, GOOD).await?;
    stack.traffic_is_back(new).await?;
    let incident = stack.incidents(new).await?.remove(0);
    ensure!(incident["phase"] == "verifying" && incident["flip"]["mode"] == "approved", "{incident:#}");
    let rollbacks = stack.rollbacks(new).await?;
    ensure!(rollbacks.len() == 1 && rollbacks[0]["operator"] == "alice (api)", "{rollbacks:#?}");

    ensure!(stack.active(prompt).await? == BAD, "an approval rolled another prompt back, too");
    let automatic = metric(&stack.receivers[0], "prompt_rollback_rollbacks_total", &[r#"mode="auto""#]).await?;
    ensure!(automatic == 0.0, "{automatic} automatic rollbacks");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_receivers_and_two_alertmanagers_roll_back_once() -> Result<()> {
    let stack = Stack::start(Plan { replicas: 2, repeat_soon: true, ..Plan::default() }).await?;
    stack.serve_good(PROMPT).await?;
    stack.ship_bad(PROMPT, 0.3).await?;
    stack.until_active(PROMPT, GOOD).await?;
    stack.traffic_is_back(PROMPT).await?;

    let heard = async |outcome: &str| -> Result<Vec<f64>> {
        let outcome = format!(r#"outcome="{outcome}""#);
        let labels = [r#"severity="critical""#, &outcome];
        let mut heard = Vec::new();
        for receiver in &stack.receivers {
            heard.push(metric(receiver, "prompt_rollback_alerts_total", &labels).await?);
        }
        Ok(heard)
    };
    stack
        .until("both receivers hear the alert", async || {
            let (acted, again) = (heard("rolled_back").await.ok()?, heard("duplicate").await.ok()?);
            acted.iter().zip(again).all(|(acted, again)| acted + again > 0.0).then_some(())
        })
        .await?;
    ensure!(heard("rolled_back").await?.iter().sum::<f64>() == 1.0, "{:?}", heard("rolled_back").await?);
    stack.rolled_back_once(PROMPT).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_finds_nobody_rolls_back_once_when_the_receiver_is_back() -> Result<()> {
    let mut stack = Stack::start(Plan { repeat_soon: true, ..Plan::default() }).await?;
    stack.serve_good(PROMPT).await?;
    stack.receivers[0].kill9();
    // like a team's own deployment, without registering the version
    stack.server.misbehave(PROMPT, BAD, 0.3);
    stack.redis.cmd::<()>(&["SET", "{prompts}:active:customer-support", BAD]).await?;
    let in_vain = r#"alertmanager_notification_requests_failed_total{integration="webhook"} > 0"#;
    stack.until("a delivery fails", async || stack.count(in_vain).await.filter(|count| *count > 0)).await?;
    ensure!(stack.active(PROMPT).await? == BAD);

    stack.receivers[0].restart()?;
    stack.until_active(PROMPT, GOOD).await?;
    stack.traffic_is_back(PROMPT).await?;
    stack.rolled_back_once(PROMPT).await?;

    // it dies again; Alertmanager repeats the alert, and the replica that takes over knows what was done
    stack.receivers[0].kill9();
    stack.receivers[0].restart()?;
    stack
        .until("the alert is repeated", async || {
            let mut again = 0.0;
            // once recovery is confirmed, it is an alert on a version without traffic
            for outcome in [r#"outcome="duplicate""#, r#"reason="not_active""#] {
                let labels = [r#"severity="critical""#, outcome];
                again += metric(&stack.receivers[0], "prompt_rollback_alerts_total", &labels).await.ok()?;
            }
            (again > 0.0).then_some(())
        })
        .await?;
    stack.rolled_back_once(PROMPT).await?;
    let switches = metric(&stack.receivers[0], "prompt_rollback_rollbacks_total", &[]).await?;
    ensure!(switches == 0.0, "{switches} rollbacks after the second start");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opentelemetry_metrics_trip_the_same_rows() -> Result<()> {
    let stack = Stack::start(Plan { source: Source::OpenTelemetry, ..Plan::default() }).await?;
    stack.serve_good(PROMPT).await?;
    stack.ship_bad(PROMPT, 0.3).await?;
    stack.until_active(PROMPT, GOOD).await?;
    stack.traffic_is_back(PROMPT).await?;
    stack.rolled_back_once(PROMPT).await.map(drop)
}
