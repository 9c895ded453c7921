//! The questions, and what an answer means. Pure.
//!
//! All but `verify` read the recording rules that ship in `alert-rules/`, whatever the source of the metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::StatusCode;

use super::client::{PrometheusError, Series};
use super::exposure;
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::soak::SoakMeasurement;
use crate::decision::{Incident, PromptName, Timestamp, VersionName};
use crate::postmortem::Unit;

/// A version that fails less than this is healthy, unless a row that fires is stricter.
const HEALTHY_BELOW: f64 = 0.01;
/// A prompt that fails more than this fails.
const FAILS_ABOVE: f64 = 0.05;
/// Requests since the switch without which the default expression proves nothing: its window may be older than the switch.
pub const EVIDENCE: u32 = 20;
/// `$since` for a version that no rollback has put there: whether it is still bad is asked over this long.
const BEFORE_A_ROLLBACK: Duration = Duration::from_secs(300);
/// The `verify` expression of one alert, about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    pub alertname: String,
    pub expression: String,
}

impl Verify {
    /// Each expression of the incident's alerts, for `version`.
    pub fn of(incident: &Incident, version: &VersionName, now: Timestamp) -> Vec<Self> {
        let rolled_back = incident.switch.as_ref().filter(|switch| switch.to == *version);
        let since = rolled_back.map_or(BEFORE_A_ROLLBACK, |switch| now.since(switch.at));
        let mut all: Vec<Self> = Vec::new();
        for alert in incident.alerts.iter().filter(|alert| !alert.verify.trim().is_empty()) {
            let expression = about(&alert.verify, &incident.prompt, version, since);
            if all.iter().all(|verify| verify.expression != expression) {
                all.push(Self { alertname: alert.alertname.clone(), expression });
            }
        }
        all
    }
}

/// The label that tells apart what each expression of [`together`] gives.
const ASKED: &str = "prompt_rollback_asked";

/// One query that evaluates all of `expressions`.
pub fn together(expressions: &[&str]) -> String {
    // an expression may end in a comment
    let tagged = |(number, expression): (usize, &&str)| {
        format!("label_replace(({expression}\n), \"{ASKED}\", \"{number}\", \"\", \"\")")
    };
    expressions.iter().enumerate().map(tagged).collect::<Vec<_>>().join(" or ")
}

/// What each of them gives, by the answer to all.
pub fn apart(series: Vec<Series>, expressions: usize) -> Vec<Vec<Series>> {
    let mut each = vec![Vec::new(); expressions];
    for mut one in series {
        let number = one.labels.remove(ASKED).and_then(|number| number.parse::<usize>().ok());
        if let Some(own) = number.and_then(|number| each.get_mut(number)) {
            own.push(one);
        }
    }
    each
}

/// A selector's matcher for these prompts. Of their alphabet only `.` means something in a regular expression.
fn any_of<'a>(labels: &Labels, prompts: impl IntoIterator<Item = &'a PromptName>) -> String {
    let names: BTreeSet<String> = prompts.into_iter().map(|prompt| prompt.as_str().replace('.', "[.]")).collect();
    format!("{}=~\"{}\"", labels.prompt, names.into_iter().collect::<Vec<_>>().join("|"))
}

/// The error ratio of each version of these prompts, over the last minute where there is enough of it. In [0, 1].
pub fn ratios<'a>(labels: &Labels, prompts: impl IntoIterator<Item = &'a PromptName>) -> String {
    let these = any_of(labels, prompts);
    format!(
        "(prompt_version:request_errors:increase1m{{{these}}} / (prompt_version:requests:increase1m{{{these}}} >= {EVIDENCE})) \
         or prompt_version:request_errors:ratio_rate5m{{{these}}}"
    )
}

/// The counters of these prompts' requests since `oldest`.
pub fn counters<'a>(
    labels: &Labels,
    prompts: impl IntoIterator<Item = &'a PromptName>,
    oldest: Timestamp,
    now: Timestamp,
) -> String {
    exposure::question(&any_of(labels, prompts), oldest, now)
}

