//! Teams that only SET the key.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback_testkit::{Dir, eventually};
use serde_json::{Value, json};

use crate::common::kept::{count, keys};
use crate::common::{ROLLED_BACK, Receiver, Redis, SOON, World, active, critical, log};

async fn noticed(redis: &Redis, prompt: &str, to: &str, within: Duration) -> Result<()> {
    eventually(&format!("{prompt} was set to {to} outside"), within, async || {
        let entry = log(redis, prompt).await.ok()?.pop()?;
        (entry["event"] == "external" && entry["to"] == to).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_set_is_noticed_by_tracking_and_logged() -> Result<()> {
    let world = World::start().await?;
    world.ship("a/b").await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:a/b", "v3"]).await?;
    noticed(&world.redis, "a/b", "v3", SOON).await?;
    let entry = log(&world.redis, "a/b").await?.pop().expect("an entry");
    assert_eq!((entry["from"].as_str(), entry["operator"].as_str()), ("v2", "external"));
    let shown = world.get("/api/prompts/a%2Fb").await?;
    assert_eq!((&shown["active"], shown["versions"].as_array().map(Vec::len)), (&json!("v3"), Some(3)));
    world.redis.cmd::<()>(&["DEL", "{prompts}:active:a/b"]).await?;
    noticed(&world.redis, "a/b", "", SOON).await
}

#[tokio::test]
async fn an_unregistered_prompt_gets_rollbacks_once_a_version_has_soaked() -> Result<()> {
    let world = World::on(Redis::start()?, &[]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v1"]).await?;
    noticed(&world.redis, "p", "v1", SOON).await?;
    world.receiver.clock.advance(Duration::from_secs(3_600));
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v2"]).await?;
    noticed(&world.redis, "p", "v2", SOON).await?;
    assert_eq!(world.get("/api/prompts/p").await?["rollback_target"], "v1");
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));
    Ok(())
}

#[tokio::test]
async fn without_a_version_that_has_soaked_a_person_is_asked() -> Result<()> {
    let world = World::start().await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v2"]).await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{no_known_good}"], "noticed at the load, too");
    let list = world.get("/api/prompts?without_target=true").await?;
    assert_eq!(list["prompts"][0]["prompt"], "p");
    Ok(())
}

#[tokio::test]
async fn what_was_set_while_the_receiver_was_away_is_found_at_its_start() -> Result<()> {
    let redis = Redis::start()?;
    let fill = "for i = 1, 1200 do redis.call('SET', '{prompts}:active:p' .. i, 'v' .. i) end";
    redis.cmd::<()>(&["EVAL", fill, "0"]).await?;
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    for n in [1, 600, 1_200] {
        noticed(&redis, &format!("p{n}"), &format!("v{n}"), SOON * 3).await?;
    }
    eventually("all are listed", SOON * 3, async || {
        (count(&redis, &keys().prompts()).await.ok()? == 1_200).then_some(())
    })
    .await?;
    drop(receiver);
    Ok(())
}

#[tokio::test]
async fn without_scan_known_prompts_are_checked_and_others_at_their_alert() -> Result<()> {
    let redis = Redis::builder().receiver_may("-scan").start()?;
    let receiver = Receiver::ready(&redis.receiver_url(), &[]).await?;
    for name in ["set", "deleted"] {
        crate::common::ship(&receiver.http, name).await?;
    }
    drop(receiver);
    redis.cmd::<()>(&["SET", "{prompts}:active:set", "v3"]).await?;
    redis.cmd::<()>(&["DEL", "{prompts}:active:deleted"]).await?;
    redis.cmd::<()>(&["SET", "{prompts}:active:unknown", "v2"]).await?;
    let receiver = Receiver::ready(&redis.receiver_url(), &[]).await?;
    noticed(&redis, "set", "v3", SOON).await?;
    noticed(&redis, "deleted", "", SOON).await?;
    assert_eq!(receiver.outcomes(&[critical("unknown")]).await?, ["held{no_known_good}"]);
    noticed(&redis, "unknown", "v2", SOON).await
}

#[tokio::test]
async fn tracking_starts_again_after_redis_was_away() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    crate::common::ship(&receiver.http, "p").await?;
    redis.kill9();
    redis.restart()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v3"]).await?;
    noticed(&redis, "p", "v3", SOON).await?;
    // and changes are announced again, without another scan
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v4"]).await?;
    noticed(&redis, "p", "v4", SOON).await
}

/// As when the name of a service's endpoint leads to another server.
#[tokio::test]
async fn active_keys_are_tracked_where_other_connections_lead_now() -> Result<()> {
    let start = || Redis::builder().unix_socket().start();
    let (old, new, dir) = (start()?, start()?, Dir::new("endpoint")?);
    let endpoint = dir.path().join("redis.sock");
    let lead_to = |redis: &Redis| -> Result<()> {
        let next = dir.path().join("next");
        std::os::unix::fs::symlink(redis.unix_url().trim_start_matches("redis+unix://"), &next)?;
        Ok(std::fs::rename(next, &endpoint)?)
    };
    lead_to(&old)?;
    let receiver = Receiver::ready(&format!("redis+unix://{}", endpoint.display()), &[]).await?;
    old.cmd::<()>(&["SET", "{prompts}:active:p", "v1"]).await?;
    noticed(&old, "p", "v1", SOON).await?;
    lead_to(&new)?;
    // refuses writes, but answers
    old.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await?;
    eventually("found the other server", SOON, async || (new.cmd::<u64>(&["DBSIZE"]).await.ok()? > 0).then_some(()))
        .await?;
    new.cmd::<()>(&["SET", "{prompts}:active:p", "v2"]).await?;
    noticed(&new, "p", "v2", SOON).await?;
    drop(receiver);
    Ok(())
}

