//! The cost of asking the reader in a prompt server, and how soon a change reaches all readers.
//!
//! `cargo bench --bench reader [-- --quick]`
//!
//! Fails if a target is missed.

#[allow(dead_code, reason = "shared with the other benches")]
#[path = "../shared/figures.rs"]
mod figures;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::{Prompt, Reader, Settings};
use prompt_rollback_testkit::Redis;
use tokio::sync::mpsc;
use tokio::time::timeout;

use figures::{Figure, Times, ms, table};

const READERS: usize = 100;
/// Commits a stage as the receiver does: all at once, announced at the end.
const COMMIT: &str = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2]) \
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2], ARGV[3], 100 - ARGV[2]) \
    redis.call('PUBLISH', '{prompts}:changes', '{\"prompt\":\"support\"}')";

/// A stage that leaves `percent` on `active`.
async fn commit(redis: &mut redis::aio::MultiplexedConnection, active: &str, other: &str, percent: u8) -> Result<()> {
    let mut script = redis::cmd("EVAL");
    script.arg(COMMIT).arg(2).arg("{prompts}:active:support").arg("{prompts}:routing:support");
    Ok(script.arg(active).arg(percent).arg(other).exec_async(redis).await?)
}

async fn reader(redis: &Redis) -> Result<(Reader, Prompt)> {
    let reader = Reader::start(redis.prompt_server_url(), ["support"], Settings::default())?;
    timeout(Duration::from_secs(10), reader.ready()).await.context("a reader that is ready")??;
    let prompt = reader.prompt("support").context("the one followed")?.clone();
    Ok((reader, prompt))
}

/// Nanoseconds per call, as the median of some rounds, with this many threads.
fn nanoseconds(prompt: &Prompt, threads: usize, calls: u32) -> f64 {
    let keys: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
    let mut rounds = Times::default();
    for _ in 0..9 {
        let spent: f64 = std::thread::scope(|scope| {
            let ask = || {
                let start = Instant::now();
                for key in keys.iter().cycle().take(calls as usize) {
                    black_box(prompt.active_version(black_box(key)));
                }
                start.elapsed().as_secs_f64()
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that asks")).sum()
        });
        rounds.0.push(spent / threads as f64 / f64::from(calls));
    }
    rounds.quantile(0.5) * 1e9
}

/// The time from sending a commit until the last reader serves it, and the time of each reader.
async fn reach(redis: &Redis, rounds: usize) -> Result<(Times, Times)> {
    let (served, mut heard) = mpsc::unbounded_channel();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (reader, prompt) = reader(redis).await?;
        let (mut changes, served) = (prompt.changes(), served.clone());
        tokio::spawn(async move {
            while let Some(versions) = changes.next().await {
                let _ = served.send((Instant::now(), versions));
            }
        });
        readers.push(reader);
    }
    let (mut last, mut each) = (Times::default(), Times::default());
    let mut connection = redis.connection().await?;
    // the version served at the start
    for _ in 0..READERS {
        heard.recv().await.context("a first version")?;
    }
    for round in 0..rounds {
        let (canary, start) = (format!("v{round}"), Instant::now());
        commit(&mut connection, "v", &canary, 75).await?;
        let mut latest = start;
        for _ in 0..READERS {
            let heard =
                timeout(Duration::from_secs(10), heard.recv()).await.context("a reader that does not follow")?;
            let (at, versions) = heard.context("readers")?;
            ensure!(versions.iter().any(|version| **version == *canary), "{versions:?} instead of {canary}");
            each.0.push((at - start).as_secs_f64());
            latest = latest.max(at);
        }
        last.0.push((latest - start).as_secs_f64());
        // the readers' periodic reads are over, as between the stages of a rollback
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((last, each))
}

async fn figures(quick: bool) -> Result<Vec<Figure>> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:support", "v"]).await?;
    let (_reader, prompt) = reader(&redis).await?;
    let calls = if quick { 1_000_000 } else { 5_000_000 };
    let mut figures = Vec::new();
    let mut report = |what, found: String, target, met| {
        eprintln!("{what}: {found} (target: {target})");
        figures.push(Figure { what, found, target, met });
    };
    let one = nanoseconds(&prompt, 1, calls);
    report("active_version, one version", format!("{one:.0} ns"), "< 100 ns", one < 100.0);
    commit(&mut redis.connection().await?, "v", "w", 75).await?;
    while prompt.versions().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (split, shared) = (nanoseconds(&prompt, 1, calls), nanoseconds(&prompt, 2, calls));
    let found = format!("{split:.0} ns (two threads at once: {shared:.0} ns)");
    report("active_version, a split", found, "< 100 ns", split < 100.0);

    let (mut last, mut each) = reach(&redis, if quick { 200 } else { 1_000 }).await?;
    let (p50, p99, p99_each) = (last.quantile(0.5), last.quantile(0.99), each.quantile(0.99));
    let found = format!("{} (p50 {}; each reader's p99 {})", ms(p99), ms(p50), ms(p99_each));
    report("a stage reaches the last of 100 readers, p99", found, "< 10 ms", p99 < 0.01);
    Ok(figures)
}

fn main() -> Result<ExitCode> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(table(&runtime.block_on(figures(quick))?))
}
