//! Redis unreachable in every way: 503 in time, not ready for that reason, recovery without help, one switch.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use prompt_rollback_testkit::FaultProxy;
use prompt_rollback_testkit::proxy::Mode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::{
    DUPLICATE, REPLICATED, ROLLED_BACK, Receiver, Redis, SOON, World, assert_rolled_back_once, critical,
    deliver_until_taken, eventually, outcomes, ship,
};

/// A delivery that Redis cannot accept now: 503 with `code`.
async fn refused(receiver: &Receiver, code: &str) -> Result<()> {
    let answer = receiver.deliver(&[critical("p")]).await?;
    let body = answer.json()?;
    ensure!(answer.status == 503, "{} {body}", answer.status);
    ensure!(body["error"]["code"] == code, "{body}");
    Ok(())
}

/// Deliveries at once while Redis does not answer: refused in time for Alertmanager. The time is virtual, so that a
/// busy machine does not matter: it passes only while there is nothing to do, and any answer of Redis would come too
/// late.
async fn refused_in_time(receiver: &Receiver, deliveries: usize) -> Result<()> {
    tokio::time::pause();
    let start = Instant::now();
    try_join_all((0..deliveries).map(|_| refused(receiver, "redis_unavailable"))).await?;
    let took = start.elapsed();
    tokio::time::resume();
    ensure!(took < Duration::from_secs(5), "answered after {took:?}");
    Ok(())
}

/// While Redis is unreachable for `reason`.
async fn away(receiver: &Receiver, reason: &str) -> Result<()> {
    refused(receiver, "redis_unavailable").await?;
    receiver.wait_not_ready(reason, SOON).await?;
    ensure!(receiver.http.get("/-/healthy").await?.status == 200, "restarting the receiver would not help");
    ensure!(receiver.http.get("/metrics").await?.text().contains("\nprompt_rollback_ready 0\n"), "the gauge says so");
    refused(receiver, "redis_unavailable").await
}

/// Once Redis is back; a commit made in between, if any, is not repeated.
async fn back(receiver: &Receiver, redis: &Redis) -> Result<()> {
    receiver.wait_ready(SOON).await?;
    // a Redis that has just restarted may be slow: Alertmanager retries after a 503
    let (first, _) = deliver_until_taken(&receiver.http, &[critical("p")]).await?;
    ensure!(first == [ROLLED_BACK] || first == [DUPLICATE], "{first:?}");
    ensure!(deliver_until_taken(&receiver.http, &[critical("p")]).await?.0 == [DUPLICATE]);
    assert_rolled_back_once(redis, "p").await
}

#[tokio::test]
async fn down() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    ship(&receiver.http, "p").await?;
    redis.kill9();
    away(&receiver, "connection").await?;
    redis.restart()?;
    back(&receiver, &redis).await
}

#[tokio::test]
async fn down_when_the_receiver_starts() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    redis.stop()?;
    let receiver = Receiver::start(&redis.url(), &[]).await?;
    away(&receiver, "connection").await?;
    redis.restart()?;
    receiver.wait_ready(SOON).await?;
    ship(&receiver.http, "p").await?;
    back(&receiver, &redis).await
}

#[tokio::test]
async fn stalled() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.pause()?;
    refused_in_time(&world.receiver, 1).await?;
    away(&world.receiver, "timeout").await?;
    world.redis.resume()?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn stalled_between_load_and_commit() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    // reads pass, writes wait: each attempt of the commit is queued in Redis, with the same id
    world.redis.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
    away(&world.receiver, "timeout").await?;
    world.redis.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn a_network_that_swallows_everything() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    let receiver = Receiver::ready(&proxy.url(), &[]).await?;
    ship(&receiver.http, "p").await?;
    proxy.set(Mode::Stall);
    refused_in_time(&receiver, 1).await?;
    away(&receiver, "timeout").await?;
    proxy.set(Mode::Pass);
    back(&receiver, &redis).await
}

#[tokio::test]
async fn loading() -> Result<()> {
    // a quarter of a millisecond for each of 12,000 keys: long enough to send requests meanwhile
    let mut redis = Redis::builder().appendonly().conf("key-load-delay 250").start()?;
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    ship(&receiver.http, "p").await?;
    let fill = "for i = 1, 12000 do redis.call('SET', '{prompts}:x' .. i, '') end";
    redis.cmd::<()>(&["EVAL", fill, "0"]).await?;
    let restarted = tokio::task::spawn_blocking(move || redis.restart().map(|()| redis));
    receiver.wait_not_ready("loading", SOON).await?;
    refused(&receiver, "redis_unavailable").await?;
    assert!(!restarted.is_finished(), "that was while it was loading");
    let redis = restarted.await??;
    back(&receiver, &redis).await
}

