//! Is the new version better, or is it chance? The two-proportion z-test with pooled variance, two-sided.

use statrs::distribution::{ContinuousCDF, Normal};

/// Below this probability a difference counts as no chance.
pub const SIGNIFICANT: f64 = 0.05;
/// The normal approximation wants so many successes and failures expected in each group.
const ENOUGH: f64 = 5.0;
/// Losses that the rows for new versions tolerate, too.
const QUALITY_LOSS: f64 = 0.05;
const P99_GROWTH: f64 = 0.10;

/// What was measured of one version while both had traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Group {
    pub requests: f64,
    pub failed: f64,
    /// 0 to 1.
    pub quality: Option<f64>,
    /// Seconds.
    pub p99: Option<f64>,
}

impl Group {
    fn rate(&self) -> f64 {
        (self.requests - self.failed) / self.requests
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// Above 0: the new version succeeds more often.
    pub z: f64,
    pub p: f64,
}

/// `None`: too few requests, or all of them ended alike.
pub fn z_test(new: &Group, old: &Group) -> Option<Test> {
    let usable = |group: &Group| {
        let Group { requests, failed, .. } = group;
        requests.is_finite() && failed.is_finite() && *requests > 0.0 && (0.0..=*requests).contains(failed)
    };
    if !usable(new) || !usable(old) {
        return None;
    }
    let all = new.requests + old.requests;
    let pooled = 1.0 - (new.failed + old.failed) / all;
    let expected = new.requests.min(old.requests) * pooled.min(1.0 - pooled);
    if expected < ENOUGH {
        return None;
    }
    let error = (pooled * (1.0 - pooled) * (1.0 / new.requests + 1.0 / old.requests)).sqrt();
    let z = (new.rate() - old.rate()) / error;
    let p = 2.0 * Normal::standard().sf(z.abs());
    Some(Test { z, p })
}

/// Whether the new version may have all traffic, and the figures.
pub fn verdict(new: &Group, old: &Group) -> (bool, String) {
    let test = z_test(new, old);
    let mut text = format!("{}, replacing {}", spoken(new), spoken(old));
    let mut problems = Vec::new();
    match test {
        Some(Test { z, p }) => {
            text.push_str(&format!("; z = {z:.2}, p = {p:.4}"));
            if p >= SIGNIFICANT {
                problems.push(format!("the difference may be chance (p < {SIGNIFICANT} wanted)"));
            } else if z < 0.0 {
                problems.push("it fails more often".to_owned());
            }
        }
        None => problems.push("too few requests or failures to tell".to_owned()),
    }
    if let (Some(quality), Some(before)) = (new.quality, old.quality) {
        text.push_str(&format!("; quality {quality:.3} for {before:.3}"));
        if quality < before * (1.0 - QUALITY_LOSS) {
            problems.push("its quality is worse".to_owned());
        }
    }
    if let (Some(p99), Some(before)) = (new.p99, old.p99) {
        text.push_str(&format!("; p99 {p99:.3} s for {before:.3} s"));
        if p99 > before * (1.0 + P99_GROWTH) {
            problems.push("its p99 is worse".to_owned());
        }
    }
    if !problems.is_empty() {
        text = format!("{}: {text}", problems.join(", "));
    }
    (problems.is_empty(), text)
}

fn spoken(group: &Group) -> String {
    let rate = if group.requests > 0.0 { format!("{:.2} %", group.rate() * 100.0) } else { "none".to_owned() };
    format!("success {rate} of {:.0} requests", group.requests.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(successes: f64, requests: f64) -> Group {
        Group { requests, failed: requests - successes, ..Group::default() }
    }

    /// Worked examples of textbooks and course notes, to the digits that these give.
    #[test]
    fn published_values() {
        for (new, old, z, p) in [
            // Penn State STAT 415, 9.4: 351 of 605 non-smokers against 41 of 195 smokers in favour of a tax
            (group(351.0, 605.0), group(41.0, 195.0), 8.99, 0.0000),
            // OpenStax, Introductory Statistics 2e, 10.3: 20 of 200 against 12 of 200 adults with hives
            (group(20.0, 200.0), group(12.0, 200.0), 1.47, 0.1404),
        ] {
            let found = z_test(&new, &old).expect("enough");
            assert!((found.z - z).abs() < 0.006, "{found:?}, {z}");
            assert!((found.p - p).abs() < 0.0006, "{found:?}, {p}");
            let turned = z_test(&old, &new).expect("enough");
            assert!((turned.z + found.z).abs() < 1e-9 && (turned.p - found.p).abs() < 1e-9);
        }
    }

    #[test]
    fn tails_agree_with_tables() {
        // quantiles of the standard normal distribution
        for (z, p) in [(1.959_964, 0.05), (2.575_829, 0.01), (3.290_527, 0.001)] {
            assert!((2.0 * Normal::standard().sf(z) - p).abs() < 1e-6);
        }
    }

    #[test]
    fn what_can_not_be_told_is_not_told() {
        for (new, old) in [
            (group(0.0, 0.0), group(10.0, 10.0)),
            (group(100.0, 100.0), group(100.0, 100.0)),
            (group(10.0, 10.0), group(8.0, 10.0)),
            (group(f64::NAN, 10.0), group(8.0, 10.0)),
            (group(f64::INFINITY, f64::INFINITY), group(8.0, 10.0)),
            (Group { requests: 10.0, failed: 20.0, ..Group::default() }, group(8.0, 10.0)),
        ] {
            assert_eq!(z_test(&new, &old), None, "{new:?} {old:?}");
            assert!(!verdict(&new, &old).0);
        }
    }

    #[test]
    fn better_and_no_worse_elsewhere() {
        let (new, old) = (group(9_900.0, 10_000.0), group(9_700.0, 10_000.0));
        assert!(verdict(&new, &old).0);
        assert!(!verdict(&old, &new).0, "worse");
        assert!(!verdict(&group(9_701.0, 10_000.0), &old).0, "chance");
        let with = |group: Group, quality, p99| Group { quality: Some(quality), p99: Some(p99), ..group };
        assert!(verdict(&with(new, 0.90, 1.0), &with(old, 0.91, 1.0)).0);
        assert!(!verdict(&with(new, 0.80, 1.0), &with(old, 0.91, 1.0)).0);
        assert!(!verdict(&with(new, 0.90, 1.2), &with(old, 0.91, 1.0)).0);
        let (_, text) = verdict(&with(new, 0.80, 1.2), &with(old, 0.91, 1.0));
        for part in ["quality is worse", "p99 is worse", "99.00 %", "97.00 %", "10000", "z = ", "p = 0.0000"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
