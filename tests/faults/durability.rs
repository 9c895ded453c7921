//! Commits survive Redis, with `config/redis.conf` and `config/users.acl` as shipped: every way to persist data, every
//! way for Redis to end.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Receiver as Process, Redis, RedisBuilder, shipped};
use redis::Value;
use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::common::kept::all_incidents;
use crate::common::{DUPLICATE, ROLLED_BACK, SOON, alert, critical, deliver, eventually, outcomes, ship};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
}

/// The shipped files; `conf` are additional lines of redis.conf.
fn redis(conf: &str) -> Result<RedisBuilder> {
    let builder = shipped::redis(Redis::RECEIVER.password, Redis::PROMPT_SERVER.password)?;
    Ok(builder.conf(conf))
}

/// A receiver as a process, which can be stopped without ending it: it neither writes nor notices meanwhile.
struct World {
    redis: Redis,
    receiver: Process,
    database: u8,
}

impl World {
    fn start(redis: Redis, database: u8) -> Result<Self> {
        let receiver = Process::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
            .config(shipped::text("config/prompt-rollback.toml")?)
            .env("PROMPT_ROLLBACK_REDIS__URL", format!("{}/{database}", redis.receiver_url()))
            .start()?;
        Ok(Self { redis, receiver, database })
    }

    /// Commits of every kind: versions with and without content, switches, a canary, open and closed incidents, an
    /// external change, a pause.
    async fn commit(&self, prefix: &str) -> Result<()> {
        let http = self.receiver.http();
        let post = async |path: &str, body: serde_json::Value| -> Result<serde_json::Value> {
            let answer = http.post_json(path, &body).await?;
            ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
            answer.json()
        };
        let name = |name: &str| format!("{prefix}-{name}");
        for prompt in ["flipped", "asked", "dismissed"] {
            ship(&http, &name(prompt)).await?;
        }
        ensure!(outcomes(&deliver(&http, &[critical(&name("flipped"))]).await?)? == [ROLLED_BACK]);
        for prompt in ["asked", "dismissed"] {
            let opened = deliver(&http, &[alert(&name(prompt), "v2", "high")]).await?.json()?;
            let incident = opened["results"][0]["incident"].as_str().with_context(|| format!("{opened}"))?.to_owned();
            if prompt == "dismissed" {
                let body = json!({"decision": "dismiss", "operator": "mia"});
                post(&format!("/api/incidents/{incident}/decide"), body).await?;
            }
        }
        let split = format!("/api/prompts/{}", name("split"));
        for (path, body) in [
            ("versions", json!({"version": "v1", "known_good": true, "content": "Be kind."})),
            ("activate", json!({"version": "v1"})),
            ("versions", json!({"version": "v2", "content": "Be kinder."})),
            ("activate", json!({"version": "v2", "canary": true, "operator": "mia"})),
        ] {
            post(&format!("{split}/{path}"), body).await?;
        }
        post("/api/pause", json!({"prompt": name("dismissed"), "operator": "mia", "reason": "a test"})).await?;
        let outside = name("outside");
        let mut set = self.connection().await?;
        redis::cmd("SET").arg(format!("{{prompts}}:active:{outside}")).arg("v7").exec_async(&mut set).await?;
        eventually("the change made outside is taken over", SOON, async || {
            let answer = http.get(&format!("/api/prompts/{outside}/log")).await.ok()?;
            answer.text().contains("external").then_some(())
        })
        .await
    }

    async fn connection(&self) -> Result<MultiplexedConnection> {
        let mut connection = self.redis.connection().await?;
        redis::cmd("SELECT").arg(self.database).exec_async(&mut connection).await?;
        Ok(connection)
    }

    /// Stops the receiver, and returns the data once Redis has written everything.
    async fn settle(&mut self) -> Result<Dump> {
        self.receiver.process().pause()?;
        let mut before = self.kept().await?;
        eventually("nothing changes, and all is written", SOON, async || {
            let info: String = self.redis.cmd(&["INFO", "persistence"]).await.ok()?;
            let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let written = ["aof_buffer_length:", "aof_pending_bio_fsync:", "aof_rewrite_in_progress:"]
                .iter()
                .all(|name| field(name).is_none_or(|value| value == "0"));
            let now = self.kept().await.ok()?;
            let same = now == before;
            before = now;
            (written && same).then_some(())
        })
        .await?;
        ensure!(before.len() > 10, "there is something to lose: {before:?}");
        Ok(before)
    }

    fn restart(&mut self, end: End) -> Result<()> {
        match end {
            End::Killed => self.redis.kill9(),
            End::Stopped => self.redis.stop()?,
        }
        self.redis.restart()
    }

    async fn kept(&self) -> Result<Dump> {
        kept(&mut self.connection().await?).await
    }

