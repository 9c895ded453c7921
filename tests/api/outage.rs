//! Many prompts that fail together: one coordinating incident covers them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::eventually;
use serde_json::{Value, json};

use crate::common::kept::{keys, prompt};
use crate::common::{ROLLED_BACK, SOON, World, copy_prompt, critical, resolved, rollbacks};

const HELD: &str = "held{budget}";
const MINUTE: Duration = Duration::from_secs(60);

fn of(prompt: &str, provider: &str) -> Value {
    let mut alert = critical(prompt);
    alert["labels"]["provider"] = provider.into();
    alert["labels"]["model"] = format!("{provider}-1").into();
    alert
}

/// Two automatic rollbacks are allowed.
async fn world() -> Result<World> {
    World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "2")]).await
}

/// Rolls `a` and `b` back, so that `c` and `d` are held; returns the id of the coordinating incident.
async fn outage(world: &World) -> Result<String> {
    for (prompt, outcome) in [("a", ROLLED_BACK), ("b", ROLLED_BACK), ("c", HELD), ("d", HELD)] {
        world.ship(prompt).await?;
        assert_eq!(world.receiver.outcomes(&[of(prompt, "acme")]).await?, [outcome], "{prompt}");
    }
    let outage = coordinating(world, |outage| outage["prompts"] == 4).await?;
    Ok(outage["id"].as_str().context("an id")?.to_owned())
}

/// Waits until the newest coordinating incident satisfies `is`.
async fn coordinating(world: &World, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = eventually("a coordinating incident", 3 * SOON, async || {
        let list = world.get("/api/incidents").await.ok()?;
        let rows = list["incidents"].as_array()?;
        let row = rows.iter().find(|row| row["kind"] == "outage").filter(|row| is(row)).cloned()?;
        world.get(&format!("/api/incidents/{}", row["id"].as_str()?)).await.ok()
    });
    match found.await {
        Ok(found) => Ok(found),
        Err(error) => Err(error.context(format!("{:#}", world.get("/api/incidents").await?))),
    }
}

async fn decide(world: &World, id: &str, decision: &str) -> Result<(u16, Value)> {
    world.post(&format!("/api/incidents/{id}/decide"), json!({"decision": decision, "operator": "maya"})).await
}

async fn serve(world: &World, version: &str, prompts: &[&str]) -> Result<()> {
    eventually(&format!("{prompts:?} serve {version}"), 3 * SOON, async || {
        for prompt in prompts {
            (world.active(prompt).await.ok()?.as_deref() == Some(version)).then_some(())?;
        }
        Some(())
    })
    .await
}

fn said(outage: &Value) -> String {
    outage["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["text"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn one_incident_names_the_prompts_what_they_share_and_when_each_began() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    let outage = world.get(&format!("/api/incidents/{id}")).await?;
    assert_eq!((&outage["phase"], &outage["waiting"]), (&json!("awaiting_decision"), &json!(2)), "{outage:#}");
    assert_eq!(outage["shared"][0]["prompts"], 4);
    assert_eq!(outage["choices"], json!(["approve", "undo", "dismiss"]));
    let mut members: Vec<_> = outage["members"]
        .as_array()
        .context("members")?
        .iter()
        .map(|m| {
            (m["prompt"].as_str().unwrap_or_default(), m["phase"].as_str().unwrap_or_default(), &m["flipped_before"])
        })
        .collect();
    members.sort_unstable_by_key(|(prompt, ..)| *prompt);
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(
        members,
        [
            ("a", "verifying", &yes),
            ("b", "verifying", &yes),
            ("c", "awaiting_decision", &no),
            ("d", "awaiting_decision", &no)
        ]
    );
    assert!(outage["members"].as_array().context("members")?.iter().all(|m| m["began"] == "2026-11-21T00:38:16.689Z"));
    let open = world.get("/api/incidents?open=true").await?;
    assert_eq!(open["incidents"].as_array().map(Vec::len), Some(5), "each prompt also has its own: {open:#}");
    Ok(())
}

#[tokio::test]
async fn a_decision_about_all_prompts_takes_neither_a_version_nor_force() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    let refused = |decision: &str, field: &str, value: Value| {
        let body = json!({"decision": decision, "operator": "maya", field: value});
        (format!("{decision} with {field}"), field.to_owned(), body)
    };
    for (what, field, body) in [
        refused("approve", "target_version", json!("v1")),
        refused("undo", "target_version", json!("v1")),
        refused("approve", "force", json!(true)),
        refused("dismiss", "force", json!(true)),
    ] {
        let (status, answer) = world.post(&format!("/api/incidents/{id}/decide"), body.clone()).await?;
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &json!("bad_request")), "{what}: {answer}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(&format!("{field}: this is a coordinating incident")), "{what}: {message}");
        let unknown = world.post("/api/incidents/01KAJ4B8N4GZQ6V9C2M7T5R3XW/decide", body).await?;
        assert_eq!(unknown.0, 404, "{what}: {}", unknown.1);
    }
    assert_eq!(world.active("c").await?.as_deref(), Some("v2"));
    let undecided = world.get(&format!("/api/incidents/{id}")).await?;
    assert_eq!((&undecided["carrying_out"], &undecided["hold"]), (&Value::Null, &Value::Null), "{undecided:#}");
    Ok(())
}

