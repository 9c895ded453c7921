//! Keys with values that the receiver never writes.

use std::process::Command;

use anyhow::Result;
use prompt_rollback_testkit::proxy::Mode;
use prompt_rollback_testkit::{FaultProxy, eventually};
use serde_json::json;

use crate::common::{ROLLED_BACK, Receiver, SOON, World, assert_rolled_back_once, critical, dump};

#[tokio::test]
async fn a_key_of_the_wrong_type_holds_only_its_own_alert() -> Result<()> {
    let world = World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "100")]).await?;
    for (n, name) in ["active", "routing", "state", "log"].into_iter().enumerate() {
        let (before, bad, after) = (format!("before-{n}"), format!("bad-{n}"), format!("after-{n}"));
        for prompt in [&before, &bad, &after] {
            world.ship(prompt).await?;
        }
        let broken = format!("{{prompts}}:{name}:{bad}");
        world.redis.cmd::<()>(&["DEL", &broken]).await?;
        world.redis.cmd::<()>(&["SADD", &broken, "x"]).await?;
        let of_bad = async || -> Result<Vec<(String, Vec<u8>)>> {
            Ok(dump(&world.redis).await?.into_iter().filter(|(key, _)| key.ends_with(&format!(":{bad}"))).collect())
        };
        let as_it_was = of_bad().await?;
        let alerts = [critical(&before), critical(&bad), critical(&after)];
        let got = world.receiver.outcomes(&alerts).await?;
        assert_eq!(got, [ROLLED_BACK, "held{broken_state}", ROLLED_BACK], "{broken}");
        assert_eq!(of_bad().await?, as_it_was, "nothing is written halfway");
        assert!(crate::common::incidents(&world.redis, &bad).await?.is_empty(), "{broken}");
        for prompt in [&before, &after] {
            assert_rolled_back_once(&world.redis, prompt).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_record_holds_its_alert_and_the_api_says_which() -> Result<()> {
    let world = World::start().await?;
    for name in ["good", "bad"] {
        world.ship(name).await?;
    }
    world.redis.cmd::<()>(&["HSET", "{prompts}:state:bad", "json", "{\"versions\":[7]}"]).await?;
    let got = world.receiver.outcomes(&[critical("bad"), critical("good")]).await?;
    assert_eq!(got, ["held{broken_state}", ROLLED_BACK]);
    let (status, body) = world.post("/api/rollback", json!({"prompt": "bad"})).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("broken_state")));
    assert!(body["error"]["message"].as_str().is_some_and(|m| m.contains("{prompts}:state:bad")), "{body}");
    let list = world.get("/api/prompts").await?;
    let rows = list["prompts"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "one that can't be read does not hide the others");
    assert!(rows[0]["error"].is_string() && rows[1]["active"] == "v1", "{list}");
    let mut check = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    check.args(["check", "--connect"]).env("PROMPT_ROLLBACK_REDIS__URL", world.redis.receiver_url());
    let said = String::from_utf8(tokio::task::spawn_blocking(move || check.output()).await??.stdout)?;
    let warning = "1 cannot be read, such as that of bad: {prompts}:state:bad is broken: ";
    assert!(said.lines().any(|line| line.contains(" warning ") && line.contains(warning)), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_key_of_the_wrong_type_hides_nothing_else_from_people_and_metrics() -> Result<()> {
    let world = World::with(&[("GUARDS__MODE", "dry-run")]).await?;
    for prompt in ["good", "bad"] {
        world.ship(prompt).await?;
    }
    world.receiver.deliver(&[critical("good"), critical("bad")]).await?;
    let id = crate::common::incidents(&world.redis, "bad").await?[0]["id"].as_str().unwrap_or_default().to_owned();
    for broken in ["state:bad".to_owned(), "log:bad".to_owned(), format!("incident:{id}")] {
        let (broken, aside) = (format!("{{prompts}}:{broken}"), "{prompts}:aside");
        world.redis.cmd::<()>(&["RENAME", &broken, aside]).await?;
        world.redis.cmd::<()>(&["SADD", &broken, "x"]).await?;
        for path in [
            "/api/prompts",
            "/api/incidents",
            "/api/log?since=1h",
            "/api/report?since=1h",
            "/",
            "/incidents",
            "/rollouts",
        ] {
            let answer = world.http().get(path).await?;
            assert_eq!(answer.status, 200, "{broken}: {path}: {}", answer.text());
            let lists_it = path != "/rollouts" && !path.contains("report");
            assert!(!lists_it || answer.text().contains("good"), "{broken}: {path}: {}", answer.text());
        }
        eventually(&format!("metrics show the others, {broken}"), SOON, async || {
            let metrics = world.http().get("/metrics").await.ok()?.text();
            metrics.contains("active_version_info{prompt=\"good\"").then_some(())
        })
        .await?;
        let log: serde_json::Value = world.http().get("/api/log?since=1h").await?.json()?;
        let unreadable = if broken.ends_with("log:bad") { json!(["bad"]) } else { json!(null) };
        assert_eq!(log["unreadable"], unreadable, "{log}");
        world.redis.cmd::<()>(&["RENAME", aside, &broken]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_is_not_text_hides_nothing_else_from_people() -> Result<()> {
    let world = World::with(&[("GUARDS__MODE", "dry-run")]).await?;
    for prompt in ["good", "bad"] {
        world.ship(prompt).await?;
    }
    world.receiver.deliver(&[critical("good"), critical("bad")]).await?;
    let id = crate::common::incidents(&world.redis, "bad").await?[0]["id"].as_str().unwrap_or_default().to_owned();
    for (broken, write) in [
        (format!("incident:{id}"), r"redis.call('SET', KEYS[1], '\255')"),
        ("state:bad".to_owned(), r"redis.call('HSET', KEYS[1], 'json', '\255', 'info', '\255')"),
        ("log:bad".to_owned(), r"redis.call('XADD', KEYS[1], '*', 'event', '\255')"),
    ] {
        let (broken, aside) = (format!("{{prompts}}:{broken}"), "{prompts}:aside");
        world.redis.cmd::<()>(&["RENAME", &broken, aside]).await?;
        world.redis.cmd::<()>(&["EVAL", write, "1", &broken]).await?;
        for path in ["/api/prompts", "/api/incidents", "/api/log?since=1h", "/", "/incidents"] {
            let answer = world.http().get(path).await?;
            assert_eq!(answer.status, 200, "{broken}: {path}: {}", answer.text());
            assert!(answer.text().contains("good"), "{broken}: {path}: {}", answer.text());
        }
        let log: serde_json::Value = world.http().get("/api/log?since=1h").await?.json()?;
        let unreadable = if broken.ends_with("log:bad") { json!(["bad"]) } else { json!(null) };
        assert_eq!(log["unreadable"], unreadable, "{log}");
        let one = world.http().get(&format!("/api/incidents/{id}")).await?;
        assert_eq!(one.status, if broken.ends_with("log:bad") { 200 } else { 409 }, "{broken}: {}", one.text());
        world.redis.cmd::<()>(&["RENAME", aside, &broken]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_repaired_key_lets_the_next_delivery_act() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.cmd::<()>(&["RENAME", "{prompts}:log:p", "aside"]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:log:p", "x"]).await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{broken_state}"]);
    world.redis.cmd::<()>(&["RENAME", "aside", "{prompts}:log:p"]).await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_rolled_back_once(&world.redis, "p").await
}

#[tokio::test]
async fn a_record_of_a_newer_receiver_is_503_until_this_one_is_updated() -> Result<()> {
    let world = World::start().await?;
    for name in ["new", "old"] {
        world.ship(name).await?;
    }
    world.redis.cmd::<()>(&["HSET", "{prompts}:state:new", "schema", "99"]).await?;
    let answer = world.receiver.deliver(&[critical("new"), critical("old")]).await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (503, &json!("newer_record")));
    assert_rolled_back_once(&world.redis, "old").await?;
    world.redis.cmd::<()>(&["HSET", "{prompts}:state:new", "schema", "1"]).await?;
    let got = world.receiver.outcomes(&[critical("new"), critical("old")]).await?;
    assert_eq!(got, [ROLLED_BACK, "duplicate{duplicate}"]);
    Ok(())
}

#[tokio::test]
async fn a_redis_that_starts_to_evict_is_found_out_at_the_next_start() -> Result<()> {
    let redis = crate::common::Redis::builder().conf("maxmemory-policy allkeys-lru").start()?;
    let receiver = crate::common::Receiver::start(&redis.url(), &[]).await?;
    receiver.wait_not_ready("maxmemory-policy", SOON).await?;
    redis.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    eventually("ready", SOON, async || receiver.http.get("/-/ready").await.ok().filter(|answer| answer.status == 200))
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_unexpected_reply_of_redis_is_503_and_not_broken_state() -> Result<()> {
    let world = World::start().await?;
    let proxy = FaultProxy::start(world.redis.addr()).await?;
    let receiver = Receiver::ready(&proxy.url(), &[]).await?;
    world.ship("p").await?;
    proxy.set(Mode::Answer(b"*2\r\n$4\r\nwhat\r\n:1\r\n".to_vec()));
    let answer = receiver.deliver(&[critical("p")]).await?;
    assert_eq!(answer.status, 503, "to be sent again: {}", answer.text());
    proxy.set(Mode::Pass);
    receiver.wait_ready(SOON).await?;
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_rolled_back_once(&world.redis, "p").await
}

#[tokio::test]
async fn a_damaged_heartbeat_is_replaced_and_hides_nothing() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let mut beat = critical("p");
    beat["labels"]["alertname"] = "PromptRollbackHeartbeat".into();
    beat["annotations"]["evaluated_at"] = "1795221492".into();
    let key = "{prompts}:heartbeat";
    for damage in [&["SADD", key, "x"][..], &["HSET", key, "heard_at", "x", "evaluated_at", "y"]] {
        world.redis.cmd::<()>(&["DEL", key]).await?;
        world.redis.cmd::<()>(damage).await?;
        eventually("metrics are complete", SOON, async || {
            let metrics = world.http().get("/metrics").await.ok()?.text().to_owned();
            let complete = metrics.contains("active_version_info{prompt=\"p\"");
            (complete && metrics.contains("prompt_rollback_ready 1")).then_some(())
        })
        .await?;
        let answer = world.receiver.deliver(&[beat.clone(), critical("p")]).await?;
        assert_eq!(answer.status, 200, "{damage:?}: {}", answer.text());
        assert!(world.receiver.app.engine.store.heartbeat().await?.is_some(), "{damage:?}");
    }
    Ok(())
}
