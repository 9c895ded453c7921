//! The queries, and the meaning of their answers. Pure.
//!
//! All but `verify` read the recording rules in `alert-rules/`, whatever the source of the metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::StatusCode;

use super::alone::stands_alone;
use super::client::{PrometheusError, Series};
use super::exposure;
use super::quoting::{in_pattern, in_string};
use super::server::replica_labels;
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::soak::SoakMeasurement;
use crate::decision::{Incident, Measure, PromptName, Timestamp, VersionName};
use crate::postmortem::Unit;

/// A version with a lower failure ratio is healthy, unless a firing rule is stricter.
const HEALTHY_BELOW: f64 = 0.01;
/// A prompt with a higher failure ratio is failing, as in `PromptErrorRateCritical`.
pub(super) const FAILS_ABOVE: f64 = 0.05;
/// The number of requests since the switch below which the default expression means nothing: its window may include
/// older ones.
pub const EVIDENCE: u32 = 20;
/// `$since` for a version that no rollback activated: the time over which to ask whether it still fails.
const BEFORE_A_ROLLBACK: Duration = Duration::from_secs(300);
/// The `verify` expression of one alert, about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    pub alertname: String,
    pub expression: String,
}

impl Verify {
    /// The expressions of the incident's alerts, for `version`.
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

/// The label that identifies the expression of a result of [`together`].
const ASKED: &str = "prompt_rollback_asked";

/// One query that evaluates all of `expressions`, each of which [stands alone](stands_alone).
pub fn together(expressions: &[&str]) -> String {
    let tagged = |(number, expression): (usize, &&str)| {
        format!("label_replace(({expression}), \"{ASKED}\", \"{number}\", \"\", \"\")")
    };
    expressions.iter().enumerate().map(tagged).collect::<Vec<_>>().join(" or ")
}

/// Most expressions of one rule in one query.
const AT_ONCE: usize = 32;

/// The queries for these expressions: those of one query are asked [`together`]. One that does not [stand alone](stands_alone) is asked
/// by itself, so that its author decides nothing about the others.
pub fn batches(expressions: &[String]) -> Vec<Vec<String>> {
    let (alone, others): (Vec<String>, Vec<String>) =
        expressions.iter().cloned().partition(|expression| stands_alone(expression));
    alone.chunks(AT_ONCE).map(<[String]>::to_vec).chain(others.into_iter().map(|other| vec![other])).collect()
}

/// The result of each expression, from the answer to all.
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

/// A matcher for these prompts.
pub(super) fn any_of<'a>(labels: &Labels, prompts: impl IntoIterator<Item = &'a PromptName>) -> String {
    let names: BTreeSet<String> = prompts.into_iter().map(in_pattern).collect();
    format!("{}=~\"{}\"", labels.prompt, names.into_iter().collect::<Vec<_>>().join("|"))
}

/// The error ratio of each version of these prompts, over the last minute if that has enough requests. In [0, 1].
pub fn ratios<'a>(labels: &Labels, prompts: impl IntoIterator<Item = &'a PromptName>) -> String {
    let these = any_of(labels, prompts);
    format!(
        "(prompt_version:request_errors:increase1m{{{these}}} / (prompt_version:requests:increase1m{{{these}}} >= {EVIDENCE})) \
         or prompt_version:request_errors:ratio_rate5m{{{these}}}"
    )
}

/// The queries for the counters of these prompts' requests since `oldest`, each at fewer points than the one before, and for the
/// failure ratios of their versions before.
pub fn counters<'a>(
    labels: &Labels,
    prompts: impl IntoIterator<Item = &'a PromptName>,
    oldest: Timestamp,
    now: Timestamp,
) -> ([String; 3], String) {
    let prompts = any_of(labels, prompts);
    let counters = exposure::POINTS.map(|points| exposure::question(&prompts, oldest, now, points));
    (counters, exposure::references(&prompts, oldest, now))
}

/// How many prompts have measurements, how many of them fail, and these prompts' measurements.
pub fn all_prompts<'a>(labels: &Labels, prompts: impl IntoIterator<Item = &'a PromptName>) -> [String; 3] {
    let name = &labels.prompt;
    let worst = |these: &str| format!("max by ({name}) (prompt_version:request_errors:ratio_rate5m{{{these}}})");
    let all = worst("");
    [format!("count({all})"), format!("count({all} > {FAILS_ABOVE})"), worst(&any_of(labels, prompts))]
}

/// Whether most other prompts fail too, from the answers to [`all_prompts`].
pub fn read_others(labels: &Labels, prompt: &PromptName, [all, failing, own]: [&[Series]; 3]) -> Option<String> {
    let own = own.iter().find(|one| one.label(&labels.prompt) == prompt.name()).map(Series::value);
    let count = |series: &[Series], own: bool| series.first().map_or(0.0, Series::value) - f64::from(u8::from(own));
    let others = count(all, own.is_some());
    let failing = count(failing, own.is_some_and(|ratio| ratio > FAILS_ABOVE));
    (others >= 2.0 && failing * 2.0 > others)
        .then(|| format!("{failing} of {others} other prompts fail too: this looks like a provider outage"))
}

