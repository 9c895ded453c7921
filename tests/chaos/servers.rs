//! The Redis of a world, and its faults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use prompt_rollback_testkit::{Redis, RedisBuilder, Rng, connect, eventually};
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::world::keys;

pub const MASTER: &str = "main";
/// For recovery, on a machine that runs many worlds.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Faults in the network between receivers and Redis.
    Wire,
    /// Receivers and Redis are killed; each command is synced to disk before it is answered.
    Kill,
    /// Receivers and Redis are killed; the disk is synced every second.
    KillEverysec,
    /// As [`KillEverysec`](Self::KillEverysec), and unsynced data is lost.
    PowerCut,
    /// Sentinel, with each change on a replica before it is answered.
    Failover,
    /// Sentinel, without waiting for replicas.
    FailoverUnacked,
}

impl Kind {
    /// The kind of the run with this seed: most have faults on the wire.
    pub fn of(seed: u64) -> Self {
        match seed % 20 {
            0..=11 => Kind::Wire,
            12..=14 => Kind::Kill,
            15 => Kind::KillEverysec,
            16 => Kind::PowerCut,
            17 | 18 => Kind::Failover,
            _ => Kind::FailoverUnacked,
        }
    }

    /// Whether acknowledged changes may be lost. Everything else must hold anyway.
    pub fn loses(self) -> bool {
        matches!(self, Kind::KillEverysec | Kind::PowerCut | Kind::FailoverUnacked)
    }

    pub fn fails_over(self) -> bool {
        matches!(self, Kind::Failover | Kind::FailoverUnacked)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Wire => "wire",
            Kind::Kill => "kill, AOF always",
            Kind::KillEverysec => "kill, AOF everysec",
            Kind::PowerCut => "power cut, AOF everysec",
            Kind::Failover => "failover, min_replicas_acked = 1",
            Kind::FailoverUnacked => "failover, min_replicas_acked = 0",
        }
    }
}

