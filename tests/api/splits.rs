//! Canaries and gradual rollbacks: what prompt servers read, what people see, what is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::lying_target::{self, LyingTarget};
use serde_json::{Value, json};

use crate::common::kept::{self, copy_prompt, keys};
use crate::common::{ROLLED_BACK, Receiver, Redis, SOON, World, alert, assert_same, critical, dump, eventually, ship};

const MINUTE: Duration = Duration::from_secs(60);

/// `active`, and `routing` as a prompt server reads it.
async fn served(redis: &Redis) -> Result<(String, BTreeMap<String, u8>)> {
    let active: String = redis.cmd(&["GET", "{prompts}:active:p"]).await?;
    let routing: BTreeMap<String, u8> = redis.cmd(&["HGETALL", "{prompts}:routing:p"]).await?;
    Ok((active, routing))
}

fn shares(pairs: &[(&str, u8)]) -> BTreeMap<String, u8> {
    pairs.iter().map(|(version, percent)| ((*version).to_owned(), *percent)).collect()
}

async fn until_served(redis: &Redis, active: &str, pairs: &[(&str, u8)]) -> Result<()> {
    let wanted = (active.to_owned(), shares(pairs));
    let result =
        eventually(&format!("{wanted:?}"), SOON, async || (served(redis).await.ok()? == wanted).then_some(())).await;
    result.with_context(|| format!("{wanted:?}"))
}

/// v1 is known-good and serves; v2 is registered.
async fn before_v2() -> Result<World> {
    let world = World::start().await?;
    prepare(&world).await?;
    Ok(world)
}

async fn prepare(world: &World) -> Result<()> {
    for (version, known_good) in [("v1", true), ("v2", false)] {
        let body = json!({"version": version, "known_good": known_good});
        ensure!(world.post("/api/prompts/p/versions", body).await?.0 == 201);
    }
    ensure!(world.post("/api/prompts/p/activate", json!({"version": "v1"})).await?.0 == 200);
    Ok(())
}

