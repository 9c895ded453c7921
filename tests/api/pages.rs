//! Pages, while a real Alertmanager is unreachable: they stay pending until it accepts them, in any receiver.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::decision::{IncidentId, Timestamp};
use prompt_rollback::store::schedule::{Work, WorkItem};
use prompt_rollback_testkit::proxy::{FaultProxy, Mode};
use prompt_rollback_testkit::{Alertmanager, eventually};
use serde_json::{Value, json};

use crate::common::kept::{SLACK, keys, progress, until_none_waits, waiting};
use crate::common::{Receiver, SOON, World, alert, critical};

const CONFIG: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// The page of a prompt that Alertmanager shows, if any.
async fn page(alertmanager: &Alertmanager) -> Option<Value> {
    let path = "/api/v2/alerts?filter=alertname%3DPromptRollbackEscalation";
    alertmanager.http().get(path).await.ok()?.json().ok()?.get(0).cloned()
}

async fn raised(alertmanager: &Alertmanager) -> Result<Value> {
    eventually("a page", SOON, async || page(alertmanager).await).await
}

async fn incident(world: &World) -> Result<Value> {
    Ok(world.get("/api/incidents").await?["incidents"][0].clone())
}

/// The progress of the page.
async fn noted(world: &World, field: &str) -> Result<Option<String>> {
    let id = incident(world).await?["id"].as_str().context("id")?.to_owned();
    progress(&world.redis, Work::Page, &WorkItem::Incident(IncidentId(id)), field).await
}

async fn is_noted(world: &World, field: &str, wanted: Option<&str>) -> Result<()> {
    eventually(&format!("{field} is {wanted:?}"), SOON, async || {
        (noted(world, field).await.ok()?.as_deref() == wanted).then_some(())
    })
    .await
}

/// Ends the receiver, and starts another one.
async fn restart(world: &mut World, env: &[(&str, &str)]) -> Result<()> {
    let next = Receiver::ready(&world.redis.receiver_url(), env).await?;
    std::mem::replace(&mut world.receiver, next).app.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn an_unverified_rollbacks_page_waits_until_alertmanager_takes_it_once() -> Result<()> {
    let mut alertmanager = Alertmanager::builder(CONFIG).start()?;
    let url = alertmanager.url();
    let env = [("ALERTMANAGER__URLS", url.as_str())];
    let mut world = World::with(&env).await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    alertmanager.kill();
    world.receiver.clock.advance(Duration::from_secs(300));
    is_noted(&world, "page_tries", Some("1")).await?;
    ensure!(incident(&world).await?["phase"] == "unverified");
    restart(&mut world, &env).await?;
    is_noted(&world, "page_tries", Some("2")).await?; // at its start it processes all that waits
    alertmanager.restart()?;
    world.receiver.clock.advance(Duration::from_secs(30));
    let fired = raised(&alertmanager).await?;
    let summary = fired["annotations"]["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("p v2"), "{summary}");
    is_noted(&world, "page", Some("once")).await?;
    is_noted(&world, "page_tries", None).await?;
    // if something else wakes the incident, it still pages once
    let id = IncidentId(incident(&world).await?["id"].as_str().context("id")?.to_owned());
    world.receiver.app.engine.store.wake_by(Work::Page, &WorkItem::Incident(id), Timestamp(0)).await?;
    world.receiver.app.engine.paging.notify_one();
    until_none_waits(&world.redis, Work::Page, SOON).await?;
    ensure!(raised(&alertmanager).await?["endsAt"] == fired["endsAt"], "it was posted again");
    Ok(())
}

#[tokio::test]
async fn a_page_waits_until_an_alertmanager_is_configured() -> Result<()> {
    let alertmanager = Alertmanager::builder(CONFIG).start()?;
    let mut world = World::with(&[]).await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    world.receiver.clock.advance(Duration::from_secs(300));
    eventually("unverified", SOON, async || (incident(&world).await.ok()?["phase"] == "unverified").then_some(()))
        .await?;
    eventually("the page was looked at", SOON, async || {
        let lag = world.receiver.app.engine.store.work_lag(&[Work::Page]).await.ok()?;
        lag.iter().all(Duration::is_zero).then_some(())
    })
    .await?;
    restart(&mut world, &[("ALERTMANAGER__URLS", &alertmanager.url())]).await?;
    world.receiver.clock.advance(Duration::from_secs(400));
    raised(&alertmanager).await?;
    Ok(())
}

#[tokio::test]
async fn a_page_starts_and_ends_although_alertmanager_is_briefly_away() -> Result<()> {
    let alertmanager = Alertmanager::builder(CONFIG).start()?;
    let proxy = FaultProxy::start(alertmanager.addr()).await?;
    let url = format!("http://{}", proxy.addr());
    let env = [("ALERTMANAGER__URLS", url.as_str())];
    let mut world = World::with(&env).await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    proxy.set(Mode::Cut);
    world.receiver.clock.advance(Duration::from_secs(300));
    is_noted(&world, "page_tries", Some("1")).await?;
    restart(&mut world, &env).await?;
    is_noted(&world, "page_tries", Some("2")).await?;
    ensure!(page(&alertmanager).await.is_none());
    proxy.set(Mode::Pass);
    world.receiver.clock.advance(Duration::from_secs(30));
    raised(&alertmanager).await?;
    is_noted(&world, "page_tries", None).await?;

    proxy.set(Mode::Cut);
    let id = incident(&world).await?["id"].as_str().context("id")?.to_owned();
    let decided = json!({"decision": "dismiss", "operator": "mia"});
    world.post(&format!("/api/incidents/{id}/decide"), decided).await?;
    is_noted(&world, "page_tries", Some("1")).await?;
    restart(&mut world, &env).await?;
    is_noted(&world, "page_tries", Some("2")).await?;
    ensure!(page(&alertmanager).await.is_some(), "it was not told");
    proxy.set(Mode::Pass);
    world.receiver.clock.advance(Duration::from_secs(30));
    // without the resolved alert it would last for minutes
    eventually("the page ends", SOON, async || page(&alertmanager).await.is_none().then_some(())).await?;
    is_noted(&world, "page", Some("ended")).await
}

/// Slack is unreachable, and many wake-ups wait for it, in the set that the previous release used for all kinds.
#[tokio::test]
async fn a_missed_deadline_pages_however_much_waits_for_slack() -> Result<()> {
    let alertmanager = Alertmanager::builder(CONFIG).start()?;
    let world = World::with(&[("ALERTMANAGER__URLS", alertmanager.url().as_str())]).await?;
    world.ship("p").await?;
    let fill = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], i, 'i' .. i .. ARGV[1]) end";
    let suffix = SLACK.member(&WorkItem::Unknown(String::new()));
    for set in [keys().due(Work::Incident), keys().due(SLACK)] {
        world.redis.cmd::<()>(&["EVAL", fill, "1", &set, &suffix]).await?;
    }
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    world.receiver.clock.advance(Duration::from_secs(300));
    let fired = raised(&alertmanager).await?;
    ensure!(fired["labels"]["prompt"] == "p", "{fired}");
    let waiting = waiting(&world.redis, SLACK).await?;
    ensure!(waiting >= 100_000, "they wait for somebody who tells Slack: {waiting}");
    Ok(())
}
