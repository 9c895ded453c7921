//! Prometheus is unreachable when the checks of a rollback end: its samples are queried again, for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::lying_target::{self, LyingTarget, vector};

use crate::common::kept::due_at;
use crate::common::{ROLLED_BACK, SOON, World, critical, outcomes};

/// Range queries fail while `away`; everything else is healthy.
fn prometheus(away: &Arc<AtomicBool>) -> Result<LyingTarget> {
    let away = Arc::clone(away);
    LyingTarget::start(move |request| match request.contains("/api/v1/query_range") {
        true if away.load(Ordering::Relaxed) => (503, "starting up".to_owned()),
        true => {
            let series =
                r#"{"metric":{"prompt":"p","version":"v2"},"values":[[1795221492,"0.07"],[1795221500,"0.09"]]}"#;
            (200, format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}"#))
        }
        false if lying_target::asks_for_counters(request) => (200, lying_target::well_served(&["p".to_owned()], "v1")),
        false => (200, vector(&[(r#"{"prompt":"p","version":"v1"}"#, "0.001")])),
    })
}

/// A rollback that recovers by these answers; returns the incident's id.
async fn recovered(world: &World) -> Result<String> {
    world.ship("p").await?;
    ensure!(outcomes(&world.receiver.deliver(&[critical("p")]).await?)? == [ROLLED_BACK]);
    let incident = eventually("recovered", SOON * 3, async || {
        let incident = world.get("/api/incidents").await.ok()?["incidents"][0].clone();
        (incident["phase"] == "recovered").then_some(incident)
    })
    .await?;
    Ok(incident["id"].as_str().context("id")?.to_owned())
}

async fn draft(world: &World, id: &str, says: &str) -> Result<String> {
    let path = format!("/api/incidents/{id}/postmortem");
    let mut last = String::new();
    let found = eventually(says, SOON * 2, async || {
        last = world.http().get(&path).await.ok()?.text().to_owned();
        last.contains(says).then(|| last.clone())
    })
    .await;
    found.with_context(|| last.clone())
}

#[tokio::test]
async fn what_was_measured_is_asked_for_again() -> Result<()> {
    let away = Arc::new(AtomicBool::new(true));
    let prometheus = prometheus(&away)?;
    let world = World::with(&[("PROMETHEUS__URL", &prometheus.url()), ("VERIFICATION__EVERY", "1s")]).await?;
    let id = recovered(&world).await?;
    draft(&world, &id, "Not measured: Prometheus is unreachable: the receiver will try again").await?;
    away.store(false, Ordering::Relaxed);
    world.receiver.clock.advance(Duration::from_secs(16));
    let draft = draft(&world, &id, "data:image/svg+xml").await?;
    ensure!(!draft.contains("Not measured"), "{draft}");
    Ok(())
}

#[tokio::test]
async fn prometheus_is_not_queried_for_samples_after_ten_minutes() -> Result<()> {
    let away = Arc::new(AtomicBool::new(true));
    let prometheus = prometheus(&away)?;
    let world = World::with(&[("PROMETHEUS__URL", &prometheus.url()), ("VERIFICATION__EVERY", "1s")]).await?;
    let id = recovered(&world).await?;
    draft(&world, &id, "will try again").await?;
    world.receiver.clock.advance(Duration::from_secs(601));
    draft(&world, &id, "Not measured: Prometheus was unreachable.").await?;
    // nothing is due any more
    ensure!(due_at(&world.redis, Work::Incident, &id).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn the_incident_page_reports_a_repeated_query_and_loads_the_picture() -> Result<()> {
    let away = Arc::new(AtomicBool::new(true));
    let prometheus = prometheus(&away)?;
    let world = World::with(&[("PROMETHEUS__URL", &prometheus.url()), ("VERIFICATION__EVERY", "1s")]).await?;
    let id = recovered(&world).await?;
    draft(&world, &id, "will try again").await?;
    let path = format!("/incidents/{id}");
    let page = world.http().get(&path).await?.text().to_owned();
    // no event tells an open page
    ensure!(page.contains("the receiver asks it again") && page.contains("data-again=\"2\""), "{page}");
    away.store(false, Ordering::Relaxed);
    world.receiver.clock.advance(Duration::from_secs(16));
    draft(&world, &id, "data:image/svg+xml").await?;
    let page = world.http().get(&path).await?.text().to_owned();
    ensure!(page.contains(&format!("src=\"{path}/picture.svg?of=")) && !page.contains("data-again"), "{page}");
    Ok(())
}
