//! Split traffic, judged with a real Prometheus.

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::lying_target::{LyingTarget, vector};
use prompt_rollback_testkit::{Prometheus, eventually};
use serde_json::{Value, json};

use super::servers::PromptServers;
use super::{PROMPT, STORY, World, measured, prometheus, said};

/// Two servers: one of v1, one of v2, each with these good and bad requests between two scrapes.
async fn two_versions(v1: (u64, u64), v2: (u64, u64)) -> Result<(PromptServers, Prometheus, World)> {
    let servers = PromptServers::start(2)?;
    servers.serve(0, "v1", v1.0, v1.1);
    servers.serve(1, "v2", v2.0, v2.1);
    let (prometheus, url) = prometheus(&servers)?;
    let world = World::start(&url, &[]).await?;
    for version in ["v1", "v2"] {
        measured(&prometheus, version).await?;
    }
    Ok((servers, prometheus, world))
}

async fn roll_back_gradually(world: &World) -> Result<Value> {
    let body = json!({
        "prompt": PROMPT, "operator": "maya", "strategy": "gradual", "stages": [50, 0], "hold": "20s",
    });
    let (status, answer) = world.post("/api/rollback", &body).await?;
    ensure!(status == 200 && answer["percent"] == 50, "{status} {answer}");
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gradual_rollback_goes_on_while_its_target_serves_well() -> Result<()> {
    let (_servers, _prometheus, world) = two_versions((99, 1), (50, 50)).await?;
    roll_back_gradually(&world).await?;
    let incident = world.until("verifying").await?;
    ensure!(incident["flip"]["mode"] == "gradual", "{incident:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gradual_rollback_stays_where_it_is_when_its_target_fails() -> Result<()> {
    let (_servers, _prometheus, world) = two_versions((90, 10), (50, 50)).await?;
    roll_back_gradually(&world).await?;
    let stuck = eventually("paused", STORY, async || {
        let incident = world.incident().await.ok()?;
        incident["gradual"]["waits"].is_string().then_some(incident)
    });
    let incident = stuck.await?;
    ensure!(incident["phase"] == "rolling_back" && incident["gradual"]["percent"] == 50, "{incident:#}");
    ensure!(said(&incident).contains("v1 is unhealthy: "), "{}", said(&incident));
    let id = incident["id"].as_str().context("an id")?;
    let body = json!({ "decision": "approve_gradual", "operator": "maya" });
    let (status, answer) = world.post(&format!("/api/incidents/{id}/decide"), &body).await?;
    ensure!(status == 200 && answer["to_version"] == "v1", "continue anyway: {status} {answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gates_tell_figures_and_open_for_the_better_version() -> Result<()> {
    let (_servers, _prometheus, world) = two_versions((80, 20), (100, 0)).await?;
    let (status, answer) = world.post(&format!("/api/prompts/{PROMPT}/activate"), &json!({ "version": "v1" })).await?;
    ensure!(status == 200, "{answer}");
    let path = format!("/api/prompts/{PROMPT}/gates?version=v2");
    let gates = eventually("a result", STORY, async || {
        let gates = world.receiver.http().get(&path).await.ok()?.json().ok()?;
        (gates["gates"][1]["passed"] == true).then_some(gates)
    })
    .await?;
    let figures = gates["gates"][1]["figures"].as_str().unwrap_or_default();
    ensure!(gates["replaces"] == "v1" && gates["gates"][1]["gate"] == "ab_test", "{gates:#}");
    // the certainty depends on how much was scraped by then
    let sure = ["success 100.00 %", "replacing success 80.00 %", "20.00 points fewer", "p = 0.0000"]
        .iter()
        .all(|part| figures.contains(part));
    ensure!(sure, "{figures}");
    let path = format!("/api/prompts/{PROMPT}/gates?version=v1");
    let other = world.receiver.http().get(&path).await?.json()?;
    ensure!(other["gates"][1]["passed"] == false, "nothing to compare it with: {other:#}");
    Ok(())
}

/// The counters until each of these seconds: a thousand requests a second to each version, of which 200 to v1 fail.
fn counted_until(seconds: [u64; 2]) -> String {
    let rates = [
        ("v1", "requests", 1_000),
        ("v1", "request_errors", 200),
        ("v2", "requests", 1_000),
        ("v2", "request_errors", 0),
    ];
    let series = rates.map(|(version, counter, rate)| {
        let name = format!("prompt_version_instance:{counter}:sum");
        let metric = json!({ "__name__": name, "prompt": PROMPT, "version": version, "instance": "a" });
        json!({ "metric": metric, "values": seconds.map(|second| json!([second, (second * rate).to_string()])) })
    });
    json!({ "status": "success", "data": { "resultType": "matrix", "result": series } }).to_string()
}

/// The counters of very many instances do not fit into one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_on_too_many_instances_are_compared_in_parts() -> Result<()> {
    let lying_target = LyingTarget::start(|request| {
        let number = |name: &str| request.split_once(&format!("&{name}="))?.1.split('&').next()?.parse::<u64>().ok();
        match ["start", "end", "step"].map(number) {
            [Some(start), Some(end), Some(step)] if end == start + step => (200, counted_until([start, end])),
            [Some(_), ..] => (200, " ".repeat(17 << 20)),
            _ => (200, vector(&[])),
        }
    })?;
    let world = World::start(&lying_target.url(), &[]).await?;
    let (status, answer) = world.post(&format!("/api/prompts/{PROMPT}/activate"), &json!({ "version": "v1" })).await?;
    ensure!(status == 200, "{answer}");
    let path = format!("/api/prompts/{PROMPT}/gates?version=v2");
    // a single slice proves nothing
    eventually("a result", STORY, async || {
        let gates = world.receiver.http().get(&path).await.ok()?.json().ok()?;
        (gates["gates"][1]["passed"] == true).then_some(())
    })
    .await
}

/// v1 serves, and v2 begins a canary with half of the traffic. Heartbeats arrive.
async fn begin_canary(world: &World) -> Result<()> {
    let path = format!("/api/prompts/{PROMPT}/activate");
    let (status, answer) = world.post(&path, &json!({ "version": "v1" })).await?;
    ensure!(status == 200, "{answer}");
    let canary = json!({ "version": "v2", "canary": true, "stages": [50, 100], "hold": "45s", "operator": "maya" });
    let (status, answer) = world.post(&path, &canary).await?;
    ensure!(status == 200, "{answer}");
    heartbeat(world).await
}

/// The rules are evaluated now.
async fn heartbeat(world: &World) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let alert = json!({
        "status": "firing", "fingerprint": "00000000000000aa", "labels": { "alertname": "PromptRollbackHeartbeat" },
        "annotations": { "evaluated_at": now.to_string() },
    });
    let (status, answer) = world.post("/webhooks/alertmanager", &json!({ "version": "4", "alerts": [alert] })).await?;
    ensure!(status == 200 && answer["results"][0]["reason"] == "heartbeat", "{answer}");
    Ok(())
}

async fn canary_when(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let path = format!("/api/prompts/{PROMPT}");
    let canary = async || Some(world.receiver.http().get(&path).await.ok()?.json().ok()?["canary"].clone());
    let mut probes = 0;
    let found = eventually(what, STORY, async || {
        probes += 1;
        if probes % 50 == 0 {
            heartbeat(world).await.ok()?;
        }
        canary().await.filter(&is)
    })
    .await;
    match found {
        Ok(canary) => Ok(canary),
        Err(error) => Err(error.context(format!("{:#}\n{}", canary().await.unwrap_or_default(), world.receiver.log()))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_is_no_worse_gets_all_traffic() -> Result<()> {
    let (_servers, _prometheus, world) = two_versions((99, 1), (99, 1)).await?;
    begin_canary(&world).await?;
    let canary = canary_when(&world, "promoted", |canary| canary["end"]["promoted"] == true).await?;
    let check = canary["last_check"]["text"].as_str().unwrap_or_default();
    ensure!(canary["last_check"]["verdict"] == "healthy" && check.contains("at equal times"), "{canary:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_is_worse_is_held_and_people_are_asked() -> Result<()> {
    let (_servers, _prometheus, world) = two_versions((99, 1), (70, 30)).await?;
    begin_canary(&world).await?;
    let canary = canary_when(&world, "a question", |canary| canary["question"].is_string()).await?;
    let waits = canary["waits"].as_str().unwrap_or_default();
    ensure!(waits.contains("v2 is worse") && canary["percent"] == 50 && canary["end"].is_null(), "{canary:#}");
    let id = canary["question"].as_str().context("an id")?;
    let answer = json!({ "decision": "approve", "operator": "maya", "force": true });
    let (status, answer) = world.post(&format!("/api/incidents/{id}/decide"), &answer).await?;
    ensure!(status == 200 && answer["to_version"] == "v1", "{status} {answer}");
    let canary = canary_when(&world, "over", |canary| canary["end"]["promoted"] == false).await?;
    ensure!(canary["percent"] == 50, "{canary:#}");
    Ok(())
}
