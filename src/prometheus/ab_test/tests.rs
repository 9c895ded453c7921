use super::super::durations::tests::usual;
use super::*;

const MARGIN: f64 = 0.01;

fn counts(all: f64, failed: f64) -> Counts {
    Counts { all, failed }
}

fn slice(new: (f64, f64), old: (f64, f64)) -> Slice {
    Slice { new: counts(new.0, new.1), old: counts(old.0, old.1) }
}

fn same(slice: Slice, times: usize) -> ComparisonSamples {
    ComparisonSamples { errors: vec![slice; times], ..ComparisonSamples::default() }
}

fn compared(measured: &ComparisonSamples) -> Comparison {
    Comparison::of(measured, MARGIN)
}

/// The probability of each number of failures.
fn binomial(all: u32, ratio: f64) -> Vec<f64> {
    let mut chances = vec![1.0];
    for _ in 0..all {
        let mut next = vec![0.0; chances.len() + 1];
        for (failed, chance) in chances.iter().enumerate() {
            next[failed] += chance * (1.0 - ratio);
            next[failed + 1] += chance * ratio;
        }
        chances = next;
    }
    chances
}

/// The expected value of a wager of 1 after one slice.
fn expected(claim: Hypothesis, (new, new_ratio): (u32, f64), (old, old_ratio): (u32, f64)) -> f64 {
    let mut before = EProcess::new(claim);
    before.past = counts(200.0, 4.0);
    let (new_chances, old_chances) = (binomial(new, new_ratio), binomial(old, old_ratio));
    let mut mean = 0.0;
    for (new_failed, new_chance) in new_chances.iter().enumerate() {
        for (old_failed, old_chance) in old_chances.iter().enumerate() {
            let mut after = before.clone();
            after.add(&slice((f64::from(new), new_failed as f64), (f64::from(old), old_failed as f64)));
            mean += new_chance * old_chance * after.e();
        }
    }
    mean
}

#[test]
fn a_wager_against_what_is_true_wins_nothing_on_average() {
    for (new, old) in [(1, 30), (20, 20), (40, 7)] {
        for ratio in [0.0, 0.001, 0.02, 0.3, 0.9, 1.0] {
            for (claim, false_new) in [
                (Hypothesis::Lower, vec![ratio, ratio + 0.01, ratio * 3.0]),
                (Hypothesis::Higher, vec![ratio, ratio - 0.01, ratio / 3.0]),
                (Hypothesis::NotHigherBy(MARGIN), vec![ratio + MARGIN, ratio + 0.05]),
                (Hypothesis::NotHigherBy(0.3), vec![ratio + 0.3, ratio + 0.5]),
            ] {
                for new_ratio in false_new.into_iter().filter(|ratio| (0.0..=1.0).contains(ratio)) {
                    let mean = expected(claim, (new, new_ratio), (old, ratio));
                    assert!(mean <= 1.0 + 1e-6, "{claim:?} {new} at {new_ratio}, {old} at {ratio}: {mean}");
                }
            }
        }
    }
}

#[test]
fn a_wager_on_what_is_true_wins() {
    assert!(expected(Hypothesis::Lower, (40, 0.0), (40, 0.2)) > 1.0);
    assert!(expected(Hypothesis::Higher, (40, 0.2), (40, 0.02)) > 2.0);
    assert!(expected(Hypothesis::NotHigherBy(MARGIN), (40, 0.0), (40, 0.0)) > 1.0);
}

#[test]
fn two_versions_that_fail_alike_at_every_moment_do_not_pass() {
    // a week of the old version, of which only the last hour is bad: in that hour the new version fails as often
    let mut bad_hour = same(slice((1_000.0, 50.0), (1_000.0, 50.0)), 60);
    let week = vec![slice((0.0, 0.0), (10_000.0, 1.0)); 600];
    bad_hour.errors.splice(0..0, week);
    let comparison = compared(&bad_hour);
    assert!(comparison.better < 1.0 && comparison.harmful < 1.0, "{comparison:?}");
    assert_eq!(comparison.difference, Some(0.0));
    assert_eq!((comparison.new.all, comparison.old.all), (60_000.0, 60_000.0), "the figures are of shared time, too");
    // the reverse: the new version came after the bad week
    let mut good_hour = same(slice((1_000.0, 1.0), (1_000.0, 1.0)), 60);
    good_hour.errors.splice(0..0, vec![slice((0.0, 0.0), (10_000.0, 500.0)); 600]);
    let (passed, text) = compared(&good_hour).is_better();
    assert!(!passed && text.contains("chance"), "{text}");
    // shares change while the ratios change
    let mut stages = same(slice((10.0, 1.0), (990.0, 99.0)), 60);
    stages.errors.extend(vec![slice((500.0, 5.0), (500.0, 5.0)); 60]);
    let comparison = compared(&stages);
    assert!(comparison.new.ratio() < comparison.old.ratio() / 3.0, "the sums mislead");
    assert!(!comparison.is_better().0 && comparison.better < 1.0);
}

