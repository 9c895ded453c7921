//! Trials: what Prometheus scrapes of a version, and when an alert on it fires.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::rng::Rng;

/// Seconds between scrapes and between evaluations.
pub const SCRAPE: usize = 5;
/// Versions that promtool evaluates at once.
const BATCH: usize = 250;
/// The buckets of the example prompt server, in seconds.
const BOUNDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds into the trial; `None`: it did not fire.
pub type Found = Option<f64>;

/// Log-normal.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub median: f64,
    pub sigma: f64,
    /// By this factor than usual.
    pub slower: f64,
}

/// A p99 of 0.96 s.
pub const LATENCY: Latency = Latency { median: 0.3, sigma: 0.5, slower: 1.0 };

#[derive(Debug, Clone, Copy)]
pub enum Quality {
    None,
    /// Each score is 1 with this probability, otherwise 0.
    UpDown(f64),
}

/// One version.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// Requests and failures between two scrapes.
    counts: Vec<(u32, u32)>,
    buckets: Vec<[u32; BOUNDS.len() + 1]>,
    scores: Vec<(u32, u32)>,
    activated: Option<i64>,
    /// Seconds from the scrape to what happened before it.
    shift: f64,
}

impl Trial {
    pub fn of(counts: Vec<(u32, u32)>) -> Self {
        Self { counts, ..Self::default() }
    }

    /// Shipped as the trial begins.
    pub fn new_version(mut self) -> Self {
        self.activated = Some(0);
        self
    }

    /// Shipped hours ago.
    pub fn old_version(mut self) -> Self {
        self.activated = Some(-9_000);
        self
    }

    /// What is asked about began so many seconds after the scrape before it.
    pub fn shifted(mut self, shift: f64) -> Self {
        self.shift = shift;
        self
    }

    pub fn with_latency(mut self, rng: &mut Rng, latency: Latency) -> Self {
        let shares = shares(latency);
        self.buckets = self.counts.iter().map(|(requests, _)| split(rng, *requests, &shares)).collect();
        self
    }

    pub fn with_quality(mut self, rng: &mut Rng, quality: Quality) -> Self {
        let Quality::UpDown(up) = quality else { return self };
        self.scores = self.counts.iter().map(|(requests, _)| (*requests, binomial(rng, *requests, up))).collect();
        self
    }
}

pub fn uniform(rng: &mut Rng) -> f64 {
    (rng.number() >> 11) as f64 / (1_u64 << 53) as f64
}

pub fn poisson(rng: &mut Rng, mean: f64) -> u32 {
    if mean > 30.0 {
        return poisson(rng, mean / 2.0) + poisson(rng, mean / 2.0);
    }
    let (mut left, mut probability, mut count) = (uniform(rng), (-mean).exp(), 0);
    while left > probability && count < 1_000 {
        left -= probability;
        count += 1;
        probability *= mean / f64::from(count);
    }
    count
}

fn binomial(rng: &mut Rng, of: u32, share: f64) -> u32 {
    (0..of).map(|_| u32::from(uniform(rng) < share)).sum()
}

/// Normal distribution function, to about 1e-7 (Abramowitz and Stegun 7.1.26).
fn normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs() / std::f64::consts::SQRT_2);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let tail = series.iter().fold(0.0, |sum, term| (sum + term) * t) * (-x * x / 2.0).exp() / 2.0;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The share of requests in each bucket.
fn shares(latency: Latency) -> [f64; BOUNDS.len() + 1] {
    let within = BOUNDS.map(|bound| normal((bound / (latency.median * latency.slower)).ln() / latency.sigma));
    let mut shares = [0.0; BOUNDS.len() + 1];
    let mut below = 0.0;
    for (share, within) in shares.iter_mut().zip(within.into_iter().chain([1.0])) {
        *share = within - below;
        below = within;
    }
    shares
}

fn split(rng: &mut Rng, of: u32, shares: &[f64; BOUNDS.len() + 1]) -> [u32; BOUNDS.len() + 1] {
    let mut buckets = [0; BOUNDS.len() + 1];
    for _ in 0..of {
        let mut left = uniform(rng);
        let place = shares.iter().position(|share| {
            left -= share;
            left < 0.0
        });
        buckets[place.unwrap_or(BOUNDS.len())] += 1;
    }
    buckets
}

/// When `alert` (a regular expression) fired first on each trial, not counting the scrapes before `from`.
pub fn evaluate(trials: &[Trial], alert: &str, from: usize) -> Result<Vec<Found>, String> {
    Ok(evaluate_all(trials, &[alert], from)?.remove(0))
}

/// The same for several alerts.
pub fn evaluate_all(trials: &[Trial], alerts: &[&str], from: usize) -> Result<Vec<Vec<Found>>, String> {
    let mut all = vec![vec![None; trials.len()]; alerts.len()];
    // trials of about the same length belong together
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by_key(|index| trials[*index].counts.len());
    for batch in order.chunks(BATCH) {
        let text = test(trials, batch, alerts, from)?;
        let found = promtool(&text)?;
        if found.len() > alerts.len() {
            return Err(format!("promtool answered {} questions of {}", found.len(), alerts.len()));
        }
        for (alert, times) in found {
            for (index, time) in times {
                all[alert][index] = Some(time - trials[index].shift);
            }
        }
    }
    Ok(all)
}

/// The p99 as a histogram shows it, linear within its bucket.
fn p99(latency: Latency) -> f64 {
    let (mut below, mut from) = (0.0, 0.0);
    for (share, to) in shares(latency).iter().zip(BOUNDS) {
        if below + share >= 0.99 {
            return from + (to - from) * (0.99 - below) / share;
        }
        (below, from) = (below + share, to);
    }
    from
}

