//! The query that compares two versions that shared the traffic, and its answer. Pure.
//!
//! The counters of each instance are read at the ends of slices, and their growth in between is counted: whole
//! requests, where `increase()` would extrapolate. The slices depend on when the comparison began, never on when it is
//! queried, so each look includes the slices of all earlier looks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::Series;
use super::counters::Sums;
use super::exposure::{FAILURES, REQUESTS, SUMMED};
use super::server::{Replica, Server};
use crate::config::Labels;
use crate::decision::{PromptName, Timestamp, VersionName};
use crate::prometheus::ab_test::{ComparisonSamples, Counts, Slice};
use crate::prometheus::durations::{DurationSlice, Histogram};

/// The length of slices, by time since the beginning: short at first, few in all.
const CUTS: [(Duration, Duration); 4] = [
    (Duration::from_secs(600), Duration::from_secs(15)),
    (Duration::from_secs(2 * 3_600), Duration::from_secs(60)),
    (Duration::from_secs(24 * 3_600), Duration::from_secs(300)),
    (Duration::from_secs(7 * 24 * 3_600), Duration::from_secs(1_800)),
];
/// A later sample may still be missing.
const SETTLED: Duration = Duration::from_secs(15);

/// Slices of one length: one range query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryRange {
    pub from: Timestamp,
    pub to: Timestamp,
    pub step: Duration,
}

impl QueryRange {
    /// The same slices as two queries. `None`: it is a single slice.
    pub fn halves(self) -> Option<[Self; 2]> {
        let slices = self.to.since(self.from).as_millis() / self.step.as_millis().max(1);
        let half = u32::try_from(slices / 2).ok().filter(|half| *half > 0)?;
        let middle = self.from.plus(self.step * half);
        Some([Self { to: middle, ..self }, Self { from: middle, ..self }])
    }
}

/// The finished slices of a comparison that began at `began`. It ends after a week.
pub fn spans(began: Timestamp, now: Timestamp) -> Vec<QueryRange> {
    let latest = now.minus(SETTLED);
    let (mut start, mut spans) = (Duration::ZERO, Vec::new());
    for (end, step) in CUTS {
        let from = aligned(began.plus(start + step - Duration::from_millis(1)), step);
        let to = aligned(began.plus(end).min(latest), step);
        if from < to {
            spans.push(QueryRange { from, to, step });
        }
        start = end;
    }
    spans
}

/// The last multiple of `step` until `at`. VictoriaMetrics and the query frontend of Thanos would move other moments there.
fn aligned(at: Timestamp, step: Duration) -> Timestamp {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
    Timestamp(at.0.saturating_sub(at.0.rem_euclid(step)))
}

/// When the comparison of a canary begins: with the canary, or with a stage that begins when slices are half an hour long, or soon
/// will be. Such slices would show nothing of a stage for up to an hour.
pub fn began(started: Timestamp, stage: Timestamp) -> Timestamp {
    const SHORT: Duration = Duration::from_secs(23 * 3_600);
    if stage.since(started) < SHORT { started } else { stage }
}

const SCORES: &str = "prompt_version_instance:quality_score_count:sum";
const SCORE_SUM: &str = "prompt_version_instance:quality_score_sum:sum";
/// Observations of durations in [`WINDOW`], by bucket.
const BUCKETS: &str = "prompt_version_le:request_duration_observations:increase5m";
/// The share of [`WINDOW`] between its first and last scrape.
const COVERED: &str = "prompt_version:requests:covered5m";
const WINDOW: Duration = Duration::from_secs(300);
/// The interval at which [`BUCKETS`] is recorded: the latest sample may be this old.
const RECORDED: Duration = Duration::from_secs(15);

/// The query for both versions, as a range query at the ends of slices.
pub fn query(labels: &Labels, prompt: &PromptName, versions: [&VersionName; 2]) -> String {
    let Labels { prompt: p, version: v, .. } = labels;
    let prompt = super::quoting::in_string(prompt);
    // of a version's characters, only these have a meaning in a regular expression
    let versions = versions.map(|version| version.as_str().replace('.', "[.]").replace('+', "[+]")).join("|");
    let names = [REQUESTS, FAILURES, SUMMED, SCORES, SCORE_SUM, BUCKETS, COVERED].join("|");
    format!("{{__name__=~\"{names}\",{p}=\"{prompt}\",{v}=~\"{versions}\"}}")
}

