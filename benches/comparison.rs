//! How often the comparison of two versions is wrong, and how long it takes to be right, by seeded simulation.
//!
//! The comparison is evaluated at the end of each slice, whenever its answer can change; evaluating it every minute for
//! three days adds nothing. Traffic is split as in the shipped stages of a canary (1, 5, 25 %, ten minutes each, then
//! it stays at 25 %), or in half. Requests fail independently; the failure ratio of both versions varies by half over a
//! day. `RUNS` sets the number of simulations per case, 1,000 by default.

use std::process::ExitCode;
use std::time::Duration;

use prompt_rollback::decision::Timestamp;
use prompt_rollback::prometheus::ab_test::{Counts, EProcess, FALSE_ALARM, FALSE_PASS, Hypothesis, Slice};
use prompt_rollback::prometheus::comparison::spans;

const DAYS: u64 = 3;
const MARGIN: f64 = 0.01;
/// The failure ratio of the old version.
const BASE: f64 = 0.01;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How many of `all` happen, as the distance from one to the next.
    fn count(&mut self, all: u64, chance: f64) -> f64 {
        if chance <= 0.0 {
            return 0.0;
        }
        let (mut seen, mut happened) = (0.0, 0.0);
        loop {
            seen += (self.roll().max(f64::MIN_POSITIVE).ln() / (1.0 - chance).ln()).floor() + 1.0;
            if seen > all as f64 {
                return happened;
            }
            happened += 1.0;
        }
    }

    /// The number of requests for this `mean`, roughly Poisson.
    fn requests(&mut self, mean: f64) -> u64 {
        if mean < 1_000.0 {
            return self.count((mean * 100.0).round() as u64, 0.01) as u64;
        }
        let normal = (0..12).map(|_| self.roll()).sum::<f64>() - 6.0;
        (mean + mean.sqrt() * normal).max(0.0).round() as u64
    }
}

#[derive(Clone, Copy)]
enum TrafficPlan {
    Canary,
    Half,
}

impl TrafficPlan {
    fn name(self) -> &'static str {
        match self {
            TrafficPlan::Canary => "stages of a canary",
            TrafficPlan::Half => "half and half",
        }
    }

    fn of_new(self, age: Duration) -> f64 {
        match (self, age.as_secs()) {
            (TrafficPlan::Half, _) => 0.5,
            (TrafficPlan::Canary, 0..600) => 0.01,
            (TrafficPlan::Canary, 600..1_200) => 0.05,
            (TrafficPlan::Canary, _) => 0.25,
        }
    }
}

#[derive(Clone, Copy)]
struct Case {
    claim: Hypothesis,
    /// The mean failure ratio of the old version.
    base: f64,
    /// By how much more the new version fails.
    more: f64,
    rate: f64,
    shares: TrafficPlan,
    level: f64,
}

/// When the claim is accepted, if ever.
fn believed(case: &Case, dice: &mut Dice) -> Option<Duration> {
    let began = Timestamp(0);
    let mut process = EProcess::new(case.claim);
    for span in spans(began, began.plus(Duration::from_secs(DAYS * 86_400))) {
        let mut start = span.from;
        while start < span.to {
            let end = start.plus(span.step);
            let (share, requests) = (case.shares.of_new(start.since(began)), case.rate * span.step.as_secs_f64());
            let day = start.since(began).as_secs_f64() / 86_400.0 * std::f64::consts::TAU;
            let base = case.base * (1.0 + 0.5 * day.sin());
            let mut version = |share: f64, ratio: f64| {
                let all = dice.requests(requests * share);
                Counts { all: all as f64, failed: dice.count(all, ratio) }
            };
            process.add(&Slice { new: version(share, base + case.more), old: version(1.0 - share, base) });
            if process.e() >= 1.0 / case.level {
                return Some(end.since(began));
            }
            start = end;
        }
    }
    None
}

fn runs(case: &Case, many: usize) -> Vec<Option<Duration>> {
    (0..many as u64).map(|seed| believed(case, &mut Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)))).collect()
}

