//! Half an hour of alerts: checks that the receiver's memory stays constant, and Redis' memory within the estimate of
//! docs/operations.md. A real receiver, built for release, a real redis-server, and the double of Slack, over loopback.
//!
//! `cargo bench --bench soak [-- --minutes 30]`, after six minutes of warm-up
//!
//! 500 alerts a second: most repeat firing alerts of 200 open incidents; some resolve and fire again; every five
//! seconds a version is shipped, found bad, and rolled back. Fails if a target is missed.

#[allow(dead_code, reason = "shared with other benches")]
#[path = "../shared/figures.rs"]
mod figures;
#[path = "../shared/memory.rs"]
mod memory;
#[allow(dead_code, reason = "shared with other benches")]
#[path = "../shared/wire.rs"]
mod wire;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::slack::Slack;
use prompt_rollback_testkit::{Receiver, Redis};

use figures::{Figure, Times, ms, table};
use wire::{Wire, http_length};
use world::{Sample, alert, delivered, delivery, post};

/// Prompts with an incident that stays open.
const OPEN: usize = 200;
/// Prompts whose alerts resolve each minute, and fire again in the next.
const UNSTEADY: usize = 40;
/// Prompts that get a bad version in turns.
const SHIPPED: usize = 20;
const PROMPTS: usize = OPEN + UNSTEADY + SHIPPED;
const ALERTS_A_SECOND: u32 = 500;
const CLIENTS: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);
const BETWEEN_SWITCHES: Duration = Duration::from_secs(5);
/// Not measured: until the first deadlines and verifications of five minutes are over, so that every kind of work was
/// done once.
const WARM_UP: Duration = Duration::from_secs(6 * 60);
const BETWEEN_SAMPLES: Duration = Duration::from_secs(5);

