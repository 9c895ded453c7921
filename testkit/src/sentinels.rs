//! A master, its replicas and three sentinels.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use prompt_rollback_testkit::RedisBuilder;

use crate::common::{Receiver, Redis, eventually};

pub const NAME: &str = "main";
/// Without an answer for so long, the master is down. Long enough for a machine that is busy with other tests.
pub const DOWN_AFTER: Duration = Duration::from_secs(1);
/// A failover: down, the votes of the sentinels after a random wait of up to a second, the promotion.
pub const FAILOVER: Duration = Duration::from_secs(300);

pub struct World {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

pub fn sentinel(builder: RedisBuilder, master: &Redis) -> RedisBuilder {
    let settings = [("down-after-milliseconds", DOWN_AFTER.as_millis()), ("failover-timeout", 5_000)];
    let conf = settings.map(|(key, value)| format!("sentinel {key} {NAME} {value}"));
    builder.sentinel(NAME, master, 2).conf(conf.join("\n"))
}

impl World {
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

    pub fn nodes(&self) -> String {
        self.sentinels.iter().map(Redis::addr).collect::<Vec<_>>().join(",")
    }

    pub async fn receiver(&self, env: &[(&str, &str)]) -> Result<Receiver> {
        Receiver::ready("redis://elsewhere.invalid", &with(&self.nodes(), env)).await
    }

    /// Waits until a sentinel names another master than `before`, which takes writes: the end of the failover.
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

/// `env` for a receiver of these sentinels.
pub fn with<'a>(nodes: &'a str, env: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own = [("REDIS__MODE", "sentinel"), ("REDIS__SENTINEL_MASTER", NAME), ("REDIS__NODES", nodes)];
    own.iter().chain(env).copied().collect()
}
