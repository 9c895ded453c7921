//! `POST /api/rollback`, and pausing.

use anyhow::Result;
use prompt_rollback_testkit::{Receiver, Redis};
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, World, alert, assert_rolled_back_once, critical, exchange};

#[tokio::test]
async fn the_curl_of_the_runbook_works_verbatim_against_the_default_config() -> Result<()> {
    let redis = Redis::start()?;
    // the shipped file, except for ports that may be in use
    let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .config(include_str!("../../config/prompt-rollback.toml"))
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .start()?;
    let http = receiver.http();
    for (path, body) in [
        ("versions", json!({"version": "v1.9.0", "known_good": true})),
        ("activate", json!({"version": "v1.9.0"})),
        ("versions", json!({"version": "v2.0.0"})),
        ("activate", json!({"version": "v2.0.0"})),
    ] {
        let answer = http.post_json(&format!("/api/prompts/customer-support/{path}"), &body).await?;
        assert!(answer.status < 300, "{}", answer.text());
    }
    let body = r#"{"prompt": "customer-support", "target_version": "v1.9.0"}"#;
    let request = format!(
        "POST /api/rollback HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        receiver.port(),
        body.len()
    );
    let answer = exchange(receiver.addr().parse()?, request.as_bytes()).await?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/json"), "{head}");
    let body: Value = serde_json::from_str(body)?;
    assert_eq!(body["success"], true);
    assert_eq!((&body["from_version"], &body["to_version"]), (&json!("v2.0.0"), &json!("v1.9.0")));
    assert!(body["timestamp"].is_string() && body["incident"].is_string(), "{body}");
    assert_eq!(redis.cmd::<String>(&["GET", "{prompts}:active:customer-support"]).await?, "v1.9.0");
    Ok(())
}

#[tokio::test]
async fn a_rollback_that_names_no_version_goes_to_the_newest_known_good_one() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let request = json!({"prompt": "p", "reason": "tone", "operator": "mia"});
    let (status, body) = world.post("/api/rollback", request.clone()).await?;
    assert_eq!((status, &body["to_version"]), (200, &json!("v1")));
    let entry = world.log("p").await?.pop().expect("an entry");
    assert_eq!((entry["operator"].as_str(), entry["reason"].as_str()), ("mia (api)", "tone"));
    assert_eq!(Some(entry["incident"].as_str()), body["incident"].as_str());
    assert_rolled_back_once(&world.redis, "p").await?;
    // a double click
    let (status, body) = world.post("/api/rollback", request).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("recently_rolled_back")));
    assert_rolled_back_once(&world.redis, "p").await
}

#[tokio::test]
async fn a_rollback_to_what_is_active_changes_nothing() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let (status, body) = world.post("/api/rollback", json!({"prompt": "p", "target_version": "v2"})).await?;
    assert_eq!((status, &body["unchanged"], &body["incident"]), (200, &json!(true), &Value::Null));
    assert_eq!(world.log("p").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_rollback_is_refused_with_the_reason() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.post("/api/prompts/p/versions", json!({"version": "unproven"})).await?;
    world.post("/api/prompts/alone/versions", json!({"version": "v1"})).await?;
    world.post("/api/prompts/alone/activate", json!({"version": "v1"})).await?;
    for (request, status, code) in [
        (json!({"prompt": "nobody"}), 404, "unknown_prompt"),
        (json!({"prompt": "p", "from_version": "v1"}), 409, "moved"),
        (json!({"prompt": "p", "target_version": "unproven"}), 409, "needs_force"),
        (json!({"prompt": "p", "target_version": "v9"}), 409, "unknown_version"),
        (json!({"prompt": "p", "target_version": "v9", "force": true}), 409, "unknown_version"),
        (json!({"prompt": "alone"}), 409, "no_known_good"),
    ] {
        let (got, body) = world.post("/api/rollback", request.clone()).await?;
        assert_eq!((got, &body["error"]["code"]), (status, &json!(code)), "{request}: {body}");
        assert!(body["error"]["message"].as_str().is_some_and(|m| m.len() > 10), "{body}");
    }
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    let (status, _) =
        world.post("/api/rollback", json!({"prompt": "p", "target_version": "unproven", "force": true})).await?;
    assert_eq!((status, world.active("p").await?.as_deref()), (200, Some("unproven")));
    // the version that was just rolled back requires force again
    let (status, body) = world.post("/api/rollback", json!({"prompt": "p", "target_version": "v2"})).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("needs_force")));
    Ok(())
}