/// The verdict of this alert's `verify` expression: 1, 0 or nothing.
pub fn read_verify(alertname: &str, answer: &Result<Vec<Series>, PrometheusError>) -> Finding {
    let whose = format!("the verify expression of {alertname}");
    let series = match answer {
        Ok(series) => series,
        // the author of the expression chooses what its evaluation returns, for example the labels of other series
        Err(PrometheusError::Refused { status, .. }) if *status != StatusCode::BAD_REQUEST => {
            return Finding::new(Verdict::Unknown, format!("Prometheus rejected {whose} ({status})"));
        }
        Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
    };
    match series.as_slice() {
        [] => Finding::new(Verdict::NoData, format!("no data yet for {whose}")),
        [one] => match one.value() {
            1.0 => Finding::new(Verdict::Healthy, format!("healthy by {whose}")),
            0.0 => Finding::new(Verdict::Unhealthy, format!("not healthy by {whose}")),
            // the value is not repeated: it may be anything that Prometheus stores
            _ => Finding::new(Verdict::Unknown, format!("{whose} returns a value other than 1 or 0")),
        },
        many => {
            Finding::new(Verdict::Unknown, format!("{whose} returned {} series: expected one, or nothing", many.len()))
        }
    }
}

/// What all measures of the incident's alerts say together: their own expressions and, for an alert that has none, the error
/// ratio. `known`: there is a ratio, which is always shown to people.
pub fn all_measures(incident: &Incident, mut verified: Vec<Finding>, errors: Finding, known: bool) -> Finding {
    let text = errors.text.clone();
    let by_ratio = incident.alerts.iter().any(|alert| alert.verify.trim().is_empty());
    if by_ratio {
        verified.push(errors);
    }
    let mut finding = Finding::all(verified);
    if known && !by_ratio {
        finding.text = format!("{} ({text})", finding.text);
    }
    finding
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

/// Whether the target of a gradual rollback is healthy enough for more traffic, by the config's own expression: 1 =
/// stop.
pub fn read_abort(answer: &Result<Vec<Series>, PrometheusError>) -> Finding {
    let series = match answer {
        Ok(series) => series,
        Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
    };
    match series.as_slice() {
        [] => Finding::new(Verdict::NoData, "no data yet"),
        many if many.iter().any(|one| one.value() == 1.0) => {
            Finding::new(Verdict::Unhealthy, "gradual.abort_query reports that the rollback must stop")
        }
        many if many.iter().any(|one| one.value() != 0.0) => {
            Finding::new(Verdict::Unknown, "gradual.abort_query: expected 1, 0 or no result, found another value")
        }
        _ => Finding::new(Verdict::Healthy, "gradual.abort_query reports that the rollback may continue"),
    }
}

/// `expression` for one version. `$prompt` is the value of the metrics' label, as a string of PromQL has it. `$since` is in
/// whole seconds, at least 1, because PromQL refuses a window of 0.
pub fn about(expression: &str, prompt: &PromptName, version: &VersionName, since: Duration) -> String {
    let since = since.as_secs().max(1).to_string();
    expression.replace("$prompt", &in_string(prompt)).replace("$version", version.as_str()).replace("$since", &since)
}

fn spoken_ratio(ratio: f64) -> String {
    format!("error ratio {:.2} %", ratio * 100.0)
}

/// The ratio of one version among the answers to [`ratios`]: of several clusters, the one where it fails most.
pub fn ratio_of(labels: &Labels, series: &[Series], prompt: &PromptName, version: &VersionName) -> Option<f64> {
    series.iter().filter(|one| is_about(labels, one, prompt, version)).map(Series::value).reduce(f64::max)
}

fn is_about(labels: &Labels, series: &Series, prompt: &PromptName, version: &VersionName) -> bool {
    series.label(&labels.prompt) == prompt.name() && series.label(&labels.version) == version.as_str()
}

/// What an alert is about: the metric to draw for its incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub label: String,
    pub unit: Unit,
    pub threshold: Option<f64>,
    /// The recorded series; `None`: the error ratio of a minute.
    series: Option<String>,
}

/// The recorded series of errors. Their ratio in a minute shows a switch sooner.
const ERRORS: &str = "prompt_version:request_errors:";

impl Metric {
    /// As the annotations of the rule say. Without a usable `metric`: the error ratio, without a threshold.
    pub fn of(measure: &Measure) -> Self {
        let series = Some(&measure.metric).filter(|name| is_series(name));
        let errors = Self { label: "error ratio".to_owned(), unit: Unit::Ratio, threshold: None, series: None };
        let Some(series) = series else { return errors };
        let threshold = measure.threshold.parse().ok().filter(|threshold: &f64| threshold.is_finite());
        if series.starts_with(ERRORS) {
            return Self { threshold, ..errors };
        }
        let unit = match measure.unit.as_str() {
            "ratio" => Unit::Ratio,
            "seconds" => Unit::Seconds,
            _ => Unit::Number,
        };
        let label = if measure.label.is_empty() { series } else { &measure.label };
        Self { label: label.clone(), unit, threshold, series: Some(series.clone()) }
    }

