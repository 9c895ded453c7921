//! How often the shipped alert rules are wrong, and how soon they are right, by traffic. promtool evaluates the rules of
//! `alert-rules/` themselves over random traffic, one version per trial; nothing here knows their formulas.
//!
//! `cargo bench --bench rules` prints the table of `alert-rules/README.md`. `-- --years 10` simulates more of it, `-- --seed 2`
//! another sample, `-- errors` one part.
//!
//! Stretches of a healthy version in which no row can fire are not evaluated: a row needs its threshold exceeded, on 3 failures
//! (critical: 5). `-- --all` evaluates them too.

#[path = "../../testkit/src/rng.rs"]
#[allow(dead_code, reason = "a part of the test kit")]
mod rng;
mod trial;

use std::process::ExitCode;

use trial::{Found, LATENCY, Latency, Quality, SCRAPE, Trial, evaluate, poisson};

/// Requests a second.
const TRAFFIC: [f64; 6] = [0.1, 0.2, 0.5, 1.0, 3.0, 10.0];
const HOUR: usize = 3_600 / SCRAPE;
/// Scrapes of the longest window of the error rules, and some.
const WINDOW: usize = 66;
const CRITICAL: &str = "PromptErrorRateCritical";
const ERRORS: &str = "PromptErrorRate.+";

struct Args {
    years: f64,
    seed: u64,
    all: bool,
    parts: Vec<String>,
}

