//! Marks of versions, and the history of the served versions.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::http::encode;
use serde_json::{Value, json};

use crate::common::kept::keys;
use crate::common::{ROLLED_BACK, SOON, World, alert, assert_same, critical, dump, eventually, ship};

/// `p` with the rollback targets v0 and v1, and the active version v2.
async fn world() -> Result<World> {
    let world = World::start().await?;
    let body = json!({"version": "v0", "known_good": true});
    assert_eq!(world.post("/api/prompts/p/versions", body).await?.0, 201);
    assert_eq!(world.post("/api/prompts/p/activate", json!({"version": "v0"})).await?.0, 200);
    world.ship("p").await?;
    Ok(world)
}

fn marking(mark: &str) -> Value {
    json!({"mark": mark, "reason": "answers without the safety fix", "operator": "dana"})
}

async fn mark(world: &World, version: &str, body: Value) -> Result<(u16, Value)> {
    world.post(&format!("/api/prompts/p/versions/{version}/mark"), body).await
}

async fn version(world: &World, name: &str) -> Result<Value> {
    let prompt = world.get("/api/prompts/p").await?;
    let versions = prompt["versions"].as_array().context("versions")?;
    Ok(versions.iter().find(|version| version["version"] == name).context("the version")?.clone())
}

async fn previous(world: &World) -> Result<String> {
    let text = world.http().get("/metrics").await?.text();
    let line = text.lines().find(|line| line.contains("active_version_info{prompt=\"p\",version=\"v2\""));
    Ok(line.context("the series")?.split("previous=").nth(1).context("a label")?.to_owned())
}

#[tokio::test]
async fn a_bad_mark_is_kept_with_its_reason_and_the_target_changes_at_once() -> Result<()> {
    let world = world().await?;
    assert!(previous(&world).await?.starts_with("\"v1\""));
    let (status, body) = mark(&world, "v1", marking("bad")).await?;
    let at = body["timestamp"].clone();
    let expected = json!({
        "success": true, "prompt": "p", "version": "v1", "mark": "bad", "percent": 0, "rollback_target": "v0",
        "timestamp": at,
    });
    assert_eq!((status, body), (200, expected));
    // data of one scrape is reused for a second
    let shown = async || previous(&world).await.ok()?.starts_with("\"v0\"").then_some(());
    eventually("the metric shows it", SOON, shown).await?;
    let shown = version(&world, "v1").await?;
    let mark_of =
        json!({"kind": "bad", "at": at, "operator": "dana (api)", "reason": "answers without the safety fix"});
    assert_eq!((&shown["mark"], &shown["known_good"]), (&mark_of, &json!(false)));
    assert_eq!(world.get("/api/prompts/p").await?["rollback_target"], "v0");
    assert_eq!(version(&world, "v0").await?["mark"], Value::Null);
    let entry = world.log("p").await?.pop().context("an entry")?;
    assert_eq!((entry["event"].as_str(), entry["to"].as_str()), ("mark_bad", "v1"));
    assert_eq!(
        (entry["operator"].as_str(), entry["reason"].as_str()),
        ("dana (api)", "answers without the safety fix")
    );

    // a person can name it only with force, and the error says why
    for (path, body) in [
        ("/api/rollback", json!({"prompt": "p", "target_version": "v1"})),
        ("/api/prompts/p/activate", json!({"version": "v1"})),
    ] {
        let (status, answer) = world.post(path, body).await?;
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("needs_force")), "{path}");
        let message = answer["error"]["message"].as_str().context("a message")?;
        assert!(message.contains("marked as bad by dana (api) (answers without the safety fix)"), "{message}");
    }
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_eq!(world.active("p").await?.as_deref(), Some("v0"));
    let (status, _) =
        world.post("/api/rollback", json!({"prompt": "p", "target_version": "v1", "force": true})).await?;
    assert_eq!((status, world.active("p").await?.as_deref()), (200, Some("v1")));
    Ok(())
}

#[tokio::test]
async fn an_open_incident_shows_the_other_target_and_the_mark() -> Result<()> {
    let world = world().await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    mark(&world, "v1", marking("bad")).await?;
    let listed = world.get("/api/incidents").await?["incidents"][0].clone();
    let bad = json!([{"version": "v1", "operator": "dana (api)", "reason": "answers without the safety fix"}]);
    assert_eq!((&listed["target"], &listed["marked_bad"]), (&json!("v0"), &bad));
    Ok(())
}

