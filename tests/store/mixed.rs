//! Receivers of two releases side by side, as during an upgrade. The newer one is simulated by its records.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, SOON, World, alert, assert_rolled_back_once, critical, incidents};
use prompt_rollback_testkit::{Redis, eventually};

/// Makes the records of `prompt` those of a newer receiver, with words that this one does not know, or reverts that.
async fn upgrade(redis: &Redis, prompt: &str, id: &str, newer: bool) -> Result<()> {
    let (state, incident) = (format!("{{prompts}}:state:{prompt}"), format!("{{prompts}}:incident:{id}"));
    let reword = |text: String, [old, new]: [&str; 2]| {
        let (old, new) = if newer { (old, new) } else { (new, old) };
        ensure!(text.contains(old), "{text}");
        Ok(text.replace(old, new))
    };
    let json = reword(redis.cmd(&["HGET", &state, "json"]).await?, ["\"awaiting_decision\"", "\"pondering\""])?;
    redis.cmd::<()>(&["HSET", &state, "json", &json, "schema", if newer { "3" } else { "1" }]).await?;
    let json = reword(redis.cmd(&["GET", &incident]).await?, ["\"schema\":2,", "\"schema\":3,"])?;
    redis.cmd::<()>(&["SET", &incident, &json]).await
}

#[tokio::test]
async fn an_older_receiver_leaves_records_of_a_newer_one_and_does_the_rest() -> Result<()> {
    let world = World::start().await?;
    for prompt in ["new", "old"] {
        world.ship(prompt).await?;
    }
    ensure!(world.receiver.outcomes(&[alert("new", "v2", "high")]).await? == ["incident_opened{page}"]);
    let found = incidents(&world.redis, "new").await?.pop().context("an incident")?;
    let id = found["id"].as_str().context("an id")?.to_owned();
    upgrade(&world.redis, "new", &id, true).await?;

    // 503 for everything about it: Alertmanager, Slack and people retry, and reach the newer one
    let newer = |(status, body): (u16, Value)| {
        assert_eq!((status, &body["error"]["code"]), (503, &json!("newer_record")), "{body}");
    };
    newer(world.post(&format!("/api/incidents/{id}/decide"), json!({"decision": "approve", "operator": "mia"})).await?);
    newer(world.post("/api/rollback", json!({"prompt": "new"})).await?);
    let answer = world.receiver.http.get(&format!("/api/incidents/{id}")).await?;
    newer((answer.status, answer.json()?));
    ensure!(world.receiver.deliver(&[critical("new"), critical("old")]).await?.status == 503);
    assert_rolled_back_once(&world.redis, "old").await?;

    // its deadline passes: this receiver claims it repeatedly, and returns it
    let member = format!("{id}|act");
    let due = async || world.redis.cmd::<Option<f64>>(&["ZSCORE", "{prompts}:due", &member]).await.ok().flatten();
    let mut before = due().await.context("its deadline is scheduled")?;
    world.receiver.clock.advance(Duration::from_secs(3_600));
    for _ in 0..12 {
        let left = eventually("it is given back", SOON, async || due().await.filter(|at| *at > before)).await?;
        before = left;
        world.receiver.clock.advance(Duration::from_secs(2));
    }
    for set in ["parked", "attempts"] {
        assert!(!world.redis.cmd::<bool>(&["EXISTS", &format!("{{prompts}}:{set}")]).await?, "{set}");
    }

    // the newer one, or this one once it is upgraded, finds everything unchanged
    upgrade(&world.redis, "new", &id, false).await?;
    world.receiver.clock.advance(Duration::from_secs(2));
    eventually("its deadline is acted upon", SOON, async || {
        let incident = world.get(&format!("/api/incidents/{id}")).await.ok()?;
        incident["events"].as_array()?.iter().find(|event| event["kind"] == "escalated").map(drop)
    })
    .await?;
    assert_eq!(world.receiver.outcomes(&[critical("new")]).await?, [ROLLED_BACK]);
    assert_rolled_back_once(&world.redis, "new").await
}