#[tokio::test]
async fn read_only() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    // a replica without a master: it keeps its data, answers reads and refuses writes
    world.redis.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await?;
    away(&world.receiver, "readonly").await?;
    world.redis.cmd::<()>(&["REPLICAOF", "NO", "ONE"]).await?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn out_of_memory() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.cmd::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    away(&world.receiver, "oom").await?;
    world.redis.cmd::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn not_enough_replicas_for_redis_itself() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.cmd::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
    away(&world.receiver, "noreplicas").await?;
    world.redis.cmd::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn out_of_connections() -> Result<()> {
    // without a password: the client library reports every refused login as a wrong one
    let redis = Redis::builder().acl("user default on nopass ~{prompts}:* &{prompts}:* +@all").start()?;
    let receiver = Receiver::ready(&redis.url(), &[("REDIS__USERNAME", "")]).await?;
    let world = World { redis, receiver };
    world.ship("p").await?;
    let mut admin = world.redis.connection().await?;
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec_async(&mut admin).await?;
    for kind in ["normal", "pubsub"] {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec_async(&mut admin).await?;
    }
    away(&world.receiver, "maxclients").await?;
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(10_000).exec_async(&mut admin).await?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn permissions_taken_away() -> Result<()> {
    let redis = Redis::builder().acl("user receiver on >s3cret ~* &* +@all").start()?;
    let env = [("REDIS__USERNAME", "receiver"), ("REDIS__PASSWORD", "s3cret")];
    let receiver = Receiver::ready(&redis.url(), &env).await?;
    ship(&receiver.http, "p").await?;
    redis.cmd::<()>(&["ACL", "SETUSER", "receiver", "-@write"]).await?;
    away(&receiver, "noperm").await?;
    redis.cmd::<()>(&["ACL", "SETUSER", "receiver", "+@all"]).await?;
    back(&receiver, &redis).await
}

#[tokio::test]
async fn many_deliveries_during_an_outage_are_all_refused_in_time() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.pause()?;
    refused_in_time(&world.receiver, 100).await?;
    world.redis.resume()?;
    back(&world.receiver, &world.redis).await
}

#[tokio::test]
async fn a_replica_that_stopped_while_one_must_have_each_commit() -> Result<()> {
    let redis = Redis::start()?;
    let replica = Redis::builder().replica_of(&redis).start()?;
    redis.wait_for_replicas(1).await?;
    let receiver = Receiver::ready(&redis.url(), &REPLICATED).await?;
    ship(&receiver.http, "p").await?;
    replica.pause()?;
    refused(&receiver, "not_replicated").await?;
    refused(&receiver, "not_replicated").await?;
    // nor is a pause confirmed that might be lost
    let answer = receiver.http.post_json("/api/pause", &json!({})).await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (503, &json!("not_replicated")));
    replica.resume()?;
    let got = eventually("acknowledged", SOON, async || {
        receiver.deliver(&[critical("p")]).await.ok().filter(|answer| answer.status == 200)
    })
    .await?;
    assert_eq!(outcomes(&got)?, [DUPLICATE]);
    assert_rolled_back_once(&redis, "p").await?;
    assert_eq!(crate::common::active(&replica, "p").await?.as_deref(), Some("v1"));
    Ok(())
}

#[tokio::test]
async fn the_api_says_so_too() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.redis.cmd::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    for (path, body) in [
        ("/api/rollback", json!({"prompt": "p", "target_version": "v1"})),
        ("/api/prompts/p/versions", json!({"version": "v3"})),
        ("/api/prompts/p/activate", json!({"version": "v1"})),
        ("/api/pause", json!({})),
    ] {
        let (status, body): (u16, Value) = world.post(path, body).await?;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("redis_unavailable")), "{path}");
    }
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    Ok(())
}

/// Somebody SETs a version at the moment from which Redis takes no more writes.
#[tokio::test]
async fn prompts_are_readable_although_redis_refuses_to_record_a_set() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let mut full = redis::pipe();
    full.atomic().cmd("SET").arg("{prompts}:active:p").arg("v9").cmd("SET").arg("{prompts}:active:q").arg("v9");
    full.cmd("CONFIG").arg("SET").arg("maxmemory").arg(1);
    full.exec_async(&mut world.redis.connection().await?).await?;
    for (path, expected) in [
        ("/api/prompts/p", 200),
        ("/api/prompts/p/log", 200),
        ("/prompts/p", 200),
        // not 404: it has a version, which is not noticed
        ("/api/prompts/q", 503),
        ("/api/prompts/none", 404),
    ] {
        let answer = world.http().get(path).await?;
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
    }
    assert_eq!(world.http().get("/api/prompts/p").await?.json()?["active"], "v9");
    Ok(())
}
