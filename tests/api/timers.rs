//! Automatic events; tests control the time.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::eventually;
use serde_json::Value;

use crate::common::{DUPLICATE, Receiver, SOON, World, again, alert, critical, resolved};

const MINUTE: Duration = Duration::from_secs(60);

async fn incident(world: &World) -> Result<Value> {
    Ok(world.get("/api/incidents").await?["incidents"][0].clone())
}

/// Waits until a worker has put the incident into `phase`.
async fn phase(world: &World, phase: &str) -> Result<()> {
    eventually(&format!("the incident is {phase}"), SOON, async || {
        (incident(world).await.ok()?["phase"] == phase).then_some(())
    })
    .await
}

/// Notes of one kind.
async fn notes(world: &World, kind: &str) -> Result<usize> {
    let id = incident(world).await?["id"].as_str().unwrap_or_default().to_owned();
    let incident = world.get(&format!("/api/incidents/{id}")).await?;
    Ok(incident["events"].as_array().map_or(0, |events| events.iter().filter(|e| e["kind"] == kind).count()))
}

#[tokio::test]
async fn an_observation_that_ends_while_it_fires_asks_a_person() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let medium = alert("p", "v2", "medium");
    assert_eq!(world.receiver.outcomes(std::slice::from_ref(&medium)).await?, ["incident_opened{observe}"]);
    world.receiver.clock.advance(59 * MINUTE);
    assert_eq!(world.receiver.outcomes(&[medium]).await?, [DUPLICATE]);
    assert_eq!(incident(&world).await?["phase"], "observing");
    world.receiver.clock.advance(MINUTE);
    phase(&world, "awaiting_decision").await
}

#[tokio::test]
async fn a_missed_deadline_escalates_and_stops_after_four_times() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    for times in 1..=4 {
        world.receiver.clock.advance(5 * MINUTE);
        eventually(&format!("escalated {times} times"), SOON, async || {
            (notes(&world, "escalated").await.ok()? == times).then_some(())
        })
        .await?;
    }
    // only the end of an alert that is never repeated is still due
    assert_eq!(incident(&world).await?["deadline"], Value::Null);
    for _ in 0..5 {
        world.receiver.clock.advance(5 * MINUTE);
        let claimed =
            world.receiver.app.engine.store.claim(prompt_rollback::store::schedule::Work::Incident, 10, MINUTE, "test");
        assert!(claimed.await?.claims.is_empty(), "nothing is due");
    }
    assert_eq!(
        (notes(&world, "escalated").await?, incident(&world).await?["phase"].as_str()),
        (4, Some("awaiting_decision"))
    );
    Ok(())
}

#[tokio::test]
async fn a_minute_of_quiet_resolves_and_a_flapping_alert_starts_it_anew() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let high = alert("p", "v2", "high");
    world.receiver.outcomes(std::slice::from_ref(&high)).await?;
    assert_eq!(world.receiver.outcomes(&[resolved(high.clone())]).await?, ["resolved{resolved}"]);
    world.receiver.clock.advance(MINUTE / 2);
    let high = again(high);
    assert_eq!(world.receiver.outcomes(std::slice::from_ref(&high)).await?, ["incident_updated{firing_again}"]);
    world.receiver.clock.advance(MINUTE);
    assert_eq!(incident(&world).await?["phase"], "awaiting_decision", "it fires");
    world.receiver.outcomes(&[resolved(high.clone())]).await?;
    world.receiver.clock.advance(MINUTE);
    phase(&world, "resolved").await?;
    // the same alert soon after reopens the incident
    world.receiver.clock.advance(10 * MINUTE);
    assert_eq!(world.receiver.outcomes(&[again(high)]).await?, ["incident_updated{reopened}"]);
    assert_eq!(world.get("/api/incidents").await?["incidents"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn an_alert_that_never_ends_is_forgotten_in_the_end() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "medium")]).await?;
    world.receiver.clock.advance(6 * 60 * MINUTE);
    eventually("taken as ended", SOON, async || (notes(&world, "alert").await.ok()? > 0).then_some(())).await?;
    world.receiver.clock.advance(MINUTE);
    phase(&world, "resolved").await
}

