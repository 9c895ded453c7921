//! Which instances served what since a moment (a switch, a stage), from their counters. Pure.
//!
//! Only scrapes count: Prometheus records a counter at each evaluation, also without a new scrape. An interval counts
//! only if both its scrapes are after the moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::bound::bounds;
use super::client::Series;
use super::question::FAILS_ABOVE;
use super::server::{Replica, ScrapeTargets, Server, VANISHED, has_vanished};
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::verification::{Instances, Traffic};
use crate::decision::{PromptName, Timestamp, VersionName};
use follows::{Follows, SharesBefore, serves_another};
use samples::{Instance, Interval, SeriesByVersion, newest_of};

mod follows;
mod samples;

/// How long before the moment the counters are read, to know what each instance served until then.
const BEFORE: Duration = Duration::from_secs(300);
/// How old the failure ratio of a version may be at the moment. It is recorded every five minutes, and an evaluation may be missed.
const REFERENCE_AGE: Duration = Duration::from_secs(900);
/// How long every evaluation is requested.
const FINELY: Duration = Duration::from_secs(900);
/// The number of points afterwards: the counters of a prompt on very many instances are read at fewer points.
pub const POINTS: [u64; 3] = [180, 60, 20];
/// The number of requests below which a failure ratio means nothing.
pub const EVIDENCE: u64 = 20;
/// A gradual rollback stops if its target's failure ratio is above this.
const STOP_ABOVE: f64 = 0.02;
/// The factor by which a version must be worse than before to count as worse.
const WORSE: f64 = 1.5;

pub(super) const REQUESTS: &str = "prompt_version_instance:requests:sum";
pub(super) const FAILURES: &str = "prompt_version_instance:request_errors:sum";
/// How many series of successes are summed up. Rules of earlier releases do not record it.
pub(super) const SUMMED: &str = "prompt_version_instance:request_successes:count";
const SCRAPED: &str = "prompt_version_instance:requests:timestamp_seconds";
const REFERENCE: &str = "prompt_version:request_errors:reference";

/// The query: the counters of these prompts since `oldest`, and for a while before, at one of [`POINTS`].
pub fn question(prompts: &str, oldest: Timestamp, now: Timestamp, points: u64) -> String {
    let seconds = (now.since(oldest) + BEFORE).as_secs();
    // for a longer time, every evaluation would be too large an answer; the counters hold the same information
    let coarsely = seconds > FINELY.as_secs() || points < POINTS[0];
    let step = if coarsely { format!(":{}s", seconds / points) } else { String::new() };
    let names = [REQUESTS, FAILURES, SUMMED, SCRAPED].join("|");
    format!("{{__name__=~\"{names}\",{prompts}}}[{seconds}s{step}]")
}

/// The query for the failure ratios of these prompts' versions before `oldest`, and since.
pub fn references(prompts: &str, oldest: Timestamp, now: Timestamp) -> String {
    format!("{REFERENCE}{{{prompts}}}[{}s]", (now.since(oldest) + REFERENCE_AGE).as_secs())
}

/// The answers to [`question`] and [`references`].
#[derive(Debug)]
pub struct Recorded {
    by_prompt: HashMap<String, Vec<Series>>,
    targets: ScrapeTargets,
}

impl Recorded {
    pub fn new(labels: &Labels, series: Vec<Series>) -> Self {
        let mut by_prompt: HashMap<String, Vec<Series>> = HashMap::new();
        for one in series {
            by_prompt.entry(one.label(&labels.prompt).to_owned()).or_default().push(one);
        }
        Self { by_prompt, targets: ScrapeTargets::NONE }
    }

    /// The values of the label `instance` of instances that may have gone.
    pub fn vanished(&self, labels: &Labels, now: Timestamp) -> BTreeSet<String> {
        let vanished_of = |own: &Vec<Series>| {
            let mut last: BTreeMap<Server<'_>, Timestamp> = BTreeMap::new();
            for one in own.iter().filter(|one| one.label("__name__") == REQUESTS) {
                let (at, recorded) = (last.entry(Server::of(labels, one)).or_default(), one.points.last());
                *at = recorded.map_or(*at, |(recorded, _)| *recorded.max(at));
            }
            let newest = last.values().max().copied().unwrap_or_default().max(now);
            let vanished = last.into_iter().filter(|(_, at)| newest.since(*at) > VANISHED);
            vanished.map(|(server, _)| server.instance.to_owned()).collect::<Vec<_>>()
        };
        self.by_prompt.values().flat_map(vanished_of).collect()
    }

    /// What Prometheus says about those that vanished.
    pub fn know(&mut self, targets: ScrapeTargets) {
        self.targets = targets;
    }

    /// The counters of one prompt.
    pub fn of(&self, labels: &Labels, prompt: &PromptName) -> Counters<'_> {
        Counters::of(labels, self.series(prompt), &self.targets)
    }

    /// How many points the counters of one prompt have.
    pub fn points(&self, prompt: &PromptName) -> usize {
        self.series(prompt).iter().map(|one| one.points.len()).sum()
    }

    fn series(&self, prompt: &PromptName) -> &[Series] {
        self.by_prompt.get(&*prompt.name()).map_or(&[][..], Vec::as_slice)
    }
}