fn main() -> ExitCode {
    let mut args = Args { years: 1.0, seed: 1, all: false, parts: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--all" => args.all = true,
            "--years" | "--seed" => match words.next().and_then(|value| value.parse().ok()) {
                Some(value) if word == "--years" => args.years = value,
                Some(value) => args.seed = value as u64,
                None => return usage(),
            },
            part if PARTS.iter().any(|(name, _)| *name == part) => args.parts.push(word),
            _ => return usage(),
        }
    }
    for (name, run) in PARTS {
        if args.parts.is_empty() || args.parts.iter().any(|part| part == name) {
            if let Err(error) = run(&args) {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    eprintln!("usage: [--years N] [--seed N] [--all] [{}]", names.join("|"));
    ExitCode::from(2)
}

type Part = (&'static str, fn(&Args) -> Result<(), String>);
const PARTS: [Part; 7] = [
    ("false", false_criticals),
    ("bursts", bursts),
    ("pages", false_pages),
    ("releases", releases),
    ("errors", detection),
    ("hiccups", hiccups),
    ("signals", signals),
];

fn row(cells: impl IntoIterator<Item = String>) {
    println!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}

fn head(title: &str, columns: impl IntoIterator<Item = String>) {
    println!("\n{title}\n");
    let columns: Vec<String> = columns.into_iter().collect();
    row(columns.clone());
    row(columns.iter().map(|_| "---".to_owned()));
}

/// Requests and failures of each scrape.
type Counts = Vec<(u32, u32)>;

/// How the failures of a healthy version come.
#[derive(Clone, Copy)]
enum Failures {
    Poisson,
    /// In bursts of ten seconds that fail half of the requests.
    Bursts,
}

/// A healthy stretch. Traffic swings by a factor of four between day and night around `rps`.
fn healthy(
    rng: &mut rng::Rng,
    from: usize,
    scrapes: usize,
    rps: f64,
    ratio: f64,
    failures: Failures,
    day: bool,
) -> Counts {
    let mut burst = 0_u32;
    (from..from + scrapes)
        .map(|scrape| {
            let swing = if day {
                1.0 + 0.6 * (scrape as f64 * SCRAPE as f64 / 86_400.0 * std::f64::consts::TAU).sin()
            } else {
                1.0
            };
            let mean = rps * swing * SCRAPE as f64;
            let ratio = match failures {
                Failures::Poisson => ratio,
                Failures::Bursts => {
                    // two scrapes in which one request in two fails
                    if burst == 0 && trial::uniform(rng) < ratio {
                        burst = 2;
                    }
                    let fails = if burst > 0 { 0.5 } else { 0.0 };
                    burst = burst.max(1) - 1;
                    fails
                }
            };
            let bad = poisson(rng, mean * ratio);
            (poisson(rng, mean * (1.0 - ratio)) + bad, bad)
        })
        .collect()
}

/// The stretches of `years` in which `may_fire`, by requests and failures of one and of five minutes, each with the scrapes
/// before it that the windows need.
fn stretches(
    args: &Args,
    years: f64,
    mut year: impl FnMut(usize, usize) -> Counts,
    may_fire: fn(f64, f64) -> bool,
) -> Vec<Counts> {
    const CHUNK: usize = 17_280;
    let scrapes = (years * 365.25 * 17_280.0) as usize;
    let (mut found, mut open): (Vec<Counts>, Option<Counts>) = (Vec::new(), None);
    let mut recent: Counts = Vec::new();
    let mut quiet = 0;
    for from in (0..scrapes).step_by(CHUNK) {
        for counts in year(from, CHUNK) {
            recent.push(counts);
            if recent.len() > 4 * WINDOW && open.is_none() {
                recent.drain(..recent.len().saturating_sub(WINDOW));
            }
            let sum = |many: usize| {
                let last = &recent[recent.len().saturating_sub(many)..];
                last.iter().fold((0, 0), |(n, k), (requests, failed)| (n + requests, k + failed))
            };
            // with a scrape more or less, so that no window of the rules is missed
            let may = args.all
                || [11, 12, 13, 59, 60, 61].iter().any(|many| {
                    let (n, k) = sum(*many);
                    may_fire(f64::from(n), f64::from(k))
                });
            match &mut open {
                None if may => {
                    open = Some(recent[recent.len().saturating_sub(WINDOW)..].to_vec());
                    quiet = 0;
                }
                None => {}
                Some(stretch) => {
                    stretch.push(counts);
                    quiet = if may { 0 } else { quiet + 1 };
                    if quiet > 12 || stretch.len() > 720 {
                        found.extend(open.take());
                        recent.drain(..recent.len().saturating_sub(WINDOW));
                    }
                }
            }
        }
    }
    found.extend(open);
    found
}

/// Episodes of `alert` in these stretches.
fn episodes(stretches: Vec<Counts>, alert: &str) -> Result<usize, String> {
    let trials: Vec<Trial> = stretches.into_iter().map(Trial::of).collect();
    Ok(evaluate(&trials, alert, WINDOW - 5)?.iter().filter(|found| found.is_some()).count())
}

fn false_criticals(args: &Args) -> Result<(), String> {
    criticals(args, Failures::Poisson, "False criticals per prompt-year, by requests a second and true error rate")
}

fn bursts(args: &Args) -> Result<(), String> {
    criticals(
        args,
        Failures::Bursts,
        "The same, if failures come in bursts: ten seconds in which half of the requests fail",
    )
}

fn criticals(args: &Args, failures: Failures, title: &str) -> Result<(), String> {
    let ratios = [0.001, 0.005, 0.01, 0.02];
    head(title, ["rps".to_owned()].into_iter().chain(ratios.map(|ratio| format!("{} %", ratio * 100.0))));
    for rps in TRAFFIC {
        let mut cells = vec![rps.to_string()];
        for ratio in ratios {
            let mut rng = rng::Rng::new(args.seed).fork(&format!("false {rps} {ratio}"));
            let year = |from, many| healthy(&mut rng, from, many, rps, ratio, failures, false);
            let found = stretches(args, args.years, year, |n, k| k >= 5.0 && k > 0.05 * n);
            let evaluated = found.len();
            let wrong = episodes(found, CRITICAL)?;
            cells.push(format!("{:.1} ({wrong} of {evaluated})", wrong as f64 / args.years));
        }
        row(cells);
    }
    Ok(())
}

fn false_pages(args: &Args) -> Result<(), String> {
    head(
        "False pages per prompt-month of a healthy version (1 % errors, day and night)",
        ["rps".to_owned(), "pages".to_owned()],
    );
    for rps in TRAFFIC {
        let mut rng = rng::Rng::new(args.seed).fork(&format!("pages {rps}"));
        let years = (args.years / 2.0).min(2.0);
        let year = |from, many| healthy(&mut rng, from, many, rps, 0.01, Failures::Poisson, true);
        let found = stretches(args, years, year, |n, k| k >= 3.0 && k > 0.02 * n);
        let evaluated = found.len();
        let wrong = episodes(found, ERRORS)?;
        eprintln!("{rps} rps: {wrong} of {evaluated} stretches");
        row([rps.to_string(), format!("{:.2}", wrong as f64 / (years * 12.0))]);
    }
    Ok(())
}

/// An hour of a new version that behaves as its target does.
fn release(rng: &mut rng::Rng, rps: f64, error_ratio: f64, slower: f64, quality: Quality) -> Trial {
    let counts = healthy(rng, 0, HOUR, rps, error_ratio, Failures::Poisson, false);
    Trial::of(counts).new_version().with_latency(rng, Latency { slower, ..LATENCY }).with_quality(rng, quality)
}

fn releases(args: &Args) -> Result<(), String> {
    head(
        "Share of healthy releases that page within their hour (0.25 % errors, latency and quality as before; each request scored \
         up or down, one in five down)",
        ["rps", "errors", "p99", "quality"].map(str::to_owned),
    );
    let many = (100.0 * args.years).clamp(20.0, 400.0) as usize;
    for rps in TRAFFIC {
        let mut rng = rng::Rng::new(args.seed).fork(&format!("releases {rps}"));
        let trials: Vec<Trial> = (0..many).map(|_| release(&mut rng, rps, 0.0025, 1.0, Quality::UpDown(0.8))).collect();
        let found = trial::evaluate_all(&trials, &[ERRORS, "PromptLatencyP99.+", "PromptQuality.+"], 0)?;
        let share = |found: &[Found]| format!("{:.1} %", 100.0 * found.iter().flatten().count() as f64 / many as f64);
        row([rps.to_string()].into_iter().chain(found.iter().map(|found| share(found))));
    }
    Ok(())
}

fn percentile(found: &[Found], since: usize, percent: usize) -> String {
    let mut times: Vec<f64> = found.iter().map(|found| found.map_or(f64::INFINITY, |at| at - since as f64)).collect();
    times.sort_by(f64::total_cmp);
    match times[(times.len() * percent / 100).min(times.len() - 1)] {
        never if never.is_infinite() => "—".to_owned(),
        time if time < 120.0 => format!("{time:.0} s"),
        time => format!("{:.1} min", time / 60.0),
    }
}

fn detection(args: &Args) -> Result<(), String> {
    head(
        "Seconds from the first failure to the critical alert: p50, p99",
        ["rps", "failing", "new version", "turned bad in its first hour", "turned bad later", "any error row, p50"]
            .map(str::to_owned),
    );
    let many = (100.0 * args.years).clamp(20.0, 400.0) as usize;
    let healthy_for = WINDOW + 6;
    for (rps, ratio) in
        [(0.2, 1.0), (1.0, 1.0), (3.0, 1.0), (10.0, 1.0), (1.0, 0.2), (3.0, 0.2), (10.0, 0.2), (1.0, 0.1), (10.0, 0.1)]
    {
        let mut rng = rng::Rng::new(args.seed).fork(&format!("errors {rps} {ratio}"));
        let mut cells = vec![rps.to_string(), format!("{} %", ratio * 100.0)];
        let mut any = String::new();
        for kind in 0..3 {
            let before = if kind == 0 { 0 } else { healthy_for };
            let trials: Vec<Trial> = (0..many)
                .map(|_| {
                    let mut counts = healthy(&mut rng, 0, before, rps, 0.005, Failures::Poisson, false);
                    // the first scrape after it began holds a part of its interval
                    let part = if kind == 0 { 1.0 } else { trial::uniform(&mut rng) };
                    let mean = rps * SCRAPE as f64;
                    let bad = poisson(&mut rng, mean * ratio * part);
                    counts.push((poisson(&mut rng, mean * (1.0 - ratio * part)) + bad, bad));
                    // several times as long as it should take
                    let after = if ratio < 0.15 {
                        180
                    } else if ratio < 1.0 {
                        90
                    } else {
                        40
                    };
                    counts.extend(healthy(&mut rng, 0, after, rps, ratio, Failures::Poisson, false));
                    let late = (part * SCRAPE as f64).round();
                    let trial = Trial::of(counts).shifted(SCRAPE as f64 - late);
                    if kind == 2 { trial.old_version() } else { trial.new_version() }
                })
                .collect();
            let found = trial::evaluate_all(&trials, &[CRITICAL, ERRORS], before.saturating_sub(3))?;
            let since = before * SCRAPE;
            cells.push(format!("{}, {}", percentile(&found[0], since, 50), percentile(&found[0], since, 99)));
            any = percentile(&found[1], since, 50);
        }
        cells.push(any);
        row(cells);
    }
    Ok(())
}

fn hiccups(args: &Args) -> Result<(), String> {
    head(
        "Share of hiccups of 15 s, in which everything fails, that roll back a version that has served for more than an hour (1 % \
         errors otherwise)",
        ["rps".to_owned(), "rolled back".to_owned()],
    );
    let many = (100.0 * args.years).clamp(50.0, 400.0) as usize;
    for rps in [0.5, 1.0, 3.0, 10.0] {
        let mut rng = rng::Rng::new(args.seed).fork(&format!("hiccups {rps}"));
        let trials: Vec<Trial> = (0..many)
            .map(|_| {
                let mut counts = healthy(&mut rng, 0, WINDOW + 30, rps, 0.01, Failures::Poisson, false);
                // 15 s from anywhere between two scrapes on
                let start = trial::uniform(&mut rng);
                for part in [1.0 - start, 1.0, 1.0, start] {
                    let mean = rps * SCRAPE as f64;
                    let bad = poisson(&mut rng, mean * part);
                    counts.push((poisson(&mut rng, mean * (1.0 - part)) + bad, bad));
                }
                counts.extend(healthy(&mut rng, 0, 48, rps, 0.01, Failures::Poisson, false));
                Trial::of(counts).old_version()
            })
            .collect();
        let found = evaluate(&trials, CRITICAL, WINDOW)?;
        row([rps.to_string(), format!("{:.0} %", 100.0 * found.iter().flatten().count() as f64 / many as f64)]);
    }
    Ok(())
}

/// Minutes until a change of quality or latency is found, and in how many of the releases within the hour.
fn signals(args: &Args) -> Result<(), String> {
    let many = (20.0 * args.years).clamp(10.0, 100.0) as usize;
    let found = |found: &[Found]| {
        let within = found.iter().flatten().count();
        if 2 * within < found.len() { format!("{} of {}", within, found.len()) } else { percentile(found, 0, 50) }
    };
    let drops = [0.05, 0.1, 0.15, 0.25, 0.5];
    head(
        "Quality of a new version, scored up or down (four of five up): p50 until a row fires, or how many within the hour",
        ["scores a second".to_owned()].into_iter().chain(drops.map(|drop| format!("−{} %", drop * 100.0))),
    );
    for rps in [0.03, 0.1, 0.3, 1.0, 3.0] {
        let mut cells = vec![rps.to_string()];
        for drop in drops {
            let mut rng = rng::Rng::new(args.seed).fork(&format!("quality {rps} {drop}"));
            let trials: Vec<Trial> =
                (0..many).map(|_| release(&mut rng, rps, 0.0, 1.0, Quality::UpDown(0.8 * (1.0 - drop)))).collect();
            cells.push(found(&evaluate(&trials, "PromptQuality.+", 0)?));
        }
        row(cells);
    }
    let growths = [1.2, 1.5, 2.0, 3.0, 5.0];
    head(
        "p99 of a new version, with the example server's buckets: the same",
        ["rps".to_owned()].into_iter().chain(growths.map(|growth| format!("×{growth}"))),
    );
    for rps in [0.3, 1.0, 3.0, 10.0] {
        let mut cells = vec![rps.to_string()];
        for slower in growths {
            let mut rng = rng::Rng::new(args.seed).fork(&format!("latency {rps} {slower}"));
            let trials: Vec<Trial> = (0..many).map(|_| release(&mut rng, rps, 0.0, slower, Quality::None)).collect();
            cells.push(found(&evaluate(&trials, "PromptLatencyP99.+", 0)?));
        }
        row(cells);
    }
    Ok(())
}
