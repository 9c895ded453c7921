//! Compares the durations of two versions by their histograms of the same windows of time.
//!
//! The new version's p99 is at most 10 % higher if at most 1 % of its requests are slower than 1.1 times the old p99. A histogram
//! counts only at the bounds of its buckets, so three conditions take the place of that claim:
//!
//! - at the first bound above 1.1 times the old p99, at most 1 % of the new version's requests are slower, or hardly more than of the
//!   old version's;
//! - at the last bound below the old p99, the share of slower requests is less than a percentage point higher than the old version's.
//!   Without this, a version that is twice as slow passes wherever both p99 lie in one wide bucket;
//! - the p99 of all windows, interpolated within its bucket, is at most 10 % higher.
//!
//! The first two are tested by [`EProcess`], so that they remain valid however often they are evaluated. The third is an estimate.

use super::ab_test::{Counts, EProcess, FALSE_PASS, Hypothesis, Slice};

/// The share of requests that are slower than the p99.
const TAIL: f64 = 0.01;
/// The smallest margin of the first condition. Without it, equal versions would never pass if almost 1 % of the old version's
/// requests are slower than the bound.
const LEAST_MARGIN: f64 = TAIL / 4.0;
/// The largest tolerated growth of the p99, as in the rule for new versions.
const GROWTH: f64 = 0.10;
/// The least number of observations of the old version from which one p99 value is computed.
const OLD_ENOUGH: f64 = 1_000.0;
/// The number of observations of the new version below which its p99 means nothing.
const NEW_ENOUGH: f64 = 100.0;
/// If more than this share of the old version's requests is slower than the bound below its p99, the bucket is too wide to tell
/// anything about the p99.
const MOST_SLOWER: f64 = 0.5;

/// Up to this bound, in seconds, buckets need not be fine: no user notices which of two durations below it a request took.
const UNNOTICED: f64 = 0.1;

/// How many observations are at most as long as each bound, in seconds. Bounds and counts rise, and the last bound is infinite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// `None` if it is empty or not a histogram.
    pub fn new(mut buckets: Vec<(f64, f64)>) -> Option<Self> {
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        // one bound in two spellings: Prometheus 3 writes 1.0 for 1
        buckets.dedup_by(|(bound, more), (kept, count)| {
            let is_same = bound == kept;
            *count += if is_same { *more } else { 0.0 };
            is_same
        });
        let is_valid = |(bound, count): &(f64, f64)| !bound.is_nan() && count.is_finite() && *count >= 0.0;
        let is_whole = buckets.last().is_some_and(|(bound, all)| *bound == f64::INFINITY && *all > 0.0);
        if !is_whole || !buckets.iter().all(is_valid) {
            return None;
        }
        // as histogram_quantile does, where servers of one version have different bounds
        let mut most = 0.0_f64;
        for (_, count) in &mut buckets {
            most = most.max(*count);
            *count = most;
        }
        Some(Self(buckets))
    }

    fn all(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, all)| *all)
    }

    /// The same observations by fewer bounds. `None` if it lacks one of them.
    fn by(&self, bounds: &[f64]) -> Option<Self> {
        let up_to = |bound: &f64| self.0.iter().find(|(own, _)| own == bound).copied();
        bounds.iter().map(up_to).collect::<Option<Vec<_>>>().map(Self)
    }

    fn add(&mut self, more: &Self, weight: f64) {
        if self.0.is_empty() {
            self.0 = more.0.iter().map(|(bound, _)| (*bound, 0.0)).collect();
        }
        for ((_, count), (_, more)) in self.0.iter_mut().zip(&more.0) {
            *count += weight * more;
        }
    }

    fn slower_than(&self, bucket: usize) -> Counts {
        Counts { all: self.all(), failed: self.all() - self.0[bucket].1 }
    }

    /// As Prometheus' `histogram_quantile`, but infinite if it lies beyond the last bound.
    fn p99(&self) -> f64 {
        let rank = (1.0 - TAIL) * self.all();
        let bucket = self.0.iter().position(|(_, count)| *count >= rank).unwrap_or(0);
        let (bound, count) = self.0[bucket];
        let (below, count_below) = bucket.checked_sub(1).map_or((0.0, 0.0), |below| self.0[below]);
        if bound.is_finite() { below + (bound - below) * (rank - count_below) / (count - count_below) } else { bound }
    }
}