#[tokio::test]
async fn our_own_changes_are_not_taken_for_others() -> Result<()> {
    let world = World::start().await?;
    for n in 0..10 {
        let name = format!("p-{n}");
        world.ship(&name).await?;
        world.post("/api/rollback", json!({"prompt": name})).await?;
    }
    // the next external change is announced after all of the receiver's own
    world.ship("marker").await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:marker", "v3"]).await?;
    noticed(&world.redis, "marker", "v3", SOON).await?;
    for n in 0..10 {
        let events: Vec<_> = world.log(&format!("p-{n}")).await?.into_iter().map(|e| e["event"].clone()).collect();
        assert_eq!(events, ["activate", "activate", "rollback"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_value_is_logged_and_never_overwritten_without_a_person() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let foreign = "not a version! {x}";
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", foreign]).await?;
    noticed(&world.redis, "p", foreign, SOON).await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{foreign_value}"]);
    assert_eq!(world.active("p").await?.as_deref(), Some(foreign));
    let shown = world.get("/api/prompts/p").await?;
    assert_eq!(shown["active"], Value::Null);
    let fault = "the key active holds \"not a version! {x}\", which is not a version";
    assert_eq!((&shown["active_fault"], &shown["incidents"][0]["guard"]["detail"]), (&json!(fault), &json!(fault)));
    let (status, body) = world.post("/api/rollback", json!({"prompt": "p", "target_version": "v1"})).await?;
    assert_eq!((status, &body["from_version"]), (200, &json!("v2")), "a person may: v2 is what fails");
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));
    assert_eq!(world.get("/api/prompts/p").await?["active_fault"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn what_a_shell_puts_around_a_version_is_not_part_of_it() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[crate::common::alert("p", "v2", "high")]).await?;
    for (value, version) in [("v2\n", "v2"), (" v2\r\n", "v2"), ("v2\0", "v2")] {
        world.redis.cmd::<()>(&["SET", "{prompts}:active:p", value]).await?;
        let shown = world.get("/api/prompts/p").await?;
        assert_eq!(shown["active"], version, "{value:?}");
        assert_eq!(shown["incidents"][0]["phase"], "awaiting_decision", "{value:?}");
    }
    // compared unchanged, and replaced
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));
    let log = world.log("p").await?;
    assert!(log.iter().all(|entry| entry["event"] != "external"), "{log:?}");
    // a split is handled as well
    let (status, body) =
        world.post("/api/prompts/p/activate", json!({"version": "v2", "percent": 30, "force": true})).await?;
    assert_eq!(status, 200, "{body}");
    let padded = "redis.call('HSET', KEYS[1], 'v1', '70\\n') redis.call('SET', KEYS[2], 'v1\\n')";
    world.redis.cmd::<()>(&["EVAL", padded, "2", "{prompts}:routing:p", "{prompts}:active:p"]).await?;
    let shown = world.get("/api/prompts/p").await?;
    assert_eq!((&shown["routing"], &shown["canary"]["end"]), (&json!({"v1": 70, "v2": 30}), &Value::Null));
    world.post("/api/prompts/p/activate", json!({"version": "v2", "percent": 50, "force": true})).await?;
    assert_eq!(world.get("/api/prompts/p").await?["routing"], json!({"v1": 50, "v2": 50}));
    Ok(())
}

#[tokio::test]
async fn a_page_goes_on_after_the_key_was_deleted_and_can_be_answered() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[crate::common::alert("p", "v2", "high")]).await?;
    world.redis.cmd::<()>(&["DEL", "{prompts}:active:p"]).await?;
    noticed(&world.redis, "p", "", SOON).await?;
    let incident = world.get("/api/incidents").await?["incidents"][0].clone();
    assert_eq!(incident["phase"], "awaiting_decision");
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{key_deleted}"]);
    assert_eq!(world.active("p").await?, None, "nothing is put in its place");
    let id = incident["id"].as_str().unwrap_or_default();
    let events = world.get(&format!("/api/incidents/{id}")).await?["events"].clone();
    assert!(events.to_string().contains("the key active was deleted"), "{events:#}");
    let (status, body) =
        world.post(&format!("/api/incidents/{id}/decide"), json!({"decision": "approve", "operator": "mia"})).await?;
    assert_eq!(status, 200, "{body}");
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));
    Ok(())
}

#[tokio::test]
async fn a_split_that_an_outside_set_left_behind_is_dropped() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.cmd::<()>(&["HSET", "{prompts}:routing:p", "v1", "10", "v2", "90"]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v3"]).await?;
    noticed(&world.redis, "p", "v3", SOON).await?;
    assert!(!world.redis.cmd::<bool>(&["EXISTS", "{prompts}:routing:p"]).await?);
    Ok(())
}

#[tokio::test]
async fn an_incident_ends_when_someone_sets_another_version() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[crate::common::alert("p", "v2", "high")]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v3"]).await?;
    noticed(&world.redis, "p", "v3", SOON).await?;
    assert_eq!(world.get("/api/incidents").await?["incidents"][0]["phase"], "superseded");
    assert_eq!(active(&world.redis, "p").await?.as_deref(), Some("v3"));
    Ok(())
}
