//! Invalid requests.

use anyhow::{Context, Result, ensure};
use prompt_rollback::store::schedule::Work;
use serde_json::{Value, json};

use crate::common::kept::{count, incident_id, keys};
use crate::common::{
    DUPLICATE, ROLLED_BACK, Redis, World, alert, assert_rolled_back_once, assert_same, copy_prompt, critical,
    deliver_until_taken, delivery, dump, exchange, incidents, outcomes, process, ship,
};

const WEBHOOK: &str = "/webhooks/alertmanager";

#[tokio::test]
async fn a_body_that_cannot_be_read_is_400_names_the_place_and_writes_nothing() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = dump(&world.redis).await?;
    let good = delivery(&[critical("p")]);
    let bad: Vec<(Vec<u8>, &str)> = vec![
        ("".into(), "line 1 column 0"),
        ("hello".into(), "line 1 column 1"),
        ("null".into(), "expected an object"),
        ("[]".into(), "expected an object"),
        ("{}".into(), "alerts: expected a list of at most 50000 alerts, found nothing"),
        (good[..good.len() / 2].into(), "body: EOF while parsing"),
        (format!("{good}}}").into(), "trailing characters"),
        (r#"{"alerts":{}}"#.into(), "alerts: expected a list of at most 50000 alerts, found an object"),
        (format!(r#"{{"alerts":[{}0]}}"#, "0,".repeat(50_000)).into(), "alerts: expected a list of at most 50000"),
        ("[".repeat(2_000).into(), "expected an object"),
    ];
    for (body, place) in bad {
        let shown: String = String::from_utf8_lossy(&body).chars().take(80).collect();
        let answer = world.http().post(WEBHOOK, body).await?;
        let text = answer.text();
        assert_eq!(answer.status, 400, "{shown}: {text}");
        let error = &answer.json()?["error"];
        assert_eq!(error["code"], "bad_request", "{shown}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains(place)), "{shown}: {text}");
    }
    assert_same(&before, &dump(&world.redis).await?, "bad bodies");
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK], "and it still works");
    Ok(())
}

#[tokio::test]
async fn what_nobody_reads_may_be_nested_however_deep() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let body = delivery(&[json!("DEEP"), critical("p")]).replace("\"DEEP\"", &deep);
    let body = body.replacen('{', &format!("{{\"x\":{deep},"), 1);
    let answer = world.http().post(WEBHOOK, body).await?;
    assert_eq!(outcomes(&answer)?, ["ignored{malformed}", ROLLED_BACK]);
    Ok(())
}

