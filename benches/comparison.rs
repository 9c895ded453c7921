//! How often the comparison of two versions is wrong, and how long it takes to be right, by seeded simulation.
//!
//! The comparison is evaluated at the end of each slice, whenever its answer can change; evaluating it every minute for
//! three days adds nothing. Traffic is split as in the shipped stages of a canary (1, 5, 25 %, ten minutes each, then
//! it stays at 25 %), or in half. Requests fail independently; the failure ratio of both versions varies by half over a
//! day. `RUNS` sets the number of simulations per case, 1,000 by default. The p99 is compared in the last stage only, so its
//! durations are drawn for that stage.

use std::process::ExitCode;
use std::time::Duration;

use prompt_rollback::decision::Timestamp;
use prompt_rollback::prometheus::ab_test::{Counts, EProcess, FALSE_ALARM, FALSE_PASS, Hypothesis, Slice};
use prompt_rollback::prometheus::comparison::spans;
use prompt_rollback::prometheus::durations::{DurationComparison, DurationSlice, Histogram};

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
            seen += (self.roll().max(f64::MIN_POSITIVE).ln() / (-chance).ln_1p()).floor() + 1.0;
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
        (mean + mean.sqrt() * self.normal()).max(0.0).round() as u64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.roll()).sum::<f64>() - 6.0
    }

    /// How many of `all` happen, roughly where they are many.
    fn binomial(&mut self, all: u64, chance: f64) -> f64 {
        let (mean, variance) = (all as f64 * chance, all as f64 * chance * (1.0 - chance));
        match chance {
            _ if variance > 200.0 => (mean + variance.sqrt() * self.normal()).clamp(0.0, all as f64).round(),
            0.5.. => all as f64 - self.count(all, 1.0 - chance),
            _ => self.count(all, chance),
        }
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

fn within(time: Option<Duration>) -> String {
    time.map_or_else(|| format!("over {} hours", Durations::HOURS), |time| spoken(Some(time)))
}

fn spoken(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs()) {
        None => format!("over {DAYS} days"),
        Some(seconds @ 0..120) => format!("{seconds} s"),
        Some(seconds @ 120..7_200) => format!("{} min", seconds / 60),
        Some(seconds) => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

/// The p99 of the old version, in seconds, somewhere in its bucket.
const P99S: [f64; 6] = [0.9, 1.05, 1.6, 2.2, 3.0, 4.2];
const PROMETHEUS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Durations with a logarithmic normal distribution, in the stage in which the new version has 25 % of the requests. Its p99 is
/// `times` the old one.
#[derive(Clone, Copy)]
struct Durations<'a> {
    p99: f64,
    times: f64,
    rate: f64,
    bounds: &'a [f64],
}

impl Durations<'_> {
    const SIGMA: f64 = 0.6;
    const HOURS: u64 = 6;

    /// The share of durations up to this bound.
    fn up_to(p99: f64, bound: f64) -> f64 {
        const Z: f64 = 2.326_348;
        let z = (bound / p99).ln() / Self::SIGMA + Z;
        // Abramowitz and Stegun 26.2.17
        let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
        let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
        let sum = series.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
        let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
        if z > 0.0 { 1.0 - tail } else { tail }
    }

    fn histogram(&self, dice: &mut Dice, all: u64, p99: f64) -> Option<Histogram> {
        let (mut left, mut below, mut count) = (all, 0.0, 0.0);
        let mut buckets = Vec::new();
        for bound in self.bounds {
            let up_to = Self::up_to(p99, *bound);
            let chance = if below < 1.0 { ((up_to - below) / (1.0 - below)).clamp(0.0, 1.0) } else { 0.0 };
            let here = dice.binomial(left, chance);
            (left, below, count) = (left - here as u64, up_to, count + here);
            buckets.push((*bound, count));
        }
        buckets.push((f64::INFINITY, all as f64));
        Histogram::new(buckets)
    }

    /// How long after the stage began the new version's p99 is accepted, if it is within [`Self::HOURS`].
    fn accepted(&self, dice: &mut Dice) -> Option<Duration> {
        let window = Duration::from_secs(300);
        let mut slices = Vec::new();
        for index in 1..=Self::HOURS * 12 {
            let requests = self.rate * window.as_secs_f64();
            let [new, old] = [0.25, 0.75].map(|share| dice.requests(requests * share));
            slices.push(DurationSlice {
                new: self.histogram(dice, new, self.p99 * self.times),
                old: self.histogram(dice, old, self.p99),
            });
            if DurationComparison::of(&slices).problem.is_none() {
                return Some(window * u32::try_from(index).expect("few"));
            }
        }
        None
    }

    fn runs(&self, many: usize) -> Vec<Option<Duration>> {
        (0..many as u64).map(|seed| self.accepted(&mut Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)))).collect()
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
    let native: Vec<f64> = (-24..29).map(|i| 2_f64.powf(f64::from(i) / 4.0)).collect();
    for (buckets, bounds, equal_within) in [
        ("Prometheus' usual buckets", &PROMETHEUS[..], [None, Some(180), Some(60)]),
        ("buckets of a native histogram", &native[..], [Some(360), Some(60), Some(30)]),
    ] {
        for (rate, equal_within) in [1.0, 10.0, 100.0].into_iter().zip(equal_within) {
            let runs = |times, many: usize| {
                let mut all: Vec<_> = P99S.map(|p99| Durations { p99, times, rate, bounds }.runs(many)).concat();
                all.sort_by_key(|time| time.unwrap_or(Duration::MAX));
                all
            };
            for times in [1.2, 1.5, 2.0] {
                let all = runs(times, many / 5);
                let ratio = all.iter().flatten().count() as f64 / all.len() as f64;
                line(
                    format!("a p99 {times} times as high passes within 6 hours at {rate} rps, {buckets}"),
                    format!("{:.1} %", ratio * 100.0),
                    format!("≤ {:.0} %", FALSE_PASS * 100.0),
                    ratio <= FALSE_PASS,
                );
            }
            let all = runs(1.0, many / 10);
            let [median, p90] = [2, 10].map(|of| all[all.len() - 1 - all.len() / of]);
            let limit = equal_within.map(|minutes| Duration::from_secs(minutes * 60));
            line(
                format!("equal p99: no worse, at {rate} rps, {buckets}"),
                format!("median {}, p90 {}", within(median), within(p90)),
                limit.map_or_else(|| "none".to_owned(), |limit| format!("p90 ≤ {}", spoken(Some(limit)))),
                limit.is_none_or(|limit| p90.is_some_and(|p90| p90 <= limit)),
            );
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
