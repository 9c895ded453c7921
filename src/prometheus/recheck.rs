//! Whether the requests since a version got its traffic exceed the threshold of the firing rule. Pure.
//!
//! The windows of a rule reach back before the activation. Those of the recording rules no longer do once the
//! activation is older: first the window of a minute, then, for prompts with little traffic, that of five minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{PrometheusError, Series};
use super::question::{EVIDENCE, Metric};
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::{Incident, PromptName, VersionName};

/// The number of failures below which a ratio causes no action, as in `PromptErrorRateCritical`.
const FAILURES: f64 = 5.0;

/// 99.9 %, as in `alert-rules/alerts.yml`.
const CERTAIN: f64 = 6.2146;
/// 99.99 %, which the critical row wants of fewer than [`EVIDENCE`] requests.
const CERTAIN_OF_FEW: f64 = 8.5172;

/// The exponent of Chernoff's bound: if the share `ratio` of requests failed, this many failures or more would have a
/// probability of at most exp(-divergence).
fn divergence(failures: f64, requests: f64, ratio: f64) -> f64 {
    let served = (requests - failures).max(1e-9);
    failures * (failures / (ratio * requests)).ln() + served * (served / ((1.0 - ratio) * requests)).ln()
}

/// The threshold of what fires, if its rule is about errors and says it.
pub fn threshold(incident: &Incident) -> Option<f64> {
    let metric = Metric::of(&incident.strongest()?.measure);
    metric.threshold.filter(|_| metric.is_errors())
}

/// Whole requests and failures since the activation, `age` ago, as the row counts them; `None`: too early to separate them from earlier ones.
pub fn question(labels: &Labels, prompt: &PromptName, version: &VersionName, age: Duration) -> Option<String> {
    let window = match age.as_secs() {
        0..60 => return None,
        60..300 => "count1m",
        _ => "count5m",
    };
    let Labels { prompt: p, version: v, .. } = labels;
    let prompt = super::quoting::in_string(prompt);
    Some(format!(
        "{{__name__=~\"prompt_version:(requests|request_errors):{window}\",{p}=\"{prompt}\",{v}=\"{version}\"}}"
    ))
}

/// The answer to [`question`]. Chance must be ruled out, as in the row itself: see [`divergence`].
pub fn read(answer: &Result<Vec<Series>, PrometheusError>, threshold: f64) -> Finding {
    let series = match answer {
        Ok(series) => series,
        Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
    };
    let mut clusters: BTreeMap<_, [f64; 2]> = BTreeMap::new();
    for one in series {
        let rule = one.label("__name__");
        let place = usize::from(rule.starts_with("prompt_version:request_errors:"));
        let others: BTreeMap<_, _> = one.labels.iter().filter(|(name, _)| *name != "__name__").collect();
        clusters.entry(others).or_default()[place] = Some(one.value()).filter(|value| value.is_finite()).unwrap_or(0.0);
    }
    let found = clusters.into_values().map(|[requests, failures]| judge(requests, failures, threshold));
    // of several clusters, the one where the version fails
    let place = |finding: &Finding| match finding.verdict {
        Verdict::Unhealthy => 2,
        Verdict::Healthy => 1,
        Verdict::NoData | Verdict::Unknown => 0,
    };
    found.max_by_key(place).unwrap_or_else(|| judge(0.0, 0.0, threshold))
}

