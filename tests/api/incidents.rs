//! Reading and deciding incidents.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, World, alert, critical, resolved};

async fn only_incident(world: &World) -> Result<String> {
    let list = world.get("/api/incidents").await?;
    assert_eq!(list["incidents"].as_array().map(Vec::len), Some(1), "{list}");
    Ok(list["incidents"][0]["id"].as_str().unwrap_or_default().to_owned())
}

async fn decide(world: &World, id: &str, body: Value) -> Result<(u16, Value)> {
    world.post(&format!("/api/incidents/{id}/decide"), body).await
}

#[tokio::test]
async fn an_incident_tells_what_happened() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    let id = only_incident(&world).await?;
    let incident = world.get(&format!("/api/incidents/{id}")).await?;
    for (field, value) in [
        ("id", json!(id)),
        ("prompt", json!("p")),
        ("version", json!("v2")),
        ("target", json!("v1")),
        ("phase", json!("verifying")),
        ("severity", json!("critical")),
        ("action", json!("rollback")),
        ("guard", Value::Null),
        ("closed_at", Value::Null),
        ("summary", json!("v2 fails")),
    ] {
        assert_eq!(incident[field], value, "{field}");
    }
    let switch = &incident["flip"];
    assert_eq!(
        (&switch["from"], &switch["to"], &switch["mode"], &switch["operator"]),
        (&json!("v2"), &json!("v1"), &json!("auto"), &json!("system"))
    );
    assert_eq!(switch["at"], incident["opened_at"], "opened and rolled back in one commit");
    assert_eq!(incident["alerts"][0]["alertname"], "PromptErrorRate");
    assert_eq!(incident["alerts"][0]["starts_at"], "2026-11-21T00:38:16.689Z");
    let events: Vec<_> = incident["events"].as_array().expect("events").iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(events, ["opened", "flipped"]);
    let result = world.receiver.deliver(&[critical("p")]).await?.json()?;
    assert_eq!(result["results"][0]["incident"], json!(id), "the webhook names it too");
    Ok(())
}

#[tokio::test]
async fn the_list_is_paged_newest_first_and_can_leave_out_closed_ones() -> Result<()> {
    let world = World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "100")]).await?;
    for n in 0..5 {
        let name = format!("p-{n}");
        world.ship(&name).await?;
        world.receiver.outcomes(&[alert(&name, "v2", "high")]).await?;
    }
    let first = world.get("/api/incidents?limit=3").await?;
    let next = first["next"].as_str().expect("more");
    let second = world.get(&format!("/api/incidents?limit=3&cursor={next}")).await?;
    assert_eq!(second["next"], Value::Null);
    let prompts: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| page["incidents"].as_array().expect("rows").clone())
        .map(|row| row["prompt"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(prompts, ["p-4", "p-3", "p-2", "p-1", "p-0"]);
    let id = first["incidents"][0]["id"].as_str().expect("an id");
    assert_eq!(decide(&world, id, json!({"decision": "dismiss", "operator": "mia"})).await?.0, 200);
    let open = world.get("/api/incidents?open=true").await?;
    assert_eq!(open["incidents"].as_array().map(Vec::len), Some(4));
    assert_eq!(world.get("/api/incidents").await?["incidents"].as_array().map(Vec::len), Some(5));
    Ok(())
}

#[tokio::test]
async fn approve_rolls_back_and_a_second_decision_hears_who_was_first() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    assert_eq!(world.receiver.outcomes(&[alert("p", "v2", "high")]).await?, ["incident_opened{page}"]);
    let id = only_incident(&world).await?;
    let (status, body) = decide(&world, &id, json!({"decision": "approve", "operator": "mia"})).await?;
    assert_eq!((status, &body["to_version"], &body["incident"]), (200, &json!("v1"), &json!(id)));
    let entry = world.log("p").await?.pop().expect("an entry");
    assert_eq!((entry["event"].as_str(), entry["operator"].as_str()), ("rollback", "mia (api)"));
    let (status, body) = decide(&world, &id, json!({"decision": "dismiss", "operator": "bo"})).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("already_decided")));
    assert!(body["error"]["message"].as_str().is_some_and(|m| m.contains("mia (api)")), "{body}");
    Ok(())
}

#[tokio::test]
async fn investigate_stops_the_deadline_and_dismiss_silences_the_alert() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let high = alert("p", "v2", "high");
    world.receiver.outcomes(std::slice::from_ref(&high)).await?;
    let id = only_incident(&world).await?;
    let (status, body) = decide(&world, &id, json!({"decision": "investigate", "operator": "mia"})).await?;
    assert_eq!((status, &body["phase"]), (200, &json!("investigating")));
    let (status, body) = decide(&world, &id, json!({"decision": "dismiss", "operator": "mia"})).await?;
    assert_eq!((status, &body["phase"]), (200, &json!("dismissed")));
    assert_eq!(world.receiver.outcomes(std::slice::from_ref(&high)).await?, ["ignored{dismissed}"]);
    // a higher severity is handled
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_eq!(world.receiver.outcomes(&[resolved(high)]).await?, ["resolved{resolved}"]);
    Ok(())
}

#[tokio::test]
async fn undo_serves_the_version_again_as_if_nothing_had_been() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.clock.advance(Duration::from_secs(3_600));
    world.receiver.outcomes(&[critical("p")]).await?;
    let id = only_incident(&world).await?;
    let (status, body) = decide(&world, &id, json!({"decision": "undo", "operator": "mia"})).await?;
    assert_eq!((status, &body["to_version"]), (200, &json!("v2")), "{body}");
    let version = world.get("/api/prompts/p").await?["versions"][1].clone();
    assert_eq!((&version["quarantined_at"], &version["known_good"]), (&Value::Null, &json!(true)));
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["ignored{dismissed}"], "no ping-pong");
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    Ok(())
}

#[tokio::test]
async fn a_decision_is_refused_with_the_reason() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let id = only_incident(&world).await?;
    for (id, body, status, code) in [
        ("01KAHJ3Y3W8Q0000000000000A", json!({"decision": "approve", "operator": "mia"}), 404, "unknown_incident"),
        ("x", json!({"decision": "approve", "operator": "mia"}), 404, "unknown_incident"),
        ("%7Bprompts%7D", json!({"decision": "approve", "operator": "mia"}), 404, "unknown_incident"),
        (&id, json!({"decision": "explode", "operator": "mia"}), 400, "bad_request"),
        (&id, json!({"decision": "approve"}), 400, "bad_request"),
        (&id, json!({"decision": "approve", "operator": " "}), 400, "bad_request"),
        (&id, json!({"decision": "approve", "operator": "system"}), 400, "bad_request"),
        (&id, json!({"decision": "approve", "operator": "External"}), 400, "bad_request"),
        (&id, json!({"decision": "approve", "operator": "mia", "target_version": "v9"}), 409, "unknown_version"),
        (&id, json!({"decision": "undo", "operator": "mia"}), 409, "already_decided"),
    ] {
        let (got, answer) = decide(&world, id, body.clone()).await?;
        assert_eq!((got, &answer["error"]["code"]), (status, &json!(code)), "{body}: {answer}");
    }
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    Ok(())
}
