//! Redis Cluster: all keys of a namespace are in one slot, and the slot moves.

use anyhow::{Result, ensure};
use prompt_rollback_testkit::cluster::{Moving, Node, cluster, master_and_replica, slot, take_over};
use serde_json::json;

use super::sentinel::until_taken;
use crate::common::{DUPLICATE, Receiver, Redis, SOON, assert_rolled_back_once, critical, eventually, ship};

async fn receiver(nodes: &[&Node]) -> Result<Receiver> {
    let nodes: Vec<String> = nodes.iter().map(|node| node.redis.addr()).collect();
    let env = [("REDIS__MODE", "cluster"), ("REDIS__NODES", &*nodes.join(","))].map(|(k, v)| (k, v.to_owned()));
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let receiver = Receiver::ready("redis://elsewhere.invalid", &env).await?;
    ship(&receiver.http, "p").await?;
    Ok(receiver)
}

/// Checks that everything works on `redis`.
async fn works_on(receiver: &Receiver, redis: &Redis) -> Result<()> {
    until_taken(receiver, "p").await?;
    receiver.wait_ready(SOON).await?;
    ensure!(receiver.outcomes(&[critical("p")]).await? == [DUPLICATE]);
    assert_rolled_back_once(redis, "p").await?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v9"]).await?;
    eventually("a change made outside is followed", SOON, async || {
        let last = crate::common::log(redis, "p").await.ok()?.pop()?;
        (last["event"] == "external").then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed() -> Result<()> {
    let [from, to] = cluster().await?;
    // only one node is configured: MOVED names the other
    let receiver = receiver(&[&from]).await?;
    let moving = Moving::begin(&from, &to).await?;
    ensure!(moving.keys("2").await? == 2);
    // its keys are at two nodes: no script can access all
    let answer = receiver.deliver(&[critical("p")]).await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (503, &json!("redis_unavailable")));
    while moving.keys("100").await? > 0 {}
    receiver.wait_not_ready("moving", SOON).await?;
    moving.finish().await?;
    works_on(&receiver, &to.redis).await?;
    let slot = slot(&from).await?;
    ensure!(from.redis.cmd::<Vec<String>>(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_followed() -> Result<()> {
    let [master, replica] = master_and_replica().await?;
    let receiver = receiver(&[&master, &replica]).await?;
    master.redis.wait_for_replicas(1).await?;
    take_over(&replica.redis).await?;
    works_on(&receiver, &replica.redis).await
}

/// The node that has the namespace's slot may not have those of other keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_other_keys_says_that_other_nodes_are_not_searched() -> Result<()> {
    let [node, _other] = cluster().await?;
    let receiver = receiver(&[&node]).await?;
    let skipped = async |pattern: &str| {
        let answer = receiver.http.post_json("/api/import", &json!({ "pattern": pattern, "dry_run": true })).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        anyhow::Ok(answer.json()?["skipped"].take())
    };
    let reason = "keys on other nodes of the cluster: only that of the namespace is searched";
    assert_eq!(skipped("app:{prompt}").await?, json!([{ "key": "app:{prompt}", "reason": reason }]));
    assert_eq!(skipped("*").await?, json!([]), "those of the namespace are all on one node");
    Ok(())
}