    /// The receiver reconnects, knows what was done, and continues.
    async fn works_on(&mut self, prefix: &str) -> Result<()> {
        self.receiver.process().resume()?;
        let http = self.receiver.http();
        eventually("ready", SOON, async || http.get("/-/ready").await.ok().filter(|answer| answer.status == 200))
            .await?;
        let [switched, asked] = ["flipped", "asked"].map(|prompt| format!("{prefix}-{prompt}"));
        ensure!(outcomes(&deliver(&http, &[critical(&switched)]).await?)? == [DUPLICATE], "the rollback is known");
        ensure!(outcomes(&deliver(&http, &[critical(&asked)]).await?)? == [ROLLED_BACK], "another one is made");
        Ok(())
    }
}

/// Each key with its value and its expiry. Hashes and sets are sorted: after a restart Redis returns them in another
/// order.
type Dump = BTreeMap<String, (String, i64)>;

async fn kept(connection: &mut MultiplexedConnection) -> Result<Dump> {
    let mut kept = Dump::new();
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(connection).await?;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await?;
    for key in keys {
        let expires: i64 = redis::cmd("PEXPIRETIME").arg(&key).query_async(connection).await?;
        // it may have expired when Redis is back
        if expires >= 0 && expires < (seconds + 120) * 1_000 {
            continue;
        }
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(connection).await?;
        let value = match kind.as_str() {
            "string" => format!("{:?}", redis::cmd("GET").arg(&key).query_async::<Value>(connection).await?),
            "hash" => {
                let fields: BTreeMap<String, String> = redis::cmd("HGETALL").arg(&key).query_async(connection).await?;
                format!("{fields:?}")
            }
            "zset" => {
                let mut command = redis::cmd("ZRANGE");
                command.arg(&key).arg(0).arg(-1).arg("WITHSCORES");
                format!("{:?}", command.query_async::<Value>(connection).await?)
            }
            "stream" => {
                let mut info = redis::cmd("XINFO");
                let info: BTreeMap<String, Value> = info.arg("STREAM").arg(&key).query_async(connection).await?;
                let entries: Value = redis::cmd("XRANGE").arg(&key).arg("-").arg("+").query_async(connection).await?;
                format!("{entries:?} {:?} {:?}", info.get("last-generated-id"), info.get("entries-added"))
            }
            // it expired after the keys were listed
            "none" => continue,
            other => anyhow::bail!("{key} is a {other}"),
        };
        kept.insert(key, (value, expires));
    }
    Ok(kept)
}

#[track_caller]
fn assert_kept(before: &Dump, after: &Dump, what: &str) {
    let lost: Vec<_> = before.keys().filter(|key| !after.contains_key(*key)).collect();
    let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
    let other: Vec<String> = before
        .iter()
        .filter_map(|(key, was)| {
            after.get(key).filter(|is| *is != was).map(|is| format!("{key}\nwas {was:?}\nis {is:?}\n"))
        })
        .collect();
    assert!(before == after, "{what}: lost {lost:?}, new {new:?}, not as they were:\n{}", other.concat());
}

/// Commits, runs `meanwhile`, commits, ends Redis and starts it: everything is unchanged, twice, and the receiver
/// continues.
async fn survives(redis: Redis, database: u8, end: End, meanwhile: impl AsyncFn(&World) -> Result<()>) -> Result<()> {
    let mut world = World::start(redis, database)?;
    world.commit("first").await?;
    meanwhile(&world).await?;
    world.commit("second").await?;
    for turn in ["the first restart", "the second restart"] {
        let before = world.settle().await?;
        if saves(&world).await? && end == End::Killed {
            world.redis.cmd::<()>(&["SAVE"]).await?;
        }
        world.restart(end)?;
        assert_kept(&before, &world.kept().await?, turn);
        ensure!(!world.redis.log().contains("CRITICAL"), "{}", world.redis.log());
        world.works_on(if turn == "the first restart" { "first" } else { "second" }).await?;
    }
    Ok(())
}

/// Whether it stores snapshots: a killed server has only the last one.
async fn saves(world: &World) -> Result<bool> {
    let save: (String, String) = world.redis.cmd(&["CONFIG", "GET", "save"]).await?;
    Ok(!save.1.is_empty())
}

async fn nothing(_: &World) -> Result<()> {
    Ok(())
}

async fn rewrite(world: &World) -> Result<()> {
    world.redis.cmd::<()>(&["BGREWRITEAOF"]).await?;
    eventually("rewritten", SOON, async || {
        let info: String = world.redis.cmd(&["INFO", "persistence"]).await.ok()?;
        let done = info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0");
        done.then_some(())
    })
    .await
}

const EVERY_SECOND: &str = "";
const ALWAYS: &str = "appendfsync always";
const SNAPSHOTS: &str = "appendonly no\nsave 3600 1";

#[tokio::test]
async fn an_append_only_file_written_each_second() -> Result<()> {
    survives(redis(EVERY_SECOND)?.start()?, 0, End::Killed, nothing).await?;
    survives(redis(EVERY_SECOND)?.start()?, 0, End::Stopped, nothing).await
}

#[tokio::test]
async fn an_append_only_file_written_before_each_answer() -> Result<()> {
    survives(redis(ALWAYS)?.start()?, 0, End::Killed, nothing).await?;
    survives(redis(ALWAYS)?.start()?, 0, End::Stopped, nothing).await
}

