//! Backup and restore by commands alone: from one server to another, without CONFIG and without a file of either.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use prompt_rollback::store::{Clock, Store};
use prompt_rollback_testkit::Dir;

use super::kit::{Kit, critical};
use crate::common::{Receiver, Redis, SOON, assert_same, config, dump, eventually};

/// As `docs/your-stack/managed-redis.md` gives them to a user `backup`.
fn documented() -> Result<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/your-stack/managed-redis.md"))?;
    let line = page.lines().find_map(|line| line.strip_prefix("backup: ")).context("the user `backup`")?;
    Ok(line.to_owned())
}

/// A service: its operator's commands are gone, and there is a user for backups.
async fn service() -> Result<Redis> {
    let gone = ["CONFIG", "SAVE", "BGSAVE", "BGREWRITEAOF", "DEBUG", "SYNC", "PSYNC", "MIGRATE"];
    let conf: Vec<String> = gone.iter().map(|command| format!("rename-command {command} \"\"")).collect();
    let redis = Redis::builder().conf(conf.join("\n")).start()?;
    let rules = documented()?;
    let words = ["ACL", "SETUSER", "backup", "reset", ">s3cret"].into_iter().chain(rules.split_whitespace());
    redis.cmd::<()>(&words.collect::<Vec<_>>()).await?;
    Ok(redis)
}

fn as_backup(redis: &Redis) -> String {
    format!("redis://backup:s3cret@{}", redis.addr())
}

