//! Adopting prompts that were served before there was a receiver.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use prompt_rollback_testkit::http::Http;
use serde_json::{Value, json};

use crate::common::kept::{keys, prompt};
use crate::common::{Receiver, Redis, World, dump};

/// Repeats the request until everything was imported.
async fn import(world: &World, mut body: Value) -> Result<(Vec<Value>, u64, Vec<Value>)> {
    let (mut adopted, mut known, mut skipped) = (Vec::new(), 0, Vec::new());
    loop {
        let (status, answer) = world.post("/api/import", body.clone()).await?;
        ensure!(status == 200, "{answer}");
        adopted.extend(answer["adopted"].as_array().into_iter().flatten().cloned());
        skipped.extend(answer["skipped"].as_array().into_iter().flatten().cloned());
        known += answer["known"].as_u64().unwrap_or_default();
        if answer["next"].is_null() {
            return Ok((adopted, known, skipped));
        }
        body["cursor"] = answer["next"].clone();
    }
}

/// The states of all prompts. A commit changes one, and nothing else does.
async fn states(redis: &Redis) -> Result<BTreeMap<String, Vec<u8>>> {
    let of_p = keys().state(&prompt("p"));
    Ok(dump(redis).await?.into_iter().filter(|(key, _)| key.starts_with(of_p.trim_end_matches('p'))).collect())
}

fn prompts(adopted: &[Value]) -> BTreeSet<&str> {
    adopted.iter().filter_map(|a| a["prompt"].as_str()).collect()
}

#[tokio::test]
async fn keys_of_our_layout_are_trusted_and_again_changes_nothing() -> Result<()> {
    let world = World::on(Redis::start()?, &[]).await?;
    for n in 0..250 {
        world.redis.cmd::<()>(&["SET", &format!("{{prompts}}:active:team/p{n}"), "v1"]).await?;
    }
    world.redis.cmd::<()>(&["SET", "{prompts}:active:other", "v1"]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:not a name", "v1"]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:team/garbled", "{}"]).await?;
    world.redis.cmd::<()>(&["LPUSH", "{prompts}:active:team/list", "v1"]).await?;

    let (dry, _, _) = import(&world, json!({"known_good": true, "pattern": "team/p*", "dry_run": true})).await?;
    assert_eq!(prompts(&dry).len(), 250);
    ensure!(
        world.get("/api/prompts/team%2Fp1").await?["versions"][0]["known_good"] == false,
        "a dry run marks nothing"
    );

    let (adopted, _, skipped) = import(&world, json!({"known_good": true, "pattern": "team/*"})).await?;
    assert_eq!(prompts(&adopted).len(), 250);
    let reasons: Vec<_> = skipped.iter().map(|s| (s["key"].as_str(), s["reason"].as_str())).collect();
    assert_eq!(reasons.len(), 2, "{skipped:?}");
    ensure!(world.get("/api/prompts/team%2Fp1").await?["versions"][0]["known_good_by"] == "mark");
    ensure!(world.get("/api/prompts/other").await?["versions"][0]["known_good"] == false);

    let before = states(&world.redis).await?;
    let (adopted, known, _) = import(&world, json!({"known_good": true, "pattern": "team/*"})).await?;
    ensure!(adopted.is_empty() && known >= 250, "{adopted:?} {known}");
    assert_eq!(before, states(&world.redis).await?, "importing again");
    let (_, _, skipped) = import(&world, json!({})).await?;
    ensure!(skipped.iter().any(|s| s["key"] == "{prompts}:active:not a name"), "{skipped:?}");
    Ok(())
}

#[tokio::test]
async fn keys_of_another_layout_fill_gaps_and_overwrite_nothing() -> Result<()> {
    let world = World::start().await?;
    world.redis.cmd::<()>(&["ACL", "SETUSER", "receiver", "%R~app:*"]).await?;
    world.ship("shipped").await?;
    for (key, value) in [
        ("app:prompt:greeting:version", "v3"),
        ("app:prompt:team/refund:version", "v4\n"),
        ("app:prompt:Support bot @eu:version", "7"),
        ("app:prompt:shipped:version", "v0"),
        ("app:prompt:empty:version", ""),
        ("app:prompt:odd:version", "no version"),
        ("app:prompt:a:b:version", "v1"),
        ("app:prompt:greeting:text", "Hello"),
        ("apq:prompt:wrong:version", "v1"),
    ] {
        world.redis.cmd::<()>(&["SET", key, value]).await?;
    }
    world.redis.cmd::<()>(&["HSET", "app:prompt:hash:version", "version", "v1"]).await?;
    let body = json!({"pattern": "app:prompt:{prompt}:version", "known_good": true, "operator": "mia"});
    let mut dry = body.clone();
    dry["dry_run"] = json!(true);
    let before = states(&world.redis).await?;
    let (foreseen, ..) = import(&world, dry).await?;
    assert_eq!(before, states(&world.redis).await?, "a dry run");

    let (adopted, known, skipped) = import(&world, body.clone()).await?;
    assert_eq!(adopted, foreseen);
    assert_eq!(prompts(&adopted), BTreeSet::from(["Support%20bot%20%40eu", "greeting", "team/refund"]));
    assert_eq!(world.active("Support%20bot%20%40eu").await?.as_deref(), Some("7"));
    assert_eq!(world.active("team/refund").await?.as_deref(), Some("v4"));
    assert_eq!(world.active("shipped").await?.as_deref(), Some("v2"), "never overwritten");
    let keys: BTreeSet<_> = skipped.iter().filter_map(|s| s["key"].as_str()?.split(':').nth(2)).collect();
    assert_eq!(keys, BTreeSet::from(["a", "empty", "hash", "odd"]), "{skipped:?}");
    assert_eq!(known, 1, "another version of it was shipped: nothing to do");
    let entry = &world.log("greeting").await?[0];
    assert_eq!((entry["event"].as_str(), entry["operator"].as_str()), ("activate", "mia (api)"));

    let before = states(&world.redis).await?;
    let (adopted, known, _) = import(&world, body).await?;
    assert_eq!((adopted.len(), known), (0, 4));
    assert_eq!(before, states(&world.redis).await?, "importing again");
    Ok(())
}