#[test]
fn better_worse_and_no_worse_are_told_apart() {
    let better = compared(&same(slice((100.0, 1.0), (100.0, 3.0)), 100));
    assert!(better.is_better().0 && better.is_no_worse().0 && better.harm().is_none(), "{better:?}");
    let worse = compared(&same(slice((100.0, 3.0), (100.0, 1.0)), 100));
    assert!(!worse.is_better().0 && !worse.is_no_worse().0, "{worse:?}");
    assert!(worse.harm().is_some_and(|text| text.contains("2.00 points more failures")), "{worse:?}");
    let alike = compared(&same(slice((100.0, 1.0), (100.0, 1.0)), 100));
    assert!(!alike.is_better().0 && alike.is_no_worse().0 && alike.harm().is_none(), "{alike:?}");
}

#[test]
fn a_version_whose_figures_exceed_the_margin_does_not_pass() {
    // one slice of a hundred thousand good requests outweighs in evidence, not in the figures, a steady loss of 5 %
    let mut measured = same(slice((10.0, 0.5), (10.0, 0.0)), 3_000);
    measured.errors.splice(1..1, vec![slice((2_000.0, 0.0), (10.0, 0.0)); 1_000]);
    let comparison = compared(&measured);
    assert!(comparison.difference.is_some_and(|difference| difference > MARGIN), "{comparison:?}");
    assert!(comparison.no_worse >= 1.0 / FALSE_PASS, "{comparison:?}");
    let (passed, text) = comparison.is_no_worse();
    assert!(!passed && text.starts_with("it fails more often by more than 1 points"), "{text}");
}

#[test]
fn unusable_or_few_counts_lead_to_no_verdict() {
    for slice in [
        slice((0.0, 0.0), (10.0, 0.0)),
        slice((10.0, 0.0), (0.0, 0.0)),
        slice((f64::NAN, 10.0), (10.0, 2.0)),
        slice((f64::INFINITY, 1.0), (10.0, 2.0)),
        slice((10.0, 20.0), (10.0, 2.0)),
        slice((10.0, -1.0), (10.0, 2.0)),
    ] {
        let comparison = compared(&same(slice, 1_000));
        assert!(!comparison.is_better().0 && !comparison.is_no_worse().0, "{comparison:?}");
        assert!(comparison.harm().is_none() && comparison.difference.is_none(), "{comparison:?}");
    }
    let few = compared(&same(slice((1.0, 0.0), (19.0, 0.0)), 20));
    assert!(!few.is_better().0 && !few.is_no_worse().0, "{few:?}");
}

#[test]
fn evidence_neither_overflows_nor_vanishes() {
    for (new, old) in [((1e9, 0.0), (1e9, 1e9)), ((1e9, 1e9), (1e9, 0.0)), ((1e9, 1e9), (1e9, 1e9))] {
        let comparison = compared(&same(slice(new, old), 1_000));
        for e in [comparison.better, comparison.harmful, comparison.no_worse] {
            assert!(e.is_finite() && e >= 0.0, "{comparison:?}");
        }
    }
}

#[test]
fn worse_or_unknown_quality_or_p99_keeps_the_ab_gate_closed() {
    let errors = vec![slice((100.0, 1.0), (100.0, 3.0)); 100];
    let scored = |new: f64, old: f64| vec![slice((20.0, 20.0 * (1.0 - new)), (20.0, 20.0 * (1.0 - old))); 100];
    let p99 = |new: f64, old: f64| Some(usual(new, old, 100));
    let verdict =
        |quality, durations| compared(&ComparisonSamples { errors: errors.clone(), quality, durations }).is_better();
    assert!(verdict(scored(0.90, 0.91), p99(1.0, 1.0)).0);
    assert!(verdict(scored(0.90, 0.91), None).0, "neither version has a histogram");
    for (quality, durations, problem) in [
        (scored(0.80, 0.91), p99(1.0, 1.0), "its quality is worse"),
        (scored(0.90, 0.91)[..2].to_vec(), p99(1.0, 1.0), "its quality may be worse"),
        (vec![slice((0.0, 0.0), (20.0, 2.0))], p99(1.0, 1.0), "its quality is not measured"),
        (scored(0.90, 0.91), p99(1.2, 1.0), "its p99 is worse"),
        (scored(0.90, 0.91), Some(usual(1.0, 1.0, 2)), "its p99 may be worse"),
        (
            scored(0.90, 0.91),
            Some(Vec::new()),
            "its p99 is not known yet: durations are compared in windows of five minutes",
        ),
    ] {
        let (passed, text) = verdict(quality, durations);
        assert!(!passed && text.contains(problem), "{problem}: {text}");
    }
    let off_scale = "its quality is not on a scale from 0 to 1";
    for quality in [scored(4.0, 8.0), scored(8.0, 4.0), scored(0.9, 8.0), scored(8.0, 0.9)] {
        let comparison = compared(&ComparisonSamples { errors: errors.clone(), quality, durations: None });
        let (passed, text) = comparison.is_better();
        assert!(!passed && text.starts_with(off_scale), "{text}");
        assert_eq!(comparison.harm(), None, "{text}");
    }
    // two scrapes between a count and its sum
    let mut uneven = scored(0.90, 0.91);
    uneven.extend([slice((1.0, -0.8), (1.0, -0.9)), slice((1.0, 1.0), (1.0, 1.0))]);
    assert!(verdict(uneven, None).0);
    let (_, text) = verdict(scored(0.80, 0.91), p99(1.2, 1.0));
    for part in [
        "99.00 %",
        "97.00 %",
        "10000",
        "2.00 points fewer",
        "p = 0.0000",
        "quality 0.800 for 0.910",
        "p99 1.806 s for 1.000 s",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