#[tokio::test]
async fn a_canary_is_promoted_and_everyone_can_follow() -> Result<()> {
    let world = before_v2().await?;
    let client = redis::Client::open(world.redis.prompt_server_url())?;
    let mut changes = client.get_async_pubsub().await?;
    changes.subscribe("{prompts}:changes").await?;
    let (status, answer) =
        world.post("/api/prompts/p/activate", json!({"version": "v2", "canary": true, "operator": "mia"})).await?;
    ensure!(status == 200, "{answer}");
    assert_eq!(
        (&answer["from_version"], &answer["to_version"], &answer["percent"]),
        (&json!("v1"), &json!("v2"), &json!(1))
    );
    assert_eq!(served(&world.redis).await?, ("v1".to_owned(), shares(&[("v1", 99), ("v2", 1)])));

    let message = tokio::time::timeout(SOON, changes.on_message().next()).await?.context("a message")?;
    let change: Value = serde_json::from_str(&message.get_payload::<String>()?)?;
    assert_eq!((&change["from"], &change["to"]), (&json!("v1"), &json!("v2")));
    assert_eq!(change["routing"], json!({"v1": 99, "v2": 1}));

    let prompt = world.get("/api/prompts/p").await?;
    assert_eq!(prompt["routing"], json!({"v1": 99, "v2": 1}));
    assert_eq!((&prompt["canary"]["percent"], &prompt["canary"]["end"]), (&json!(1), &Value::Null));
    ensure!(world.get("/api/prompts").await?["prompts"][0]["canary"]["to"] == "v2");
    let entry = world.log("p").await?.into_iter().find(|entry| entry["event"] == "canary").context("an entry")?;
    assert_eq!((entry["from"].as_str(), entry["to"].as_str(), entry["operator"].as_str()), ("v1", "v2", "mia (api)"));
    eventually("both versions are measured", SOON, async || {
        let text = world.http().get("/metrics").await.ok()?.text().to_owned();
        let info = |version, previous| {
            format!(r#"active_version_info{{prompt="p",version="{version}",previous="{previous}"}} 1"#)
        };
        (text.contains(&info("v1", "")) && text.contains(&info("v2", "v1"))).then_some(())
    })
    .await?;

    for (active, pairs) in [("v1", &[("v1", 95), ("v2", 5)][..]), ("v1", &[("v1", 75), ("v2", 25)]), ("v2", &[])] {
        world.receiver.clock.advance(10 * MINUTE);
        until_served(&world.redis, active, pairs).await?;
    }
    let end = &world.get("/api/prompts/p").await?["canary"]["end"];
    ensure!(end["promoted"] == true, "{end}");
    Ok(())
}

/// A new master's clock is ahead, or someone set it: no time has passed, and no one has seen the stage succeed.
#[tokio::test]
async fn a_stage_is_not_shortened_by_a_clock_that_jumps_ahead() -> Result<()> {
    let world = before_v2().await?;
    let (status, answer) = world.post("/api/prompts/p/activate", json!({"version": "v2", "canary": true})).await?;
    ensure!(status == 200, "{answer}");
    let stage = async || until_served(&world.redis, "v1", &[("v1", 99), ("v2", 1)]).await;
    world.has_looked().await?;
    for _ in 0..2 {
        world.receiver.clock.jump(10 * MINUTE);
        world.settled(&[Work::Incident, Work::Canary]).await?;
        stage().await?;
    }
    world.receiver.clock.advance(9 * MINUTE);
    world.settled(&[Work::Incident, Work::Canary]).await?;
    stage().await?;
    world.receiver.clock.advance(MINUTE);
    until_served(&world.redis, "v1", &[("v1", 95), ("v2", 5)]).await?;
    // the next one began after the jumps
    world.receiver.clock.advance(10 * MINUTE);
    until_served(&world.redis, "v1", &[("v1", 75), ("v2", 25)]).await
}

#[tokio::test]
async fn an_alert_takes_a_canary_back_at_once() -> Result<()> {
    let world = before_v2().await?;
    let body = json!({"version": "v2", "canary": true, "stages": [40, 100], "hold": "1h"});
    ensure!(world.post("/api/prompts/p/activate", body).await?.0 == 200);
    assert_eq!(world.receiver.outcomes(&[alert("p", "v2", "high")]).await?, [ROLLED_BACK]);
    assert_eq!(served(&world.redis).await?, ("v1".to_owned(), shares(&[])));
    let prompt = world.get("/api/prompts/p").await?;
    ensure!(prompt["canary"]["end"]["promoted"] == false, "{prompt}");
    let (status, answer) = world.post("/api/prompts/p/activate", json!({"version": "v2", "canary": true})).await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("needs_force")));
    Ok(())
}

#[tokio::test]
async fn a_gradual_rollback_survives_a_restart_and_holds_each_stage_in_full() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let body =
        json!({"prompt": "p", "strategy": "gradual", "stages": [60, 50, 0], "hold": ["20m", "5m"], "operator": "mia"});
    let (status, answer) = world.post("/api/rollback", body).await?;
    ensure!(status == 200 && answer["percent"] == 40, "{answer}");
    assert_eq!(served(&world.redis).await?, ("v2".to_owned(), shares(&[("v1", 40), ("v2", 60)])));
    let id = answer["incident"].as_str().context("an incident")?.to_owned();
    let gradual = &world.get(&format!("/api/incidents/{id}")).await?["gradual"];
    assert_eq!((&gradual["percent"], &gradual["hold_seconds"]), (&json!(40), &json!([1200, 300])));

    let World { redis, receiver, .. } = world;
    let clock = receiver.clock.clone();
    receiver.app.shutdown().await;
    clock.advance(60 * MINUTE); // down for much longer than a stage
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    receiver.clock.advance(60 * MINUTE);
    until_served(&redis, "v1", &[("v1", 50), ("v2", 50)]).await?;
    receiver.clock.advance(4 * MINUTE);
    assert_eq!(served(&redis).await?.1, shares(&[("v1", 50), ("v2", 50)]), "held in full");
    receiver.clock.advance(MINUTE);
    until_served(&redis, "v1", &[]).await?;
    let incident = receiver.http.get(&format!("/api/incidents/{id}")).await?.json()?;
    assert_eq!((&incident["flip"]["mode"], &incident["flip"]["operator"]), (&json!("gradual"), &json!("mia (api)")));
    let text = receiver.http.get("/metrics").await?.text().to_owned();
    ensure!(text.contains(r#"rollbacks_total{mode="gradual",result="ok"} 1"#), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_gradual_rollback_is_approved_hurried_and_taken_back_by_people() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let id = world.get("/api/incidents").await?["incidents"][0]["id"].as_str().context("id")?.to_owned();
    let decide = async |decision: &str| {
        world.post(&format!("/api/incidents/{id}/decide"), json!({"decision": decision, "operator": "mia"})).await
    };
    let (status, answer) = decide("approve_gradual").await?;
    ensure!(status == 200 && answer["percent"] == 25, "{answer}");
    let (status, answer) = decide("approve_gradual").await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("already_decided")));
    let (status, answer) = decide("undo").await?;
    ensure!(status == 200 && answer["to_version"] == "v2", "{answer}");
    assert_eq!(served(&world.redis).await?, ("v2".to_owned(), shares(&[])));
    ensure!(world.get(&format!("/api/incidents/{id}")).await?["phase"] == "dismissed");

    let (status, answer) =
        world.post("/api/rollback", json!({"prompt": "p", "from_version": "v2", "strategy": "gradual"})).await?;
    ensure!(status == 200, "{answer}");
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK], "all the way at once");
    assert_eq!(served(&world.redis).await?, ("v1".to_owned(), shares(&[])));
    Ok(())
}

