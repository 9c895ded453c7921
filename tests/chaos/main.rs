//! Chaos: receivers, Redis and Slack in a scripted world full of faults, and the properties that must hold afterwards.
//!
//! A seed determines the requests and the faults with their times. It does not determine the interleaving of threads
//! and processes, so a seed that failed may need a few runs to fail again:
//!
//! ```text
//! CHAOS_SEED=17 cargo test --test chaos -- some_runs --nocapture
//! CHAOS_RUNS=1000 make chaos
//! ```

mod check;
mod clients;
mod history;
mod invariants;
mod node;
mod servers;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use servers::Kind;
use world::{Report, run};

/// Concurrent runs: a run mostly waits.
const AT_ONCE: usize = 10;
/// One run of each kind, and more with faults on the wire. Failovers take longest.
const SEEDS: [u64; 10] = [17, 19, 16, 15, 12, 0, 1, 2, 3, 4];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, got {text:?}")))
}

/// The sum of all runs.
#[derive(Default)]
struct Totals {
    runs: BTreeMap<Kind, u64>,
    lossy: BTreeMap<Kind, (u64, u64)>,
    faults: BTreeMap<&'static str, u64>,
    requests: usize,
    unanswered: usize,
    switches: usize,
    told: usize,
    doubled: usize,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, report: Report) {
        let kind = Kind::of(seed);
        *self.runs.entry(kind).or_default() += 1;
        if kind.loses() || !report.lost.is_empty() {
            let (runs, lost) = self.lossy.entry(kind).or_default();
            *runs += u64::from(!report.lost.is_empty());
            *lost += report.lost.len() as u64;
        }
        for (fault, times) in report.faults {
            *self.faults.entry(fault).or_default() += times;
        }
        self.requests += report.requests;
        self.unanswered += report.unanswered;
        self.switches += report.switches;
        self.told += report.told;
        self.doubled += report.doubled;
        if report.broken.is_empty() {
            return;
        }
        println!("seed {seed} ({}): {} broken", kind.name(), report.broken.len());
        report.broken.iter().for_each(|line| println!("  {line}"));
        if std::env::var("CHAOS_SEED").is_ok() {
            println!("{}", report.logs);
        }
        self.failed.push(seed);
    }

    fn print(&self, took: Duration) {
        println!("{} runs in {:.0} s, {} with broken invariants", self.total(), took.as_secs_f64(), self.failed.len());
        for (kind, runs) in &self.runs {
            println!("  {runs:>6}  {}", kind.name());
        }
        println!("{} faults", self.faults.values().sum::<u64>());
        for (fault, times) in &self.faults {
            println!("  {times:>6}  {fault}");
        }
        println!(
            "{} requests in checked histories, {} of them without a known outcome; {} rollbacks",
            self.requests, self.unanswered, self.switches
        );
        println!("{} messages in Slack, {} of them told before (leases lost, failovers)", self.told, self.doubled);
        for (kind, (runs, lost)) in &self.lossy {
            println!(
                "lost where it may be (rollbacks answered 200, incidents told of), {}: {lost} in {runs} runs",
                kind.name()
            );
        }
        if node::faketime().is_none() {
            println!("no clock was skewed: libfaketime is not installed");
        }
    }

    fn total(&self) -> u64 {
        self.runs.values().sum()
    }
}

/// Runs these seeds, some concurrently, until they end or the time is over. Each has its own runtime.
fn run_all(seeds: impl Iterator<Item = u64>, at_once: usize, until: Option<Instant>) -> Result<()> {
    let begun = Instant::now();
    let seeds: Vec<u64> = seeds.collect();
    let (next, totals) = (AtomicUsize::new(0), Mutex::new(Totals::default()));
    let work = || -> Result<()> {
        while until.is_none_or(|until| Instant::now() < until) {
            let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let report = runtime.block_on(run(*seed)).with_context(|| format!("seed {seed}"))?;
            runtime.shutdown_background();
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.add(*seed, report);
            if totals.total().is_multiple_of(50) {
                totals.print(begun.elapsed());
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.print(begun.elapsed());
    let again: Vec<String> = totals.failed.iter().map(|seed| format!("CHAOS_SEED={seed}")).collect();
    ensure!(again.is_empty(), "broken invariants; again, one at a time: {} cargo test --test chaos", again.join(" "));
    Ok(())
}

/// A few runs of each kind; or the one run that `CHAOS_SEED` names, with the receivers' logs if it fails.
#[test]
fn some_runs_break_no_invariant() -> Result<()> {
    match number("CHAOS_SEED") {
        Some(seed) => run_all(std::iter::repeat_n(seed, number("CHAOS_RUNS").unwrap_or(1) as usize), 1, None),
        None => run_all(SEEDS.into_iter(), AT_ONCE, None),
    }
}

/// `make chaos`: CHAOS_RUNS seeds from CHAOS_FROM on, for at most CHAOS_SECONDS, CHAOS_AT_ONCE at a time.
#[test]
#[ignore = "minutes: make chaos"]
fn many_runs_break_no_invariant() -> Result<()> {
    let (from, runs) = (number("CHAOS_FROM").unwrap_or(0), number("CHAOS_RUNS").unwrap_or(100));
    let until = number("CHAOS_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    run_all(from..from + runs, number("CHAOS_AT_ONCE").unwrap_or(AT_ONCE as u64) as usize, until)
}
