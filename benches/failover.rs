//! The time that prompt-rollback adds to a failover of Redis. With one master, two replicas and three sentinels, the
//! master is killed and an alert is sent until it is accepted. With the same setup, and with a cluster of two nodes:
//! how soon the readers in both languages serve what was committed on the new master, while the old one is dead, hangs,
//! or keeps answering.
//!
//! `cargo bench --bench failover [-- --quick]`
//!
//! Fails if a target is missed.

#[allow(dead_code, reason = "shared with the other benches")]
#[path = "shared/figures.rs"]
mod figures;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use prompt_rollback::reader::Settings;

use figures::{Figure, Times, ms, table};
use prompt_rollback_testkit::alerts::{critical, deliver_until_taken};
use prompt_rollback_testkit::cluster::{master_and_replica, seize, take_over};
use prompt_rollback_testkit::prompts::ship;
use prompt_rollback_testkit::readers::{Both, pushed, set};
use prompt_rollback_testkit::sentinels::{NAME, Sentinels, receiver_env};
use prompt_rollback_testkit::{Receiver, Redis};

/// From the promotion of a replica until the alert is accepted.
async fn on_top() -> Result<Duration> {
    let mut world = Sentinels::start(2).await?;
    let mut receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .env("PROMPT_ROLLBACK_REDIS__URL", Redis::RECEIVER.url("elsewhere.invalid"));
    for (key, value) in receiver_env(&world.nodes(), &[]) {
        receiver = receiver.env(format!("PROMPT_ROLLBACK_{key}"), value);
    }
    let receiver = receiver.start()?;
    let http = receiver.http();
    ship(&http, "p").await?;
    world.servers[0].wait_for_replicas(2).await?;
    let before = world.servers[0].addr();
    world.servers[0].kill9();
    let alerts = [critical("p")];
    let taken = async {
        deliver_until_taken(&http, &alerts).await?;
        anyhow::Ok(Instant::now())
    };
    let (taken, (_, promoted)) = tokio::try_join!(taken, world.wait_failed_over(&before))?;
    Ok(taken.saturating_duration_since(promoted))
}

/// What happens to the old master.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Old {
    Dies,
    Hangs,
    AnswersOn,
}

/// From the end of a failover by sentinels until both readers serve what the new master has.
async fn readers_of_sentinels(old: Old) -> Result<[Duration; 2]> {
    let mut world = Sentinels::start(2).await?;
    set(&world.servers[0], "v1").await?;
    let nodes = world.sentinels.iter().map(Redis::addr).collect();
    let settings = Settings { nodes, sentinel_master: Some(NAME.to_owned()), ..pushed() };
    let both = Both::start("elsewhere.invalid", settings).await?;
    both.serve("v1").await?;
    world.servers[0].wait_for_replicas(2).await?;
    let before = world.servers[0].addr();
    match old {
        Old::Dies => world.servers[0].kill9(),
        Old::Hangs => world.servers[0].pause()?,
        Old::AnswersOn => world.sentinels[0].cmd(&["SENTINEL", "FAILOVER", NAME]).await?,
    }
    let (master, promoted) = world.wait_failed_over(&before).await?;
    set(master, "v2").await?;
    let late = promoted.elapsed();
    Ok(both.served_after("v2").await?.map(|after| after + late))
}

/// From the end of a failover in a cluster until both readers serve what the new master has.
async fn readers_of_a_cluster(old: Old) -> Result<[Duration; 2]> {
    let [mut master, replica] = master_and_replica().await?;
    set(&master.redis, "v1").await?;
    let nodes = vec![replica.redis.addr()];
    let both = Both::start(&master.redis.addr(), Settings { nodes, ..pushed() }).await?;
    both.serve("v1").await?;
    master.redis.wait_for_replicas(1).await?;
    match old {
        Old::Dies => master.redis.kill9(),
        Old::Hangs => master.redis.pause()?,
        Old::AnswersOn => take_over(&replica.redis).await?,
    }
    if old != Old::AnswersOn {
        both.lose_contact().await?;
        seize(&replica.redis).await?;
    }
    let promoted = Instant::now();
    set(&replica.redis, "v2").await?;
    let late = promoted.elapsed();
    Ok(both.served_after("v2").await?.map(|after| after + late))
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let rounds: usize = if std::env::args().any(|arg| arg == "--quick") { 3 } else { 10 };
    let mut times = Times::default();
    for _ in 0..rounds {
        let on_top = on_top().await?;
        eprintln!("  taken {on_top:?} after the failover");
        times.0.push(on_top.as_secs_f64());
    }
    let mut readers = [Times::default(), Times::default()];
    for old in [Old::Dies, Old::Hangs, Old::AnswersOn].into_iter().cycle().take(rounds.next_multiple_of(3)) {
        for after in [readers_of_sentinels(old).await?, readers_of_a_cluster(old).await?] {
            eprintln!("  {old:?}: served by Rust {:?}, by Python {:?} after the failover", after[0], after[1]);
            readers.iter_mut().zip(after).for_each(|(times, after)| times.0.push(after.as_secs_f64()));
        }
    }
    let [mut rust, mut python] = readers;
    let figures = [
        ("an alert is taken after the failover, worst", &mut times),
        ("the Rust reader is current after the failover, worst", &mut rust),
        ("the Python reader is current after the failover, worst", &mut python),
    ];
    Ok(table(&figures.map(|(what, times)| {
        let (p50, worst, count) = (times.quantile(0.5), times.quantile(1.0), times.0.len());
        Figure {
            what,
            found: format!("{} of {count} (median {})", ms(worst), ms(p50)),
            target: "< 1 s",
            met: worst < 1.0,
        }
    })))
}