pub struct Servers {
    pub redis: Vec<Redis>,
    pub sentinels: Vec<Redis>,
    tasks: Vec<JoinHandle<()>>,
    written: Arc<Mutex<Vec<(Instant, u64)>>>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Servers {
    pub async fn start(kind: Kind) -> Result<Self> {
        // see `no_rate_limit`
        let build = || Redis::builder().receiver_may("+role").conf("notify-keyspace-events K$");
        let mut servers = Self { redis: Vec::new(), sentinels: Vec::new(), tasks: Vec::new(), written: Arc::default() };
        match kind {
            Kind::Wire => servers.redis.push(build().start()?),
            Kind::Kill => servers.redis.push(build().appendonly().start()?),
            Kind::KillEverysec | Kind::PowerCut => {
                servers.redis.push(build().appendonly().conf("appendfsync everysec").start()?);
                let (file, written) = (servers.aof(), Arc::clone(&servers.written));
                servers.tasks.push(tokio::spawn(follow_size(file, written)));
            }
            Kind::Failover | Kind::FailoverUnacked => {
                servers.redis.push(build().start()?);
                servers.redis.push(build().replica_of(&servers.redis[0]).start()?);
                servers.redis[0].wait_for_replicas(1).await?;
                for _ in 0..3 {
                    servers.sentinels.push(sentinel(&servers.redis[0])?);
                }
                servers.sentinels_know().await?;
            }
        }
        for redis in &servers.redis {
            servers.tasks.push(tokio::spawn(no_rate_limit(redis.admin_url())));
        }
        Ok(servers)
    }

    pub fn nodes(&self) -> String {
        self.sentinels.iter().map(Redis::addr).collect::<Vec<_>>().join(",")
    }

    async fn sentinels_know(&self) -> Result<()> {
        for sentinel in &self.sentinels {
            eventually("the sentinels know each other", PATIENCE, async || {
                let fields: Vec<String> = sentinel.cmd(&["SENTINEL", "MASTER", MASTER]).await.ok()?;
                let number = |name: &str| {
                    let at = fields.iter().position(|field| field == name)?;
                    fields.get(at + 1)?.parse::<usize>().ok()
                };
                (number("num-other-sentinels")? == 2 && number("num-slaves")? == 1).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// The server that takes writes; with Sentinel, the one that most sentinels name.
    pub async fn master(&self) -> Result<usize> {
        if self.sentinels.is_empty() {
            return Ok(0);
        }
        let mut votes: BTreeMap<u16, usize> = BTreeMap::new();
        for sentinel in &self.sentinels {
            let named = sentinel.cmd::<(String, String)>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
            let port = named.ok().and_then(|(_, port)| port.parse().ok());
            port.into_iter().for_each(|port| *votes.entry(port).or_default() += 1);
        }
        let named = votes.into_iter().max_by_key(|(_, votes)| *votes).context("no sentinel names a master")?.0;
        self.redis.iter().position(|redis| redis.port() == named).context("a master of ours")
    }

    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        self.redis[self.master().await?].connection().await
    }

    /// Breaks something, waits for a short or long time, and repairs it. Returns what it did.
    pub async fn break_and_mend(&mut self, kind: Kind, rng: &mut Rng) -> Result<&'static str> {
        let pause = Duration::from_millis(100 + rng.below(1_100));
        match kind {
            Kind::Wire => {
                self.redis[0].pause()?;
                tokio::time::sleep(pause).await;
                self.redis[0].resume()?;
                Ok("Redis stopped for a while (SIGSTOP)")
            }
            Kind::Kill | Kind::KillEverysec => {
                self.redis[0].kill9();
                tokio::time::sleep(pause).await;
                self.redis[0].restart()?;
                Ok("Redis killed (SIGKILL)")
            }
            Kind::PowerCut => {
                self.redis[0].kill9();
                let lost_since = Instant::now() - Duration::from_millis(rng.below(1_000));
                let written = self.written.lock().await;
                let on_disk = written.iter().rev().find(|(at, _)| *at <= lost_since).map(|(_, size)| *size);
                drop(written);
                if let Some(size) = on_disk {
                    std::fs::OpenOptions::new().write(true).open(self.aof())?.set_len(size)?;
                }
                tokio::time::sleep(pause).await;
                self.redis[0].restart()?;
                Ok("power cut (SIGKILL, the last second of the AOF gone)")
            }
            Kind::Failover | Kind::FailoverUnacked => self.fail_over(rng, pause).await,
        }
    }

    async fn fail_over(&mut self, rng: &mut Rng, pause: Duration) -> Result<&'static str> {
        // one at a time: acknowledged changes are on two servers, which store nothing on disk
        self.whole().await?;
        let master = self.master().await?;
        match rng.below(4) {
            0 => {
                self.redis[1 - master].pause()?;
                tokio::time::sleep(pause).await;
                self.redis[1 - master].resume()?;
                Ok("replica partitioned (SIGSTOP)")
            }
            1 => {
                self.redis[master].kill9();
                self.promoted(master).await?;
                self.redis[master].restart()?;
                Ok("master killed (SIGKILL)")
            }
            2 => {
                self.redis[master].pause()?;
                self.promoted(master).await?;
                self.redis[master].resume()?;
                Ok("master partitioned (SIGSTOP), back after the failover")
            }
            _ => {
                // refused while the replica is not in sync; the next one may succeed
                let _ = self.sentinels[0].cmd::<redis::Value>(&["SENTINEL", "FAILOVER", MASTER]).await;
                tokio::time::sleep(pause).await;
                Ok("master replaced while it runs (SENTINEL FAILOVER)")
            }
        }
    }

    async fn promoted(&self, before: usize) -> Result<()> {
        eventually("another master", PATIENCE, async || {
            let now = self.master().await.ok()?;
            let role: Vec<redis::Value> = self.redis[now].cmd(&["ROLE"]).await.ok()?;
            (now != before && role.first() == Some(&redis::Value::BulkString("master".into()))).then_some(())
        })
        .await
    }

    /// Waits until all run, one is the master, and the other follows it.
    pub async fn whole(&self) -> Result<()> {
        if self.sentinels.is_empty() {
            return Ok(());
        }
        eventually("one master and its replica in sync", PATIENCE, async || {
            let master = self.master().await.ok()?;
            let role: Vec<redis::Value> = self.redis[master].cmd(&["ROLE"]).await.ok()?;
            let info: String = self.redis[1 - master].cmd(&["INFO", "replication"]).await.ok()?;
            let port = format!("master_port:{}\r\n", self.redis[master].port());
            let follows = info.contains(&port) && info.contains("master_link_status:up");
            (role.first() == Some(&redis::Value::BulkString("master".into())) && follows).then_some(())
        })
        .await
    }

    fn aof(&self) -> PathBuf {
        self.redis[0].dir().join("appendonlydir/appendonly.aof.1.incr.aof")
    }
}

fn sentinel(master: &Redis) -> Result<Redis> {
    let settings = [("down-after-milliseconds", 1_500), ("failover-timeout", 5_000)];
    let conf = settings.map(|(key, value)| format!("sentinel {key} {MASTER} {value}"));
    RedisBuilder::default().sentinel(MASTER, master, 2).conf(conf.join("\n")).start()
}

/// Tracks which part of the file is older than a second: newer data may not be on disk.
async fn follow_size(file: PathBuf, written: Arc<Mutex<Vec<(Instant, u64)>>>) {
    loop {
        if let Ok(meta) = std::fs::metadata(&file) {
            written.lock().await.push((Instant::now(), meta.len()));
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Ends slots at once: a channel accepts a message per second by Redis' clock, which cannot be moved. Pauses that Slack
/// requested stay.
async fn no_rate_limit(url: String) {
    const END: &str = "if redis.call('PTTL', KEYS[1]) <= 1000 then return redis.call('DEL', KEYS[1]) end return 0";
    let follow = async || -> Result<()> {
        let client = redis::Client::open(url.as_str())?;
        let mut connection = connect(&client).await?;
        let mut events = client.get_async_pubsub().await?;
        events.psubscribe(format!("__keyspace@0__:{}", keys().rate_limit("*"))).await?;
        let mut messages = events.on_message();
        while let Some(message) = messages.next().await {
            let key = message.get_channel_name().trim_start_matches("__keyspace@0__:").to_owned();
            redis::cmd("EVAL").arg(END).arg(1).arg(key).query_async::<redis::Value>(&mut connection).await?;
        }
        Ok(())
    };
    loop {
        let _ = follow().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
