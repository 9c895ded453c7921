//! Readers on servers without Sentinel or Cluster: a manual failover, a server without RESP3, a user without a
//! permission.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::{Mode, Problem, Reader, Settings, StartError};
use prompt_rollback_testkit::readers::{ACTIVE, Both, pushed, set};

use crate::common::{Redis, SOON, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_addresses_the_masters_is_read_and_a_demoted_one_is_left() -> Result<()> {
    let first = Redis::start()?;
    let second = Redis::builder().replica_of(&first).start()?;
    first.wait_for_replicas(1).await?;
    set(&first, "v1").await?;
    // the replica comes first
    let both = Both::start(&second.addr(), Settings { nodes: vec![first.addr()], ..pushed() }).await?;
    both.serve("v1").await?;
    let at = async |redis: &Redis| -> Result<bool> {
        Ok(redis.cmd::<String>(&["CLIENT", "LIST"]).await?.contains("user=prompt-server"))
    };
    ensure!(at(&first).await? && !at(&second).await?);
    // a manual failover, which leaves the old one without a master
    second.cmd::<()>(&["REPLICAOF", "NO", "ONE"]).await?;
    first.cmd::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await?;
    set(&second, "v2").await?;
    both.serve("v2").await?;
    ensure!(!at(&first).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_address_stands_alone_is_read() -> Result<()> {
    let master = Redis::start()?;
    let replica = Redis::builder().replica_of(&master).conf("replica-serve-stale-data no").start()?;
    set(&master, "v1").await?;
    let both = Both::start(&replica.addr(), pushed()).await?;
    both.serve("v1").await?;
    set(&master, "v2").await?;
    both.serve("v2").await?;
    // MASTERDOWN
    drop(master);
    both.lose_contact().await?;
    ensure!(both.prompt()?.active_version("u").as_deref() == Some("v2"));
    Ok(())
}

/// Follows by reading regularly, and reports it.
async fn polls(url: &str, redis: &Redis) -> Result<()> {
    let often = Settings { refresh: Duration::from_millis(100), ..Settings::default() };
    let reader = Reader::start(url, ["support"], often)?;
    let prompt = reader.prompt("support").context("the one followed")?;
    for (version, routing) in [("v1", None), ("v2", Some("v1")), ("v3", None)] {
        set(redis, version).await?;
        redis.cmd::<()>(&["DEL", "{prompts}:routing:support"]).await?;
        if let Some(other) = routing {
            redis.cmd::<()>(&["HSET", "{prompts}:routing:support", version, "60", other, "40"]).await?;
        }
        let expected = 1 + usize::from(routing.is_some());
        let serves = async || {
            let found = prompt.versions();
            (found.len() == expected && found.iter().any(|found| &**found == version)).then_some(())
        };
        eventually("found by polling", SOON, serves)
            .await
            .with_context(|| format!("{version}: {:?}", prompt.error()))?;
        ensure!(reader.mode() == Mode::Polling && prompt.error().is_none(), "{}: {:?}", reader.mode(), prompt.error());
    }
    Ok(())
}

#[tokio::test]
async fn without_resp3_changes_are_polled() -> Result<()> {
    let redis = Redis::builder().conf("rename-command HELLO \"\"").start()?;
    polls(&redis.prompt_server_url(), &redis).await
}

#[tokio::test]
async fn without_the_permission_to_track_changes_are_polled() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["ACL", "SETUSER", "prompt-server", "-client|tracking"]).await?;
    polls(&redis.prompt_server_url(), &redis).await
}

#[tokio::test]
async fn invalid_reader_settings_are_refused_at_the_start() {
    let settings = Settings::default();
    for (settings, expected) in [
        (Settings { nodes: vec!["redis-1".to_owned()], ..settings.clone() }, "Settings::nodes"),
        (Settings { nodes: vec![":6379".to_owned()], ..settings.clone() }, "expected host:port"),
        (Settings { nodes: vec!["redis-1:0".to_owned()], ..settings.clone() }, "expected host:port"),
        (Settings { nodes: vec!["redis://redis-2:6379".to_owned()], ..settings.clone() }, "expected host:port"),
        (Settings { nodes: vec!["a:6379,b:6379".to_owned()], ..settings.clone() }, "expected host:port"),
        (Settings { nodes: vec!["a b:6379".to_owned()], ..settings.clone() }, "expected host:port"),
        (Settings { nodes: vec!["user:s3cret@redis-2:6379".to_owned()], ..settings.clone() }, "a login"),
        (Settings { nodes: vec!["redis://user:s3cret@redis-2/0".to_owned()], ..settings.clone() }, "a login"),
        // a comma in a password, and nodes that were split at commas
        (
            Settings { nodes: vec!["user:s3cret".to_owned(), "x@redis-2:6379".to_owned()], ..settings.clone() },
            "a login",
        ),
        (Settings { sentinel_master: Some(String::new()), ..settings.clone() }, "Settings::sentinel_master"),
        (Settings { sentinel_password: Some("s3cret".to_owned()), ..settings }, "Settings::sentinel_master"),
    ] {
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        let error = Reader::start("redis://127.0.0.1:1", ["support"], settings).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }
    for url in ["redis.example:6379", "redis://user:s3cret@redis:port", "redis://user:s3cret@redis/database"] {
        let error = Reader::start(url, ["support"], Settings::default()).unwrap_err();
        assert!(matches!(error, StartError::Address(_)) && !error.to_string().contains("s3cret"), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_empty_login_for_sentinels_is_none() {
    let empty = || Some(String::new());
    let settings = Settings { sentinel_username: empty(), sentinel_password: empty(), ..Settings::default() };
    assert!(Reader::start("redis://127.0.0.1:1", ["support"], settings).is_ok());
}

#[tokio::test]
async fn lost_contact_shows_at_once_and_a_confirmed_version_is_not_stale() -> Result<()> {
    let mut redis = Redis::start()?;
    set(&redis, "v1").await?;
    let reader = Reader::start(redis.prompt_server_url(), ["support"], pushed())?;
    let prompt = reader.prompt("support").context("the one followed")?.clone();
    reader.ready().await?;
    // read once in ten minutes, confirmed twice a second
    let fresh = async || prompt.staleness().filter(|staleness| *staleness < Duration::from_millis(300)).map(drop);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await; // the reader goes by the real clock: so stale it would be
        eventually("confirmed", SOON, fresh).await?;
    }
    // but not while the key is missing
    redis.cmd::<()>(&["DEL", ACTIVE]).await?;
    eventually("missing", SOON, async || (prompt.error() == Some(Problem::Missing)).then_some(())).await?;
    let stale = async || prompt.staleness().filter(|staleness| *staleness > Duration::from_millis(1_500)).map(drop);
    eventually("not confirmed", SOON, stale).await?;
    redis.kill9();
    eventually("away", SOON, async || matches!(prompt.error(), Some(Problem::Away(_))).then_some(())).await?;
    ensure!(reader.mode() == Mode::Away);
    drop(reader);
    eventually("dropped", SOON, async || prompt.error().filter(|error| error.to_string().contains("dropped")).map(drop))
        .await
}
