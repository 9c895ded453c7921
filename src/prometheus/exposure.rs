//! Which instances served what since a moment (a switch, a stage), from their counters. Pure.
//!
//! Only scrapes count: Prometheus records a counter at each evaluation, also without a new scrape. An interval counts
//! only if both its scrapes are after the moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::bound::bounds;
use super::client::Series;
use super::counters::Sums;
use super::question::FAILS_ABOVE;
use super::server::{Replica, ScrapeTargets, Server, VANISHED};
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::verification::{Instances, Traffic};
use crate::decision::{PromptName, Timestamp, VersionName};

/// How long before the moment the counters are read, to know what each instance served until then.
const BEFORE: Duration = Duration::from_secs(300);
/// How old the failure ratio of a version may be at the moment. It is recorded every five minutes, and an evaluation may be missed.
const REFERENCE_AGE: Duration = Duration::from_secs(900);
/// How long every evaluation is requested.
const FINELY: Duration = Duration::from_secs(900);
/// The number of points afterwards.
const POINTS: u64 = 180;
/// After this time, requests to the bad version can no longer have been in flight when the key changed.
const UNDER_WAY: Duration = Duration::from_secs(45);
/// After this time, prompt servers have read the key again: they do so at least once a second.
const READ: Duration = Duration::from_secs(2);
/// A silence is a proof if it would be chance only this rarely.
const CHANCE: f64 = 0.001;
/// If this many requests were expected and none came, that is as rare.
const EXPECTED: f64 = 7.0;
/// So many of the last requests to the bad version show its share of the traffic when the traffic moved.
const RECENT: f64 = 20.0;
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

/// The query: the counters of these prompts since `oldest`, and for a while before.
pub fn question(prompts: &str, oldest: Timestamp, now: Timestamp) -> String {
    let seconds = (now.since(oldest) + BEFORE).as_secs();
    // for a longer time, every evaluation would be too large an answer; the counters hold the same information
    let step = if seconds > FINELY.as_secs() { format!(":{}s", seconds / POINTS) } else { String::new() };
    let names = [REQUESTS, FAILURES, SUMMED, SCRAPED].join("|");
    format!("{{__name__=~\"{names}\",{prompts}}}[{seconds}s{step}]")
}

/// The query for the failure ratios of these prompts' versions before `oldest`, and since.
pub fn references(prompts: &str, oldest: Timestamp, now: Timestamp) -> String {
    format!("{REFERENCE}{{{prompts}}}[{}s]", (now.since(oldest) + REFERENCE_AGE).as_secs())
}

/// The counters of one version on one instance at one scrape.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    sums: Sums,
}

/// The samples of one instance, by version, oldest first.
type Scrapes<'a> = BTreeMap<&'a str, Vec<Sample>>;

struct Instance<'a> {
    scrapes: Scrapes<'a>,
    /// When it was scraped, for any version, oldest first.
    times: Vec<Timestamp>,
    /// When Prometheus last had a value for it.
    recorded: Timestamp,
}

/// What was counted between two scrapes.
#[derive(Debug, Clone, Copy)]
struct Interval {
    from: Timestamp,
    to: Timestamp,
    requests: f64,
    failures: Option<f64>,
    /// False: it shows that the version was served, but not how often.
    counted: bool,
}