#[tokio::test]
async fn a_body_of_the_api_that_cannot_be_read_names_the_field() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = dump(&world.redis).await?;
    for (path, body, place) in [
        ("/api/rollback", "", "body: EOF"),
        ("/api/rollback", "{}", "missing field `prompt`"),
        ("/api/rollback", r#"{"prompt":5}"#, "prompt: invalid type"),
        ("/api/rollback", r#"{"prompt":"p","targetVersion":"v1"}"#, "targetVersion"),
        ("/api/rollback", r#"{"prompt":"p%7b%7d"}"#, "prompt: expected a prompt name"),
        ("/api/rollback", r#"{"prompt":"p","target_version":"v 1"}"#, "target_version: expected a version"),
        ("/api/rollback", r#"{"prompt":"p","strategy":"slow"}"#, "strategy"),
        ("/api/rollback", r#"{"prompt":"p","operator":"a\nb"}"#, "operator: expected one line"),
        ("/api/rollback", r#"{"prompt":"p"} x"#, "trailing characters"),
        ("/api/prompts/p/versions", r#"{"version":"v3","staged_at":"yesterday"}"#, "staged_at: expected a time"),
        ("/api/prompts/p/versions", r#"{"version":"v3","known_good":"yes"}"#, "known_good"),
        (
            "/api/prompts/p/activate",
            r#"{"version":"v1","percent":300}"#,
            "percent: invalid value: integer `300`, expected a number from 0 to 255",
        ),
        (
            "/api/prompts/p/activate",
            r#"{"version":"v1","canary":true,"hold_limit":"292y"}"#,
            "hold_limit: expected a duration such as \\\"2h\\\", at most 30 days",
        ),
        (
            "/api/incidents/01KAHJ3Y3W8Q0000000000000A/decide",
            "{\"decision\":\"approve\",\"operator\":\"\u{202e}\"}",
            "operator: expected the name of the person",
        ),
        ("/api/rollback", "{\"prompt\":\"p\",\"a\u{9b}b\":1}", r"a\u009bb: unknown field"),
        ("/api/rollback", r#"{"prompt":"p","target_version":1.5}"#, "target_version: invalid type"),
        ("/api/prompts/p%2541/activate", r#"{"version":"v1"}"#, "prompt: expected a prompt name"),
        ("/api/pause", r#"{"prompt":"*"}"#, "prompt: expected a prompt name"),
    ] {
        let answer = world.http().post(path, body).await?;
        let text = answer.text();
        assert_eq!(answer.status, 400, "{path} {body}: {text}");
        assert!(text.contains(place), "{path} {body}: {text}");
    }
    assert_same(&before, &dump(&world.redis).await?, "bad bodies");
    let long = format!(r#"{{"version":"v3","{}":1}}"#, "x".repeat(1 << 20));
    let answer = world.http().post("/api/prompts/p/versions", long).await?;
    ensure!(answer.status == 400 && answer.text().len() < 8 << 10, "{}", answer.text().len());
    Ok(())
}

#[tokio::test]
async fn a_pause_tells_that_no_prompt_has_this_name() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    for (prompt, unknown) in [("p", json!(null)), ("custmer-support", json!(true))] {
        let (status, answer) = world.post("/api/pause", json!({ "prompt": prompt })).await?;
        assert_eq!((status, &answer["paused"], &answer["unknown"]), (200, &json!(true), &unknown), "{answer}");
    }
    let (_, all) = world.post("/api/pause", json!({})).await?;
    assert_eq!(all["unknown"], json!(null));
    Ok(())
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_one_at_the_limit_is_read() -> Result<()> {
    let world = World::with(&[("SERVER__MAX_BODY_BYTES", "64KiB")]).await?;
    world.ship("p").await?;
    let limit = 64 << 10;
    let before = dump(&world.redis).await?;
    let body = delivery(&[critical("p")]);
    let body = format!("{body}{}", " ".repeat(limit - body.len()));
    let large = format!("{body} ");
    let answer = world.http().post(WEBHOOK, large.clone()).await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (413, &json!("too_large")));
    // the length is not declared
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let request = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    let answer = exchange(world.receiver.app.address, request.as_bytes()).await?;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_same(&before, &dump(&world.redis).await?, "too large");
    assert_eq!(outcomes(&world.http().post(WEBHOOK, body).await?)?, [ROLLED_BACK]);
    Ok(())
}

#[tokio::test]
async fn only_alerts_and_texts_of_versions_may_be_long() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let padded = |body: &Value, bytes: usize| {
        let body = body.to_string();
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    let short = 64 << 10;
    let before = dump(&world.redis).await?;
    let id = "01KAHJ3Y3W8Q0000000000000A";
    for (path, body) in [
        ("/api/rollback", json!({"prompt": "p"})),
        ("/api/import", json!({"pattern": "*"})),
        ("/api/prompts/p/activate", json!({"version": "v1"})),
        ("/api/prompts/p/canary", json!({"action": "hold"})),
        ("/api/prompts/p/versions/v1/mark", json!({"mark": "bad", "reason": "why"})),
        (&format!("/api/incidents/{id}/decide"), json!({"decision": "approve", "operator": "mia"})),
        ("/api/pause", json!({"prompt": "p"})),
        ("/api/resume", json!({"prompt": "p"})),
        ("/api/drill", json!({"prompt": "p"})),
    ] {
        let answer = world.http().post(path, padded(&body, short + 1)).await?;
        let message = "the body is larger than 65536 bytes";
        assert_eq!((answer.status, &answer.json()?["error"]["message"]), (413, &json!(message)), "{path}");
    }
    assert_same(&before, &dump(&world.redis).await?, "too large");
    let (status, _) = world.post("/api/pause", json!({"prompt": "p"})).await?;
    let at_the_limit = world.http().post("/api/resume", padded(&json!({"prompt": "p"}), short)).await?;
    assert_eq!((status, at_the_limit.status), (200, 200));
    let long = world.http().post("/api/prompts/p/versions", padded(&json!({"version": "v3"}), 2 * short)).await?;
    assert_eq!(long.status, 201, "{}", long.text());
    Ok(())
}

#[tokio::test]
async fn a_body_far_over_the_limit_is_answered_before_it_breaks_off() -> Result<()> {
    let world = World::start().await?;
    for _ in 0..5 {
        let answer = world.http().post("/webhooks/alertmanager", vec![b' '; 17 << 20]).await?;
        assert_eq!(answer.status, 413, "a connection that is reset would be tried again for ever");
    }
    Ok(())
}

#[tokio::test]
async fn without_the_right_token_nobody_gets_past() -> Result<()> {
    const DRAFT: &str = "/api/incidents/01KAHJ3Y3W8Q0000000000000A/postmortem";
    let redis = crate::common::Redis::start()?;
    let env = [("SERVER__WEBHOOK_TOKEN", "hook-s3cret"), ("SERVER__API_TOKEN", "api-s3cret")];
    let receiver = crate::common::Receiver::ready(&redis.url(), &env).await?;
    let (hook, api) = (receiver.http.clone().token("hook-s3cret"), receiver.http.clone().token("api-s3cret"));
    crate::common::ship(&api, "p").await?;
    let before = dump(&redis).await?;
    let body = delivery(&[critical("p")]);
    for wrong in ["hook-s3cre", "hook-s3crets", "HOOK-S3CRET", "api-s3cret", " "] {
        let answer = receiver.http.clone().token(wrong).post(WEBHOOK, body.clone()).await?;
        assert_eq!((answer.status, &answer.json()?["error"]["code"]), (401, &json!("unauthorized")), "{wrong}");
    }
    for (path, token) in [
        ("/api/prompts", "hook-s3cret"),
        ("/api/prompts/p", "x"),
        ("/api/incidents", "x"),
        (DRAFT, "x"),
        ("/api/drill/01KAHJ3Y3W8Q0000000000000A", "x"),
    ] {
        assert_eq!(receiver.http.clone().token(token).get(path).await?.status, 401, "{path}");
        assert_eq!(receiver.http.get(path).await?.status, 401, "{path}");
    }
    let rollback = json!({"prompt": "p"});
    for path in [
        "/api/rollback",
        "/api/prompts/p/versions",
        "/api/prompts/p/activate",
        "/api/drill",
        "/api/pause",
        "/api/resume",
    ] {
        assert_eq!(receiver.http.post_json(path, &rollback).await?.status, 401, "{path}");
    }
    let request =
        format!("POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let answer = exchange(receiver.app.address, request.as_bytes()).await?;
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.to_lowercase().contains("www-authenticate: bearer"),
        "{answer}"
    );
    assert!(!answer.contains("s3cret"), "{answer}");
    assert_same(&before, &dump(&redis).await?, "unauthorized requests");
    for open in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(receiver.http.get(open).await?.status, 200, "{open}");
    }
    assert_eq!(outcomes(&hook.post(WEBHOOK, body).await?)?, [ROLLED_BACK]);
    Ok(())
}

#[tokio::test]
async fn hostile_names_are_ignored_and_the_others_of_the_group_are_handled() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let long = "x".repeat(20_000);
    let too_long = "🙂".repeat(11);
    let hostile = ["", too_long.as_str(), long.as_str()];
    let mut alerts: Vec<Value> = hostile.iter().map(|name| alert(name, "v2", "critical")).collect();
    let versions = ["v{2}", "v2\r\nSET x y", "v 2", "\0", "🙂", "", "v/2", long.as_str()];
    alerts.extend(versions.iter().map(|name| alert("p", name, "critical")));
    for label in ["prompt", "version"] {
        let mut missing = critical("p");
        missing["labels"].as_object_mut().expect("labels").remove(label);
        alerts.push(missing);
    }
    let bad = alerts.len();
    alerts.insert(bad / 2, critical("p"));
    let mut expected = vec!["ignored{invalid_name}"; bad];
    expected.insert(bad / 2, ROLLED_BACK);
    let before: Vec<String> = dump(&world.redis).await?.into_keys().collect();
    assert_eq!(world.receiver.outcomes(&alerts).await?, expected);
    assert_rolled_back_once(&world.redis, "p").await?;
    let new: Vec<String> = dump(&world.redis).await?.into_keys().filter(|key| !before.contains(key)).collect();
    let incident = incidents(&world.redis, "p").await?[0]["id"].as_str().map(incident_id).context("an id")?;
    let keys = keys();
    let of_a_rollback = [keys.automatic(), keys.due(Work::Incident), keys.incidents(), keys.open(), keys.phases()];
    let known = |key: &String| *key == keys.incident(&incident) || of_a_rollback.contains(key);
    assert!(new.iter().all(known), "{new:?}");
    let metrics = world.http().get("/metrics").await?.text();
    let counted =
        format!(r#"prompt_rollback_alerts_total{{severity="critical",outcome="ignored",reason="invalid_name"}} {bad}"#);
    assert!(metrics.contains(&counted), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn an_alert_routed_back_to_us_and_one_without_a_measurement_are_ignored() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = dump(&world.redis).await?;
    let mut own = critical("p");
    own["labels"]["alertname"] = json!("PromptRollbackNotReady");
    let mut nodata = critical("p");
    nodata["labels"]["alertname"] = json!("DatasourceNoData");
    // as Grafana sends it if the rule keeps its state without data
    let mut unmeasured = critical("p");
    unmeasured["annotations"]["grafana_state_reason"] = json!("NoData, KeepLast");
    let got = world.receiver.outcomes(&[own, nodata, unmeasured]).await?;
    assert_eq!(got, ["ignored{own_alert}", "ignored{not_measured}", "ignored{not_measured}"]);
    assert_same(&before, &dump(&world.redis).await?, "ignored alerts");
    // Grafana's `values` are null for measured alerts as well
    let mut measured = critical("p");
    measured["values"] = Value::Null;
    assert_eq!(world.receiver.outcomes(&[measured]).await?, [ROLLED_BACK]);
    Ok(())
}

/// `benches/receiver` measures how long it takes.
#[tokio::test]
async fn three_thousand_alerts_of_as_many_prompts_each_have_their_outcome() -> Result<()> {
    const MANY: usize = 3_000;
    let redis = Redis::start()?;
    let receiver = process(&redis).env("PROMPT_ROLLBACK_GUARDS__MAX_AUTO_ROLLBACKS", "10000").start()?;
    ship(&receiver.http(), "p-0").await?;
    let names: Vec<String> = (0..MANY).map(|n| format!("p-{n}")).collect();
    copy_prompt(&redis, "p-0", &names[1..]).await?;
    let alerts: Vec<Value> = names.iter().map(|name| critical(name)).collect();
    let (got, refused) = deliver_until_taken(&receiver.http(), &alerts).await?;
    let now = got.iter().filter(|outcome| *outcome == ROLLED_BACK).count();
    let before = got.iter().filter(|outcome| *outcome == DUPLICATE).count();
    assert_eq!(now + before, MANY, "refused {refused} times: {got:?}");
    assert!(before == 0 || refused > 0, "{before} duplicates in the first delivery");
    for name in ["p-0", "p-1499", "p-2999"] {
        assert_rolled_back_once(&redis, name).await?;
    }
    for set in [keys().automatic(), keys().open()] {
        assert_eq!(count(&redis, &set).await?, MANY, "{set}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_alerts_of_one_version_are_one_rollback_one_incident() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let alerts: Vec<Value> = (0..3_000)
        .map(|n| {
            let mut alert = critical("p");
            alert["fingerprint"] = json!(format!("{n:016x}"));
            alert
        })
        .collect();
    let (got, refused) = deliver_until_taken(world.http(), &alerts).await?;
    let expected = if refused == 0 { &[ROLLED_BACK][..] } else { &[ROLLED_BACK, DUPLICATE] };
    assert!(got.len() == 3_000 && got.iter().all(|outcome| expected.contains(&outcome.as_str())), "{got:?}");
    assert_rolled_back_once(&world.redis, "p").await?;
    let kept = incidents(&world.redis, "p").await?[0]["alerts"].as_array().map(Vec::len);
    assert_eq!(kept, Some(64), "what an incident holds is bounded");
    Ok(())
}

#[tokio::test]
async fn more_prompts_than_the_budget_allows_wait_for_a_person() -> Result<()> {
    let world = World::start().await?;
    world.ship("p-0").await?;
    let names: Vec<String> = (1..50).map(|n| format!("p-{n}")).collect();
    copy_prompt(&world.redis, "p-0", &names).await?;
    let alerts: Vec<Value> = (0..50).map(|n| critical(&format!("p-{n}"))).collect();
    let got = world.receiver.outcomes(&alerts).await?;
    assert_eq!(got.iter().filter(|outcome| *outcome == ROLLED_BACK).count(), 5, "max_auto_rollbacks");
    assert_eq!(got.iter().filter(|outcome| *outcome == "held{budget}").count(), 45);
    Ok(())
}