/// Runs the program.
async fn copies(words: &[&str], url: &str) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    command.args(words).env_clear().env("PROMPT_ROLLBACK_REDIS__URL", url);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_restored_on_another_server_and_goes_on_there() -> Result<()> {
    let kit = Kit::on(service().await?)?;
    for prompt in ["p", "q"] {
        kit.ship(prompt).await?;
    }
    kit.does("p", critical("p")).await?;
    kit.cmd::<()>(&["SET", "other:key", "stays here"]).await?;
    let dir = Dir::new("backup")?;
    let file = dir.path().join("prompts.backup").display().to_string();
    let (code, text) = copies(&["backup", &file], &as_backup(&kit.redis)).await?;
    ensure!(code == Some(0) && text.ends_with(" keys saved\n"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (code, text) = copies(&["backup", &file], &as_backup(&kit.redis)).await?;
    ensure!(code == Some(1) && text.contains("File exists"), "an older backup is not overwritten: {text}");

    let other = service().await?;
    other.cmd::<()>(&["SET", "other:key", "its own"]).await?;
    let (code, text) = copies(&["restore-backup", &file], &as_backup(&other)).await?;
    ensure!(code == Some(0) && text.ends_with(" keys restored\n"), "{text}");
    let (mut before, mut after) = (dump(&kit.redis).await?, dump(&other).await?);
    assert_eq!(other.cmd::<String>(&["GET", "other:key"]).await?, "its own");
    let (_, _) = (before.remove("other:key"), after.remove("other:key"));
    let passing = ["pace", "once", "handled", "heartbeat", "group", "fence", "selftest"];
    let lasting = |key: &String| !passing.contains(&key.split(':').nth(1).unwrap_or_default());
    before.retain(|key, _| lasting(key));
    after.retain(|key, _| lasting(key));
    assert_same(&before, &after, "the copy");
    for (redis, key) in [(&kit.redis, "{prompts}:active:p"), (&other, "{prompts}:active:p")] {
        assert_eq!(redis.cmd::<String>(&["GET", key]).await?, "v1");
    }
    // a receiver takes over there
    let receiver = Receiver::ready(&other.receiver_url(), &[]).await?;
    let incidents = receiver.http.get("/api/incidents").await?.json()?;
    assert_eq!(incidents["incidents"][0]["prompt"], "p", "{incidents}");
    assert_eq!(receiver.outcomes(&[crate::common::critical("q")]).await?, [crate::common::ROLLED_BACK]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_would_do_damage_is_refused_with_the_reason() -> Result<()> {
    let kit = Kit::on(service().await?)?;
    kit.ship("p").await?;
    let dir = Dir::new("backup")?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let file = path("prompts.backup");
    let url = as_backup(&kit.redis);
    ensure!(copies(&["backup", &file], &url).await?.0 == Some(0));
    let whole = std::fs::read_to_string(&file)?;
    let refused = async |name: &str, expected: &str| -> Result<()> {
        let (code, text) = copies(&["restore-backup", &path(name)], &url).await?;
        ensure!(code == Some(1) && text.contains(expected), "{name}: {expected:?} is missing: {text}");
        Ok(())
    };
    let lines: Vec<&str> = whole.lines().collect();
    dir.write("cut", lines[..lines.len() - 1].join("\n"))?;
    refused("cut", "is incomplete").await?;
    dir.write("torn", &whole[..whole.len() - 9])?;
    refused("torn", &format!("line {}", lines.len())).await?;
    dir.write("foreign", whole.replacen("{prompts}", "{other}", 1))?;
    refused("foreign", "is a backup of the namespace {other}, but redis.namespace is {prompts}").await?;
    dir.write("another", "{}\n")?;
    refused("another", "is not a backup").await?;
    refused("missing", "No such file").await?;
    // the prompts have gone on since
    kit.does("p", critical("p")).await?;
    let before = dump(&kit.redis).await?;
    refused("prompts.backup", "Redis already holds {prompts}:").await?;
    assert_same(&before, &dump(&kit.redis).await?, "nothing is changed");
    // and a user without the permission is told which
    for (url, words, lacks) in [
        (kit.redis.receiver_url(), ["backup", &path("denied")], "'dump'"),
        (kit.redis.prompt_server_url(), ["backup", &path("denied")], "'scan'"),
    ] {
        let (code, text) = copies(&words, &url).await?;
        ensure!(code == Some(1) && text.contains(lacks), "{text}");
        ensure!(!dir.path().join("denied").exists());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_interrupted_is_completed_by_running_it_again() -> Result<()> {
    let (redis, other) = (Redis::start()?, Redis::start()?);
    let text = "x".repeat(10_000);
    for number in 0..400 {
        // texts that do not compress
        let text = format!("{number}{text}");
        redis.cmd::<()>(&["SET", &format!("{{prompts}}:content:p:{number}"), &text, "EX", "600"]).await?;
    }
    let dir = Dir::new("backup")?;
    let file = dir.path().join("prompts.backup").display().to_string();
    ensure!(copies(&["backup", &file], &redis.admin_url()).await?.0 == Some(0));
    let info: String = other.cmd(&["INFO", "memory"]).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("named")?.trim().to_owned();
    let limit = (used.parse::<u64>()? + (2 << 20)).to_string();
    other.cmd::<()>(&["CONFIG", "SET", "maxmemory", &limit]).await?;
    let (code, text) = copies(&["restore-backup", &file], &other.admin_url()).await?;
    ensure!(code == Some(1) && text.contains("of 400 keys are restored, run the same command again"), "{text}");
    other.cmd::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    let (code, text) = copies(&["restore-backup", &file], &other.admin_url()).await?;
    ensure!(code == Some(0) && text == "400 keys restored\n", "{text}");
    assert_same(&dump(&redis).await?, &dump(&other).await?, "the copy");
    let left: i64 = other.cmd(&["PTTL", "{prompts}:content:p:7"]).await?;
    ensure!((1..=600_000).contains(&left), "{left}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_of_one_moment_or_there_is_none() -> Result<()> {
    let redis = Arc::new(service().await?);
    for number in 0..300 {
        redis.cmd::<()>(&["SET", &format!("{{prompts}}:content:p:{number}"), "1"]).await?;
    }
    let store = Store::new(&config(&as_backup(&redis), &[]).redis, Clock::default())?;
    let stop = Arc::new(AtomicBool::new(false));
    let (busy, stopped) = (Arc::clone(&redis), Arc::clone(&stop));
    // both keys always hold the same number
    let writer = tokio::spawn(async move {
        let mut connection = busy.connection().await?;
        let mut number = 0;
        while !stopped.load(Ordering::SeqCst) {
            number += 1;
            let mut pipeline = redis::pipe();
            pipeline.atomic().set("{prompts}:active:a", number).set("{prompts}:active:z", number);
            pipeline.exec_async(&mut connection).await?;
        }
        anyhow::Ok(())
    });
    eventually("the writer writes", SOON, async || {
        redis.cmd::<Option<String>>(&["GET", "{prompts}:active:z"]).await.ok().flatten()
    })
    .await?;
    assert!(store.backup().await?.is_none(), "there was no moment to copy");
    stop.store(true, Ordering::SeqCst);
    writer.await??;
    assert_eq!(store.backup().await?.context("quiet")?.len(), 302);
    Ok(())
}

/// Each claim prolongs the sets of a webhook with pending events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_only_prolonged_does_not_prevent_a_backup() -> Result<()> {
    let redis = Arc::new(service().await?);
    for number in 0..300 {
        redis.cmd::<()>(&["SET", &format!("{{prompts}}:content:p:{number}"), "1"]).await?;
    }
    let due = "{prompts}:due:webhook.audit";
    redis.cmd::<()>(&["ZADD", due, "1", "@p|webhook.audit"]).await?;
    let store = Store::new(&config(&as_backup(&redis), &[]).redis, Clock::default())?;
    let (busy, stop) = (Arc::clone(&redis), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let claimer = tokio::spawn(async move {
        let mut connection = busy.connection().await?;
        let mut left = 180 * 24 * 3_600_000_i64;
        while !stopped.load(Ordering::SeqCst) {
            left += 1;
            redis::cmd("PEXPIRE").arg(due).arg(left).exec_async(&mut connection).await?;
        }
        anyhow::Ok(())
    });
    eventually("the claimer claims", SOON, async || {
        redis.cmd::<i64>(&["PTTL", due]).await.ok().filter(|left| *left > 0)
    })
    .await?;
    let saved = store.backup().await?;
    stop.store(true, Ordering::SeqCst);
    claimer.await??;
    assert_eq!(saved.context("the keys did not change")?.len(), 301);
    Ok(())
}
