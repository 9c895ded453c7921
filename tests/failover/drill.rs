//! Drills while Redis has replicas and receivers die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::sentinels::{FAILOVER, Sentinels};
use prompt_rollback_testkit::{Alertmanager, Port, shipped};
use serde_json::{Value, json};

use super::receiver;
use crate::common::{Receiver, Redis, eventually, process, ship};

/// An Alertmanager that delivers to `listen`, and the settings of a receiver there.
fn alertmanager(listen: &str) -> Result<(Alertmanager, Vec<(&'static str, String)>)> {
    let alertmanager = Alertmanager::builder(shipped::alertmanager(listen)?).file("webhook_token", "unused").start()?;
    let env = vec![("ALERTMANAGER__URLS", alertmanager.url()), ("SERVER__LISTEN", listen.to_owned())];
    Ok((alertmanager, env))
}

async fn start(http: &Http) -> Result<String> {
    let (status, drill) = {
        let answer = http.post_json("/api/drill", &json!({"prompt": "p"})).await?;
        (answer.status, answer.json()?)
    };
    ensure!(status == 201, "{status} {drill}");
    Ok(drill["id"].as_str().context("an id")?.to_owned())
}

async fn done(http: &Http, id: &str) -> Result<Value> {
    eventually("the drill makes the whole way", FAILOVER, async || {
        http.get(&format!("/api/drill/{id}")).await.ok()?.json().ok().filter(|drill: &Value| drill["done"] == true)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_waits_for_the_replica_and_is_made_again_after_a_failover() -> Result<()> {
    let mut world = Sentinels::start(2).await?;
    let port = Port::claim();
    let (_alertmanager, mut env) = alertmanager(&port.addr())?;
    env.push(("REDIS__MIN_REPLICAS_ACKED", "1".to_owned()));
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let receiver = receiver(&world, &env).await?;
    ship(&receiver.http, "p").await?;
    done(&receiver.http, &start(&receiver.http).await?).await?;

    let before = world.servers[0].addr();
    world.servers[0].kill9();
    world.wait_failed_over(&before).await?;
    // whoever runs a drill retries if it could not be started
    let id = eventually("a drill starts", FAILOVER, async || start(&receiver.http).await.ok()).await?;
    let drill = done(&receiver.http, &id).await?;
    let decided = drill["hops"].as_array().into_iter().flatten().find(|hop| hop["hop"] == "decided");
    ensure!(decided.is_some_and(|hop| hop["decision"]["outcome"] == "rolled_back"), "{drill}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_outlives_the_receiver_that_started_it() -> Result<()> {
    let redis = Redis::start()?;
    let port = Port::claim();
    let (_alertmanager, env) = alertmanager(&port.addr())?;
    let mut first = process(&redis).env("PROMPT_ROLLBACK_ALERTMANAGER__URLS", &env[0].1).start()?;
    ship(&first.http(), "p").await?;
    let id = start(&first.http()).await?;
    first.kill9();
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let second = Receiver::ready(&redis.url(), &env).await?;
    second.clock.advance(Duration::from_secs(31)); // the lease of the first one's claim
    done(&second.http, &id).await?;
    Ok(())
}
