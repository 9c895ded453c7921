//! What an instance counted from scrape to scrape, from the recorded series.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::Timestamp;
use crate::prometheus::client::Series;
use crate::prometheus::counters::Sums;

/// The recorded series of one instance, by version: requests, failures, times of scrapes, number of series that are summed up.
pub(super) type SeriesByVersion<'a> = BTreeMap<&'a str, [Option<&'a Series>; 4]>;

pub(super) fn newest_of(versions: &SeriesByVersion<'_>) -> Timestamp {
    let last = versions.values().flatten().flatten().filter_map(|one| one.points.last());
    last.map(|(at, _)| *at).max().unwrap_or_default()
}

/// The counters of one version on one instance at one scrape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) sums: Sums,
}

/// The samples of one instance, by version, oldest first.
pub(super) type Scrapes<'a> = BTreeMap<&'a str, Vec<Sample>>;

pub(super) struct Instance<'a> {
    pub(super) scrapes: Scrapes<'a>,
    /// When it was scraped, for any version, oldest first.
    pub(super) times: Vec<Timestamp>,
    /// When Prometheus last had a value for it.
    pub(super) recorded: Timestamp,
}

/// What was counted between two scrapes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) requests: f64,
    pub(super) failures: Option<f64>,
    /// False: it shows that the version was served, but not how often.
    pub(super) counted: bool,
}

impl Interval {
    /// Of a counter that may be older: of its requests, one was served at least.
    pub(super) fn of_older(first: &Sample) -> Self {
        Self { from: first.at, to: first.at, requests: first.sums.all.min(1.0), failures: None, counted: false }
    }
}

impl<'a> Instance<'a> {
    pub(super) fn of(versions: SeriesByVersion<'a>) -> Self {
        let (changes, recorded) = (changes(&versions), newest_of(&versions));
        let samples = |(version, parts): (&'a str, [Option<&Series>; 4])| (version, samples(parts, &changes));
        let scrapes: Scrapes<'a> = versions.into_iter().map(samples).collect();
        let times: BTreeSet<_> = scrapes.values().flatten().map(|sample| sample.at).collect();
        Self { scrapes, times: times.into_iter().collect(), recorded }
    }

    /// What was counted for `version` from scrape to scrape. Where the sums are [not comparable](Sums::growth_to), nothing is
    /// known. A counter that starts on an instance that was scraped before shows that the version is served, but the counter may
    /// be older than that. One that ended, or that there never was, while the instance is scraped serves nothing: a server that
    /// was restarted may expose only the version that it serves.
    pub(super) fn intervals(&self, version: &str) -> Vec<Interval> {
        let samples = self.scrapes.get(version).map_or(&[][..], Vec::as_slice);
        let born = samples.first().and_then(|first| {
            let from = *self.times.iter().rfind(|at| **at < first.at)?;
            Some(Interval { from, to: first.at, ..Interval::of_older(first) })
        });
        let between = samples.windows(2).filter_map(|pair| {
            let (requests, failures) = pair[0].sums.growth_to(&pair[1].sums)?;
            Some(Interval { from: pair[0].at, to: pair[1].at, requests, failures, counted: true })
        });
        let ended = samples.last().map(|last| last.at);
        let after = self.times.windows(2).filter(|pair| ended.is_none_or(|ended| pair[0] >= ended));
        let nothing = |pair: &[Timestamp]| Interval {
            from: pair[0],
            to: pair[1],
            requests: 0.0,
            failures: Some(0.0),
            counted: true,
        };
        born.into_iter().chain(between).chain(after.map(nothing)).collect()
    }
}

/// The moments when any counter of an instance changed: each implies a scrape.
fn changes(versions: &SeriesByVersion<'_>) -> BTreeSet<Timestamp> {
    let all = versions.values().flat_map(|parts| parts[..2].iter().flatten());
    let changed = |pair: &[(Timestamp, f64)]| (pair[0].1.to_bits() != pair[1].1.to_bits()).then_some(pair[1].0);
    let first = |series: &&Series| series.points.first().map(|(at, _)| *at);
    all.clone().flat_map(|series| series.points.windows(2).filter_map(changed)).chain(all.filter_map(first)).collect()
}

/// The scrapes of one version's counters. If nothing else shows when scrapes happened, a change implies one.
fn samples([requests, failures, scraped, summed]: [Option<&Series>; 4], changes: &BTreeSet<Timestamp>) -> Vec<Sample> {
    let at_each = |series: Option<&Series>| -> BTreeMap<Timestamp, f64> {
        series.into_iter().flat_map(|series| series.points.iter().copied()).collect()
    };
    let (failures, summed) = (at_each(failures), at_each(summed));
    let scraped = scraped.map(|series| at_each(Some(series)));
    let mut samples: Vec<Sample> = Vec::new();
    for (recorded, value) in at_each(requests).into_iter().filter(|(_, value)| value.is_finite()) {
        let at = match &scraped {
            #[allow(clippy::cast_possible_truncation, reason = "saturates")]
            Some(scraped) => scraped.get(&recorded).map(|seconds| Timestamp((seconds * 1e3).round() as i64)),
            None => changes.contains(&recorded).then_some(recorded),
        };
        let Some(at) = at else { continue };
        let part = failures.get(&recorded).copied().filter(|count| count.is_finite());
        let sample = Sample { at, sums: Sums { all: value, part, series: summed.get(&recorded).copied() } };
        if samples.last().is_none_or(|last| last.at < at) {
            samples.push(sample);
        }
    }
    samples
}