#[tokio::test]
async fn an_append_only_file_that_was_rewritten() -> Result<()> {
    for conf in [EVERY_SECOND, ALWAYS, "aof-use-rdb-preamble no"] {
        survives(redis(conf)?.start()?, 0, End::Killed, rewrite).await?;
    }
    survives(redis(EVERY_SECOND)?.start()?, 0, End::Stopped, rewrite).await
}

#[tokio::test]
async fn snapshots_without_an_append_only_file() -> Result<()> {
    survives(redis(SNAPSHOTS)?.start()?, 0, End::Killed, nothing).await?;
    survives(redis(SNAPSHOTS)?.start()?, 0, End::Stopped, nothing).await
}

/// Valkey 8 frees memory in the background by default: expired keys are then unlinked, in the file as well.
#[tokio::test]
async fn memory_that_is_freed_in_the_background() -> Result<()> {
    let lazy = "lazyfree-lazy-expire yes\nlazyfree-lazy-user-del yes\nlazyfree-lazy-server-del yes";
    survives(redis(lazy)?.start()?, 0, End::Killed, rewrite).await
}

/// After a rewrite, the first write in the file is a script's, and SELECT is inside its MULTI.
#[tokio::test]
async fn a_database_with_a_number() -> Result<()> {
    survives(redis(EVERY_SECOND)?.receiver_may("+select").start()?, 3, End::Killed, rewrite).await
}

#[tokio::test]
async fn a_replica_that_has_to_take_over() -> Result<()> {
    let master = redis(EVERY_SECOND)?.start()?;
    let mut replica = redis(EVERY_SECOND)?.replica_of(&master).start()?;
    master.wait_for_replicas(1).await?;
    let mut world = World::start(master, 0)?;
    world.commit("first").await?;
    let before = world.settle().await?;
    world.redis.wait_for_replicas(1).await?;
    world.redis.kill9();
    replica.kill9();
    replica.restart()?;
    assert_kept(&before, &kept(&mut replica.connection().await?).await?, "the replica's own file");
    Ok(())
}

/// The users as shipped earlier: on many servers a restart drops writes of scripts. The file still has them until it is
/// rewritten.
async fn half_read() -> Result<(World, Dump, String)> {
    let users = shipped::users(Redis::RECEIVER.password, Redis::PROMPT_SERVER.password)?;
    let default = users.lines().find(|line| line.starts_with("user default ")).context("the user default")?;
    let bare = shipped::replace(&users, default, "user default off")?;
    let mut world = World::start(redis(EVERY_SECOND)?.acl(bare).start()?, 0)?;
    world.commit("first").await?;
    let before = world.settle().await?;
    world.restart(End::Killed)?;
    eprintln!("a restart with a bare `user default off` kept {} of {} keys", world.kept().await?.len(), before.len());
    Ok((world, before, users))
}

#[tokio::test]
async fn a_partly_read_file_is_read_whole_once_permissions_are_mended() -> Result<()> {
    let (mut world, before, users) = half_read().await?;
    world.redis.set_users(&users)?;
    world.restart(End::Stopped)?;
    assert_kept(&before, &world.kept().await?, "with the permissions");
    world.works_on("first").await
}

#[tokio::test]
async fn going_on_with_partly_read_data_costs_no_prompt_its_version() -> Result<()> {
    let (mut world, before, users) = half_read().await?;
    world.receiver.process().resume()?;
    world.commit("later").await?;
    let later = world.settle().await?;
    world.redis.set_users(&users)?;
    world.restart(End::Stopped)?;
    let mended = world.kept().await?;
    for (kept, prefix) in [(&before, "first"), (&later, "later")] {
        for kind in ["active", "content"] {
            let of = format!("{{prompts}}:{kind}:{prefix}-");
            let only = |kept: &Dump| -> Dump {
                let of = kept.iter().filter(|(key, _)| key.starts_with(&of));
                of.map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            assert_kept(&only(kept), &only(&mended), prefix);
        }
    }
    world.works_on("later").await?;
    let incidents = all_incidents(&world.redis).await?;
    for prompt in ["flipped", "asked", "dismissed"] {
        for prefix in ["first", "later"] {
            let name = format!("{prefix}-{prompt}");
            // an open incident is part of its prompt's state, which was written again if the receiver looked at the prompt
            // before permissions were mended; then it says so
            let log = world.receiver.http().get(&format!("/api/prompts/{name}/log")).await?.text();
            let overwritten = prefix == "first" && log.contains("active was deleted outside of prompt-rollback");
            assert!(
                overwritten || incidents.iter().any(|incident| incident["prompt"] == name),
                "{name}: {log}\n{incidents:#?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_check_finds_the_files_that_ship_in_order() -> Result<()> {
    let redis = redis(EVERY_SECOND)?.start()?;
    let mut check = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    check.args(["check", "--connect", "--output", "json"]).env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url());
    let output = tokio::task::spawn_blocking(move || check.output()).await??;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let probes = said["probes"].as_array().context("probes")?;
    assert!(probes.len() >= 6 && probes.iter().all(|probe| probe["level"] == "ok"), "{said:#}");
    Ok(())
}