/// The histograms of both versions in the same window; `None` if it is empty or not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DurationSlice {
    pub new: Option<Histogram>,
    pub old: Option<Histogram>,
}

/// What windows tell about the p99 of the new version.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationComparison {
    /// That of the new and of the old version, in seconds, if both are known.
    pub p99: Option<(f64, f64)>,
    /// Why it is not proved that the new version's p99 is at most 10 % higher.
    pub problem: Option<String>,
}

impl DurationComparison {
    pub fn of(slices: &[DurationSlice]) -> Self {
        if slices.is_empty() {
            let problem = "its p99 is not known yet: durations are compared in windows of five minutes".to_owned();
            return Self { p99: None, problem: Some(problem) };
        }
        let windows = Windows::of(slices);
        let (new, old) = windows.sums();
        let problem = windows.lack(&new).or_else(|| {
            let (below, above) = match windows.bounds_at_p99() {
                Ok(bounds) => bounds,
                Err(problem) => return Some(problem),
            };
            if new.p99() > old.p99() * (1.0 + GROWTH) {
                return Some("its p99 is worse".to_owned());
            }
            let is_proved = windows.p(below, |_| TAIL) <= FALSE_PASS
                && windows.p(above, |past| (TAIL - past.ratio()).max(LEAST_MARGIN)) <= FALSE_PASS;
            (!is_proved).then(|| "its p99 may be worse".to_owned())
        });
        let p99 = windows.lack(&new).is_none().then(|| (new.p99(), old.p99()));
        Self { p99: p99.filter(|(new, old)| new.is_finite() && old.is_finite()), problem }
    }
}

/// The windows in which the old version had observations, by the bounds that both versions have in the latest one.
struct Windows {
    bounds: Vec<f64>,
    windows: Vec<(Option<Histogram>, Histogram)>,
}

impl Windows {
    fn of(slices: &[DurationSlice]) -> Self {
        let both = slices.iter().rev().find_map(|slice| slice.new.as_ref().zip(slice.old.as_ref()));
        let bounds: Vec<f64> = both.map_or_else(Vec::new, |(new, old)| {
            let is_common = |bound: &f64| old.0.iter().any(|(other, _)| other == bound);
            new.0.iter().map(|(bound, _)| *bound).filter(is_common).collect()
        });
        let by = |one: &Option<Histogram>| one.as_ref().and_then(|one| one.by(&bounds)).filter(|one| one.all() > 0.0);
        let windows = slices.iter().filter_map(|slice| Some((by(&slice.new), by(&slice.old)?))).collect();
        Self { bounds, windows }
    }

    /// All observations of windows in which both versions had some. Those of the old version have the weight of the new version's.
    fn sums(&self) -> (Histogram, Histogram) {
        let (mut new_sum, mut old_sum) = (Histogram::default(), Histogram::default());
        for (new, old) in self.windows.iter().filter_map(|(new, old)| Some((new.as_ref()?, old))) {
            new_sum.add(new, 1.0);
            old_sum.add(old, new.all() / old.all());
        }
        (new_sum, old_sum)
    }

    fn lack(&self, new: &Histogram) -> Option<String> {
        let (new, old) = (new.all(), self.windows.iter().map(|(_, old)| old.all()).sum::<f64>());
        match (new < NEW_ENOUGH, old < OLD_ENOUGH) {
            (true, _) => Some(format!("its p99 is not known: {new:.0} of {NEW_ENOUGH:.0} observations")),
            (_, true) => {
                Some(format!("the p99 to compare with is not known: {old:.0} of {OLD_ENOUGH:.0} observations"))
            }
            _ => None,
        }
    }

    /// The last bound below the old version's p99, and the first one above 1.1 times of it.
    fn bounds_at_p99(&self) -> Result<(usize, usize), String> {
        let p99 = self.old_p99();
        let below = self.bounds.iter().rposition(|bound| *bound < p99);
        let above = self.bounds.iter().position(|bound| *bound >= p99 * (1.0 + GROWTH) && bound.is_finite());
        let tells = |below: usize| {
            let mut old = Counts::default();
            self.windows.iter().for_each(|(_, window)| old.add(window.slower_than(below)));
            old.ratio() <= MOST_SLOWER
        };
        let found = above.filter(|above| self.bounds[*above] <= UNNOTICED || below.is_some_and(tells));
        found.map(|above| (below.unwrap_or(0), above)).ok_or_else(|| {
            "its p99 cannot be compared: both versions need a bucket that ends shortly below the old version's p99, and one that ends \
             above 1.1 times of it"
                .to_owned()
        })
    }