#[tokio::test]
async fn refused_activations_and_rollbacks_say_why_and_change_nothing() -> Result<()> {
    let world = before_v2().await?;
    ensure!(world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?.0 == 201);
    let activate = "/api/prompts/p/activate";
    let roll = |more: Value| {
        let mut body = json!({"prompt": "p", "target_version": "v2", "force": true, "strategy": "gradual"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        ("/api/rollback", body)
    };
    let before = dump(&world.redis).await?;
    for ((path, body), status, code, says) in [
        ((activate, json!({"version": "v2", "percent": 101})), 400, "bad_stages", "expected 1 to 99, or 0"),
        ((activate, json!({"version": "v2", "percent": 0})), 409, "moved", "none of v2 is under way"),
        ((activate, json!({"version": "v2", "percent": 300})), 400, "bad_request", "percent"),
        ((activate, json!({"version": "v9", "percent": 5})), 409, "unknown_version", "register it first"),
        ((activate, json!({"version": "v1", "canary": true})), 409, "moved", "already has all traffic"),
        ((activate, json!({"version": "v2", "canary": true, "hold": "0s"})), 400, "bad_stages", "hold: expected"),
        ((activate, json!({"version": "v2", "canary": true, "hold": "31d"})), 400, "bad_stages", "30 days"),
        ((activate, json!({"version": "v2", "canary": true, "stages": [5, 1, 100]})), 400, "bad_stages", "rise"),
        ((activate, json!({"version": "v2", "canary": true, "stages": [5, 50]})), 400, "bad_stages", "100"),
        ((activate, json!({"version": "v2", "canary": true, "hold": "soon"})), 400, "bad_request", "hold"),
        ((activate, json!({"version": "v2", "canary": true, "hold_limit": "0s"})), 400, "bad_request", "hold_limit"),
        ((activate, json!({"version": "v2", "percent": 5, "hold_limit": "1h"})), 400, "bad_request", "hold_limit"),
        (
            (activate, json!({"version": "v2", "canary": true, "stages": [1, 100], "hold": "0s"})),
            400,
            "bad_stages",
            "hold",
        ),
        ((activate, json!({"version": "v2", "canary": true, "percent": 5})), 400, "bad_request", "percent"),
        ((activate, json!({"version": "v2", "stages": [1, 100]})), 400, "bad_request", "canary"),
        (roll(json!({"stages": [25, 50, 0]})), 400, "bad_stages", "fall"),
        (roll(json!({"stages": [75, 50]})), 400, "bad_stages", "to 0"),
        (roll(json!({"hold": "0s"})), 400, "bad_stages", "hold: expected"),
        (roll(json!({"target_version": "v9"})), 409, "unknown_version", "register it first"),
        (roll(json!({"strategy": "instant", "stages": [50, 0]})), 400, "bad_request", "gradual"),
    ] {
        let (found, answer) = world.post(path, body.clone()).await?;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{body}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains(says), "{body}: {message}");
    }
    assert_same(&before, &dump(&world.redis).await?, "refusals");
    Ok(())
}

#[tokio::test]
async fn of_two_operators_at_once_one_is_refused() -> Result<()> {
    let world = before_v2().await?;
    ensure!(world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?.0 == 201);
    let activate = |version: &str| world.post("/api/prompts/p/activate", json!({"version": version, "canary": true}));
    let (one, other) = tokio::join!(activate("v2"), activate("v3"));
    let mut answers = [one?, other?];
    answers.sort_by_key(|(status, _)| *status);
    assert_eq!(answers.each_ref().map(|(status, _)| *status), [200, 409]);
    assert_eq!(answers[1].1["error"]["code"], "split_under_way");
    assert_eq!(served(&world.redis).await?.1.len(), 2);
    Ok(())
}

#[tokio::test]
async fn redis_away_in_the_middle_of_a_stage_delays_it() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    ship(&receiver.http, "p").await?;
    let answer = receiver.http.post("/api/rollback", r#"{"prompt":"p","strategy":"gradual"}"#).await?;
    ensure!(answer.status == 200);
    redis.kill9();
    receiver.clock.advance(25 * MINUTE);
    receiver.wait_not_ready("connection", SOON).await?;
    redis.restart()?;
    until_served(&redis, "v1", &[("v1", 50), ("v2", 50)]).await?;
    receiver.clock.advance(9 * MINUTE);
    receiver.wait_ready(SOON).await?;
    assert_eq!(served(&redis).await?.1, shares(&[("v1", 50), ("v2", 50)]), "one stage, held in full");
    receiver.clock.advance(MINUTE);
    until_served(&redis, "v1", &[("v1", 75), ("v2", 25)]).await
}

#[tokio::test]
async fn what_someone_sets_by_hand_ends_a_split() -> Result<()> {
    let world = before_v2().await?;
    ensure!(world.post("/api/prompts/p/activate", json!({"version": "v2", "percent": 30})).await?.0 == 200);
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v2"]).await?;
    until_served(&world.redis, "v2", &[]).await?;
    ensure!(world.get("/api/prompts/p").await?["canary"]["end"]["promoted"] == true);
    Ok(())
}

/// Delivers the heartbeat, with rules evaluated at this time since 1970.
async fn heartbeat(world: &World, evaluated_at: Duration) -> Result<()> {
    let alert = json!({
        "status": "firing", "fingerprint": "00000000000000aa",
        "labels": {"alertname": "PromptRollbackHeartbeat", "severity": "medium"},
        "annotations": {"evaluated_at": evaluated_at.as_secs().to_string()},
    });
    let (status, answer) = world.post("/webhooks/alertmanager", json!({"version": "4", "alerts": [alert]})).await?;
    ensure!(status == 200, "{answer}");
    let result = &answer["results"][0];
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("ignored"), &json!("heartbeat")));
    Ok(())
}

