//! The process is killed during verification: another one continues at the next check.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::proxy::{FaultProxy, Mode};

use super::servers::PromptServers;
use super::{PROMPT, STORY, World, measured, prometheus, said};
use crate::common::kept::is_leased;
use crate::common::{SOON, rollbacks};

const OFTEN: [(&str, &str); 2] =
    [("PROMPT_ROLLBACK_VERIFICATION__EVERY", "1s"), ("PROMPT_ROLLBACK_VERIFICATION__CHECKS", "100")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_the_middle_of_verifying_goes_on_at_the_next_check() -> Result<()> {
    let servers = PromptServers::start(1)?;
    servers.serve(0, "v2", 50, 50);
    let (prometheus, url) = prometheus(&servers)?;
    let proxy = FaultProxy::start(prometheus.addr()).await?;
    let mut world = World::start(&format!("http://{}", proxy.addr()), &OFTEN).await?;
    measured(&prometheus, "v2").await?;
    ensure!(world.critical("").await? == "rolled_back alert");
    servers.serve(0, "v1", 50, 50);
    let id = world.incident().await?["id"].as_str().context("id")?.to_owned();
    eventually("three checks", SOON * 2, async || {
        (world.incident().await.ok()?["verification"]["checks"].as_u64()? >= 3).then_some(())
    })
    .await?;
    let before = world.incident().await?;
    // the next one is in progress, and will not be answered
    proxy.set(Mode::Stall);
    eventually("a check under way", SOON, async || {
        is_leased(&world.redis, Work::Incident, &id).await.ok()?.then_some(())
    })
    .await?;
    world.receiver.kill9();
    ensure!(is_leased(&world.redis, Work::Incident, &id).await?, "it died with the lease in hand");

    servers.serve(0, "v1", 5_000, 0);
    let env = OFTEN.map(|(key, value)| (key.trim_start_matches("PROMPT_ROLLBACK_"), value));
    let next = crate::common::Receiver::ready(&world.redis.url(), &[env[0], env[1], ("PROMETHEUS__URL", &url)]).await?;
    next.clock.advance(Duration::from_secs(31)); // the lease of the dead one has expired
    let read = async || next.http.get(&format!("/api/incidents/{id}")).await?.json();
    let checks = |incident: &serde_json::Value| incident["verification"]["checks"].as_u64();
    let (had, mut seen) = (checks(&before), Vec::new());
    let incident = eventually("recovered", STORY, async || {
        let incident = read().await.ok()?;
        seen.push(checks(&incident));
        (incident["phase"] == "recovered").then_some(incident)
    })
    .await?;
    ensure!(seen.is_sorted() && seen[0] >= had && checks(&incident) > had, "{had:?}, then {seen:?}");
    ensure!(incident["flip"] == before["flip"], "{incident:#}");
    ensure!(said(&incident).matches("is healthy").count() == 1, "{}", said(&incident));
    ensure!(rollbacks(&world.redis, PROMPT).await? == 1, "rolled back once");
    Ok(())
}