#[tokio::test]
async fn roll_back_all_approves_each_waiting_incident_once_and_then_closes() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    let (status, answer) = decide(&world, &id, "approve").await?;
    assert_eq!((status, &answer["prompts"]), (200, &json!(2)), "{answer}");
    serve(&world, "v1", &["a", "b", "c", "d"]).await?;
    let outage = coordinating(&world, |outage| outage["waiting"] == 0 && outage["carrying_out"].is_null()).await?;
    assert_eq!(outage["phase"], "verifying");
    assert!(said(&outage).contains("done for maya (api): 2 rolled back"), "{}", said(&outage));
    for prompt in ["a", "b", "c", "d"] {
        assert_eq!(rollbacks(&world.redis, prompt).await?, 1, "{prompt}");
    }
    let log = world.log("c").await?;
    assert_eq!(log.last().context("an entry")?["operator"], "maya (api)");
    world.receiver.clock.advance(6 * MINUTE);
    let over = coordinating(&world, |outage| !outage["closed_at"].is_null()).await?;
    assert_eq!((&over["phase"], &over["choices"]), (&json!("resolved"), &json!([])), "{over:#}");
    let open = world.get("/api/incidents?open=true").await?;
    assert_eq!(open["incidents"], json!([]));
    let (status, answer) = decide(&world, &id, "dismiss").await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("already_decided")));
    Ok(())
}

#[tokio::test]
async fn hold_all_keeps_everything_as_it_is_until_it_is_released() -> Result<()> {
    let world = world().await?;
    world.ship("f").await?;
    let id = outage(&world).await?;
    assert_eq!(decide(&world, &id, "release").await?.0, 409, "no one holds them");
    assert_eq!(decide(&world, &id, "dismiss").await?.0, 200);
    let held =
        |outage: &Value| outage["members"].as_array().into_iter().flatten().filter(|m| m["held_back"] == true).count();
    coordinating(&world, |outage| outage["hold"]["by"] == "maya (api)").await?;
    eventually("each is on hold", SOON, async || {
        let outage = world.get(&format!("/api/incidents/{id}")).await.ok()?;
        (held(&outage) == 2).then_some(())
    })
    .await?;
    // a prompt that joins later is on hold as well
    world.ship("e").await?;
    assert_eq!(world.receiver.outcomes(&[of("e", "acme")]).await?, [HELD]);
    eventually("the newcomer too", SOON, async || {
        let outage = world.get(&format!("/api/incidents/{id}")).await.ok()?;
        (held(&outage) == 3).then_some(())
    })
    .await?;
    let (status, answer) = decide(&world, &id, "dismiss").await?;
    assert!(status == 409 && answer["error"]["message"] == "maya (api) already has all prompts on hold", "{answer}");

    // the window passes, alerts repeat, deadlines pass: nothing happens automatically
    world.receiver.clock.advance(20 * MINUTE);
    assert_eq!(world.receiver.outcomes(&[of("c", "acme")]).await?, ["duplicate{duplicate}"]);
    // a prompt that starts to fail only now is held as well
    assert_eq!(world.receiver.outcomes(&[of("f", "acme")]).await?, [HELD]);
    eventually("it is on hold with the others", SOON, async || {
        let outage = world.get(&format!("/api/incidents/{id}")).await.ok()?;
        (held(&outage) == 4).then_some(())
    })
    .await?;
    world.receiver.clock.advance(MINUTE);
    for prompt in ["c", "d", "e", "f"] {
        let detail = world.get(&format!("/api/prompts/{prompt}")).await?;
        let incident = &detail["incidents"][0];
        assert_eq!((&detail["active"], &incident["deadline"]), (&json!("v2"), &Value::Null), "{incident:#}");
    }
    assert_eq!(decide(&world, &id, "release").await?.0, 200);
    // two at once, the others after the window has passed again
    serve(&world, "v1", &["c", "d"]).await?;
    for prompt in ["e", "f"] {
        assert_eq!(world.active(prompt).await?.as_deref(), Some("v2"), "{prompt}");
    }
    Ok(())
}