impl Interval {
    /// Of a counter that may be older: of its requests, one was served at least.
    fn of_older(first: &Sample) -> Self {
        Self { from: first.at, to: first.at, requests: first.sums.all.min(1.0), failures: None, counted: false }
    }
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

/// The recorded series of one instance, by version: requests, failures, times of scrapes, number of series that are summed up.
type SeriesByVersion<'a> = BTreeMap<&'a str, [Option<&'a Series>; 4]>;

fn newest_of(versions: &SeriesByVersion<'_>) -> Timestamp {
    let last = versions.values().flatten().flatten().filter_map(|one| one.points.last());
    last.map(|(at, _)| *at).max().unwrap_or_default()
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
            let vanished = self.newest.since(instance.recorded) > VANISHED;
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

enum Follows {
    Yes,
    No,
    Unknown,
}

/// Whether none of many requests went to the bad version by chance: `count` did while `seen` passed (requests, or
/// seconds), and none in the `silent` that followed. If nothing had changed, all of them would be in the first part only
/// this rarely, also in the last one of `silences`: the sum of 1 / n² is less than two.
fn is_proof(count: f64, seen: f64, silent: f64, silences: usize) -> bool {
    #[allow(clippy::cast_precision_loss, reason = "a few scrapes")]
    let chance = CHANCE / (silences.max(1) as f64).powi(2);
    count > 0.0 && silent > 0.0 && count * (seen / (seen + silent)).ln() <= chance.ln()
}

/// How requests were divided between the bad version and the target before the traffic moved, for example by a canary.
struct SharesBefore {
    /// Since when they are counted: the moment of the first of the last [`RECENT`] to the bad version.
    from: Timestamp,
    /// Requests to the bad version, and to both.
    bad: f64,
    all: f64,
    /// Whether the target served at all.
    serves_target: bool,
}

impl SharesBefore {
    fn before(since: Timestamp, all: &[[Vec<Interval>; 2]]) -> Self {
        let earlier = |place: usize| all.iter().flat_map(move |each| &each[place]).filter(move |i| i.to <= since);
        let mut counted: Vec<_> = earlier(0).map(|i| (i.to, i.requests, i.requests)).collect();
        counted.extend(earlier(1).map(|i| (i.to, 0.0, i.requests)));
        counted.sort_by_key(|(to, ..)| std::cmp::Reverse(*to));
        let serves_target = earlier(1).any(|i| i.requests > 0.0);
        let mut split = Self { from: since, bad: 0.0, all: 0.0, serves_target };
        for (to, bad, requests) in counted {
            if split.bad >= RECENT && to < split.from {
                break;
            }
            (split.from, split.bad, split.all) = (to, split.bad + bad, split.all + requests);
        }
        split
    }

    /// Requests to the bad version and to both, as far as the instance that served these is concerned: those of all
    /// instances, unless it had clearly a smaller share of the bad version than the others, as with users that stay on
    /// their instance.
    fn of(&self, bad: &[Interval], target: &[Interval], since: Timestamp) -> (f64, f64) {
        let own = |intervals: &[Interval]| -> f64 {
            intervals.iter().filter(|i| i.to >= self.from && i.to <= since).map(|i| i.requests).sum()
        };
        let own_bad = own(bad);
        let own_all = own_bad + own(target);
        let expected = if self.all > 0.0 { own_all * self.bad / self.all } else { 0.0 };
        let surprise = if own_bad > 0.0 { own_bad * (own_bad / expected).ln() } else { 0.0 };
        let clearly_less = own_bad < expected && expected - own_bad + surprise > -CHANCE.ln();
        if clearly_less { (own_bad, own_all) } else { (self.bad, self.all) }
    }
}

impl<'a> Instance<'a> {
    fn of(versions: SeriesByVersion<'a>) -> Self {
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
    fn intervals(&self, version: &str) -> Vec<Interval> {
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

    /// The bad version, if the instance appeared after `since` and had already counted requests to it.
    fn appeared_with(&self, bad: &VersionName, since: Timestamp) -> Option<Interval> {
        let first = self.scrapes.get(bad.as_str())?.first()?;
        let appeared = self.times.first().is_some_and(|at| *at == first.at && *at >= since) && first.sums.all > 0.0;
        appeared.then_some(Interval { from: since, to: first.at, ..Interval::of_older(first) })
    }

    /// Whether the instance follows the key. `None`: it serves neither version.
    fn follows(
        &self,
        bad: &VersionName,
        of_bad: &[Interval],
        of_target: &[Interval],
        before: &SharesBefore,
        since: Timestamp,
    ) -> Option<Follows> {
        let of_bad: Vec<_> = self.appeared_with(bad, since).into_iter().chain(of_bad.iter().copied()).collect();
        let last = of_bad.iter().rfind(|interval| interval.requests > 0.0);
        // of an instance that served before, a silence begins when the traffic moved
        let moved = last.map_or(since, |last| last.to.max(since));
        let quiet = || of_bad.iter().filter(|interval| interval.from >= moved);
        let (samples, silence) =
            (quiet().count(), quiet().map(|interval| interval.to.since(interval.from)).sum::<Duration>());
        let served = |from: Timestamp| -> f64 {
            of_target.iter().filter(|interval| interval.from >= from).map(|interval| interval.requests).sum()
        };
        let serves_target = served(since) > 0.0;
        if last.is_none() && !serves_target {
            return None;
        }
        let settled = since.plus(UNDER_WAY);
        // each time that it is seen to serve the bad version again, another silence begins that may be chance
        let silences = of_bad.iter().filter(|interval| interval.from >= settled && interval.requests > 0.0).count();
        let (silence, until_then) = (silence.as_secs_f64(), || of_bad.iter().filter(|interval| interval.to <= moved));
        let is_silent = || {
            let time = until_then().next().map_or(Duration::ZERO, |first| moved.since(first.from));
            is_proof(until_then().map(|interval| interval.requests).sum(), time.as_secs_f64(), silence, silences)
        };
        let late = last.filter(|last| last.from >= settled);
        // at the rate since requests could no longer be under way or, before that is over, since the key was read
        let again = if late.is_some() { settled } else { since.plus(READ) };
        let is_silent_again = |last: &Interval| {
            let lately = || until_then().filter(|interval| interval.from >= again);
            let requests: f64 = lately().map(|interval| interval.requests).sum();
            let time = lately().next().map_or(Duration::ZERO, |first| last.to.since(first.from)).as_secs_f64();
            time > 0.0 && requests / time * silence >= EXPECTED
        };
        let earlier = |intervals: &[Interval]| -> f64 {
            intervals.iter().filter(|interval| interval.to <= since).map(|interval| interval.requests).sum()
        };
        // with few requests of its own, as of a new instance, what the others served tells more
        let served_target_before = earlier(of_target) > 0.0 || (before.serves_target && earlier(&of_bad) < RECENT);
        // where both were served before, serving the target proves nothing: only the silence of the bad version does
        let share =
            served_target_before.then(|| before.of(&of_bad, of_target, since)).filter(|(count, _)| *count > 0.0);
        let is_quiet = match share {
            Some((count, seen)) if served(moved) > 0.0 => is_proof(count, seen, served(moved), silences),
            Some(_) => is_silent(),
            None => (late.is_none() && serves_target) || is_silent(),
        };
        let is_quiet = is_quiet && last.filter(|last| last.from >= again).is_none_or(is_silent_again);
        let enough = samples >= 2 || (share.is_none() && serves_target && late.is_none());
        let switching = last.is_some_and(|last| last.from >= since) && samples == 0;
        Some(match (is_quiet && enough && !switching, late) {
            (true, _) => Follows::Yes,
            (false, Some(_)) => Follows::No,
            (false, None) => Follows::Unknown,
        })
    }
}

/// Whether an instance serves a third version. For the first moments after `since`, also requests that were under way count.
fn serves_another(instance: &Instance<'_>, than: [&VersionName; 2], since: Timestamp, newest: Timestamp) -> bool {
    let settled = since.plus(UNDER_WAY);
    let from = if newest < settled { since } else { settled };
    let others = instance.scrapes.keys().filter(|version| than.iter().all(|known| known.as_str() != **version));
    others.flat_map(|version| instance.intervals(version)).any(|i| i.from >= from && i.requests > 0.0)
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

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; never negative")]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

fn shown(instance: &str) -> String {
    instance.chars().filter(|c| !crate::visible::is_hidden(*c)).take(100).collect()
}

#[cfg(test)]
mod tests;
