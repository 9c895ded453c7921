//! Which instances served what since a moment (a switch, a stage), from their counters. Pure.
//!
//! Only scrapes count: Prometheus records a counter at each evaluation, also without a new scrape. An interval counts
//! only if both its scrapes are after the moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::bound::bounds;
use super::client::Series;
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::verification::{Instances, Traffic};
use crate::decision::{PromptName, Timestamp, VersionName};

/// How long before the moment the counters are read, to know what each instance served until then.
const BEFORE: Duration = Duration::from_secs(300);
/// How long every evaluation is requested.
const FINELY: Duration = Duration::from_secs(900);
/// The number of points afterwards.
const POINTS: u64 = 180;
/// After this time, requests to the bad version can no longer have been in flight when the key changed.
const UNDER_WAY: Duration = Duration::from_secs(45);
/// If this many requests were expected and none came, that is chance only one time in a thousand.
const EXPECTED: f64 = 7.0;
/// An instance that was not scraped for this long, while others were, is gone.
const VANISHED: Duration = Duration::from_secs(60);
/// The number of requests below which a failure ratio means nothing.
pub const EVIDENCE: u64 = 20;
/// A gradual rollback stops if its target's failure ratio is above this.
const STOP_ABOVE: f64 = 0.02;
/// The factor by which a version must be worse than before to count as worse.
const WORSE: f64 = 1.5;

pub(super) const REQUESTS: &str = "prompt_version_instance:requests:sum";
pub(super) const FAILURES: &str = "prompt_version_instance:request_errors:sum";
const SCRAPED: &str = "prompt_version_instance:requests:timestamp_seconds";
const REFERENCE: &str = "prompt_version:request_errors:reference";

/// The query: the counters of these prompts since `oldest`, and for a while before.
pub fn question(prompts: &str, oldest: Timestamp, now: Timestamp) -> String {
    let seconds = (now.since(oldest) + BEFORE).as_secs();
    // for a longer time, every evaluation would be too large an answer; the counters hold the same information
    let step = if seconds > FINELY.as_secs() { format!(":{}s", seconds / POINTS) } else { String::new() };
    format!("{{__name__=~\"{REQUESTS}|{FAILURES}|{SCRAPED}|{REFERENCE}\",{prompts}}}[{seconds}s{step}]")
}

/// The counters of one version on one instance at one scrape.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    requests: f64,
    /// `None`: failures are not recorded.
    failures: Option<f64>,
}

/// The samples of one instance, by version, oldest first.
type Scrapes<'a> = BTreeMap<&'a str, Vec<Sample>>;

struct Instance<'a> {
    scrapes: Scrapes<'a>,
    /// When Prometheus last had a value for it.
    recorded: Timestamp,
}

/// What was counted between two scrapes.
struct Interval {
    from: Timestamp,
    to: Timestamp,
    requests: f64,
    failures: Option<f64>,
}

/// The answer to [`question`].
#[derive(Debug)]
pub struct Recorded {
    by_prompt: HashMap<String, Vec<Series>>,
    /// The latest moment in the answer.
    newest: Timestamp,
}

impl Recorded {
    pub fn new(labels: &Labels, series: Vec<Series>) -> Self {
        let newest = series.iter().filter_map(|one| one.points.last()).map(|(at, _)| *at).max().unwrap_or_default();
        let mut by_prompt: HashMap<String, Vec<Series>> = HashMap::new();
        for one in series {
            by_prompt.entry(one.label(&labels.prompt).to_owned()).or_default().push(one);
        }
        Self { by_prompt, newest }
    }

    /// The counters of one prompt.
    pub fn of(&self, labels: &Labels, prompt: &PromptName) -> Counters<'_> {
        let own = self.by_prompt.get(&*prompt.name()).map_or(&[][..], Vec::as_slice);
        Counters::of(labels, own, self.newest)
    }
}

/// The counters of one prompt.
pub struct Counters<'a> {
    instances: BTreeMap<&'a str, Instance<'a>>,
    /// The failure ratio of each version before the moment.
    references: BTreeMap<&'a str, &'a Series>,
    newest: Timestamp,
}

impl<'a> Counters<'a> {
    fn of(labels: &Labels, own: &'a [Series], newest: Timestamp) -> Self {
        let mut found: BTreeMap<&str, BTreeMap<&str, [Option<&Series>; 3]>> = BTreeMap::new();
        let mut references = BTreeMap::new();
        for one in own {
            let (version, instance) = (one.label(&labels.version), one.label("instance"));
            let place = match one.label("__name__") {
                REFERENCE => {
                    references.insert(version, one);
                    continue;
                }
                FAILURES => 1,
                SCRAPED => 2,
                _ => 0,
            };
            found.entry(instance).or_default().entry(version).or_default()[place] = Some(one);
        }
        let instance = |versions: BTreeMap<&'a str, [Option<&'a Series>; 3]>| {
            let changes = changes(&versions);
            let last = versions.values().flatten().flatten().filter_map(|one| one.points.last());
            let recorded = last.map(|(at, _)| *at).max().unwrap_or_default();
            let samples = |(version, parts): (&'a str, [Option<&Series>; 3])| (version, samples(parts, &changes));
            Instance { scrapes: versions.into_iter().map(samples).collect(), recorded }
        };
        let instances = found.into_iter().map(|(name, versions)| (name, instance(versions))).collect();
        Self { instances, references, newest }
    }