#[tokio::test]
async fn automation_goes_on_by_itself_in_order_and_within_the_budget() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    for prompt in ["e", "f"] {
        world.ship(prompt).await?;
        assert_eq!(world.receiver.outcomes(&[of(prompt, "acme")]).await?, [HELD]);
    }
    coordinating(&world, |outage| outage["waiting"] == 4).await?;
    world.receiver.outcomes(&[resolved(of("d", "acme"))]).await?;
    world.receiver.clock.advance(5 * MINUTE);
    serve(&world, "v1", &["c", "e"]).await?; // d no longer fires
    let outage = coordinating(&world, |outage| outage["waiting"].as_u64() < Some(3)).await?;
    for part in ["automation resumes, at most 2 prompts in 5 min", "rolled back automatically: c, e"] {
        assert!(said(&outage).contains(part), "{part} is missing in {}", said(&outage));
    }
    assert_eq!(world.active("f").await?.as_deref(), Some("v2"), "no room for a third");
    world.receiver.clock.advance(5 * MINUTE);
    serve(&world, "v1", &["f"]).await?;
    assert_eq!(world.active("d").await?.as_deref(), Some("v2"));
    world.receiver.clock.advance(6 * MINUTE);
    let over = coordinating(&world, |outage| !outage["closed_at"].is_null()).await?;
    assert_eq!(over["id"], json!(id), "the same one from beginning to end");
    Ok(())
}

#[tokio::test]
async fn undo_all_serves_again_what_was_rolled_back_before_and_nothing_else() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    assert_eq!(decide(&world, &id, "approve").await?.0, 200);
    serve(&world, "v1", &["c", "d"]).await?;
    coordinating(&world, |outage| outage["carrying_out"].is_null()).await?;
    let (status, answer) = decide(&world, &id, "undo").await?;
    assert_eq!((status, &answer["prompts"]), (200, &json!(2)), "{answer}");
    serve(&world, "v2", &["a", "b"]).await?;
    let outage = coordinating(&world, |outage| outage["carrying_out"].is_null()).await?;
    assert!(said(&outage).contains("done for maya (api): 2 undone"), "{}", said(&outage));
    for prompt in ["c", "d"] {
        assert_eq!(world.active(prompt).await?.as_deref(), Some("v1"), "{prompt} was decided by a person");
    }
    let (status, answer) = decide(&world, &id, "undo").await?;
    assert!(status == 409, "{answer}");
    Ok(())
}

#[tokio::test]
async fn decisions_about_all_apply_also_after_redis_clock_went_back() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    world.receiver.clock.go_back(10 * MINUTE);
    let (status, answer) = decide(&world, &id, "approve").await?;
    assert_eq!((status, &answer["prompts"]), (200, &json!(2)), "{answer}");
    serve(&world, "v1", &["c", "d"]).await?;
    let outage = coordinating(&world, |outage| outage["carrying_out"].is_null()).await?;
    assert!(said(&outage).contains("done for maya (api): 2 rolled back"), "{}", said(&outage));
    let (status, answer) = decide(&world, &id, "undo").await?;
    assert_eq!((status, &answer["prompts"]), (200, &json!(2)), "{answer}");
    serve(&world, "v2", &["a", "b"]).await
}