fn spoken(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs()) {
        None => format!("over {DAYS} days"),
        Some(seconds @ 0..120) => format!("{seconds} s"),
        Some(seconds @ 120..7_200) => format!("{} min", seconds / 60),
        Some(seconds) => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

/// What is found, requests a second, how the traffic is shared, and within how many minutes in nine of ten runs.
type Target = (&'static str, f64, TrafficPlan, u64);

const HARM_1: &str = "harm of 1 point more failures";
const HARM_3: &str = "harm of 3 points more failures";
const BETTER: &str = "half of 2 % failures are gone: the A/B gate passes";
const NO_WORSE: &str = "equal versions: no worse by a point";

const TARGETS: [Target; 24] = [
    (HARM_1, 1.0, TrafficPlan::Canary, 360),
    (HARM_1, 10.0, TrafficPlan::Canary, 50),
    (HARM_1, 100.0, TrafficPlan::Canary, 22),
    (HARM_1, 1.0, TrafficPlan::Half, 300),
    (HARM_1, 10.0, TrafficPlan::Half, 30),
    (HARM_1, 100.0, TrafficPlan::Half, 3),
    (HARM_3, 1.0, TrafficPlan::Canary, 75),
    (HARM_3, 10.0, TrafficPlan::Canary, 25),
    (HARM_3, 100.0, TrafficPlan::Canary, 10),
    (HARM_3, 1.0, TrafficPlan::Half, 45),
    (HARM_3, 10.0, TrafficPlan::Half, 5),
    (HARM_3, 100.0, TrafficPlan::Half, 1),
    (BETTER, 1.0, TrafficPlan::Canary, 480),
    (BETTER, 10.0, TrafficPlan::Canary, 60),
    (BETTER, 100.0, TrafficPlan::Canary, 22),
    (BETTER, 1.0, TrafficPlan::Half, 240),
    (BETTER, 10.0, TrafficPlan::Half, 30),
    (BETTER, 100.0, TrafficPlan::Half, 4),
    (NO_WORSE, 1.0, TrafficPlan::Canary, 240),
    (NO_WORSE, 10.0, TrafficPlan::Canary, 40),
    (NO_WORSE, 100.0, TrafficPlan::Canary, 20),
    (NO_WORSE, 1.0, TrafficPlan::Half, 150),
    (NO_WORSE, 10.0, TrafficPlan::Half, 15),
    (NO_WORSE, 100.0, TrafficPlan::Half, 2),
];

fn case((what, rate, shares, _): Target) -> Case {
    let (claim, base, more, level) = match what {
        HARM_1 => (Hypothesis::Higher, BASE, 0.01, FALSE_ALARM),
        HARM_3 => (Hypothesis::Higher, BASE, 0.03, FALSE_ALARM),
        BETTER => (Hypothesis::Lower, 0.02, -0.01, FALSE_PASS),
        _ => (Hypothesis::NotHigherBy(MARGIN), BASE, 0.0, FALSE_PASS),
    };
    Case { claim, base, more, rate, shares, level }
}

fn main() -> ExitCode {
    let many: usize = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1_000);
    println!("| figure | measured | target | |\n|---|---|---|---|");
    let mut met_all = true;
    let mut line = |what: String, measured: String, target: String, met: bool| {
        met_all &= met;
        println!("| {what} | {measured} | {target} | {} |", if met { "met" } else { "MISSED" });
    };
    let claims = [
        ("equal versions pass the A/B gate", Hypothesis::Lower, 0.0, FALSE_PASS),
        ("equal versions are held for harm", Hypothesis::Higher, 0.0, FALSE_ALARM),
        ("a version worse by the margin passes as no worse", Hypothesis::NotHigherBy(MARGIN), MARGIN, FALSE_PASS),
    ];
    for (what, claim, more, level) in claims {
        for shares in [TrafficPlan::Canary, TrafficPlan::Half] {
            for rate in [0.1, 1.0, 10.0, 100.0] {
                let found = runs(&Case { claim, base: BASE, more, rate, shares, level }, many).iter().flatten().count();
                let ratio = found as f64 / many as f64;
                line(
                    format!("{what}, {DAYS} days at {rate} rps, {}", shares.name()),
                    format!("{:.1} %", ratio * 100.0),
                    format!("≤ {:.0} %", level * 100.0),
                    // the true ratio is proved to be no higher; this many runs may measure a little more
                    ratio <= level + 3.0 * (level * (1.0 - level) / many as f64).sqrt(),
                );
            }
        }
    }
    for target in TARGETS {
        let mut times = runs(&case(target), many.min(300));
        times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
        let [median, p90] = [2, 10].map(|of| times[times.len() - 1 - times.len() / of]);
        let (what, rate, shares, minutes) = target;
        let limit = Duration::from_secs(minutes * 60);
        line(
            format!("{what}, at {rate} rps, {}", shares.name()),
            format!("median {}, p90 {}", spoken(median), spoken(p90)),
            format!("p90 ≤ {}", spoken(Some(limit))),
            p90.is_some_and(|p90| p90 <= limit),
        );
    }
    if met_all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