/// The counters of one prompt.
pub struct Counters<'a> {
    instances: BTreeMap<Server<'a>, Instance<'a>>,
    /// The failure ratios of each version before the moment: one for each cluster.
    references: BTreeMap<&'a str, Vec<&'a Series>>,
    /// The latest moment at which Prometheus had a value for any instance.
    newest: Timestamp,
    /// How far apart the points of the answer are.
    every: Duration,
    targets: &'a ScrapeTargets,
}

impl<'a> Counters<'a> {
    fn of(labels: &Labels, own: &'a [Series], targets: &'a ScrapeTargets) -> Self {
        let mut found: BTreeMap<Server<'a>, BTreeMap<Replica<'a>, SeriesByVersion<'a>>> = BTreeMap::new();
        let mut references: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in own {
            let version = one.label(&labels.version);
            let place = match one.label("__name__") {
                REFERENCE => {
                    references.entry(version).or_default().push(one);
                    continue;
                }
                REQUESTS => 0,
                FAILURES => 1,
                SCRAPED => 2,
                SUMMED => 3,
                _ => continue,
            };
            let replicas = found.entry(Server::of(labels, one)).or_default();
            replicas.entry(Replica::of(labels, one)).or_default().entry(version).or_default()[place] = Some(one);
        }
        // of several that measured the same instance, the one that knows the latest
        let latest = |replicas: BTreeMap<Replica<'a>, SeriesByVersion<'a>>| {
            replicas.into_values().reduce(|one, other| if newest_of(&other) > newest_of(&one) { other } else { one })
        };
        let instances: BTreeMap<_, _> = found
            .into_iter()
            .filter_map(|(server, replicas)| Some((server, Instance::of(latest(replicas)?))))
            .collect();
        let newest = instances.values().map(|one| one.recorded).max().unwrap_or_default();
        let apart = own.iter().filter_map(|one| match one.points.as_slice() {
            [.., (before, _), (last, _)] => Some(last.since(*before)),
            _ => None,
        });
        let every = apart.min().unwrap_or_default();
        Self { instances, references, newest, every, targets }
    }

    /// What was served since `since`, when traffic moved from `bad` to `target`. `None`: requests of neither are
    /// counted.
    pub fn since(&self, since: Timestamp, bad: &VersionName, target: &VersionName) -> Option<Traffic> {
        let known = |one: &&Instance<'_>| [bad, target].iter().any(|v| one.scrapes.contains_key(v.as_str()));
        self.instances.values().find(known)?;
        let all: Vec<_> =
            self.instances.values().map(|one| [bad, target].map(|version| one.intervals(version.as_str()))).collect();
        let before = SharesBefore::before(since, &all);
        let mut traffic = Traffic::default();
        let (mut still, mut unknown) = (Vec::new(), Vec::new());
        let (mut latest_bad, mut latest_target) = (0.0, 0.0);
        for ((server, instance), [of_bad, of_target]) in self.instances.iter().zip(&all) {
            let later = |interval: &&Interval| interval.from >= since;
            let counted = |interval: &&Interval| later(interval) && interval.counted;
            let served = |intervals: &[Interval]| intervals.iter().filter(counted).map(|i| i.requests).sum::<f64>();
            let (bad_requests, target_requests) = (served(of_bad), served(of_target));
            traffic.bad = traffic.bad.saturating_add(whole(bad_requests));
            traffic.target = traffic.target.saturating_add(whole(target_requests));
            for interval in of_target.iter().filter(counted) {
                traffic.failures = traffic.failures.saturating_add(whole(interval.failures.unwrap_or(0.0)));
                traffic.uncounted |= interval.requests > 0.0 && interval.failures.is_none();
            }
            let grown = of_bad.iter().filter(later).filter(|interval| interval.requests > 0.0);
            traffic.bad_last_seen = traffic.bad_last_seen.max(grown.map(|interval| interval.to).max());
            if self.targets.is_gone(server, instance.recorded, self.newest, self.every) {
                continue;
            }
            let vanished = has_vanished(instance.recorded, self.newest, self.every);
            let is_latest = |interval: &&Interval| !vanished && later(interval);
            let latest = |intervals: &[Interval]| intervals.last().filter(is_latest).map_or(0.0, |i| i.requests);
            latest_bad += latest(of_bad);
            latest_target += latest(of_target);
            let name = || self.shown(server);
            match instance.follows(bad, of_bad, of_target, &before, since) {
                None | Some(Follows::Yes)
                    if target_requests <= 0.0 && serves_another(instance, [bad, target], since, self.newest) =>
                {
                    unknown.push(name());
                }
                None => {}
                Some(Follows::Yes) => traffic.following += 1,
                Some(Follows::No) if !vanished => still.push(name()),
                Some(Follows::No | Follows::Unknown) => unknown.push(name()),
            }
        }
        let latest = latest_bad + latest_target;
        traffic.bad_percent = if latest > 0.0 { whole((100.0 * latest_bad / latest).ceil()).min(100) } else { 0 };
        traffic.still = Instances::of(still);
        traffic.unknown = Instances::of(unknown);
        Some(traffic)
    }