#[tokio::test]
async fn a_canary_goes_on_only_while_the_alert_path_works() -> Result<()> {
    let world = World::with(&[("CANARY__ANALYSIS", "on")]).await?;
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    prepare(&world).await?;
    let body = json!({"version": "v2", "canary": true, "operator": "mia"});
    ensure!(world.post("/api/prompts/p/activate", body).await?.0 == 200);
    let canary = async || world.get("/api/prompts/p").await.map(|prompt| prompt["canary"].clone());
    assert_eq!(canary().await?["analysis"], "on");
    let waits = async |text: &str| {
        eventually(text, SOON, async || {
            let waits = canary().await.ok()?["waits"].as_str()?.to_owned();
            waits.contains(text).then_some(())
        })
        .await
    };
    let mut minute = 0;
    let mut at = |next: u32| {
        world.receiver.clock.advance((next - minute) * MINUTE);
        minute = next;
        began + next * MINUTE
    };
    at(10);
    waits("no heartbeat of the alert path").await?;
    // nothing is known of the time before the first heartbeat, nor of a gap
    for (beat, next) in [(10, 11), (22, 23)] {
        heartbeat(&world, at(beat)).await?;
        at(next);
        waits("rules were evaluated for").await?;
    }
    for beat in [26, 30, 34] {
        heartbeat(&world, at(beat)).await?;
    }
    at(35);
    until_served(&world.redis, "v1", &[("v1", 95), ("v2", 5)]).await?;
    // Alertmanager only repeats the last alert
    at(46);
    heartbeat(&world, began + 34 * MINUTE).await?;
    waits("the last heartbeat of the alert path arrived").await?;
    at(107);
    let question =
        eventually("people are asked", SOON, async || canary().await.ok()?["question"].as_str().map(str::to_owned))
            .await?;
    let incident = world.get(&format!("/api/incidents/{question}")).await?;
    assert_eq!((&incident["phase"], &incident["decider"]), (&json!("awaiting_decision"), &json!("on-call")));
    for beat in [110, 114, 118, 122] {
        heartbeat(&world, at(beat)).await?;
    }
    at(123);
    until_served(&world.redis, "v1", &[("v1", 75), ("v2", 25)]).await?;
    let incident = world.get(&format!("/api/incidents/{question}")).await?;
    assert_eq!(incident["phase"], "resolved", "{incident:#}");
    Ok(())
}

