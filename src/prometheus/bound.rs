//! Confidence bounds of a failure ratio, valid however often they are computed. Pure.

use statrs::function::beta::ln_beta;

/// The probability that the bounds miss the true ratio at any look, over all looks together.
const MISSES: f64 = 0.001;
/// The mixture's prior, Beta(a, b): half a failure in fifty requests. It makes the bounds tightest near 1 %, where limits are.
const PRIOR: (f64, f64) = (0.5, 50.0);

/// Bounds of the true failure ratio, in [0, 1]: a confidence sequence, so that they hold at every look at once.
///
/// The likelihood of each ratio is compared with its mean over a Beta prior. That quotient is a martingale which starts
/// at 1, so by Ville's inequality it ever exceeds `1 / MISSES` with a probability of at most `MISSES`: Robbins, "Statistical
/// Methods Related to the Law of the Iterated Logarithm", Annals of Mathematical Statistics 41 (1970); for intervals,
/// Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
/// Statistics 49 (2021), 3.
pub fn bounds(failures: u64, requests: u64) -> (f64, f64) {
    let failures = failures.min(requests);
    if requests == 0 {
        return (0.0, 1.0);
    }
    #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
    let (failed, served) = (failures as f64, (requests - failures) as f64);
    let (a, b) = PRIOR;
    let mean = ln_beta(a + failed, b + served) - ln_beta(a, b);
    let log = |count: f64, ratio: f64| if count > 0.0 { count * ratio.ln() } else { 0.0 };
    let excluded = |ratio: f64| mean - log(failed, ratio) - log(served, 1.0 - ratio) > -MISSES.ln();
    let best = failed / (failed + served);
    // on each side of the best ratio, the quotient only grows
    let edge = |end: f64| {
        if !excluded(end) {
            return end;
        }
        let (mut inside, mut outside) = (best, end);
        for _ in 0..60 {
            let middle = f64::midpoint(inside, outside);
            if excluded(middle) { outside = middle } else { inside = middle }
        }
        outside
    };
    (edge(0.0), edge(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_requests_the_bounds_are_0_and_1() {
        assert_eq!(bounds(0, 0), (0.0, 1.0));
    }

    #[test]
    fn the_bounds_hold_the_measured_ratio_and_close_in_on_it() {
        let mut widths = Vec::new();
        for requests in [20, 200, 2_000, 20_000, 2_000_000] {
            let failures = requests / 50;
            let (lower, upper) = bounds(failures, requests);
            let measured = failures as f64 / requests as f64;
            assert!((0.0..=1.0).contains(&lower) && lower <= measured && measured <= upper && upper <= 1.0);
            widths.push(upper - lower);
        }
        assert!(widths.is_sorted_by(|a, b| a > b), "{widths:?}");
    }

    #[test]
    fn successes_never_raise_a_bound_and_failures_never_lower_it() {
        for (failures, requests) in [(0, 10), (1, 20), (5, 100), (50, 1_000), (7, 7)] {
            let (lower, upper) = bounds(failures, requests);
            let (better_lower, better_upper) = bounds(failures, requests + 1);
            let (worse_lower, worse_upper) = bounds(failures + 1, requests + 1);
            assert!(better_lower <= lower && better_upper <= upper, "{failures} of {requests}");
            assert!(worse_lower >= lower && worse_upper >= upper, "{failures} of {requests}");
        }
    }

    #[test]
    fn the_bounds_reach_0_and_1_and_survive_extreme_counts() {
        assert_eq!(bounds(0, 1_000).0, 0.0);
        assert_eq!(bounds(1_000, 1_000).1, 1.0);
        // more failures than requests: counters from two scrapes
        assert_eq!(bounds(9, 5), bounds(5, 5));
        let (lower, upper) = bounds(u64::MAX / 2, u64::MAX);
        assert!(lower <= 0.5 && upper >= 0.5);
    }

    /// A generator that always produces the same histories.
    struct Dice(u64);

    impl Dice {
        fn falls_below(&mut self, ratio: f64) -> bool {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64 <= ratio
        }
    }

    #[test]
    fn a_true_ratio_leaves_the_bounds_more_rarely_than_promised_at_any_look() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for ratio in [0.01, 0.05] {
            let mut missed = 0;
            for _ in 0..2_000 {
                let (mut failures, mut left) = (0, false);
                for requests in 1..=1_500 {
                    failures += u64::from(dice.falls_below(ratio));
                    if requests % 25 == 0 {
                        let (lower, upper) = bounds(failures, requests);
                        left |= ratio < lower || ratio > upper;
                    }
                }
                missed += u32::from(left);
            }
            // promised: 2 of 2,000; the runs are always the same, and six would be a coincidence of one in 80
            assert!(missed <= 5, "{missed} of 2,000 at {ratio}");
        }
    }
}