/// Parses the answers to [`query`] for these spans, about the new and the old version, whose current stage began at `stage`.
pub fn read(
    labels: &Labels,
    spans: &[QueryRange],
    answers: &[Vec<Series>],
    versions: [&VersionName; 2],
    stage: Timestamp,
) -> ComparisonSamples {
    let [new, old] = versions.map(|version| VersionSamples::read(labels, spans, answers, version));
    let observed =
        |version: &VersionSamples| version.buckets.values().flatten().any(|(_, observations)| *observations > 0.0);
    let has_durations = observed(&new) || observed(&old);
    let at = |end| DurationSlice { new: new.durations(end), old: old.durations(end) };
    let durations = windows(spans, stage).into_iter().map(at).collect();
    ComparisonSamples {
        durations: has_durations.then_some(durations),
        errors: slices(new.requests, old.requests),
        quality: slices(new.scores, old.scores),
    }
}

/// Requests of the new version in the slices that began after `since`.
pub fn requests_since(
    labels: &Labels,
    spans: &[QueryRange],
    answers: &[Vec<Series>],
    version: &VersionName,
    since: Timestamp,
) -> f64 {
    let in_span = |(span, series): (&QueryRange, &Vec<Series>)| -> f64 {
        let of =
            |name: &str| -> Vec<&Series> { series.iter().filter(|one| is_of(labels, one, name, version)).collect() };
        let counts = counts(labels, span.step, [&of(REQUESTS), &of(FAILURES), &of(SUMMED)], |_, failed| failed);
        counts.into_iter().filter(|(end, _)| *end >= since.plus(span.step)).map(|(_, counts)| counts.all).sum()
    };
    spans.iter().zip(answers).map(in_span).sum()
}

fn is_of(labels: &Labels, one: &Series, name: &str, version: &VersionName) -> bool {
    one.label("__name__") == name && one.label(&labels.version) == version.as_str()
}

/// The team's own expression about both versions. Names contain nothing that PromQL strings escape.
pub fn own_query(query: &str, prompt: &PromptName, [new, old]: [&VersionName; 2], since: Duration) -> String {
    super::question::about(&query.replace("$base", old.as_str()), prompt, new, since)
}

/// Parses its answer: `Ok` if the new version is no worse.
pub fn read_own(series: &[Series]) -> Result<(), String> {
    match series {
        [one] if one.value() == 1.0 => Ok(()),
        [one] if one.value() == 0.0 => Err("canary.query reports that it is worse".to_owned()),
        [] => Err("no data yet for canary.query".to_owned()),
        [one] => Err(format!("canary.query returned {}: expected 1, 0 or nothing", one.value())),
        many => Err(format!("canary.query returned {} series: expected one, or nothing", many.len())),
    }
}

/// What the answers say of one version, by the end of the slice or window.
#[derive(Default)]
struct VersionSamples {
    requests: BTreeMap<Timestamp, Counts>,
    scores: BTreeMap<Timestamp, Counts>,
    /// Bounds and observations, without those that `increase()` extrapolates.
    buckets: BTreeMap<Timestamp, Vec<(f64, f64)>>,
}

impl VersionSamples {
    fn read(labels: &Labels, spans: &[QueryRange], answers: &[Vec<Series>], version: &VersionName) -> Self {
        let mut read = Self::default();
        for (span, series) in spans.iter().zip(answers) {
            let of = |name: &str| -> Vec<&Series> {
                series.iter().filter(|one| is_of(labels, one, name, version)).collect()
            };
            let requests = [&of(REQUESTS)[..], &of(FAILURES), &of(SUMMED)];
            read.requests.extend(counts(labels, span.step, requests, |_, failed| failed));
            read.scores
                .extend(counts(labels, span.step, [&of(SCORES), &of(SCORE_SUM), &[]], |scores, sum| scores - sum));
            // the first moment of a span is the last one of the span before
            read.buckets.extend(buckets(labels, &of(BUCKETS), &of(COVERED)));
        }
        read
    }

    /// The observations of the window that ends at `end`.
    fn durations(&self, end: Timestamp) -> Option<Histogram> {
        Histogram::new(self.buckets.get(&end)?.clone())
    }
}

/// The ends of windows of durations in this stage. They do not overlap, and in each the versions keep their shares of the traffic:
/// otherwise a slow minute in which one of them had more of it would be taken for a slow version.
fn windows(spans: &[QueryRange], stage: Timestamp) -> Vec<Timestamp> {
    let mut ends: Vec<Timestamp> = Vec::new();
    let mut next = stage.plus(WINDOW + RECORDED);
    for span in spans {
        let mut end = span.from;
        while end <= span.to {
            if next <= end {
                ends.push(end);
                next = end.plus(WINDOW);
            }
            end = end.plus(span.step);
        }
    }
    ends
}