    /// The median p99 of at least [`OLD_ENOUGH`] observations each: a few slow minutes of both versions do not change it.
    fn old_p99(&self) -> f64 {
        let (mut p99s, mut block) = (Vec::new(), Histogram::default());
        for (_, old) in &self.windows {
            block.add(old, 1.0);
            if block.all() >= OLD_ENOUGH {
                p99s.push(std::mem::take(&mut block).p99());
            }
        }
        p99s.sort_by(f64::total_cmp);
        p99s.get(p99s.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// The p-value of the claim that the new version's share of slower requests is not higher by this margin, given the old version's
    /// observations in past windows.
    fn p(&self, bucket: usize, margin: impl Fn(Counts) -> f64) -> f64 {
        let mut process = EProcess::new(Hypothesis::NotHigherBy(TAIL));
        let mut past = Counts::default();
        for (new, old) in &self.windows {
            let old = old.slower_than(bucket);
            if let Some(new) = new.as_ref().filter(|_| past.all >= OLD_ENOUGH) {
                let slice = Slice { new: new.slower_than(bucket), old };
                process.wager(Hypothesis::NotHigherBy(margin(past)), past, &slice);
            }
            past.add(old);
        }
        process.p()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const USUAL: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    fn fine() -> Vec<f64> {
        (0..45).map(|i| 0.0625 * 2_f64.powf(f64::from(i) / 4.0)).collect()
    }

    /// Exponentially distributed durations with this p99.
    fn histogram(all: f64, p99: f64, bounds: &[f64]) -> Option<Histogram> {
        let up_to = |bound: f64| all * (1.0 - TAIL.powf(bound / p99));
        Histogram::new(bounds.iter().map(|bound| (*bound, up_to(*bound))).chain([(f64::INFINITY, all)]).collect())
    }

    pub fn slices(new_p99: f64, old_p99: f64, bounds: &[f64], many: usize) -> Vec<DurationSlice> {
        let slice = DurationSlice { new: histogram(750.0, new_p99, bounds), old: histogram(2_250.0, old_p99, bounds) };
        vec![slice; many]
    }

    pub fn usual(new_p99: f64, old_p99: f64, many: usize) -> Vec<DurationSlice> {
        slices(new_p99, old_p99, &USUAL, many)
    }

    fn problem(slices: &[DurationSlice]) -> String {
        DurationComparison::of(slices).problem.unwrap_or_default()
    }

    #[test]
    fn a_version_that_is_as_fast_passes_and_a_slower_one_does_not() {
        for bounds in [USUAL.to_vec(), fine()] {
            for old in [0.3, 1.01, 1.4, 2.2, 4.0] {
                for (times, passes) in
                    [(0.7, true), (1.0, true), (1.2, false), (1.5, false), (2.0, false), (3.0, false)]
                {
                    let problem = problem(&slices(old * times, old, &bounds, 100));
                    assert_eq!(problem.is_empty(), passes, "{old} s, {times} times as slow: {problem}");
                    assert!(passes || problem.contains("worse"), "{problem}");
                }
            }
        }
    }

    #[test]
    fn a_p99_that_moves_within_a_wide_bucket_is_found_by_the_bound_below() {
        // both p99 are interpolated to more than 2 s, and no more requests are slower than 2.5 s
        let of = |up_to_1: f64| Histogram::new(vec![(1.0, up_to_1), (2.5, 997.0), (f64::INFINITY, 1_000.0)]);
        let windows = |up_to_1| vec![DurationSlice { new: of(up_to_1), old: of(970.0) }; 100];
        assert_eq!(problem(&windows(970.0)), "");
        let comparison = DurationComparison::of(&windows(950.0));
        let (new, old) = comparison.p99.expect("known");
        assert!(new < 1.1 * old, "{new} {old}");
        assert_eq!(comparison.problem.as_deref(), Some("its p99 may be worse"));
    }

    #[test]
    fn what_cannot_be_compared_is_not_compared() {
        let lacks = |new: bool| {
            let mut slices = usual(1.0, 1.0, 100);
            slices.iter_mut().for_each(|slice| *(if new { &mut slice.new } else { &mut slice.old }) = None);
            problem(&slices)
        };
        assert_eq!([lacks(true), lacks(false)], ["its p99 is not known: 0 of 100 observations"; 2]);
        let few = DurationSlice { new: histogram(50.0, 1.0, &USUAL), old: histogram(300.0, 1.0, &USUAL) };
        assert_eq!(problem(&vec![few.clone(); 1]), "its p99 is not known: 50 of 100 observations");
        assert_eq!(problem(&vec![few; 2]), "the p99 to compare with is not known: 600 of 1000 observations");
        assert_eq!(problem(&usual(1.0, 1.0, 2)), "its p99 may be worse");
        let bounds = "its p99 cannot be compared: both versions need a bucket that ends shortly below";
        for beyond in [9.5, 12.0] {
            assert!(problem(&usual(beyond, beyond, 100)).starts_with(bounds), "{beyond}");
        }
        for (far, p99) in [(vec![5.0, 10.0], 1.5), (vec![0.0, 5.0, 10.0], 2.0), (vec![0.001, 5.0], 1.0)] {
            assert!(problem(&slices(2.0 * p99, p99, &far, 100)).starts_with(bounds), "{far:?}");
        }
        assert_eq!(problem(&usual(12.0, 5.0, 100)), "its p99 is worse");
        // all in one bucket, or in the first one
        let short = |bounds: [f64; 3]| {
            let all = |all: f64| {
                Histogram::new(vec![(bounds[0], 0.0), (bounds[1], all), (bounds[2], all), (f64::INFINITY, all)])
            };
            problem(&vec![DurationSlice { new: all(750.0), old: all(2_250.0) }; 5])
        };
        assert_eq!([short([0.025, 0.05, 0.1]), short([0.0, 0.01, 0.025])], ["", ""]);
        assert!(short([0.1, 0.25, 0.5]).starts_with(bounds));
        let others = DurationSlice { new: histogram(750.0, 1.0, &[0.3, 3.0]), old: histogram(2_250.0, 1.0, &USUAL) };
        assert!(problem(&vec![others; 100]).starts_with(bounds));
    }

    #[test]
    fn slow_minutes_of_both_versions_hide_no_slow_version() {
        // of the new version 2 points more take longer than 1 s; in two windows, a fifth of the requests of both takes longer than 30 s
        let of = |all: f64, up_to_1: f64, usual: f64| {
            let shares = [(1.0, up_to_1 * usual), (2.5, 0.997 * usual), (30.0, usual), (60.0, 1.0), (99.0, 1.0)];
            let shares = shares.into_iter().chain([(f64::INFINITY, 1.0)]);
            Histogram::new(shares.map(|(bound, share)| (bound, share * all)).collect())
        };
        let window = |new: f64, usual: f64| DurationSlice { new: of(new, 0.95, usual), old: of(2_250.0, 0.97, usual) };
        let mut slices = vec![window(30.0, 0.8); 2];
        slices.extend(vec![window(750.0, 1.0); 100]);
        for until in 1..slices.len() {
            assert_ne!(problem(&slices[..until]), "", "after {until} windows");
        }
    }

    #[test]
    fn equal_versions_pass_with_almost_one_percent_of_timeouts() {
        let timed_out = |all: f64| {
            let shares = [(0.5, 0.9), (1.0, 0.989), (2.5, 0.9905), (f64::INFINITY, 1.0)];
            Histogram::new(shares.map(|(bound, share)| (bound, share * all)).to_vec())
        };
        let slice = DurationSlice { new: timed_out(750.0), old: timed_out(2_250.0) };
        assert_eq!(
            problem(&vec![slice.clone(); 10]),
            "its p99 may be worse",
            "so few show it for the bound below only"
        );
        assert_eq!(problem(&vec![slice; 72]), "");
    }

    #[test]
    fn only_bounds_of_both_versions_in_the_latest_window_count() {
        let new = histogram(750.0, 1.0, &[0.3, 0.5, 1.0, 2.0, 2.5, 5.0]);
        let slice = DurationSlice { new, old: histogram(2_250.0, 1.0, &USUAL) };
        assert_eq!(problem(&vec![slice; 100]), "");
        let mut changed = usual(2.0, 1.0, 100);
        changed.extend(slices(1.0, 1.0, &[0.4, 1.2, 2.5], 2));
        assert_eq!(problem(&changed), "its p99 may be worse", "the windows before lack these bounds");
    }
}