#[tokio::test]
async fn what_a_request_cannot_mean_is_refused() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let opened: serde_json::Value = world.receiver.deliver(&[alert("p", "v2", "high")]).await?.json()?;
    let incident = opened["results"][0]["incident"].as_str().unwrap_or_default().to_owned();
    let decide = format!("/api/incidents/{incident}/decide");
    for (path, body, expected) in [
        ("/api/rollback", json!(["p", "v1"]), "body: expected a JSON object"),
        ("/api/pause", json!(["p"]), "body: expected a JSON object"),
        ("/api/prompts/p/versions/v2/restore", json!({"a": 1}), "unknown field `a`"),
        (
            &decide,
            json!({"decision": "dismiss", "target_version": "v1", "operator": "mia"}),
            "only approve, approve_gradual and undo have a target",
        ),
        (
            "/api/prompts/p/activate",
            json!({"version": "v1", "canary": true, "hold": {}}),
            "expected a duration such as",
        ),
    ] {
        let (status, answer) = world.post(path, body).await?;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(expected), "{path}: {status} {answer}");
    }
    for path in ["/api/prompts/p/log?cursor=0-0", "/api/log?cursor=p%400-0"] {
        let answer = world.http().get(path).await?;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn any_older_known_good_version_can_be_named() -> Result<()> {
    let world = World::start().await?;
    for version in ["v1", "v2", "v3", "v4"] {
        world.post("/api/prompts/p/versions", json!({"version": version, "known_good": true})).await?;
        world.post("/api/prompts/p/activate", json!({"version": version})).await?;
    }
    assert_eq!(world.get("/api/prompts/p").await?["rollback_target"], "v3");
    let (status, _) = world.post("/api/rollback", json!({"prompt": "p", "target_version": "v1"})).await?;
    assert_eq!((status, world.active("p").await?.as_deref()), (200, Some("v1")));
    assert_eq!(world.get("/api/prompts/p").await?["rollback_target"], "v3", "v4 is quarantined");
    Ok(())
}

#[tokio::test]
async fn pause_holds_automation_and_people_can_still_roll_back() -> Result<()> {
    let world = World::start().await?;
    for name in ["a/b", "q", "r"] {
        world.ship(name).await?;
    }
    let (status, body) =
        world.post("/api/pause", json!({"prompt": "a/b", "operator": "mia", "reason": "freeze"})).await?;
    assert_eq!((status, &body), (200, &json!({"paused": true, "prompt": "a/b", "changed": true})));
    let (_, body) = world.post("/api/pause", json!({"prompt": "a/b"})).await?;
    assert_eq!(body["changed"], false);
    assert_eq!(world.get("/api/prompts/a%2Fb").await?["paused"], true);
    assert_eq!(world.get("/api/prompts/q").await?["paused"], false);
    assert_eq!(world.receiver.outcomes(&[critical("a/b"), critical("q")]).await?, ["held{paused}", ROLLED_BACK]);
    let list = world.get("/api/incidents?open=true").await?;
    let incident = list["incidents"].as_array().and_then(|rows| rows.iter().find(|row| row["prompt"] == "a/b"));
    assert_eq!(incident.map(|incident| &incident["guard"]["reason"]), Some(&json!("paused")), "{list}");

    let answer = world.http().post("/api/pause", "").await?;
    assert_eq!((answer.status, answer.json()?), (200, json!({"paused": true, "prompt": null, "changed": true})));
    assert_eq!(world.receiver.outcomes(&[critical("r")]).await?, ["held{paused}"]);
    let (status, _) = world.post("/api/rollback", json!({"prompt": "r"})).await?;
    assert_eq!((status, world.active("r").await?.as_deref()), (200, Some("v1")));

    let (_, body) = world.post("/api/resume", json!({})).await?;
    assert_eq!(body, json!({"paused": false, "prompt": null, "changed": true}));
    assert_eq!(world.get("/api/prompts/a%2Fb").await?["paused"], true, "its own pause is left");
    world.post("/api/resume", json!({"prompt": "a/b"})).await?;
    assert_eq!(world.receiver.outcomes(&[critical("a/b")]).await?, [ROLLED_BACK], "the next delivery acts");
    Ok(())
}

#[tokio::test]
async fn a_resumed_prompt_says_that_all_are_still_paused() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    for paused in [json!({"prompt": "p"}), json!({})] {
        let (_, body) = world.post("/api/pause", paused).await?;
        assert_eq!(body.get("message"), None);
    }
    let (_, body) = world.post("/api/resume", json!({"prompt": "p"})).await?;
    let message = "Automatic rollbacks stay off: automation is paused for all prompts.";
    assert_eq!(body, json!({"paused": false, "prompt": "p", "changed": true, "message": message}));
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{paused}"]);
    let (_, body) = world.post("/api/resume", json!({})).await?;
    assert_eq!(body, json!({"paused": false, "prompt": null, "changed": true}));
    Ok(())
}

#[tokio::test]
async fn dry_run_says_what_it_would_do() -> Result<()> {
    let world = World::with(&[("GUARDS__MODE", "dry-run")]).await?;
    world.ship("p").await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{dry_run}"]);
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    let incident = world.get("/api/incidents").await?["incidents"][0].clone();
    assert_eq!((&incident["target"], &incident["phase"]), (&json!("v1"), &json!("awaiting_decision")));
    Ok(())
}