#[tokio::test]
async fn a_prompt_that_fails_in_a_bulk_rollback_is_named_and_stops_no_other() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    world.redis.cmd::<()>(&["SET", &keys().state(&prompt("c")), "no hash"]).await?;
    assert_eq!(decide(&world, &id, "approve").await?.0, 200);
    serve(&world, "v1", &["d"]).await?;
    let outage = coordinating(&world, |outage| outage["carrying_out"].is_null()).await?;
    let text = said(&outage);
    assert!(text.contains("1 rolled back") && text.contains("1 not: c ("), "{text}");
    let failed = outage["members"].as_array().into_iter().flatten().find(|m| m["prompt"] == "c").context("c")?;
    assert!(failed["failed"].as_str().is_some_and(|why| why.contains("wrong type")), "{failed}");
    Ok(())
}

#[tokio::test]
async fn one_prompt_can_be_decided_by_its_own_incident() -> Result<()> {
    let world = world().await?;
    let id = outage(&world).await?;
    let outage = world.get(&format!("/api/incidents/{id}")).await?;
    let c = outage["members"].as_array().into_iter().flatten().find(|m| m["prompt"] == "c").context("c")?;
    let (status, answer) = decide(&world, c["incident"].as_str().context("an id")?, "approve").await?;
    assert_eq!(status, 200, "{answer}");
    coordinating(&world, |outage| outage["waiting"] == 1).await?;
    assert_eq!(world.active("d").await?.as_deref(), Some("v2"));
    for (decision, status) in [("investigate", 400), ("approve_gradual", 400), ("approve", 200)] {
        assert_eq!(decide(&world, &id, decision).await?.0, status, "{decision}");
    }
    let one = c["incident"].as_str().context("an id")?;
    assert_eq!(decide(&world, one, "release").await?.0, 400, "that is for many");
    Ok(())
}

#[tokio::test]
async fn a_thousand_prompts_at_once_are_coordinated_and_rolled_back_once_each() -> Result<()> {
    const MANY: usize = 1_000;
    let world = World::with(&[]).await?;
    world.ship("p").await?;
    let prompts: Vec<String> = (0..MANY).map(|n| format!("p-{n:04}")).collect();
    copy_prompt(&world.redis, "p", &prompts).await?;
    for some in prompts.chunks(100) {
        world.receiver.outcomes(&some.iter().map(|prompt| of(prompt, "acme")).collect::<Vec<_>>()).await?;
    }
    let outage = coordinating(&world, |outage| outage["prompts"] == MANY).await?;
    assert_eq!((&outage["waiting"], outage["shared"][0]["prompts"].as_u64()), (&json!(MANY - 5), Some(MANY as u64)));
    // a busy machine may not list so many in time while they are being coordinated
    let list = eventually("the list", SOON, async || world.get("/api/incidents?limit=1000").await.ok()).await?;
    ensure!(list["incidents"].as_array().into_iter().flatten().filter(|row| row["kind"] == "outage").count() <= 1);
    let id = outage["id"].as_str().context("an id")?;
    assert_eq!(decide(&world, id, "approve").await?.0, 200);
    let took = std::time::Instant::now();
    let last = &prompts[MANY - 1];
    eventually("the last is rolled back", 6 * SOON, async || {
        rollbacks(&world.redis, last).await.ok().filter(|count| *count > 0).map(drop)
    })
    .await?;
    eprintln!("{MANY} prompts were rolled back in {:.1} s", took.elapsed().as_secs_f64());
    coordinating(&world, |outage| outage["waiting"] == 0 && outage["carrying_out"].is_null()).await?;
    for prompt in &prompts {
        assert_eq!(rollbacks(&world.redis, prompt).await?, 1, "{prompt}");
    }
    Ok(())
}