#[tokio::test]
async fn people_steer_a_canary() -> Result<()> {
    let world = before_v2().await?;
    let steer =
        async |action: &str| world.post("/api/prompts/p/canary", json!({"action": action, "operator": "mia"})).await;
    let (status, answer) = steer("skip").await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("moved")), "there is none");
    let (status, answer) = steer("stop").await?;
    ensure!(
        status == 400 && answer["error"]["message"].as_str().is_some_and(|m| m.contains("pause, resume")),
        "{answer}"
    );
    ensure!(world.post("/api/prompts/p/activate", json!({"version": "v2", "canary": true})).await?.0 == 200);
    let canary = async || world.get("/api/prompts/p").await.map(|prompt| prompt["canary"].clone());
    assert_eq!(canary().await?["analysis"], "off", "said wherever it is shown");
    ensure!(steer("pause").await?.0 == 200);
    assert_eq!(canary().await?["paused_by"], "mia (api)");
    world.receiver.clock.advance(60 * MINUTE);
    let (status, answer) = steer("skip").await?;
    assert_eq!((status, &answer["percent"]), (200, &json!(5)), "{answer}");
    ensure!(steer("hold").await?.0 == 200);
    world.receiver.clock.advance(60 * MINUTE);
    assert_eq!(served(&world.redis).await?.1, shares(&[("v1", 95), ("v2", 5)]));
    let (status, answer) = steer("promote").await?;
    assert_eq!((status, &answer["to_version"], answer.get("percent")), (200, &json!("v2"), None), "{answer}");
    until_served(&world.redis, "v2", &[]).await?;
    let log = world.log("p").await?;
    let promoted = log
        .iter()
        .find(|entry| entry["event"] == "activate" && entry["operator"] == "mia (api)")
        .context("an entry")?;
    assert_eq!((promoted["from"].as_str(), promoted["to"].as_str()), ("v1", "v2"));
    Ok(())
}

const MANY: usize = 600;

/// [`MANY`] canaries at the end of the stage before the last.
async fn many_canaries(env: &[(&str, &str)]) -> Result<World> {
    let world = World::with(env).await?;
    let canary = json!({"version": "v2", "canary": true, "stages": [10, 100], "hold": "10m"});
    for (path, body) in [
        ("versions", json!({"version": "v1"})),
        ("versions", json!({"version": "v2"})),
        ("activate", json!({"version": "v1"})),
        ("activate", canary),
    ] {
        let (status, answer) = world.post(&format!("/api/prompts/canary/{path}"), body).await?;
        ensure!(status < 300, "{answer}");
    }
    let names: Vec<String> = (0..MANY).map(|number| format!("canary-{number}")).collect();
    copy_prompt(&world.redis, "canary", &names).await?;
    world.receiver.clock.advance(10 * MINUTE);
    Ok(world)
}

