//! What a counter grew by between two samples, if they can be compared. Pure.

/// Sums over the series of one version on one instance, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// Requests, or scores.
    pub all: f64,
    /// The failed requests among them, or the sum of the scores. `None`: not recorded.
    pub part: Option<f64>,
    /// How many series of successes are summed up. `None`: not recorded.
    pub series: Option<f64>,
}

impl Sums {
    /// By how much both grew. `None`: it is not known. A sum that falls was reset, or lost one of its series, and a sum of
    /// more series than before grew by what these had counted all their life. Neither was served in between.
    ///
    /// The number of failing series may change: each begins with the first failure of its kind, which must count.
    pub fn growth_to(&self, later: &Self) -> Option<(f64, Option<f64>)> {
        let same_series = self.series.zip(later.series).is_none_or(|(before, after)| before.total_cmp(&after).is_eq());
        let grown = |before: f64, after: f64| (after >= before).then_some(after - before);
        let all = grown(self.all, later.all).filter(|_| same_series)?;
        match (self.part, later.part) {
            (Some(before), Some(after)) => Some((all, Some(grown(before, after)?))),
            (None, None) => Some((all, None)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sums_of_the_same_series_are_compared() {
        let sums = |all, part, series| Sums { all, part, series };
        let known = sums(100.0, Some(5.0), Some(2.0));
        for (later, grown) in [
            (sums(110.0, Some(6.0), Some(2.0)), Some((10.0, Some(1.0)))),
            (sums(110.0, Some(6.0), None), Some((10.0, Some(1.0)))),
            (known, Some((0.0, Some(0.0)))),
            (sums(110.0, Some(6.0), Some(1.0)), None),
            (sums(99_000.0, Some(6.0), Some(3.0)), None),
            (sums(99.0, Some(6.0), Some(2.0)), None),
            (sums(110.0, Some(4.0), Some(2.0)), None),
            (sums(110.0, None, Some(2.0)), None),
        ] {
            assert_eq!(known.growth_to(&later), grown, "{later:?}");
        }
        let uncounted = sums(7.0, None, None);
        assert_eq!(uncounted.growth_to(&sums(9.0, None, None)), Some((2.0, None)));
        assert_eq!(uncounted.growth_to(&known), None);
    }
}