/// How many prompts have figures, how many of them fail, and the figures of these.
pub fn all_prompts<'a>(labels: &Labels, prompts: impl IntoIterator<Item = &'a PromptName>) -> [String; 3] {
    let name = &labels.prompt;
    let worst = |these: &str| format!("max by ({name}) (prompt_version:request_errors:ratio_rate5m{{{these}}})");
    let all = worst("");
    [format!("count({all})"), format!("count({all} > {FAILS_ABOVE})"), worst(&any_of(labels, prompts))]
}

/// Most other prompts fail too, by the answers to [`all_prompts`].
pub fn read_others(labels: &Labels, prompt: &PromptName, [all, failing, own]: [&[Series]; 3]) -> Option<String> {
    let own = own.iter().find(|one| one.label(&labels.prompt) == prompt.as_str()).map(Series::value);
    let count = |series: &[Series], own: bool| series.first().map_or(0.0, Series::value) - f64::from(u8::from(own));
    let others = count(all, own.is_some());
    let failing = count(failing, own.is_some_and(|ratio| ratio > FAILS_ABOVE));
    (others >= 2.0 && failing * 2.0 > others)
        .then(|| format!("{failing} of {others} other prompts fail too: this looks like a provider outage"))
}

/// The verdict of the `verify` expression of this alert: 1, 0 or nothing.
pub fn read_verify(alertname: &str, answer: &Result<Vec<Series>, PrometheusError>) -> Finding {
    let whose = format!("the verify expression of {alertname}");
    let series = match answer {
        Ok(series) => series,
        // whoever writes the expression chooses what evaluating it says, such as the labels of other series
        Err(PrometheusError::Refused { status, .. }) if *status != StatusCode::BAD_REQUEST => {
            return Finding::new(Verdict::Unknown, format!("prometheus refuses {whose} ({status})"));
        }
        Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
    };
    match series.as_slice() {
        [] => Finding::new(Verdict::NoData, format!("no data yet for {whose}")),
        [one] => match one.value() {
            1.0 => Finding::new(Verdict::Healthy, format!("healthy by {whose}")),
            0.0 => Finding::new(Verdict::Unhealthy, format!("not healthy by {whose}")),
            // which one is not repeated: it may be any figure that Prometheus has
            _ => Finding::new(Verdict::Unknown, format!("{whose} returns a value other than 1 or 0")),
        },
        many => {
            Finding::new(Verdict::Unknown, format!("{whose} gives {} series: expected one, or nothing", many.len()))
        }
    }
}

/// The verdict of the default expression.
pub fn read_ratio(answer: &Result<Option<f64>, PrometheusError>, limit: f64) -> Finding {
    match answer {
        Ok(Some(ratio)) if ratio.is_finite() => {
            let verdict = if *ratio < limit { Verdict::Healthy } else { Verdict::Unhealthy };
            Finding::new(verdict, spoken_ratio(*ratio))
        }
        Ok(Some(other)) => Finding::new(Verdict::Unknown, format!("the error ratio is {other}")),
        Ok(None) => Finding::new(Verdict::NoData, format!("no data yet: fewer than {EVIDENCE} requests")),
        Err(error) => Finding::new(Verdict::Unknown, error.to_string()),
    }
}

/// Whether the target of a gradual rollback is healthy enough to get more traffic, by the config's own expression: 1 = stop.
pub fn read_abort(answer: &Result<Vec<Series>, PrometheusError>) -> Finding {
    let series = match answer {
        Ok(series) => series,
        Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
    };
    match series.as_slice() {
        [] => Finding::new(Verdict::NoData, "no data yet"),
        many if many.iter().any(|one| one.value() == 1.0) => {
            Finding::new(Verdict::Unhealthy, "gradual.abort_query says stop")
        }
        _ => Finding::new(Verdict::Healthy, "gradual.abort_query says go on"),
    }
}

