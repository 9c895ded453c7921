//! The queries about all versions at once, for the page, and their answers. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use super::client::Series;
use super::server::Server;
use crate::config::Labels;
use crate::decision::{PromptName, Timestamp};
use crate::figures::{Coverage, Figure, Figures, POINTS, STEP, Signal, VersionFigures};

/// The label that identifies the values of one answer.
const FIGURE: &str = "figure";
/// The label of coverage.
const SIGNAL: &str = "signal";
const REQUESTS: &str = "requests";
const COVERAGE: &str = "prompt_version_signal:coverage:state";

/// The recorded series of a signal, and of what it is compared with.
fn recorded(signal: Signal) -> (&'static str, Option<&'static str>) {
    match signal {
        Signal::Errors => ("prompt_version:request_errors:ratio_rate5m", None),
        Signal::P99 => (
            "prompt_version:request_duration_seconds:p99_5m",
            Some("prompt_version:request_duration_seconds:p99_baseline"),
        ),
        Signal::Quality => ("prompt_version:quality_score:mean15m", Some("prompt_version:quality_score:baseline")),
    }
}

/// One query for the present values of all signals.
pub fn present() -> String {
    let tagged =
        |series: &str, figure: &str| format!("label_replace({series}, \"{FIGURE}\", \"{figure}\", \"\", \"\")");
    let mut parts = vec![tagged("prompt_version:requests:count5m", REQUESTS)];
    for signal in Signal::ALL {
        let (now, baseline) = recorded(signal);
        parts.push(tagged(now, &format!("now-{}", signal.label())));
        parts.extend(baseline.map(|baseline| tagged(baseline, &format!("baseline-{}", signal.label()))));
        let coverage = format!("{COVERAGE}{{{SIGNAL}=\"{}\"}}", signal.name());
        parts.push(tagged(&coverage, &format!("coverage-{}", signal.label())));
    }
    parts.join(" or ")
}

/// The figures of one version, by the labels that tell clusters apart.
type Clusters<'a> = BTreeMap<Vec<(&'a str, &'a str)>, VersionFigures>;

/// Reads the answer to [`present`].
pub fn read_present(labels: &Labels, series: &[Series], figures: &mut Figures) {
    let mut versions: HashMap<(&str, &str), Clusters<'_>> = HashMap::new();
    for one in series {
        let mut cluster = Server::of(labels, one).others;
        cluster.retain(|(label, _)| ![FIGURE, SIGNAL].contains(label));
        let clusters = versions.entry((one.label(&labels.prompt), one.label(&labels.version))).or_default();
        let version = clusters.entry(cluster).or_default();
        let value = Some(one.value()).filter(|value| value.is_finite());
        let figure = one.label(FIGURE);
        if figure == REQUESTS {
            version.requests = value;
            continue;
        }
        for signal in Signal::ALL {
            match figure.strip_suffix(signal.label()) {
                Some("now-") => version.of_mut(signal).now = value,
                Some("baseline-") => version.of_mut(signal).baseline = value,
                Some("coverage-") => version.of_mut(signal).coverage = value.and_then(Coverage::of),
                _ => {}
            }
        }
    }
    for ((prompt, version), clusters) in versions {
        if let Ok(prompt) = PromptName::of(prompt) {
            merge(&clusters, figures.entry(&prompt, version));
        }
    }
}

/// Of several clusters, the one where the version does worst counts, by signal. Requests are summed up.
fn merge(clusters: &Clusters<'_>, version: &mut VersionFigures) {
    version.requests = clusters.values().filter_map(|one| one.requests).reduce(|sum, more| sum + more);
    for signal in Signal::ALL {
        let all = || clusters.values().map(|one| one.of(signal));
        let badness = |one: &Figure| {
            // without a baseline, the value itself
            let now = one.now.map(|now| if signal == Signal::Quality { -now } else { now });
            [one.excess(signal), now].map(|value| value.unwrap_or(f64::NEG_INFINITY))
        };
        let worse =
            |one: &&Figure, other: &&Figure| badness(one).partial_cmp(&badness(other)).unwrap_or(Ordering::Equal);
        let figure = version.of_mut(signal);
        if let Some(worst) = all().max_by(worse) {
            (figure.now, figure.baseline) = (worst.now, worst.baseline);
        }
        figure.coverage = all().filter_map(|one| one.coverage).min();
    }
}

