//! Redis Cluster: all keys of a namespace are in one slot, and the slot moves.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prompt_rollback_testkit::free_port;
use serde_json::json;

use crate::common::{DUPLICATE, Receiver, Redis, SOON, assert_flipped_once, critical, eventually, ship};
use crate::sentinel::until_taken;
use crate::world::FAILOVER;

struct Node {
    redis: Redis,
    id: String,
}

async fn node() -> Result<Node> {
    let conf = format!("cluster-enabled yes\ncluster-node-timeout 2000\ncluster-port {}", free_port());
    let redis = Redis::builder().receiver_may("+role +cluster|nodes").conf(conf).start()?;
    let id = redis.cmd(&["CLUSTER", "MYID"]).await?;
    Ok(Node { redis, id })
}

async fn slot(node: &Node) -> Result<String> {
    Ok(node.redis.cmd::<u16>(&["CLUSTER", "KEYSLOT", "{prompts}"]).await?.to_string())
}

/// The first has all slots; the second none.
async fn cluster() -> Result<[Node; 2]> {
    let nodes = [node().await?, node().await?];
    let [first, second] = &nodes;
    first.redis.cmd::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
    first.redis.cmd::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "1"]).await?;
    second.redis.cmd::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await?;
    let bus: String = first.redis.cmd(&["CONFIG", "GET", "cluster-port"]).await.map(|v: Vec<String>| v[1].clone())?;
    second.redis.cmd::<()>(&["CLUSTER", "MEET", "127.0.0.1", &first.redis.port().to_string(), &bus]).await?;
    for node in &nodes {
        eventually("the cluster is one", SOON, async || {
            let info: String = node.redis.cmd(&["CLUSTER", "INFO"]).await.ok()?;
            (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")).then_some(())
        })
        .await?;
    }
    Ok(nodes)
}

async fn receiver(nodes: &[&Node]) -> Result<Receiver> {
    let nodes: Vec<String> = nodes.iter().map(|node| node.redis.addr()).collect();
    let env = [("REDIS__MODE", "cluster"), ("REDIS__NODES", &*nodes.join(","))].map(|(k, v)| (k, v.to_owned()));
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let receiver = Receiver::ready("redis://elsewhere.invalid", &env).await?;
    ship(&receiver.http, "p").await?;
    Ok(receiver)
}

/// Everything works, on `redis`.
async fn works_on(receiver: &Receiver, redis: &Redis) -> Result<()> {
    until_taken(receiver, "p").await?;
    receiver.wait_ready(SOON).await?;
    ensure!(receiver.outcomes(&[critical("p")]).await? == [DUPLICATE]);
    assert_flipped_once(redis, "p").await?;
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
    // only one node is named: the other is found by MOVED
    let receiver = receiver(&[&from]).await?;
    let slot = slot(&from).await?;
    to.redis.cmd::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]).await?;
    from.redis.cmd::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await?;
    let port = to.redis.port().to_string();
    let migrate = async |most: &str| -> Result<usize> {
        let keys: Vec<String> = from.redis.cmd(&["CLUSTER", "GETKEYSINSLOT", &slot, most]).await?;
        if !keys.is_empty() {
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE"];
            command.extend(["AUTH2", Redis::ADMIN.name, Redis::ADMIN.password, "KEYS"]);
            command.extend(keys.iter().map(String::as_str));
            from.redis.cmd::<()>(&command).await?;
        }
        Ok(keys.len())
    };
    ensure!(migrate("2").await? == 2);
    // its keys are in two places: no script can have them all
    let answer = receiver.deliver(&[critical("p")]).await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (503, &json!("redis_unavailable")));
    while migrate("100").await? > 0 {}
    receiver.wait_not_ready("moving", SOON).await?;
    for node in [&to, &from] {
        node.redis.cmd::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]).await?;
    }
    works_on(&receiver, &to.redis).await?;
    ensure!(from.redis.cmd::<Vec<String>>(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await?.is_empty());
    Ok(())
}

/// Redis gives up a failover that takes longer than five seconds, as it may on a busy machine: asked again then.
async fn take_over(replica: &Redis) -> Result<()> {
    let mut asked: Option<Instant> = None;
    eventually("the replica is the master", FAILOVER, async || {
        if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(6)) {
            let accepted = replica.cmd::<()>(&["CLUSTER", "FAILOVER"]).await.is_ok();
            asked = accepted.then(Instant::now).or(asked);
        }
        let role: Vec<redis::Value> = replica.cmd(&["ROLE"]).await.ok()?;
        (role.first()? == &redis::Value::BulkString("master".into())).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_followed() -> Result<()> {
    let [master, replica] = cluster().await?;
    eventually("a replica", SOON, async || replica.redis.cmd::<()>(&["CLUSTER", "REPLICATE", &master.id]).await.ok())
        .await?;
    master.redis.wait_for_replicas(1).await?;
    let receiver = receiver(&[&master, &replica]).await?;
    master.redis.wait_for_replicas(1).await?;
    take_over(&replica.redis).await?;
    works_on(&receiver, &replica.redis).await
}
