//! `/metrics`, `/-/healthy` and `/-/ready`.

use anyhow::Result;
use serde_json::json;

use crate::common::{World, alert, critical};

#[tokio::test]
async fn every_metric_of_the_contract_is_there_from_the_start() -> Result<()> {
    let world = World::start().await?;
    let text = world.http().get("/metrics").await?.text();
    for series in [
        "prompt_rollback_rollbacks_total{mode=\"auto\",result=\"ok\"} 0",
        "prompt_rollback_rollbacks_total{mode=\"manual\",result=\"failed\"} 0",
        "prompt_rollback_webhook_duration_seconds_count 0",
        "prompt_rollback_detection_to_flip_seconds_count 0",
        "prompt_rollback_ready 1",
        "prompt_rollback_paused 0",
        "prompt_rollback_parked 0",
        "prompt_rollback_active_version_dropped 0",
        "prompt_rollback_incidents{phase=\"verifying\"} 0",
        concat!("prompt_rollback_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.contains(&format!("{series}\n")), "{series} is missing:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    Ok(())
}

#[tokio::test]
async fn a_rollback_shows_in_the_metrics() -> Result<()> {
    let world = World::start().await?;
    world.ship("a/b").await?;
    world.ship("q").await?;
    world.receiver.outcomes(&[critical("a/b"), alert("q", "v2", "high")]).await?;
    world.receiver.outcomes(&[critical("a/b")]).await?;
    world.post("/api/pause", json!({})).await?;
    let text = world.http().get("/metrics").await?.text();
    for series in [
        "prompt_rollback_alerts_total{severity=\"critical\",outcome=\"rolled_back\",reason=\"alert\"} 1",
        "prompt_rollback_alerts_total{severity=\"critical\",outcome=\"duplicate\",reason=\"duplicate\"} 1",
        "prompt_rollback_alerts_total{severity=\"high\",outcome=\"incident_opened\",reason=\"page\"} 1",
        "prompt_rollback_rollbacks_total{mode=\"auto\",result=\"ok\"} 1",
        "prompt_rollback_webhook_duration_seconds_count 2",
        "prompt_rollback_detection_to_flip_seconds_count 1",
        "prompt_rollback_incidents{phase=\"verifying\"} 1",
        "prompt_rollback_incidents{phase=\"awaiting_decision\"} 1",
        "prompt_rollback_active_version_info{prompt=\"a/b\",version=\"v1\",previous=\"\"} 1",
        "prompt_rollback_active_version_info{prompt=\"q\",version=\"v2\",previous=\"v1\"} 1",
        "prompt_rollback_paused 1",
    ] {
        assert!(text.contains(&format!("{series}\n")), "{series} is missing:\n{text}");
    }
    let activated = "prompt_rollback_active_version_activated_timestamp_seconds{prompt=\"a/b\",version=\"v1\"} ";
    assert_eq!(text.matches(activated).count(), 1, "{text}");
    Ok(())
}

#[tokio::test]
async fn the_number_of_version_series_is_bounded_and_the_overflow_counted() -> Result<()> {
    let world = World::with(&[("METRICS__MAX_PROMPTS", "2")]).await?;
    for name in ["a", "b", "c"] {
        world.ship(name).await?;
    }
    let text = world.http().get("/metrics").await?.text();
    assert_eq!(text.matches("prompt_rollback_active_version_info{").count(), 2);
    assert!(text.contains("prompt_rollback_active_version_dropped 1\n"), "{text}");
    Ok(())
}