    /// The name of an instance, with its other labels where another one has the same.
    fn shown(&self, server: &Server<'_>) -> String {
        let mut name = shown(server.instance);
        if self.instances.keys().any(|other| other.instance == server.instance && other != server) {
            let others: Vec<_> = server.others.iter().map(|(label, value)| format!("{label}={value}")).collect();
            name = shown(&format!("{name} ({})", others.join(", ")));
        }
        name
    }

    /// Requests and failures of `version` since `since`. `None`: requests are counted, but failures are not.
    fn served(&self, since: Timestamp, version: &VersionName) -> Option<(u64, u64)> {
        let all = self.instances.values().flat_map(|one| one.intervals(version.as_str()));
        let (mut requests, mut failures) = (0.0, 0.0);
        for interval in all.filter(|interval| interval.from >= since && interval.counted) {
            if interval.requests > 0.0 && interval.failures.is_none() {
                return None;
            }
            requests += interval.requests;
            failures += interval.failures.unwrap_or(0.0);
        }
        Some((whole(requests), whole(failures)))
    }

    /// The failure ratio above which `version` is unhealthy: more than `least`, and worse than before `since`. What fails
    /// as much as a failing prompt is unhealthy, whatever it did before. Of several clusters, the one where it failed least counts.
    pub fn limit(&self, least: f64, since: Timestamp, version: &VersionName) -> f64 {
        let is_before = |(at, _): &&(Timestamp, f64)| *at <= since && since.since(*at) <= REFERENCE_AGE;
        let before = |series: &&Series| series.points.iter().rev().find(is_before).map(|(_, value)| *value);
        let references = self.references.get(version.as_str()).into_iter().flatten().filter_map(before);
        let reference = references.filter(|ratio| (0.0..=1.0).contains(ratio)).reduce(f64::min).unwrap_or(0.0);
        (WORSE * reference).min(FAILS_ABOVE).max(least)
    }
}

/// Judges the failures of the version rolled back to, whose ratio may be at most `limit`.
pub fn judge(traffic: Option<&Traffic>, limit: f64, since: Timestamp) -> Finding {
    let Some(traffic) = traffic else {
        return Finding::new(
            Verdict::Unknown,
            format!("no instances are counted: {REQUESTS} has no series for this prompt"),
        );
    };
    let Traffic { target: requests, failures, .. } = *traffic;
    if traffic.uncounted {
        return uncounted();
    }
    let mut text = counted(failures, requests, since);
    if requests < EVIDENCE {
        return Finding::new(Verdict::NoData, format!("no data yet: {text}"));
    }
    let (lower, upper) = bounds(failures, requests);
    #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
    let ratio = failures.min(requests) as f64 / requests as f64;
    let verdict = if upper <= limit {
        Verdict::Healthy
    } else if lower > limit {
        Verdict::Unhealthy
    } else {
        Verdict::NoData
    };
    text.push_str(&match verdict {
        Verdict::Unhealthy => format!(" ({}, at least {}, limit {})", percent(ratio), percent(lower), percent(limit)),
        Verdict::NoData => format!(
            " ({}, at most {}): too few to tell whether that is below the limit of {}",
            percent(ratio),
            percent(upper),
            percent(limit)
        ),
        Verdict::Healthy | Verdict::Unknown => format!(" ({}, at most {})", percent(ratio), percent(upper)),
    });
    Finding::new(verdict, text)
}

/// Whether `version` is healthy enough for more traffic, by its failures since `since`, when its stage began.
pub fn judge_stage(counters: &Counters<'_>, since: Timestamp, version: &VersionName) -> Finding {
    let Some((requests, failures)) = counters.served(since, version) else { return uncounted() };
    let text = counted(failures, requests, since);
    if requests < EVIDENCE {
        return Finding::new(Verdict::NoData, format!("no data yet: {text}"));
    }
    let limit = counters.limit(STOP_ABOVE, since, version);
    let (lower, _) = bounds(failures, requests);
    match lower > limit {
        true => {
            Finding::new(Verdict::Unhealthy, format!("{text} (at least {}, limit {})", percent(lower), percent(limit)))
        }
        false => Finding::new(Verdict::Healthy, text),
    }
}

fn uncounted() -> Finding {
    Finding::new(Verdict::Unknown, format!("failures are not counted: {FAILURES} has no series for this prompt"))
}

fn counted(failures: u64, requests: u64, since: Timestamp) -> String {
    let failures = match failures {
        1 => "1 failure".to_owned(),
        many => format!("{} failures", grouped(many)),
    };
    format!("{failures} in {} requests since {}", grouped(requests), since.time_of_day())
}

fn percent(ratio: f64) -> String {
    format!("{:.2} %", 100.0 * ratio)
}

/// Formats `4310` as `4,310`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; never negative")]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

fn shown(instance: &str) -> String {
    instance.chars().filter(|c| !crate::visible::is_hidden(*c)).take(100).collect()
}

#[cfg(test)]
mod tests;