    /// What was served since `since`, when traffic moved from `bad` to `target`. `None`: requests of neither are
    /// counted.
    pub fn since(&self, since: Timestamp, bad: &VersionName, target: &VersionName) -> Option<Traffic> {
        let known = |one: &&Instance<'_>| [bad, target].iter().any(|v| one.scrapes.contains_key(v.as_str()));
        self.instances.values().find(known)?;
        let mut traffic = Traffic::default();
        let (mut still, mut unknown) = (Vec::new(), Vec::new());
        let (mut latest_bad, mut latest_target) = (0.0, 0.0);
        for (name, Instance { scrapes, recorded }) in &self.instances {
            let [of_bad, of_target] = [bad, target].map(|version| intervals(scrapes, version.as_str()));
            let later = |interval: &&Interval| interval.from >= since;
            let served = |intervals: &[Interval]| intervals.iter().filter(later).map(|i| i.requests).sum::<f64>();
            let (bad_requests, target_requests) = (served(&of_bad), served(&of_target));
            traffic.bad = traffic.bad.saturating_add(whole(bad_requests));
            traffic.target = traffic.target.saturating_add(whole(target_requests));
            for interval in of_target.iter().filter(later) {
                traffic.failures = traffic.failures.saturating_add(whole(interval.failures.unwrap_or(0.0)));
                traffic.uncounted |= interval.requests > 0.0 && interval.failures.is_none();
            }
            let grown = of_bad.iter().filter(later).filter(|interval| interval.requests > 0.0);
            traffic.bad_last_seen = traffic.bad_last_seen.max(grown.map(|interval| interval.to).max());
            if self.newest.since(*recorded) > VANISHED {
                continue;
            }
            let latest = |intervals: &[Interval]| intervals.last().filter(later).map_or(0.0, |i| i.requests);
            latest_bad += latest(&of_bad);
            latest_target += latest(&of_target);
            match follows(&of_bad, target_requests > 0.0, since) {
                None | Some(Follows::Yes)
                    if target_requests <= 0.0 && serves_another(scrapes, [bad, target], since, self.newest) =>
                {
                    unknown.push(shown(name));
                }
                None => {}
                Some(Follows::Yes) => traffic.following += 1,
                Some(Follows::No) => still.push(shown(name)),
                Some(Follows::Unknown) => unknown.push(shown(name)),
            }
        }
        let latest = latest_bad + latest_target;
        traffic.bad_percent = if latest > 0.0 { whole((100.0 * latest_bad / latest).ceil()).min(100) } else { 0 };
        traffic.still = Instances::of(still);
        traffic.unknown = Instances::of(unknown);
        Some(traffic)
    }

    /// Requests and failures of `version` since `since`.
    pub fn served(&self, since: Timestamp, version: &VersionName) -> (u64, u64) {
        let all = self.instances.values().flat_map(|one| intervals(&one.scrapes, version.as_str()));
        let counted =
            all.filter(|interval| interval.from >= since).fold((0.0, 0.0), |(requests, failures), interval| {
                (requests + interval.requests, failures + interval.failures.unwrap_or(0.0))
            });
        (whole(counted.0), whole(counted.1))
    }