/// The query for the last hour of a signal.
pub fn hour(signal: Signal) -> &'static str {
    recorded(signal).0
}

/// Reads the answer to [`hour`] about the hour until `to`. At each point, the cluster where the version does worst counts.
pub fn read_hour(labels: &Labels, signal: Signal, series: &[Series], to: Timestamp, figures: &mut Figures) {
    let from = to.minus(STEP * u32::try_from(POINTS - 1).unwrap_or(u32::MAX));
    let worse = match signal {
        Signal::Errors | Signal::P99 => f64::max,
        Signal::Quality => f64::min,
    };
    for one in series {
        let Ok(prompt) = PromptName::of(one.label(&labels.prompt)) else { continue };
        let line = &mut figures.entry(&prompt, one.label(&labels.version)).of_mut(signal).line;
        line.resize(POINTS, f64::NAN);
        for (at, value) in one.points.iter().filter(|(_, value)| value.is_finite()) {
            let steps = at.since(from).as_millis() / STEP.as_millis();
            let place = usize::try_from(steps).ok().and_then(|place| line.get_mut(place));
            if let Some(place) = place {
                // the other one, if one of them is NaN
                *place = worse(*place, *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::config::Config;
    use crate::figures::{Health, Rating};

    fn labels() -> Labels {
        Config::default().labels
    }

    fn series(figure: &str, points: Vec<(Timestamp, f64)>) -> Series {
        let all = [("prompt", "p"), ("version", "v2"), (FIGURE, figure)];
        Series { labels: all.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), points }
    }

    #[test]
    fn every_recorded_series_ships() {
        let rules = include_str!("../../alert-rules/alerts.yml");
        let names = Signal::ALL.into_iter().flat_map(|signal| {
            let (now, baseline) = recorded(signal);
            std::iter::once(now).chain(baseline)
        });
        for name in names {
            assert!(rules.contains(&format!("- record: {name}\n")), "{name}");
        }
        assert!(include_str!("../../alert-rules/native.yml").contains("- record: prompt_version:requests:count5m\n"));
        assert!(include_str!("../../alert-rules/self.yml").contains(&format!("- record: {COVERAGE}\n")));
    }

    #[test]
    fn an_answer_becomes_figures() {
        let mut figures = Figures::default();
        let value = |figure: &str, value| series(figure, vec![(Timestamp(0), value)]);
        let answer =
            [value("requests", 400.0), value("now-Errors", 0.08), value("now-p99", 2.0), value("baseline-p99", 1.9)];
        read_present(&labels(), &answer, &mut figures);
        let version = figures.of("p", "v2").expect("figures");
        assert_eq!(version.requests, Some(400.0));
        assert_eq!(version.of(Signal::P99).baseline, Some(1.9));
        assert_eq!(version.health(), Health::Measured(Rating::Bad));
        assert_eq!(figures.of("p", "v1"), None);
    }

    #[test]
    fn of_several_clusters_the_one_where_a_version_does_worst_counts() {
        let figures = ["requests", "now-Errors", "now-p99", "baseline-p99", "now-Quality", "baseline-Quality"];
        let cluster = |name: &str, values: [f64; 6], coverage| -> Vec<Series> {
            let mut all: Vec<_> =
                figures.iter().zip(values).map(|(figure, value)| series(figure, vec![(Timestamp(0), value)])).collect();
            let mut covered = series("coverage-p99", vec![(Timestamp(0), coverage)]);
            covered.labels.insert("signal".to_owned(), "p99".to_owned());
            all.push(covered);
            for one in &mut all {
                one.labels.insert("cluster".to_owned(), name.to_owned());
            }
            all
        };
        let eu = cluster("eu", [900.0, 0.0, 1.0, 1.0, 0.6, 0.6], 4.0);
        let us = cluster("us", [100.0, 0.4, 0.9, 0.3, 0.7, 0.9], 1.0);
        for answer in [[eu.clone(), us.clone()].concat(), [us, eu].concat()] {
            let mut figures = Figures::default();
            read_present(&labels(), &answer, &mut figures);
            let version = figures.of("p", "v2").expect("figures");
            let shown = |signal| (version.of(signal).now, version.of(signal).baseline);
            assert_eq!((version.requests, shown(Signal::Errors)), (Some(1_000.0), (Some(0.4), None)));
            assert_eq!(shown(Signal::P99), (Some(0.9), Some(0.3)));
            assert_eq!(shown(Signal::Quality), (Some(0.7), Some(0.9)));
            assert_eq!(version.of(Signal::P99).coverage, Some(Coverage::TooLittle));
        }
    }

    #[test]
    fn a_pair_of_prometheus_servers_is_one_cluster() {
        let by = |replica: &str, figure: &str, value| {
            let mut one = series(figure, vec![(Timestamp(0), value)]);
            one.labels.insert("prometheus_replica".to_owned(), replica.to_owned());
            one
        };
        let answer = [by("a", "requests", 400.0), by("b", "requests", 400.0), by("b", "now-p99", 2.0)];
        let mut figures = Figures::default();
        read_present(&labels(), &answer, &mut figures);
        let version = figures.of("p", "v2").expect("figures");
        assert_eq!((version.requests, version.of(Signal::P99).now), (Some(400.0), Some(2.0)), "without a baseline");
    }

    #[test]
    fn the_label_is_the_name_and_figures_are_found_by_its_encoded_form() {
        let mut figures = Figures::default();
        let mut of = |prompt: &str| {
            let mut one = series("coverage-p99", vec![(Timestamp(0), 1.0)]);
            one.labels.insert("prompt".to_owned(), prompt.to_owned());
            read_present(&labels(), &[one], &mut figures);
        };
        for prompt in ["Support bot: v2@eu", "100%25", "", &"€".repeat(50)] {
            of(prompt);
        }
        for encoded in ["Support%20bot%3A%20v2%40eu", "100%2525"] {
            let version = figures.of(encoded, "v2").expect(encoded);
            assert_eq!(version.of(Signal::P99).coverage, Some(Coverage::TooLittle));
        }
        assert_eq!(figures.of("100%25", "v2"), None, "this is the prompt 100%");
    }

    #[test]
    fn coverage_is_what_the_rules_record() {
        let read = [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5, f64::NAN].map(Coverage::of);
        let [blind, too_little, slow, no_baseline, measured] = Coverage::ALL.map(Some);
        assert_eq!(read, [None, blind, too_little, slow, no_baseline, measured, None, None, None]);
    }

    #[test]
    fn a_line_has_gaps_where_nothing_was_measured() {
        let (mut figures, to) = (Figures::default(), Timestamp(3_600_000));
        let points = vec![(to.minus(STEP), 0.25), (to, 0.5), (to.plus(STEP), 9.0)];
        read_hour(&labels(), Signal::Errors, &[series("", points)], to, &mut figures);
        let line = &figures.of("p", "v2").expect("figures").of(Signal::Errors).line;
        assert_eq!((line.len(), line[POINTS - 2], line[POINTS - 1]), (POINTS, 0.25, 0.5));
        assert!(line[..POINTS - 2].iter().all(|value| value.is_nan()), "{line:?}");
    }

    #[test]
    fn a_line_is_that_of_the_cluster_where_a_version_does_worst() {
        let to = Timestamp(3_600_000);
        let eu = series("", vec![(to.minus(STEP * 2), 0.5), (to.minus(STEP), 0.25), (to, f64::NAN)]);
        let us = series("", vec![(to.minus(STEP), 0.5), (to, 0.125)]);
        for (signal, expected) in [(Signal::Errors, [0.5, 0.5, 0.125]), (Signal::Quality, [0.5, 0.25, 0.125])] {
            for answer in [[eu.clone(), us.clone()], [us.clone(), eu.clone()]] {
                let mut figures = Figures::default();
                read_hour(&labels(), signal, &answer, to, &mut figures);
                let line = &figures.of("p", "v2").expect("figures").of(signal).line;
                assert_eq!(line[POINTS - 3..], expected, "{signal:?}");
            }
        }
    }
}