#[tokio::test]
async fn wrong_patterns_and_cursors_are_refused() -> Result<()> {
    let world = World::start().await?;
    for body in [
        json!({"pattern": ""}),
        json!({"pattern": "{prompt}"}),
        json!({"pattern": "{prompt}:{prompt}"}),
        json!({"pattern": "a\nb"}),
        json!({"cursor": "x"}),
        json!({"known": true}),
    ] {
        let (status, answer) = world.post("/api/import", body.clone()).await?;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{body}");
    }
    Ok(())
}

fn refused(status: u16, body: &Value, says: &[&str]) {
    assert_eq!((status, &body["error"]["code"]), (409, &json!("not_permitted")), "{body}");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    assert!(says.iter().all(|part| message.contains(part)), "{message}");
}

#[tokio::test]
async fn without_scan_one_prompt_is_imported_by_its_name_and_more_are_refused() -> Result<()> {
    let world = World::on(Redis::builder().receiver_may("-scan").start()?, &[]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:team/a", "v1"]).await?;
    let (status, body) = world.post("/api/import", json!({"pattern": "team/*"})).await?;
    refused(status, &body, &["+scan"]);
    let (status, body) = world.post("/api/import", json!({"pattern": "team/a", "known_good": true})).await?;
    assert_eq!((status, &body["adopted"][0]["prompt"], &body["next"]), (200, &json!("team/a"), &Value::Null), "{body}");
    ensure!(world.get("/api/prompts/team%2Fa").await?["versions"][0]["known_good_by"] == "mark");
    Ok(())
}

/// If no ACL prevents the receiver from reading other applications' keys, the API must not read them for anyone with
/// its token.
#[tokio::test]
async fn keys_of_others_are_read_only_where_an_acl_names_them() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "session:greeting", "s3cret"]).await?;
    let receiver = Receiver::ready(&redis.admin_url(), &[]).await?;
    for pattern in
        ["session:{prompt}", "{prompt}:", "sess{prompt}", &*keys().state(&prompt("p")).replace(":p", ":{prompt}")]
    {
        let answer = receiver.http.post_json("/api/import", &json!({"pattern": pattern, "dry_run": true})).await?;
        let body = answer.json()?;
        refused(answer.status, &body, &["user of its own", "%R~myapp:*"]);
        ensure!(!body.to_string().contains("s3cret") && !body.to_string().contains("greeting"), "{body}");
    }
    let answer = receiver.http.post_json("/api/import", &json!({"pattern": "*"})).await?;
    assert_eq!(answer.status, 200, "our own keys: {}", answer.text());
    Ok(())
}

#[tokio::test]
async fn an_import_without_read_permission_says_so() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "app:greeting", "v1"]).await?;
    redis.cmd::<()>(&["ACL", "SETUSER", "own", "on", ">pass", "~{prompts}:*", "&{prompts}:*", "+@all"]).await?;
    let env = [("REDIS__USERNAME", "own"), ("REDIS__PASSWORD", "pass")];
    let receiver = Receiver::ready(&redis.url(), &env).await?;
    let http: &Http = &receiver.http;
    let answer = http.post_json("/api/import", &json!({"pattern": "app:{prompt}"})).await?;
    let body = answer.json()?;
    assert_eq!((answer.status, &body["error"]["code"]), (409, &json!("not_permitted")), "{body}");
    ensure!(
        body["error"]["message"].as_str().is_some_and(|m| m.contains("app:greeting") && m.contains("ACL")),
        "{body}"
    );
    redis.cmd::<()>(&["ACL", "SETUSER", "own", "%R~app:*"]).await?;
    let answer = http.post_json("/api/import", &json!({"pattern": "app:{prompt}"})).await?;
    assert_eq!(answer.json()?["adopted"][0]["version"], "v1");
    Ok(())
}