/// The state that the clients share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    alerts: AtomicU64,
    switches: AtomicU64,
    /// Deliveries that were answered with 503, and sent again.
    refused: AtomicU64,
    /// The times of deliveries since they were last read.
    times: Mutex<Times>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Sends alerts like Alertmanager: again if they may succeed later.
    fn send(&self, http: &mut Wire, alerts: &[serde_json::Value]) -> Result<Vec<String>> {
        let request = delivery(alerts);
        loop {
            let began = Instant::now();
            let outcomes = delivered(http.ask(&request, http_length)?)?;
            self.times.lock().expect("no panic").0.push(began.elapsed().as_secs_f64());
            if let Some(outcomes) = outcomes {
                self.alerts.fetch_add(alerts.len() as u64, Ordering::Relaxed);
                return Ok(outcomes);
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends everything if one client fails, because a partial load is no soak test.
    fn ends_with(&self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Repeats the alerts of every `CLIENTS`-th prompt in a loop, two per delivery.
fn repeat(shared: &Shared, address: &str, client: usize) -> Result<()> {
    let mut http = Wire::connect(address)?;
    let began = Instant::now();
    let pause = Duration::from_secs(2) * u32::try_from(CLIENTS)? / ALERTS_A_SECOND;
    let mut next = began;
    for prompt in (0..OPEN + UNSTEADY).skip(client).step_by(CLIENTS).cycle() {
        if !shared.goes_on() {
            break;
        }
        // from the moment it was due: a late delivery does not make the next ones rarer
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let minute = if prompt >= OPEN { began.elapsed().as_secs() / MINUTE.as_secs() } else { 0 };
        let status = if minute % 2 == 1 { "resolved" } else { "firing" };
        let mut alerts = ["high", "medium"].map(|severity| alert(prompt, "v2", severity, status));
        // each outbreak has its own start time
        for alert in &mut alerts {
            alert["startsAt"] = format!("2026-11-21T00:38:12.{:03}Z", minute / 2 % 1_000).into();
        }
        shared.send(&mut http, &alerts)?;
    }
    Ok(())
}

/// Ships a bad version to one prompt after another, lets it be rolled back, and resolves the alert of the previous one.
fn ship_and_roll_back(shared: &Shared, address: &str) -> Result<()> {
    let mut http = Wire::connect(address)?;
    let mut before: Option<(usize, String)> = None;
    let mut next = Instant::now();
    for (number, prompt) in (OPEN + UNSTEADY..PROMPTS).cycle().enumerate() {
        next += BETWEEN_SWITCHES;
        while shared.goes_on() && Instant::now() < next {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !shared.goes_on() {
            break;
        }
        let version = format!("v{}", number + 3);
        post(&mut http, prompt, "versions", &serde_json::json!({"version": version}))?;
        post(&mut http, prompt, "activate", &serde_json::json!({"version": version}))?;
        let critical = alert(prompt, &version, "critical", "firing");
        let outcomes = shared.send(&mut http, std::slice::from_ref(&critical))?;
        ensure!(outcomes == ["rolled_back"], "{outcomes:?}");
        shared.switches.fetch_add(1, Ordering::Relaxed);
        shared.send(&mut http, &[critical])?;
        if let Some((prompt, version)) = before.replace((prompt, version)) {
            shared.send(&mut http, &[alert(prompt, &version, "critical", "resolved")])?;
        }
    }
    Ok(())
}

/// Samples both until the time is over.
fn watch(shared: &Shared, receiver: &Receiver, redis: &Redis, minutes: u32) -> Result<(Vec<Sample>, Times)> {
    let began = Instant::now();
    let (mut samples, mut all, mut minute) = (Vec::new(), Times::default(), Times::default());
    println!("| minute | receiver MB | of it its own | Redis' data MB | open | incidents | alerts/s | p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut told = (0, 0);
    while shared.goes_on() && began.elapsed() < WARM_UP + MINUTE * minutes {
        std::thread::sleep(BETWEEN_SAMPLES);
        let sample = Sample::now(receiver, redis)?;
        minute.0.append(&mut shared.times.lock().expect("no panic").0);
        let passed = began.elapsed().as_secs() / MINUTE.as_secs();
        if passed > told.0 {
            let alerts = shared.alerts.load(Ordering::Relaxed);
            println!(
                "| {passed} | {:.2} | {:.2} | {:.2} | {} | {} | {} | {} | {} |",
                sample.memory.resident,
                sample.memory.own,
                sample.redis / 1e6,
                sample.open,
                sample.incidents,
                (alerts - told.1) / 60 / (passed - told.0),
                ms(minute.quantile(0.5)),
                ms(minute.quantile(0.99)),
            );
            told = (passed, alerts);
            all.0.append(&mut minute.0);
        }
        if began.elapsed() >= WARM_UP {
            samples.push(sample);
        }
    }
    all.0.append(&mut minute.0);
    Ok((samples, all))
}

fn mean(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len() as f64
}

fn soak(minutes: u32) -> Result<Vec<Figure>> {
    let slack = Slack::builder().user("U1", "maya", "Maya Lind").channel("C1", "on-call").channel("C2", "incidents");
    let (slack, redis) = (slack.start()?, Redis::start()?);
    let receiver = world::receiver(&redis, &slack)?;
    let address = receiver.addr();
    let mut http = Wire::connect(&address)?;
    world::ship(&mut http, PROMPTS)?;
    for prompt in 0..OPEN {
        delivered(http.ask(&delivery(&[alert(prompt, "v2", "high", "firing")]), http_length)?)?;
    }

    let shared = Arc::new(Shared::default());
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (shared, address) = (shared.clone(), address.clone());
        clients.push(std::thread::spawn(move || shared.ends_with(repeat(&shared, &address, client))));
    }
    {
        let (shared, address) = (shared.clone(), address.clone());
        clients.push(std::thread::spawn(move || shared.ends_with(ship_and_roll_back(&shared, &address))));
    }
    let began = Instant::now();
    let watched = watch(&shared, &receiver, &redis, minutes);
    shared.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().ok().context("a client panicked")??;
    }
    let (samples, mut times) = watched.with_context(|| receiver.log())?;
    let rate = shared.alerts.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let [switches, refused] = [&shared.switches, &shared.refused].map(|count| count.load(Ordering::Relaxed));

    let third = samples.len() / 3;
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let drift = |of: fn(&Sample) -> f64| (mean(last, of) / mean(first, of) - 1.0) * 100.0;
    let (drift_all, drift_own) = (drift(|sample| sample.memory.resident), drift(|sample| sample.memory.own));
    let end = samples.last().context("too short for a sample")?;
    let reckoned = world::reckoned(PROMPTS, end);
    let open = samples.iter().map(|sample| sample.open).min().unwrap_or_default();
    let (p50, p99) = (times.quantile(0.5), times.quantile(0.99));
    let told = slack.roots("C1").len();
    Ok(vec![
        Figure {
            what: "alerts a second, all answered",
            found: format!("{rate:.0} ({switches} rolled back, {told} threads told, {refused} deliveries sent again)"),
            target: ">= 495",
            met: rate >= f64::from(ALERTS_A_SECOND) * 0.99 && switches > 0 && told > 0,
        },
        Figure { what: "open incidents, least", found: open.to_string(), target: ">= 200", met: open >= OPEN },
        Figure {
            what: "receiver's memory, mean of the last third / of the first",
            found: format!(
                "{drift_all:+.1} % ({:.2} of {:.2} MB; without pages of files {drift_own:+.1} %, {:.2} of {:.2} MB)",
                mean(last, |sample| sample.memory.resident),
                mean(first, |sample| sample.memory.resident),
                mean(last, |sample| sample.memory.own),
                mean(first, |sample| sample.memory.own),
            ),
            target: "within 5 %",
            met: drift_all.abs() <= 5.0,
        },
        Figure {
            what: "Redis' data at the end / as reckoned by docs/operations.md",
            found: format!(
                "{:.2} of {:.2} MB ({} incidents, {} log entries)",
                end.redis / 1e6,
                reckoned / 1e6,
                end.incidents,
                end.entries
            ),
            target: "<= 1",
            met: end.redis <= reckoned,
        },
        Figure {
            what: "answer to a delivery, p99",
            found: format!("{} (p50 {})", ms(p99), ms(p50)),
            target: "< 50 ms",
            met: p99 < 0.05,
        },
    ])
}

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip_while(|arg| arg != "--minutes").skip(1);
    let minutes = args.next().map_or(Ok(30), |minutes| minutes.parse()).context("--minutes")?;
    Ok(table(&soak(minutes)?))
}