#[tokio::test]
async fn marking_what_serves_says_so_and_how_to_roll_back() -> Result<()> {
    let world = world().await?;
    let (status, body) = mark(&world, "v2", marking("bad")).await?;
    assert_eq!((status, &body["percent"], &body["rollback_target"]), (200, &json!(100), &json!("v1")));
    let message = "v2 still serves (100 % of the traffic): nothing was rolled back. \
                   `prompt-rollback rollback p --from v2` goes back to v1";
    assert_eq!(body["message"], message);
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    for version in ["v0", "v1"] {
        mark(&world, version, marking("bad")).await?;
    }
    let (_, body) = mark(&world, "v2", json!({"mark": "bad", "reason": "another one"})).await?;
    assert_eq!(body["rollback_target"], Value::Null);
    assert!(body["message"].as_str().is_some_and(|message| message.contains("--to VERSION --force")), "{body}");
    Ok(())
}

#[tokio::test]
async fn a_good_mark_is_trusted_at_once_and_the_same_mark_again_writes_nothing() -> Result<()> {
    let world = world().await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_eq!(version(&world, "v2").await?["known_good"], false);
    let (status, body) = mark(&world, "v2", marking("good")).await?;
    assert_eq!((status, &body["mark"], &body["percent"]), (200, &json!("good"), &json!(0)));
    let shown = version(&world, "v2").await?;
    assert_eq!((&shown["known_good"], &shown["known_good_by"]), (&json!(true), &json!("mark")));
    assert_eq!(shown["quarantined_at"], Value::Null);
    let before = dump(&world.redis).await?;
    let (status, body) = mark(&world, "v2", marking("good")).await?;
    assert_eq!((status, &body["unchanged"]), (200, &json!(true)));
    let mut after = dump(&world.redis).await?;
    // written only before a WAIT
    let scratch = [keys().due(Work::Archive), keys().leased(Work::Archive), keys().wait_for_replicas()];
    after.retain(|key, _| !scratch.contains(key));
    let before = before.into_iter().filter(|(key, _)| !scratch.contains(key)).collect();
    assert_same(&before, &after, "the same mark again");
    Ok(())
}

