//! Whether an instance follows the key, from what it counted.

use std::time::Duration;

use super::samples::{Instance, Interval};
use crate::decision::{Timestamp, VersionName};

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

pub(super) enum Follows {
    Yes,
    No,
    Unknown,
}

/// Whether none of many requests went to the bad version by chance: `count` did while `seen` passed (requests, or
/// seconds), and none in the `silent` that followed. If nothing had changed, all of them would be in the first part only
/// this rarely, also in the last one of `silences`: the sum of 1 / n² is less than two.
pub(super) fn is_proof(count: f64, seen: f64, silent: f64, silences: usize) -> bool {
    #[allow(clippy::cast_precision_loss, reason = "a few scrapes")]
    let chance = CHANCE / (silences.max(1) as f64).powi(2);
    count > 0.0 && silent > 0.0 && count * (seen / (seen + silent)).ln() <= chance.ln()
}

/// How requests were divided between the bad version and the target before the traffic moved, for example by a canary.
pub(super) struct SharesBefore {
    /// Since when they are counted: the moment of the first of the last [`RECENT`] to the bad version.
    from: Timestamp,
    /// Requests to the bad version, and to both.
    bad: f64,
    all: f64,
    /// Whether the target served at all.
    serves_target: bool,
}

impl SharesBefore {
    pub(super) fn before(since: Timestamp, all: &[[Vec<Interval>; 2]]) -> Self {
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

impl Instance<'_> {
    /// The bad version, if the instance appeared after `since` and had already counted requests to it.
    fn appeared_with(&self, bad: &VersionName, since: Timestamp) -> Option<Interval> {
        let first = self.scrapes.get(bad.as_str())?.first()?;
        let appeared = self.times.first().is_some_and(|at| *at == first.at && *at >= since) && first.sums.all > 0.0;
        appeared.then_some(Interval { from: since, to: first.at, ..Interval::of_older(first) })
    }

    /// Whether the instance follows the key. `None`: it serves neither version.
    pub(super) fn follows(
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
pub(super) fn serves_another(
    instance: &Instance<'_>,
    than: [&VersionName; 2],
    since: Timestamp,
    newest: Timestamp,
) -> bool {
    let settled = since.plus(UNDER_WAY);
    let from = if newest < settled { since } else { settled };
    let others = instance.scrapes.keys().filter(|version| than.iter().all(|known| known.as_str() != **version));
    others.flat_map(|version| instance.intervals(version)).any(|i| i.from >= from && i.requests > 0.0)
}