/// A worker finds all of them due.
async fn wake(world: &World) -> Result<()> {
    let fill = "for i = 0, ARGV[1] - 1 do redis.call('ZADD', KEYS[1], 0, '@canary-' .. i .. '|act') end";
    world.redis.cmd(&["EVAL", fill, "1", &keys().due(Work::Incident), &MANY.to_string()]).await
}

/// Canaries take turns for their queries; a rollback is checked meanwhile.
#[tokio::test]
async fn canaries_that_wait_for_prometheus_delay_no_verification() -> Result<()> {
    let lying_target = LyingTarget::start(|_| (200, lying_target::vector(&[])))?;
    let world = many_canaries(&[("PROMETHEUS__URL", &lying_target.url()), ("CANARY__ANALYSIS", "on")]).await?;
    world.ship("p").await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    wake(&world).await?;
    world.receiver.clock.advance(Duration::from_secs(10));
    eventually("a check of the rollback", SOON, async || {
        let incident = kept::all_incidents(&world.redis).await.ok()?.pop()?;
        (incident["verification"]["checks"].as_u64()? > 0).then_some(())
    })
    .await?;
    let waiting = kept::count(&world.redis, &keys().due(Work::Canary)).await?;
    ensure!(waiting > MANY / 2, "only {waiting} canaries still wait");
    // receivers of the previous release do not read the set of canaries
    world.receiver.app.shutdown().await;
    let scheduled = kept::count(&world.redis, &keys().due(Work::Incident)).await?;
    ensure!(scheduled >= MANY, "{scheduled} wake-ups are left for them");
    Ok(())
}

#[tokio::test]
async fn who_asks_for_the_gates_does_not_wait_behind_canaries() -> Result<()> {
    let lying_target = LyingTarget::start(|_| (200, lying_target::vector(&[])))?;
    let world = many_canaries(&[("PROMETHEUS__URL", &lying_target.url()), ("CANARY__ANALYSIS", "on")]).await?;
    world.ship("p").await?;
    wake(&world).await?;
    let due = keys().due(Work::Canary);
    let wait = async || (kept::count(&world.redis, &due).await.ok()? > MANY / 2).then_some(());
    eventually("the canaries wait", SOON, wait).await?;
    let gates = world.get("/api/prompts/p/gates?version=v2").await?;
    ensure!(gates["gates"][1]["gate"] == "ab_test" && gates["gates"][1]["figures"] != "not measured", "{gates:#}");
    Ok(())
}

#[tokio::test]
async fn a_canary_that_waits_is_checked_every_minute_although_the_clock_jumped() -> Result<()> {
    let world = before_v2().await?;
    let (status, answer) = world.post("/api/prompts/p/activate", json!({"version": "v2", "canary": true})).await?;
    ensure!(status == 200, "{answer}");
    world.has_looked().await?;
    world.receiver.clock.jump(60 * MINUTE);
    world.settled(&[Work::Incident, Work::Canary]).await?;
    ensure!(world.post("/api/pause", json!({"operator": "mia"})).await?.0 == 200);
    world.receiver.clock.advance(10 * MINUTE);
    eventually("it waits", SOON, async || {
        world.get("/api/prompts/p").await.ok()?["canary"]["waits"].as_str().map(drop)
    })
    .await?;
    ensure!(world.post("/api/resume", json!({"operator": "mia"})).await?.0 == 200);
    world.receiver.clock.advance(2 * MINUTE);
    until_served(&world.redis, "v1", &[("v1", 95), ("v2", 5)]).await
}

#[tokio::test]
async fn a_stage_lasts_no_longer_although_redis_clock_went_back() -> Result<()> {
    let world = before_v2().await?;
    let (status, answer) = world.post("/api/prompts/p/activate", json!({"version": "v2", "canary": true})).await?;
    ensure!(status == 200, "{answer}");
    world.has_looked().await?;
    world.receiver.clock.go_back(60 * MINUTE);
    world.has_looked().await?;
    world.settled(&[Work::Incident, Work::Canary]).await?;
    world.receiver.clock.advance(10 * MINUTE);
    until_served(&world.redis, "v1", &[("v1", 95), ("v2", 5)]).await
}
