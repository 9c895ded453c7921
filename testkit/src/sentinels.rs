//! A master, its replicas and three sentinels.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{Redis, RedisBuilder, eventually};

/// The name by which sentinels know the master.
pub const NAME: &str = "main";
/// After this time without an answer, the master is down. Long enough for a machine that is busy with other tests.
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// Far longer than a failover takes: the master is found down, the sentinels vote after a random wait of up to a second, and a
/// replica is promoted.
pub const FAILOVER: Duration = Duration::from_secs(300);

/// Redis servers, the master first, and the sentinels that watch them. Each is killed when dropped.
pub struct Sentinels {
    /// The master, then its replicas, as at the start.
    pub servers: Vec<Redis>,
    /// The three that vote.
    pub sentinels: Vec<Redis>,
}

/// A sentinel that watches `master`: `builder` says how it is secured.
pub fn sentinel(builder: RedisBuilder, master: &Redis) -> RedisBuilder {
    let settings = [("down-after-milliseconds", DOWN_AFTER.as_millis()), ("failover-timeout", 5_000)];
    let conf = settings.map(|(key, value)| format!("sentinel {key} {NAME} {value}"));
    builder.sentinel(NAME, master, 2).conf(conf.join("\n"))
}

impl Sentinels {
    /// Starts a master, so many replicas, and three sentinels that know one another.
    pub async fn start(replicas: usize) -> Result<Self> {
        let build = || Redis::builder().receiver_may("+role");
        let mut servers = vec![build().start()?];
        for _ in 0..replicas {
            servers.push(build().replica_of(&servers[0]).start()?);
        }
        servers[0].wait_for_replicas(replicas).await?;
        let sentinels = (0..3).map(|_| sentinel(Redis::builder(), &servers[0]).start()).collect::<Result<Vec<_>>>()?;
        let world = Self { servers, sentinels };
        world.wait_known(replicas).await?;
        Ok(world)
    }

    /// Waits until each sentinel knows the others and the replicas.
    pub async fn wait_known(&self, replicas: usize) -> Result<()> {
        for sentinel in &self.sentinels {
            eventually("the sentinels know each other", FAILOVER, async || {
                let fields: Vec<String> = sentinel.cmd(&["SENTINEL", "MASTER", NAME]).await.ok()?;
                let number = |name: &str| {
                    let at = fields.iter().position(|field| field == name)?;
                    fields.get(at + 1)?.parse::<usize>().ok()
                };
                (number("num-other-sentinels")? == 2 && number("num-slaves")? == replicas).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// The addresses of the sentinels, as `redis.nodes` lists them.
    pub fn nodes(&self) -> String {
        self.sentinels.iter().map(Redis::addr).collect::<Vec<_>>().join(",")
    }

    /// Waits until a sentinel names another master than `before`: the end of the failover. Returns that master, and when that was.
    pub async fn wait_failed_over(&self, before: &str) -> Result<(&Redis, Instant)> {
        let port = eventually("failed over", FAILOVER, async || {
            for sentinel in &self.sentinels {
                let named: (String, String) =
                    sentinel.cmd(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await.ok()?;
                if format!("{}:{}", named.0, named.1) != before {
                    return named.1.parse::<u16>().ok();
                }
            }
            None
        })
        .await?;
        let at = Instant::now();
        Ok((self.servers.iter().find(|server| server.port() == port).context("one of ours")?, at))
    }
}

/// `env` and the keys, without their prefix, by which a receiver asks the sentinels at `nodes`.
pub fn receiver_env<'a>(nodes: &'a str, env: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own = [("REDIS__MODE", "sentinel"), ("REDIS__SENTINEL_MASTER", NAME), ("REDIS__NODES", nodes)];
    own.iter().chain(env).copied().collect()
}