#[tokio::test]
async fn a_rollback_that_nobody_can_verify_says_so_and_never_recovered() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    world.receiver.clock.advance(5 * MINUTE);
    phase(&world, "unverified").await
}

#[tokio::test]
async fn a_jump_of_the_clock_does_not_shorten_the_verification() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    world.has_looked().await?;
    world.receiver.clock.jump(10 * MINUTE);
    world.settled(&[Work::Incident]).await?;
    phase(&world, "verifying").await?;
    world.receiver.clock.advance(4 * MINUTE);
    world.settled(&[Work::Incident]).await?;
    phase(&world, "verifying").await?;
    world.receiver.clock.advance(MINUTE);
    phase(&world, "unverified").await
}

#[tokio::test]
async fn a_jump_of_the_clock_shortens_no_time_limit() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let mut asks = alert("p", "v2", "high");
    asks["labels"]["time_limit"] = "5m".into();
    world.receiver.outcomes(&[asks]).await?;
    world.has_looked().await?;
    world.receiver.clock.jump(10 * MINUTE);
    world.settled(&[Work::Incident]).await?;
    assert_eq!(notes(&world, "escalated").await?, 0);
    world.receiver.clock.advance(4 * MINUTE);
    world.settled(&[Work::Incident]).await?;
    assert_eq!(notes(&world, "escalated").await?, 0);
    world.receiver.clock.advance(2 * MINUTE);
    eventually("escalated", SOON, async || (notes(&world, "escalated").await.ok()? == 1).then_some(())).await
}

#[tokio::test]
async fn a_version_put_there_by_a_rollback_cools_down_before_the_next() -> Result<()> {
    let world = World::start().await?;
    for version in ["v0", "v1", "v2"] {
        world
            .post("/api/prompts/p/versions", serde_json::json!({"version": version, "known_good": version != "v2"}))
            .await?;
        world.post("/api/prompts/p/activate", serde_json::json!({"version": version})).await?;
    }
    world.receiver.outcomes(&[critical("p")]).await?;
    let on_target = alert("p", "v1", "critical");
    assert_eq!(world.receiver.outcomes(std::slice::from_ref(&on_target)).await?, ["held{cooldown}"]);
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));
    // the guard no longer applies after half an hour, and the alert still fires
    world.receiver.clock.advance(30 * MINUTE);
    assert_eq!(world.receiver.outcomes(&[on_target]).await?, ["rolled_back{alert}"]);
    assert_eq!(world.active("p").await?.as_deref(), Some("v0"));
    Ok(())
}

/// Waits until the question's deadline is within its time limit again, lets it pass, and expects one more escalation.
async fn is_escalated_in_its_time(world: &World, times: usize) -> Result<()> {
    eventually("the deadline is shortened", SOON, async || {
        let deadline: jiff::Timestamp = incident(world).await.ok()?["deadline"].as_str()?.parse().ok()?;
        let now = world.receiver.app.engine.store.now().await.ok()?;
        (deadline.as_millisecond() - now.0 <= 300_000).then_some(())
    })
    .await?;
    world.receiver.clock.advance(5 * MINUTE);
    eventually("escalated", SOON, async || (notes(world, "escalated").await.ok()? == times).then_some(())).await
}

#[tokio::test]
async fn a_question_is_escalated_in_its_time_although_redis_clock_went_back() -> Result<()> {
    let mut world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    world.has_looked().await?;
    world.receiver.clock.go_back(60 * MINUTE);
    is_escalated_in_its_time(&world, 1).await?;
    // while no receiver ran
    world.receiver.clock.advance(120 * MINUTE);
    eventually("escalated", SOON, async || (notes(&world, "escalated").await.ok()? == 2).then_some(())).await?;
    world.receiver.app.shutdown().await;
    world.receiver = Receiver::ready(&world.redis.receiver_url(), &[]).await?;
    is_escalated_in_its_time(&world, 3).await
}
