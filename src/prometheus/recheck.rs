//! Whether the requests since a version got its traffic are bad by the row that fires. Pure.
//!
//! The windows of a row reach back before the activation. Those of the recording rules do not any more once they are as
//! old: the one of a minute first, the one of five minutes for prompts with little traffic.

use std::time::Duration;

use super::client::{PrometheusError, Series};
use super::question::{EVIDENCE, Metric};
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::{Incident, PromptName, VersionName};

/// Failures without which a ratio does not act, as in `PromptErrorRateCritical`.
const FAILURES: f64 = 5.0;

/// The threshold of what fires, if that is a row about errors which ships.
pub fn threshold(incident: &Incident) -> Option<f64> {
    let metric = Metric::of(&incident.strongest()?.alertname);
    metric.threshold.filter(|_| metric.is_errors())
}

/// Requests and failures since the activation, `age` ago; `None`: too early to tell them from those before.
pub fn question(labels: &Labels, prompt: &PromptName, version: &VersionName, age: Duration) -> Option<String> {
    let window = match age.as_secs() {
        0..60 => return None,
        60..300 => "increase1m",
        _ => "increase5m",
    };
    let Labels { prompt: p, version: v, .. } = labels;
    Some(format!(
        "{{__name__=~\"prompt_version:(requests|request_errors):{window}\",{p}=\"{prompt}\",{v}=\"{version}\"}}"
    ))
}

/// The answer to [`question`]. Within the window of a minute chance must be ruled out: three standard deviations, as in the
/// row itself.
pub fn read(answer: &Result<Vec<Series>, PrometheusError>, threshold: f64) -> Finding {
    let series = match answer {
        Ok(series) => series,
        Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
    };
    let count = |rule: &str| {
        let of_rule = |one: &&Series| one.label("__name__").starts_with(rule);
        series.iter().find(of_rule).map(Series::value).filter(|value| value.is_finite()).unwrap_or(0.0)
    };
    let (requests, failures) = (count("prompt_version:requests:"), count("prompt_version:request_errors:"));
    if requests < f64::from(EVIDENCE) {
        return Finding::new(Verdict::NoData, format!("no data yet: {requests:.0} requests"));
    }
    let certain = threshold * requests + 3.0 * (threshold * (1.0 - threshold) * requests).sqrt();
    let short = series.iter().any(|one| one.label("__name__").ends_with("1m"));
    let bad = failures > threshold * requests && failures >= FAILURES && (!short || failures > certain);
    let verdict = if bad { Verdict::Unhealthy } else { Verdict::Healthy };
    Finding::new(verdict, format!("error ratio {:.2} % of {requests:.0} requests", 100.0 * failures / requests))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let labels =
            Labels { prompt: "prompt".to_owned(), version: "version".to_owned(), severity_aliases: Default::default() };
        let (prompt, version) = (PromptName::parse("p").expect("a name"), VersionName::parse("v2").expect("a version"));
        let asked = |seconds| question(&labels, &prompt, &version, Duration::from_secs(seconds));
        assert_eq!(asked(59), None);
        assert!(asked(60).is_some_and(|query| query.contains("increase1m\"") && query.contains("\"v2\"")));
        assert!(asked(300).is_some_and(|query| query.contains("increase5m\"")));
    }

    #[test]
    fn a_version_is_bad_beyond_doubt_or_over_the_threshold_for_five_minutes() {
        for (window, requests, failures, verdict) in [
            ("increase1m", 19.0, 19.0, Verdict::NoData),
            ("increase1m", 100.0, 20.0, Verdict::Unhealthy),
            ("increase1m", 100.0, 9.0, Verdict::Healthy), // 9 % by chance, of a true 5 %
            ("increase5m", 100.0, 9.0, Verdict::Unhealthy),
            ("increase5m", 100.0, 5.0, Verdict::Healthy),
            ("increase5m", 40.0, 4.0, Verdict::Healthy),
        ] {
            assert_eq!(
                read(&answer(window, requests, failures), 0.05).verdict,
                verdict,
                "{window} {failures}/{requests}"
            );
        }
        assert_eq!(read(&Ok(Vec::new()), 0.05).verdict, Verdict::NoData);
    }
}