/// `expression` for one version. Names hold nothing that PromQL strings escape. `$since` is in whole seconds, and at least
/// 1: PromQL refuses a window of 0.
pub fn about(expression: &str, prompt: &PromptName, version: &VersionName, since: Duration) -> String {
    let since = since.as_secs().max(1).to_string();
    expression.replace("$prompt", prompt.as_str()).replace("$version", version.as_str()).replace("$since", &since)
}

fn spoken_ratio(ratio: f64) -> String {
    format!("error ratio {:.2} %", ratio * 100.0)
}

/// The ratio of one version among the answers to [`ratios`].
pub fn ratio_of(labels: &Labels, series: &[Series], prompt: &PromptName, version: &VersionName) -> Option<f64> {
    series.iter().find(|one| is_about(labels, one, prompt, version)).map(Series::value)
}

fn is_about(labels: &Labels, series: &Series, prompt: &PromptName, version: &VersionName) -> bool {
    series.label(&labels.prompt) == prompt.as_str() && series.label(&labels.version) == version.as_str()
}

/// What is drawn of an incident.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub label: &'static str,
    pub unit: Unit,
    pub threshold: Option<f64>,
    /// The recording rule; `None`: the error ratio of a minute.
    rule: Option<&'static str>,
}

const ERRORS: Metric = Metric { label: "error ratio", unit: Unit::Ratio, threshold: None, rule: None };
const QUALITY: Metric = Metric {
    label: "quality drop",
    unit: Unit::Ratio,
    threshold: None,
    rule: Some("prompt_version:quality_score:drop_ratio"),
};
const LATENCY: Metric = Metric {
    label: "p99 latency, times the baseline",
    unit: Unit::Number,
    threshold: None,
    rule: Some("prompt_version:request_duration_seconds:p99_growth_ratio"),
};

impl Metric {
    /// The rows that ship, with their thresholds; for a row of a team's own the error ratio, without one.
    pub fn of(alertname: &str) -> Self {
        let (metric, threshold) = match alertname {
            "PromptErrorRateCritical" => (ERRORS, 0.05),
            "PromptErrorRateHigh" => (ERRORS, 0.02),
            "PromptErrorRateNewVersion" => (ERRORS, 0.005),
            "PromptQualityDropHigh" => (QUALITY, 0.2),
            "PromptQualityDrop" => (QUALITY, 0.1),
            "PromptQualityDropNewVersion" => (QUALITY, 0.05),
            "PromptLatencyP99Doubled" => (LATENCY, 2.0),
            "PromptLatencyP99Elevated" => (LATENCY, 1.2),
            "PromptLatencyP99NewVersion" => (LATENCY, 1.1),
            _ => return ERRORS,
        };
        Self { threshold: Some(threshold), ..metric }
    }

    pub fn is_errors(&self) -> bool {
        self.rule.is_none()
    }

    pub fn expression(&self, labels: &Labels, prompt: &PromptName) -> String {
        let these = any_of(labels, [prompt]);
        match self.rule {
            Some(rule) => format!("{rule}{{{these}}}"),
            // the shortest window there is: a switch shows at once
            None => format!(
                "prompt_version:request_errors:increase1m{{{these}}} / (prompt_version:requests:increase1m{{{these}}} > 0)"
            ),
        }
    }
}

/// Below which share of failed requests a version of this incident is healthy.
pub fn healthy_below(incident: &Incident) -> f64 {
    let rows = incident.alerts.iter().map(|alert| Metric::of(&alert.alertname)).filter(Metric::is_errors);
    rows.filter_map(|metric| metric.threshold).fold(HEALTHY_BELOW, f64::min)
}

/// The metric of the alert that weighs most.
pub fn metric(incident: &Incident) -> Metric {
    let worst = incident.alerts.iter().max_by_key(|alert| alert.rank());
    worst.map_or(ERRORS, |alert| Metric::of(&alert.alertname))
}

/// The label that tells the figures of one answer apart.
const FIGURE: &str = "figure";