    pub fn is_errors(&self) -> bool {
        self.series.is_none()
    }

    /// For each version of the prompt; of several clusters, the worst.
    pub fn expression(&self, labels: &Labels, prompt: &PromptName) -> String {
        let Labels { prompt: p, version: v, .. } = labels;
        let these = any_of(labels, [prompt]);
        let measured = match &self.series {
            Some(series) => format!("{series}{{{these}}}"),
            // the shortest window, so that a switch shows at once
            None => format!(
                "prompt_version:request_errors:increase1m{{{these}}} / (prompt_version:requests:increase1m{{{these}}} > 0)"
            ),
        };
        format!("max by ({p}, {v}) ({measured})")
    }
}

/// The failure ratio below which a version of this incident is healthy. That of a rule that fires on any failure would be 0, which
/// no number of requests can prove.
pub fn healthy_below(incident: &Incident) -> f64 {
    let rows = incident.alerts.iter().map(|alert| Metric::of(&alert.measure)).filter(Metric::is_errors);
    rows.filter_map(|metric| metric.threshold).filter(|threshold| *threshold > 0.0).fold(HEALTHY_BELOW, f64::min)
}

/// The metric of the most important alert.
pub fn metric(incident: &Incident) -> Metric {
    let worst = incident.alerts.iter().max_by_key(|alert| alert.rank());
    Metric::of(&worst.map(|alert| alert.measure.clone()).unwrap_or_default())
}

/// Whether it is the name of a series, so that nothing else gets into a query.
fn is_series(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    name.chars().all(allowed) && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// The label that identifies the values of one answer.
const FIGURE: &str = "figure";

/// The query about a version that has soaked for `since`: how many requests were measured, how many of them failed, and
/// how many seconds ago a rule last fired on it or an error threshold was last exceeded. Prometheus itself recorded the
/// latter, so it is the team's threshold.
///
/// Requests are counted minute by minute while rules were evaluated: the counters of a server would include requests
/// while Prometheus was unreachable and nothing was watched. Prometheus repeats the last value for five minutes after it
/// stopped, so only values that were recorded within the minute count. Of several Prometheus servers that measured the same, one
/// counts.
pub fn soak(labels: &Labels, prompt: &PromptName, version: &VersionName, since: Duration) -> String {
    let Labels { prompt: p, version: v, .. } = labels;
    let these = format!("{p}=\"{}\",{v}=\"{version}\"", in_string(prompt));
    let seconds = since.as_secs().max(1);
    // overlapping windows of a minute, of which each counts for its step
    let step = (seconds / 240).clamp(1, 15);
    let span = format!("{seconds}s:{step}s");
    let once = once(labels);
    let counted = |rule: &str| {
        let recorded = format!("prompt_version:{rule}:increase1m{{{these}}}");
        let fresh = format!("{recorded} * (time() - timestamp({recorded}) < bool 60)");
        format!("sum({once} (sum_over_time(({fresh})[{span}]))) * {step} / 60")
    };
    let rows = [
        format!("ALERTS{{{these},alertstate=\"firing\"}}"),
        format!("ALERTS{{{these},alertname=~\"PromptErrorRate.+\"}}"),
    ];
    let any = |of: &dyn Fn(&str) -> String| rows.each_ref().map(|row| of(row)).join(" or ");
    // a rule that fires between two steps is found, but not when, so it counts as firing now
    let closely = format!("{seconds}s:{}s", (seconds / 3_600).clamp(1, 5));
    let last = any(&|row| format!("max_over_time(timestamp({row})[{closely}])"));
    let ever = any(&|row| format!("count_over_time({row}[{seconds}s])"));
    let exceeded = format!("time() - max({last}) or 0 * max({ever})");
    let figures = [("requests", counted("requests")), ("failed", counted("request_errors")), ("exceeded", exceeded)];
    figures
        .map(|(figure, query)| format!("label_replace({query}, \"{FIGURE}\", \"{figure}\", \"\", \"\")"))
        .join(" or ")
}

/// Parses the answer to [`soak`]. What is not measured is 0.
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

/// Failed requests of one version in the last minute, in all clusters. Of several Prometheus servers that measured the
/// same, one counts.
pub fn errors_per_minute(labels: &Labels, prompt: &PromptName, version: &VersionName) -> String {
    let Labels { prompt: p, version: v, .. } = labels;
    let prompt = in_string(prompt);
    let once = once(labels);
    format!(
        "sum by ({p}, {v}) ({once} (prompt_version:request_errors:increase1m{{{p}=\"{prompt}\",{v}=\"{version}\"}}))"
    )
}

/// Takes the largest of the series that differ only in which Prometheus server, or replica, recorded them.
fn once(labels: &Labels) -> String {
    format!("max without ({})", replica_labels(labels).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