fn slices(mut new: BTreeMap<Timestamp, Counts>, old: BTreeMap<Timestamp, Counts>) -> Vec<Slice> {
    let both = old.into_iter().map(|(end, old)| (end, Slice { new: new.remove(&end).unwrap_or_default(), old }));
    let mut slices: BTreeMap<Timestamp, Slice> = both.collect();
    slices.extend(new.into_iter().map(|(end, new)| (end, Slice { new, old: Counts::default() })));
    slices.into_values().collect()
}

/// Bounds and observations by the end of the window, of all windows whose covered share is known.
fn buckets(labels: &Labels, buckets: &[&Series], covered: &[&Series]) -> BTreeMap<Timestamp, Vec<(f64, f64)>> {
    let mut of_window: BTreeMap<Timestamp, Vec<(f64, f64)>> = BTreeMap::new();
    // of what several Prometheus servers measured in a window, one
    let mut read: BTreeMap<Server<'_>, BTreeMap<Timestamp, Replica<'_>>> = BTreeMap::new();
    for covered in covered {
        let (server, replica) = (Server::of(labels, covered), Replica::of(labels, covered));
        let shares: BTreeMap<Timestamp, f64> = covered.points.iter().copied().collect();
        let read = read.entry(server.clone()).or_default();
        for one in buckets.iter().filter(|one| Replica::of(labels, one) == replica) {
            let (Ok(bound), mut of) = (one.label("le").parse::<f64>(), Server::of(labels, one)) else { continue };
            of.others.retain(|(label, _)| *label != "le");
            if of != server {
                continue;
            }
            for (end, observations) in &one.points {
                let Some(share) = shares.get(end) else { continue };
                if *read.entry(*end).or_insert_with(|| replica.clone()) == replica {
                    of_window.entry(*end).or_default().push((bound, observations * share));
                }
            }
        }
    }
    of_window
}

/// The counts of all instances whose two counters are known at both ends of a slice.
fn counts(
    labels: &Labels,
    step: Duration,
    [all, parts, summed]: [&[&Series]; 3],
    failed: fn(f64, f64) -> f64,
) -> BTreeMap<Timestamp, Counts> {
    let mut counts: BTreeMap<Timestamp, Counts> = BTreeMap::new();
    // of what several measured in a slice, one
    let mut counted: BTreeMap<Server<'_>, BTreeSet<Timestamp>> = BTreeMap::new();
    let (parts, summed) = (by_source(labels, parts), by_source(labels, summed));
    for all in all {
        let source = (Server::of(labels, all), Replica::of(labels, all));
        let Some(part) = parts.get(&source) else { continue };
        let growth = growth(step, all, part, summed.get(&source).copied());
        let counted = counted.entry(source.0).or_default();
        for (end, (grown, part)) in growth.into_iter().filter(|(end, _)| counted.insert(*end)) {
            counts.entry(end).or_default().add(Counts { all: grown, failed: failed(grown, part) });
        }
    }
    counts
}

/// Which Prometheus server measured which prompt server.
type SeriesSource<'a> = (Server<'a>, Replica<'a>);

fn by_source<'a>(labels: &Labels, series: &[&'a Series]) -> BTreeMap<SeriesSource<'a>, &'a Series> {
    let mut by_source = BTreeMap::new();
    for one in series {
        by_source.entry((Server::of(labels, one), Replica::of(labels, one))).or_insert(*one);
    }
    by_source
}

/// The growth of a counter of all and of one of a part of them. Before the first point, in a gap, or where the two ends of a slice
/// are [not comparable](Sums::growth_to), it is not counted.
fn growth(step: Duration, all: &Series, part: &Series, summed: Option<&Series>) -> BTreeMap<Timestamp, (f64, f64)> {
    let at_each = |series: &Series| -> BTreeMap<Timestamp, f64> { series.points.iter().copied().collect() };
    let (parts, summed) = (at_each(part), summed.map(at_each).unwrap_or_default());
    let sums = |at: Timestamp, all: f64| -> Option<Sums> {
        let part = parts.get(&at).copied().filter(|part| part.is_finite() && all.is_finite())?;
        Some(Sums { all, part: Some(part), series: summed.get(&at).copied() })
    };
    let mut growth = BTreeMap::new();
    for pair in all.points.windows(2) {
        let [(before_at, before), (at, value)] = [pair[0], pair[1]];
        let (Some(before), Some(after)) = (sums(before_at, before), sums(at, value)) else { continue };
        if let Some((grown, Some(part))) = before.growth_to(&after).filter(|_| at.since(before_at) == step) {
            growth.insert(at, (grown, part));
        }
    }
    growth
}

#[cfg(test)]
mod tests;
