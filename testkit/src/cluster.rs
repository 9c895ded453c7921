//! Two nodes of a Redis Cluster.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::sentinels::FAILOVER;
use crate::{PATIENCE, Redis, eventually, free_port};

/// One node of the cluster.
pub struct Node {
    /// Its server.
    pub redis: Redis,
    /// Its id in the cluster.
    pub id: String,
}

async fn node() -> Result<Node> {
    let conf = format!("cluster-enabled yes\ncluster-node-timeout 2000\ncluster-port {}", free_port());
    let redis = Redis::builder().receiver_may("+role +cluster|nodes").conf(conf).start()?;
    let id = redis.cmd(&["CLUSTER", "MYID"]).await?;
    Ok(Node { redis, id })
}

/// The slot of the prompts of the default namespace.
pub async fn slot(node: &Node) -> Result<String> {
    Ok(node.redis.cmd::<u16>(&["CLUSTER", "KEYSLOT", "{prompts}"]).await?.to_string())
}

/// Two nodes: the first has all slots, the second none.
pub async fn cluster() -> Result<[Node; 2]> {
    let nodes = [node().await?, node().await?];
    let [first, second] = &nodes;
    first.redis.cmd::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
    first.redis.cmd::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "1"]).await?;
    second.redis.cmd::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await?;
    let bus: String = first.redis.cmd(&["CONFIG", "GET", "cluster-port"]).await.map(|v: Vec<String>| v[1].clone())?;
    second.redis.cmd::<()>(&["CLUSTER", "MEET", "127.0.0.1", &first.redis.port().to_string(), &bus]).await?;
    for node in &nodes {
        eventually("the cluster is one", PATIENCE, async || {
            let info: String = node.redis.cmd(&["CLUSTER", "INFO"]).await.ok()?;
            (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")).then_some(())
        })
        .await?;
    }
    Ok(nodes)
}

/// Two nodes: the first is the master of all slots, the second its replica.
pub async fn master_and_replica() -> Result<[Node; 2]> {
    let [master, replica] = cluster().await?;
    eventually("a replica", PATIENCE, async || {
        replica.redis.cmd::<()>(&["CLUSTER", "REPLICATE", &master.id]).await.ok()
    })
    .await?;
    master.redis.wait_for_replicas(1).await?;
    Ok([master, replica])
}

/// Starts a failover again if Redis gave up after five seconds, as on a busy machine.
pub async fn take_over(replica: &Redis) -> Result<()> {
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

/// Makes a replica take over without asking a master that may be dead.
pub async fn seize(replica: &Redis) -> Result<()> {
    replica.cmd::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await?;
    eventually("the replica has the slots", FAILOVER, async || {
        replica.cmd::<Option<String>>(&["GET", "{prompts}:active:p"]).await.ok().map(drop)
    })
    .await
}

/// The slot of the prompts while it migrates from one node to another.
pub struct Moving<'a> {
    from: &'a Node,
    to: &'a Node,
    slot: String,
}

impl<'a> Moving<'a> {
    /// Begins to move it: both nodes know of it, and no key has moved yet.
    pub async fn begin(from: &'a Node, to: &'a Node) -> Result<Self> {
        let slot = slot(from).await?;
        to.redis.cmd::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]).await?;
        from.redis.cmd::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await?;
        Ok(Self { from, to, slot })
    }

    /// Moves at most `most` keys. Returns how many it moved.
    pub async fn keys(&self, most: &str) -> Result<usize> {
        let keys: Vec<String> = self.from.redis.cmd(&["CLUSTER", "GETKEYSINSLOT", &self.slot, most]).await?;
        if !keys.is_empty() {
            self.migrate(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(keys.len())
    }

    /// Moves one key.
    pub async fn key(&self, key: &str) -> Result<()> {
        self.migrate(&[key]).await
    }

    async fn migrate(&self, keys: &[&str]) -> Result<()> {
        let port = self.to.redis.port().to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE"];
        command.extend(["AUTH2", Redis::ADMIN.name, Redis::ADMIN.password, "KEYS"]);
        command.extend(keys);
        self.from.redis.cmd(&command).await
    }

    /// Moves the rest, and gives the slot away.
    pub async fn finish(self) -> Result<()> {
        while self.keys("100").await? > 0 {}
        for node in [self.to, self.from] {
            node.redis.cmd::<()>(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.to.id]).await?;
        }
        Ok(())
    }
}
