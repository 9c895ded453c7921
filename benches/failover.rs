//! What a failover of Redis costs on top of itself: one master, two replicas and three sentinels. The master is killed, and an alert
//! is delivered until it is taken.
//!
//! `cargo bench --bench failover [-- --quick]`
//!
//! Fails where a target is missed.

#[path = "../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the other benches")]
#[path = "shared/figures.rs"]
mod figures;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/failover/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use common::{critical, deliver_until_taken, ship};
use figures::{Figure, Times, ms, table};
use world::World;

/// From the promotion of a replica until the alert is taken.
async fn on_top() -> Result<Duration> {
    let mut world = World::start(2).await?;
    let receiver = world.receiver(&[]).await?;
    ship(&receiver.http, "p").await?;
    world.servers[0].wait_for_replicas(2).await?;
    let before = world.servers[0].addr();
    world.servers[0].kill9();
    let alerts = [critical("p")];
    let taken = async {
        deliver_until_taken(&receiver.http, &alerts).await?;
        anyhow::Ok(Instant::now())
    };
    let (taken, (_, promoted)) = tokio::try_join!(taken, world.wait_failed_over(&before))?;
    Ok(taken.saturating_duration_since(promoted))
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 3 } else { 10 };
    let mut times = Times::default();
    for _ in 0..rounds {
        let on_top = on_top().await?;
        eprintln!("  taken {on_top:?} after the failover");
        times.0.push(on_top.as_secs_f64());
    }
    let (p50, worst) = (times.quantile(0.5), times.quantile(1.0));
    Ok(table(&[Figure {
        what: "an alert is taken after the failover, worst",
        found: format!("{} of {rounds} (median {})", ms(worst), ms(p50)),
        target: "< 1 s",
        met: worst < 1.0,
    }]))
}