    /// The failure ratio above which `version` is unhealthy: more than `least`, and worse than before `since`.
    pub fn limit(&self, least: f64, since: Timestamp, version: &VersionName) -> f64 {
        let before =
            |series: &&&Series| series.points.iter().rev().find(|(at, _)| *at <= since).map(|(_, value)| *value);
        let reference = self.references.get(version.as_str()).as_ref().and_then(before);
        let reference = reference.filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or(0.0);
        (WORSE * reference).max(least)
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
        return Finding::new(
            Verdict::Unknown,
            format!("failures are not counted: {FAILURES} has no series for this prompt"),
        );
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
    let (requests, failures) = counters.served(since, version);
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

enum Follows {
    Yes,
    No,
    Unknown,
}

/// Whether an instance follows the key. `None`: it serves neither version.
fn follows(bad: &[Interval], serves_target: bool, since: Timestamp) -> Option<Follows> {
    let grown = |interval: &&Interval| interval.requests > 0.0;
    let Some(last) = bad.iter().rfind(grown) else { return serves_target.then_some(Follows::Yes) };
    let quiet = bad.iter().filter(|interval| interval.from >= last.to);
    let (samples, silence) =
        (quiet.clone().count(), quiet.clone().next_back().map_or(Duration::ZERO, |q| q.to.since(last.to)));
    let expected = |from: Timestamp| {
        let until_then = bad.iter().filter(|interval| interval.from >= from && interval.to <= last.to);
        let requests: f64 = until_then.clone().map(|interval| interval.requests).sum();
        let time = until_then.clone().next().map_or(Duration::ZERO, |first| last.to.since(first.from));
        if time.is_zero() { 0.0 } else { requests / time.as_secs_f64() * silence.as_secs_f64() }
    };
    let is_quiet = |from: Timestamp| samples >= 2 && expected(from) >= EXPECTED;
    let settled = since.plus(UNDER_WAY);
    if last.from >= settled {
        return Some(if is_quiet(settled) { Follows::Yes } else { Follows::No });
    }
    let switching = last.from >= since && samples == 0;
    let yes = !switching && (serves_target || is_quiet(Timestamp(i64::MIN)));
    Some(if yes { Follows::Yes } else { Follows::Unknown })
}

/// Whether an instance serves a third version. For the first moments after `since`, also requests that were under way count.
fn serves_another(scrapes: &Scrapes<'_>, than: [&VersionName; 2], since: Timestamp, newest: Timestamp) -> bool {
    let settled = since.plus(UNDER_WAY);
    let from = if newest < settled { since } else { settled };
    let others = scrapes.keys().filter(|version| than.iter().all(|known| known.as_str() != **version));
    others.flat_map(|version| intervals(scrapes, version)).any(|i| i.from >= from && i.requests > 0.0)
}

/// The moments when any counter of an instance changed: each implies a scrape.
fn changes(versions: &BTreeMap<&str, [Option<&Series>; 3]>) -> BTreeSet<Timestamp> {
    let all = versions.values().flat_map(|parts| parts[..2].iter().flatten());
    let changed = |pair: &[(Timestamp, f64)]| (pair[0].1.to_bits() != pair[1].1.to_bits()).then_some(pair[1].0);
    let first = |series: &&Series| series.points.first().map(|(at, _)| *at);
    all.clone().flat_map(|series| series.points.windows(2).filter_map(changed)).chain(all.filter_map(first)).collect()
}

/// The scrapes of one version's counters. If nothing else shows when scrapes happened, a change implies one.
fn samples([requests, failures, scraped]: [Option<&Series>; 3], changes: &BTreeSet<Timestamp>) -> Vec<Sample> {
    let at_each = |series: Option<&Series>| -> BTreeMap<Timestamp, f64> {
        series.into_iter().flat_map(|series| series.points.iter().copied()).collect()
    };
    let (failures, scraped) =
        (failures.map(|series| at_each(Some(series))), scraped.map(|series| at_each(Some(series))));
    let mut samples: Vec<Sample> = Vec::new();
    for (recorded, value) in at_each(requests).into_iter().filter(|(_, value)| value.is_finite()) {
        let at = match &scraped {
            #[allow(clippy::cast_possible_truncation, reason = "saturates")]
            Some(scraped) => scraped.get(&recorded).map(|seconds| Timestamp((seconds * 1e3).round() as i64)),
            None => changes.contains(&recorded).then_some(recorded),
        };
        let Some(at) = at else { continue };
        let failures = failures.as_ref().and_then(|failures| failures.get(&recorded)).copied();
        let sample = Sample { at, requests: value, failures: failures.filter(|count| count.is_finite()) };
        if samples.last().is_none_or(|last| last.at < at) {
            samples.push(sample);
        }
    }
    samples
}

/// What was counted for `version` from scrape to scrape. A counter that falls was reset and counts from 0. One that
/// starts on an instance that was scraped before started at 0; one that starts with its instance may be older than
/// that.
fn intervals(scrapes: &Scrapes<'_>, version: &str) -> Vec<Interval> {
    let samples = scrapes.get(version).map_or(&[][..], Vec::as_slice);
    let all = || scrapes.values().flatten().map(|sample| sample.at);
    let born = samples.first().and_then(|first| {
        let from = all().filter(|at| *at < first.at).max()?;
        Some(Interval { from, to: first.at, requests: first.requests, failures: first.failures })
    });
    let between = samples.windows(2).map(|pair| {
        let reset = pair[1].requests < pair[0].requests;
        let failed = pair[0].failures.filter(|_| !reset).unwrap_or(0.0);
        Interval {
            from: pair[0].at,
            to: pair[1].at,
            requests: grown(pair[0].requests, pair[1].requests),
            failures: pair[1].failures.map(|after| grown(failed, after)),
        }
    });
    born.into_iter().chain(between).collect()
}

/// The growth of a counter between two samples. One that falls was reset and counts from 0.
pub(super) fn grown(before: f64, after: f64) -> f64 {
    if after >= before { after - before } else { after }
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