fn judge(requests: f64, failures: f64, threshold: f64) -> Finding {
    let few = requests < f64::from(EVIDENCE);
    let certain = if few { CERTAIN_OF_FEW } else { CERTAIN };
    let bad =
        failures > threshold * requests && failures >= FAILURES && divergence(failures, requests, threshold) > certain;
    if few && !bad {
        return Finding::new(Verdict::NoData, format!("no data yet: {requests:.0} requests"));
    }
    let verdict = if bad { Verdict::Unhealthy } else { Verdict::Healthy };
    Finding::new(verdict, format!("error ratio {:.2} % of {requests:.0} requests", 100.0 * failures / requests))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::decision::Timestamp;

    fn answer(window: &str, requests: f64, failures: f64) -> Result<Vec<Series>, PrometheusError> {
        let series = |rule: &str, value: f64| Series {
            labels: [("__name__".to_owned(), format!("prompt_version:{rule}:{window}"))].into(),
            points: vec![(Timestamp(0), value)],
        };
        Ok(vec![series("request_errors", failures), series("requests", requests)])
    }

    #[test]
    fn the_windows_lie_within_the_time_since_the_activation() {
        let labels = Config::default().labels;
        let (prompt, version) = (PromptName::parse("p").expect("a name"), VersionName::parse("v2").expect("a version"));
        let asked = |seconds| question(&labels, &prompt, &version, Duration::from_secs(seconds));
        assert_eq!(asked(59), None);
        assert!(asked(60).is_some_and(|query| query.contains("count1m\"") && query.contains("\"v2\"")));
        assert!(asked(300).is_some_and(|query| query.contains("count5m\"")));
    }

    #[test]
    fn a_version_is_bad_beyond_doubt() {
        for (window, requests, failures, verdict) in [
            ("count1m", 19.0, 19.0, Verdict::Unhealthy), // fewer than 20, beyond more doubt
            ("count1m", 5.0, 5.0, Verdict::Unhealthy),
            ("count1m", 4.0, 4.0, Verdict::NoData),
            ("count1m", 19.0, 5.0, Verdict::NoData),
            ("count1m", 100.0, 20.0, Verdict::Unhealthy),
            ("count1m", 100.0, 9.0, Verdict::Healthy), // 9 % by chance, of a true 5 %
            ("count5m", 100.0, 9.0, Verdict::Healthy),
            ("count5m", 100.0, 14.0, Verdict::Healthy), // the row needs 15
            ("count5m", 100.0, 15.0, Verdict::Unhealthy),
            ("count5m", 20.0, 20.0, Verdict::Unhealthy),
            ("count5m", 100.0, 5.0, Verdict::Healthy),
            ("count5m", 40.0, 4.0, Verdict::Healthy),
        ] {
            assert_eq!(
                read(&answer(window, requests, failures), 0.05).verdict,
                verdict,
                "{window} {failures}/{requests}"
            );
        }
        assert_eq!(read(&Ok(Vec::new()), 0.05).verdict, Verdict::NoData);
    }

    /// The same bound as in `alert-rules/alerts.yml`, against the binomial distribution itself.
    #[test]
    fn the_bound_promises_no_more_than_the_exact_probability_holds() {
        const MOST: u32 = 2_000;
        let log_factorials: Vec<f64> = (0..=MOST)
            .scan(0.0, |sum, n| {
                *sum += f64::from(n.max(1)).ln();
                Some(*sum)
            })
            .collect();
        let log_factorial = |n: u32| log_factorials[n as usize];
        for (ratio, fewest, certain, probability) in [
            (0.05, 20, CERTAIN, 0.001),
            (0.02, 20, CERTAIN, 0.001),
            (0.01, 100, CERTAIN, 0.001),
            (0.005, 20, CERTAIN, 0.001),
            // critical with fewer than 20 requests
            (0.05, 5, CERTAIN_OF_FEW, 0.0001),
        ] {
            for requests in fewest..=MOST {
                let beyond = |failures: &u32| {
                    let (failures, requests) = (f64::from(*failures), f64::from(requests));
                    failures > ratio * requests && divergence(failures, requests, ratio) > certain
                };
                let Some(enough) = (3..=requests).find(beyond) else { continue };
                let exactly = |failures: u32| {
                    let ways = log_factorial(requests) - log_factorial(failures) - log_factorial(requests - failures);
                    let chance =
                        f64::from(failures) * f64::ln(ratio) + f64::from(requests - failures) * f64::ln(1.0 - ratio);
                    (ways + chance).exp()
                };
                let exact: f64 = (enough..=requests).map(exactly).take_while(|term| *term > 1e-12).sum();
                assert!(exact < probability / 2.0, "{enough} of {requests} at {ratio}: {exact}");
            }
        }
    }

    #[test]
    fn a_cluster_where_it_fails_is_not_hidden_by_another() {
        let of = |cluster: &str, requests, failures| {
            let mut all = answer("count1m", requests, failures).expect("an answer");
            all.iter_mut().for_each(|one| drop(one.labels.insert("cluster".to_owned(), cluster.to_owned())));
            all
        };
        let (good, bad) = (of("eu", 1_000.0, 0.0), of("us", 100.0, 60.0));
        for all in [[good.clone(), bad.clone()].concat(), [bad.clone(), good.clone()].concat()] {
            assert_eq!(read(&Ok(all), 0.05).verdict, Verdict::Unhealthy);
        }
        // requests of one and failures of the other are no ratio
        let mut crossed = [of("eu", 100.0, 0.0), of("us", 100_000.0, 60.0)].concat();
        crossed.reverse();
        assert_eq!(read(&Ok(crossed), 0.05).verdict, Verdict::Healthy);
    }
}