/// What is asked about a version that has soaked for `since`: how many requests were measured, how many of them failed, and
/// how many seconds ago a row last fired on it or an error row's threshold was last exceeded, which is what Prometheus
/// itself wrote down, so that it is the team's threshold.
///
/// Requests are counted minute by minute where rules were evaluated: the counters of a server would also tell of those that
/// came while Prometheus was unreachable and nobody watched.
pub fn soak(labels: &Labels, prompt: &PromptName, version: &VersionName, since: Duration) -> String {
    let Labels { prompt: p, version: v, .. } = labels;
    let these = format!("{p}=\"{prompt}\",{v}=\"{version}\"");
    let seconds = since.as_secs().max(1);
    // windows of a minute that overlap, of which each counts for its step
    let step = (seconds / 240).clamp(1, 15);
    let span = format!("{seconds}s:{step}s");
    let counted =
        |rule: &str| format!("sum(sum_over_time(prompt_version:{rule}:increase1m{{{these}}}[{span}])) * {step} / 60");
    let rows = [
        format!("ALERTS{{{these},alertstate=\"firing\"}}"),
        format!("ALERTS{{{these},alertname=~\"PromptErrorRate.+\"}}"),
    ];
    let any = |of: &dyn Fn(&str) -> String| rows.each_ref().map(|row| of(row)).join(" or ");
    // a row may fire between two steps: it is found all the same, though not when, so it counts as firing now
    let closely = format!("{seconds}s:{}s", (seconds / 3_600).clamp(1, 5));
    let last = any(&|row| format!("max_over_time(timestamp({row})[{closely}])"));
    let ever = any(&|row| format!("count_over_time({row}[{seconds}s])"));
    let exceeded = format!("time() - max({last}) or 0 * max({ever})");
    let figures = [("requests", counted("requests")), ("failed", counted("request_errors")), ("exceeded", exceeded)];
    figures
        .map(|(figure, query)| format!("label_replace({query}, \"{FIGURE}\", \"{figure}\", \"\", \"\")"))
        .join(" or ")
}

/// The answer to [`soak`]. What nobody measures is 0.
pub fn read_soak(answer: &Result<Vec<Series>, PrometheusError>) -> Result<SoakMeasurement, String> {
    let series = answer.as_ref().map_err(ToString::to_string)?;
    let figure = |name: &str| {
        let found = series.iter().find(|one| one.label(FIGURE) == name).map(Series::value);
        found.filter(|value| value.is_finite()).map(|value| value.max(0.0))
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; never negative")]
    let count = |name: &str| figure(name).unwrap_or(0.0).round() as u64;
    let exceeded = figure("exceeded").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(SoakMeasurement { requests: count("requests"), failed: count("failed"), exceeded })
}

/// Failed requests of one version in the last minute.
pub fn errors_per_minute(labels: &Labels, prompt: &PromptName, version: &VersionName) -> String {
    let Labels { prompt: p, version: v, .. } = labels;
    format!("prompt_version:request_errors:increase1m{{{p}=\"{prompt}\",{v}=\"{version}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever sends alerts writes the expression, and reads what came of it in the incident.
    #[test]
    fn what_a_verify_expression_found_is_not_repeated() {
        let one = |value: f64| {
            let labels = [("secret".to_owned(), "s3cret".to_owned())].into();
            Ok(vec![Series { labels, points: vec![(Timestamp(0), value)] }])
        };
        let text = |answer: &Result<Vec<Series>, PrometheusError>| read_verify("Row", answer).text;
        assert_eq!(text(&one(1.0)), "healthy by the verify expression of Row");
        for value in [48_151.0, f64::NAN, -1.0] {
            let other = text(&one(value));
            assert_eq!(other, "the verify expression of Row returns a value other than 1 or 0", "{value}");
        }
        let refused = |status| Err(PrometheusError::Refused { status, message: "many-to-many: s3cret".to_owned() });
        let found = text(&refused(StatusCode::UNPROCESSABLE_ENTITY));
        assert_eq!(found, "prometheus refuses the verify expression of Row (422 Unprocessable Entity)");
        let parse = text(&refused(StatusCode::BAD_REQUEST));
        assert!(parse.contains("many-to-many"), "what does not parse is told: {parse}");
    }
}