fn test(trials: &[Trial], batch: &[usize], alerts: &[&str], from: usize) -> Result<String, String> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("alert-rules");
    let length = batch.iter().map(|index| trials[*index].counts.len()).max().unwrap_or(0) + 1;
    let groups = ["native_critical", "native", "native_latency", "exports", "critical", "latency", "triggers"];
    // a little less than the interval of the evaluations: no scrape at the instant of one
    let mut text = format!(
        "rule_files: [{0}/native.yml, {0}/alerts.yml]\nevaluation_interval: {SCRAPE}s\n\
         group_eval_order: [{1}]\ntests:\n  - interval: {2}ms\n    input_series:\n",
        rules.display(),
        groups.map(|group| format!("prompt_rollback_{group}")).join(", "),
        SCRAPE * 1_000 - 1,
    );
    let mut line = |name: &str, labels: &str, values: &str| {
        let _ = writeln!(text, "      - {{series: '{name}{{prompt=\"p\",{labels}}}', values: '{values}'}}");
    };
    let counter = |growth: &mut dyn Iterator<Item = f64>| {
        let mut values = "0".to_owned();
        let mut total = 0.0;
        for more in growth {
            total += more;
            let _ = write!(values, " {total}");
        }
        values
    };
    // the references of the rollback target, as after a day of traffic: baselines.yml evaluated every few seconds would take
    // most of the time
    line("prompt_version:quality_score:reference", "version=\"v1\"", &format!("0.8x{length}"));
    let usual = format!("{}x{length}", p99(LATENCY));
    line("prompt_version:request_duration_seconds:p99_reference", "version=\"v1\"", &usual);
    for index in batch {
        let Trial { counts, buckets, scores, activated, .. } = &trials[*index];
        let version = format!("version=\"t{index}\"");
        let counts = |of: fn(&(u32, u32)) -> u32| counter(&mut counts.iter().map(|one| f64::from(of(one))));
        let requests = counts(|(requests, _)| *requests);
        line(
            "prompt_requests_total",
            &format!("{version},outcome=\"ok\""),
            &counts(|(requests, failed)| requests - failed),
        );
        line("prompt_requests_total", &format!("{version},outcome=\"error\""), &counts(|(_, failed)| *failed));
        if !buckets.is_empty() {
            for (place, bound) in BOUNDS.map(|bound| bound.to_string()).into_iter().enumerate() {
                let within = counter(&mut buckets.iter().map(|one| f64::from(one[..=place].iter().sum::<u32>())));
                line("prompt_request_duration_seconds_bucket", &format!("{version},le=\"{bound}\""), &within);
            }
            line("prompt_request_duration_seconds_bucket", &format!("{version},le=\"+Inf\""), &requests);
            line("prompt_request_duration_seconds_count", &version, &requests);
        }
        if !scores.is_empty() {
            line("prompt_quality_score_count", &version, &counter(&mut scores.iter().map(|one| f64::from(one.0))));
            line("prompt_quality_score_sum", &version, &counter(&mut scores.iter().map(|one| f64::from(one.1))));
        }
        if let Some(activated) = activated {
            let name = "prompt_rollback_active_version_activated_timestamp_seconds";
            line(name, &version, &format!("{activated}+0x{length}"));
            line("prompt_rollback_active_version_info", &format!("{version},previous=\"v1\""), &format!("1x{length}"));
        }
    }
    text.push_str("    promql_expr_test:\n");
    let end = length * SCRAPE;
    let asked = end - from * SCRAPE;
    for (number, alert) in alerts.iter().enumerate() {
        // the alert's own severity does not matter: one that is at least `high` pages or acts
        let fires = format!("ALERTS{{alertname=~\"{alert}\",alertstate=\"firing\"}}");
        let _ = writeln!(
            text,
            "      - expr: label_replace(min by (version) (min_over_time(timestamp({fires})[{asked}s:{SCRAPE}s])), \"asked\", \"{number}\", \
             \"\", \"\")\n        eval_time: {end}s\n        exp_samples: [{{labels: '{{}}', value: 0}}]"
        );
    }
    Ok(text)
}

/// What promtool got where another result was expected: by alert, the time by trial.
fn promtool(test: &str) -> Result<Vec<(usize, Vec<(usize, f64)>)>, String> {
    let dir = std::env::temp_dir().join(format!("prompt-rollback-rules-{}", std::process::id()));
    let run = || -> std::io::Result<_> {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("trials.yml"), test)?;
        let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
        Command::new(promtool).args(["test", "rules"]).arg(dir.join("trials.yml")).output()
    };
    let output = run();
    if std::env::var_os("KEEP").is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    let output = output.map_err(|error| format!("promtool: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let mut answers = Vec::new();
    let mut seen = false;
    for line in said.lines() {
        let Some(got) = line.trim().strip_prefix("got:") else { continue };
        seen = true;
        let mut alert = None;
        let mut times = Vec::new();
        for sample in got.split(", {").map(|sample| sample.trim().trim_start_matches('{')) {
            let label = |name: &str| sample.split(&format!("{name}=\"")).nth(1)?.split('"').next();
            let (Some(asked), Some(version)) = (label("asked"), label("version")) else { continue };
            let value = sample.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            let index = version.trim_start_matches('t').parse::<usize>().ok();
            let (Ok(asked), Some(index), Some(value)) = (asked.parse::<usize>(), index, value) else {
                return Err(format!("unexpected answer of promtool: {sample}"));
            };
            alert = Some(asked);
            times.push((index, value));
        }
        answers.extend(alert.map(|alert| (alert, times)));
    }
    if seen { Ok(answers) } else { Err(said.chars().take(2_000).collect()) }
}