#[tokio::test]
async fn a_mark_needs_a_word_a_reason_and_something_to_mark() -> Result<()> {
    let world = world().await?;
    for (path, body, status, code, part) in [
        ("p/versions/v1", json!({"mark": "bad"}), 400, "bad_request", "reason: "),
        ("p/versions/v1", json!({"mark": "good", "reason": " "}), 400, "bad_request", "reason: "),
        ("p/versions/v1", json!({"mark": "ugly", "reason": "x"}), 400, "bad_request", "mark: "),
        ("p/versions/v1", json!({"reason": "x"}), 400, "bad_request", "mark"),
        ("p/versions/v1", json!({"mark": "bad", "reason": "x", "force": true}), 400, "bad_request", "force"),
        ("p/versions/v%7B", json!({"mark": "bad", "reason": "x"}), 400, "bad_request", "version: "),
        ("p/versions/v9", json!({"mark": "bad", "reason": "x"}), 409, "unknown_version", "v9"),
        ("nobody/versions/v1", json!({"mark": "bad", "reason": "x"}), 404, "unknown_prompt", "nobody"),
    ] {
        let (found, answer) = world.post(&format!("/api/prompts/{path}/mark"), body.clone()).await?;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{path} {body}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(part)), "{answer}");
    }
    assert_eq!(world.http().get("/api/prompts/p/versions/v1/mark").await?.status, 405);
    assert_eq!(version(&world, "v1").await?["mark"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn a_version_that_has_served_for_long_is_left_to_people() -> Result<()> {
    let world = World::with(&[("GUARDS__ASK_WHEN_ACTIVE_FOR_LONGER_THAN", "7d")]).await?;
    world.ship("p").await?;
    world.ship("young").await?;
    world.receiver.clock.advance(Duration::from_secs(21 * 86_400));
    assert_eq!(world.post("/api/prompts/young/versions", json!({"version": "v3"})).await?.0, 201);
    assert_eq!(world.post("/api/prompts/young/activate", json!({"version": "v3"})).await?.0, 200);
    let outcomes = world.receiver.outcomes(&[critical("p"), alert("young", "v3", "critical")]).await?;
    assert_eq!(outcomes, ["held{served_long}", ROLLED_BACK]);
    let incidents = world.get("/api/incidents?open=true").await?;
    let incidents = incidents["incidents"].as_array().context("incidents")?;
    let held = incidents.iter().find(|incident| incident["prompt"] == "p").context("the held one")?;
    let detail = "v2 has served for 21 days; nothing about the prompt has changed";
    assert_eq!(held["guard"], json!({"reason": "served_long", "detail": detail}));
    let text = world.http().get("/metrics").await?.text();
    let series = "alerts_total{severity=\"critical\",outcome=\"held\",reason=\"served_long\"} 1";
    assert!(text.contains(series), "{text}");
    Ok(())
}

#[tokio::test]
async fn status_says_who_put_each_version_there_and_since_when() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let serves = async || Ok::<_, anyhow::Error>(world.get("/api/prompts/p").await?["in_service"].clone());
    let first = serves().await?;
    assert_eq!(first.as_array().map(Vec::len), Some(1));
    assert_eq!((&first[0]["version"], &first[0]["percent"]), (&json!("v2"), &json!(100)));
    assert_eq!((&first[0]["event"], &first[0]["operator"]), (&json!("activate"), &json!("api")));
    let since = first[0]["since"].clone();
    assert!(since.is_string());

    world.receiver.clock.advance(Duration::from_secs(60));
    let canary = json!({"version": "v1", "percent": 20, "operator": "mia"});
    assert_eq!(world.post("/api/prompts/p/activate", canary).await?.0, 200);
    let both = serves().await?;
    let told: Vec<_> = both.as_array().context("rows")?.iter().map(|row| (&row["version"], &row["percent"])).collect();
    assert_eq!(told, [(&json!("v2"), &json!(80)), (&json!("v1"), &json!(20))]);
    assert_eq!((&both[0]["since"], &both[1]["operator"]), (&since, &json!("mia (api)")));
    world.post("/api/prompts/p/activate", json!({"version": "v1", "percent": 0, "operator": "mia"})).await?;
    assert_eq!(serves().await?[0]["since"], since, "it never lost its traffic");

    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v3"]).await?;
    let set = serves().await?;
    assert_eq!((&set[0]["version"], &set[0]["operator"]), (&json!("v3"), &json!("external")));
    let back = json!({"prompt": "p", "target_version": "v1", "operator": "bo", "force": true});
    assert_eq!(world.post("/api/rollback", back).await?.0, 200);
    let back = serves().await?;
    assert_eq!(
        (&back[0]["version"], &back[0]["event"], &back[0]["operator"]),
        (&json!("v1"), &json!("rollback"), &json!("bo (api)"))
    );
    Ok(())
}

#[tokio::test]
async fn status_names_a_few_recently_changed_prompts_and_counts_the_rest() -> Result<()> {
    let world = World::start().await?;
    world.ship("long-ago").await?;
    world.receiver.clock.advance(Duration::from_secs(2 * 3_600));
    world.ship("p").await?;
    let changed = async || Ok::<_, anyhow::Error>(world.get("/api/prompts/p").await?["also_changed"].clone());
    let none = json!({"within_seconds": 3600, "prompts": [], "more": 0, "at_least": false});
    assert_eq!(changed().await?, none, "neither itself nor what is older");

    ship(world.http(), "team/search").await?;
    let one = changed().await?;
    let entry = &one["prompts"][0];
    assert_eq!((&entry["prompt"], &entry["from"], &entry["to"]), (&json!("team/search"), &json!("v1"), &json!("v2")));
    assert_eq!((&entry["event"], &entry["same_group"]), (&json!("activate"), &json!(false)));
    // a mark moves no traffic
    let path = format!("/api/prompts/{}/versions/v1/mark", encode("team/search"));
    assert_eq!(world.post(&path, marking("bad")).await?.0, 200);
    assert_eq!(changed().await?, one);

    for n in 0..24 {
        ship(world.http(), &format!("other-{n:02}")).await?;
    }
    let many = changed().await?;
    let named: Vec<_> = many["prompts"].as_array().context("rows")?.iter().map(|row| row["prompt"].clone()).collect();
    assert_eq!(named, ["other-23", "other-22", "other-21"], "the latest first");
    assert_eq!((&many["more"], &many["at_least"]), (&json!(17), &json!(true)), "bounded, and said so");
    Ok(())
}

#[tokio::test]
async fn a_log_of_the_wrong_type_hides_nothing_else() -> Result<()> {
    let world = World::start().await?;
    for prompt in ["p", "q", "r"] {
        world.ship(prompt).await?;
    }
    for broken in ["q", "p"] {
        let key = format!("{{prompts}}:log:{broken}");
        world.redis.cmd::<()>(&["DEL", &key]).await?;
        world.redis.cmd::<()>(&["SET", &key, "no stream"]).await?;
        let shown = world.get("/api/prompts/p").await?;
        assert_eq!((&shown["active"], &shown["in_service"][0]["version"]), (&json!("v2"), &json!("v2")), "{broken}");
        assert!(shown["in_service"][0]["since"].is_string(), "the state knows: {shown}");
    }
    Ok(())
}
