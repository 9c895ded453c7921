//! The queries about all versions at once, for the page, and their answers. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::client::Series;
use super::question::any_of;
use super::server::{Server, replica_labels};
use crate::config::Labels;
use crate::decision::{PromptName, Timestamp};
use crate::figures::{Coverage, Figure, Figures, POINTS, STEP, Signal, VersionFigures};

/// The label of coverage.
const SIGNAL: &str = "signal";
/// How long a server counts after its last request: longer than the time between two scrapes.
const SERVED: &str = "2m";

/// What one query asks about all versions. All of it in one answer would be too large for 10,000 prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    Requests,
    Now(Signal),
    P99Baseline,
    QualityBaseline,
    Coverage(Signal),
    Servers,
}

impl Quantity {
    /// All of them: the present values.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::Now(Signal::Errors),
        Self::Coverage(Signal::Errors),
        Self::Now(Signal::P99),
        Self::P99Baseline,
        Self::Coverage(Signal::P99),
        Self::Now(Signal::Quality),
        Self::QualityBaseline,
        Self::Coverage(Signal::Quality),
        Self::Servers,
    ];

    /// The recorded series.
    fn series(self) -> &'static str {
        match self {
            Self::Requests => "prompt_version:requests:count5m",
            Self::Now(Signal::Errors) => "prompt_version:request_errors:ratio_rate5m",
            Self::Now(Signal::P99) => "prompt_version:request_duration_seconds:p99_5m",
            Self::P99Baseline => "prompt_version:request_duration_seconds:p99_baseline",
            Self::Now(Signal::Quality) => "prompt_version:quality_score:mean15m",
            Self::QualityBaseline => "prompt_version:quality_score:baseline",
            Self::Coverage(_) => "prompt_version_signal:coverage:state",
            Self::Servers => "prompt_version_instance:requests:sum",
        }
    }

    /// The query about all versions, or about those of `prompts`. Rounding keeps the answer small: it drops the name of the
    /// series, and digits that the page does not show.
    pub fn query(self, labels: &Labels, prompts: Option<&BTreeSet<PromptName>>) -> String {
        let signal = match self {
            Self::Coverage(signal) => Some(format!("{SIGNAL}=\"{}\"", signal.name())),
            _ => None,
        };
        let matchers = signal.into_iter().chain(prompts.map(|prompts| any_of(labels, prompts)));
        let series = format!("{}{{{}}}", self.series(), matchers.collect::<Vec<_>>().join(","));
        if self != Self::Servers {
            return format!("round({series}, 1e-6)");
        }
        // a counter that does not change is that of a server that has changed to another version
        let serving = format!("({series} > 0 unless {series} == {series} offset {SERVED})");
        let same: Vec<&str> = replica_labels(labels).collect();
        let (same, prompt, version) = (same.join(", "), &labels.prompt, &labels.version);
        format!("count by ({prompt}, {version}) (group without ({same}) {serving})")
    }
}

/// The figures of one version, by the labels that tell clusters apart.
type Clusters = BTreeMap<Vec<(String, String)>, VersionFigures>;

/// The present values that were read so far, by the labels of prompt and version.
#[derive(Debug, Default)]
pub struct Present(HashMap<(String, String), Clusters>);

impl Present {
    /// How many versions there are.
    pub fn versions(&self) -> usize {
        self.0.len()
    }

    /// Reads the answer to the query of `quantity`.
    pub fn read(&mut self, labels: &Labels, quantity: Quantity, series: &[Series]) {
        for one in series {
            let others = Server::of(labels, one).others.into_iter().filter(|(label, _)| *label != SIGNAL);
            let cluster = others.map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
            let version = (one.label(&labels.prompt).to_owned(), one.label(&labels.version).to_owned());
            let figures = self.0.entry(version).or_default().entry(cluster).or_default();
            let value = Some(one.value()).filter(|value| value.is_finite());
            match quantity {
                Quantity::Requests => figures.requests = value,
                Quantity::Now(signal) => figures.of_mut(signal).now = value,
                Quantity::P99Baseline => figures.of_mut(Signal::P99).baseline = value,
                Quantity::QualityBaseline => figures.of_mut(Signal::Quality).baseline = value,
                Quantity::Coverage(signal) => figures.of_mut(signal).coverage = value.and_then(Coverage::of),
                Quantity::Servers => figures.servers = value,
            }
        }
    }

    /// Adds what was read to `figures`.
    pub fn fill(self, figures: &mut Figures) {
        for ((prompt, version), clusters) in self.0 {
            if let Ok(prompt) = PromptName::of(&prompt) {
                merge(&clusters, figures.entry(&prompt, &version));
            }
        }
    }
}

/// Of several clusters, the one where the version does worst counts, by signal. Requests and servers are summed up.
fn merge(clusters: &Clusters, version: &mut VersionFigures) {
    let sum = |of: fn(&VersionFigures) -> Option<f64>| clusters.values().filter_map(of).reduce(|sum, more| sum + more);
    (version.requests, version.servers) = (sum(|one| one.requests), sum(|one| one.servers));
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

/// Reads the answer about the hour until `to`. At each point, the cluster where the version does worst counts.
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
    use crate::prometheus::client::MAX_ANSWER;

    fn labels() -> Labels {
        Config::default().labels
    }

    fn series(points: Vec<(Timestamp, f64)>) -> Series {
        let all = [("prompt", "p"), ("version", "v2")];
        Series { labels: all.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), points }
    }

    /// One present value, with more labels.
    fn value(value: f64, more: &[(&str, &str)]) -> Series {
        let mut one = series(vec![(Timestamp(0), value)]);
        one.labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        one
    }

    fn read(answers: &[(Quantity, Series)]) -> Figures {
        let (mut present, mut figures) = (Present::default(), Figures::default());
        for (quantity, one) in answers {
            present.read(&labels(), *quantity, std::slice::from_ref(one));
        }
        present.fill(&mut figures);
        figures
    }

    const NOW_ERRORS: Quantity = Quantity::Now(Signal::Errors);
    const NOW_P99: Quantity = Quantity::Now(Signal::P99);
    const NOW_QUALITY: Quantity = Quantity::Now(Signal::Quality);
    const COVERAGE_P99: Quantity = Quantity::Coverage(Signal::P99);

    #[test]
    fn every_recorded_series_ships() {
        let rules = [
            include_str!("../../alert-rules/alerts.yml"),
            include_str!("../../alert-rules/native.yml"),
            include_str!("../../alert-rules/self.yml"),
        ];
        for quantity in Quantity::ALL {
            let record = format!("- record: {}\n", quantity.series());
            assert!(rules.iter().any(|rules| rules.contains(&record)), "{record}");
        }
    }

    #[test]
    fn a_query_is_about_all_prompts_or_about_some() {
        let query = |quantity: Quantity, prompts| quantity.query(&labels(), prompts);
        assert_eq!(query(Quantity::Requests, None), "round(prompt_version:requests:count5m{}, 1e-6)");
        let some = ["b", "team/a.v2"].map(|name| PromptName::of(name).expect("a name")).into();
        let expected = "round(prompt_version_signal:coverage:state{signal=\"p99\",prompt=~\"b|team/a[.]v2\"}, 1e-6)";
        assert_eq!(query(COVERAGE_P99, Some(&some)), expected);
    }

    #[test]
    fn servers_are_counted_once_for_a_pair_of_prometheus_servers() {
        let labels = Labels { replicas: vec!["shard".to_owned()], ..labels() };
        let query = Quantity::Servers.query(&labels, None);
        let expected = "count by (prompt, version) (group without (replica, prometheus_replica, __replica__, rule_replica, \
                        receive_replica, job, shard) (prompt_version_instance:requests:sum{} > 0 unless \
                        prompt_version_instance:requests:sum{} == prompt_version_instance:requests:sum{} offset 2m))";
        assert_eq!(query, expected);
        let figures = read(&[
            (Quantity::Requests, value(900.0, &[("cluster", "eu")])),
            (Quantity::Servers, value(3.0, &[])),
            (Quantity::Servers, value(4.0, &[("version", "v1")])),
            (Quantity::Servers, value(3.0, &[("version", "v0")])),
            (Quantity::Servers, value(0.0, &[("version", "v3")])),
        ]);
        assert_eq!(figures.servers("p"), [("v1", 4.0), ("v0", 3.0), ("v2", 3.0)]);
        assert_eq!(figures.of("p", "v2").and_then(|version| version.requests), Some(900.0));
        assert!(figures.servers("another").is_empty());
    }

    /// As Prometheus writes it, with the longest number that a rounded ratio has.
    #[test]
    fn the_answer_about_ten_thousand_prompts_is_small_enough() {
        const VERSIONS: usize = 2 * 10_000;
        let metric = r#"{"prompt":"team-name/name-of-a-prompt-12345","version":"2026-11-30-a1b2c3d"}"#;
        let present = format!(r#"{{"metric":{metric},"value":[1795221492.123,"0.073171"]}},"#);
        assert!(present.len() * VERSIONS < MAX_ANSWER / 4, "{}", present.len());
        let points = vec![r#"[1795221492,"0.073171"]"#; POINTS].join(",");
        let hour = format!(r#"{{"metric":{metric},"values":[{points}]}},"#);
        assert!(hour.len() * VERSIONS / 2 < MAX_ANSWER, "{}", hour.len());
    }

    #[test]
    fn answers_become_figures() {
        let answers = [
            (Quantity::Requests, value(400.0, &[])),
            (NOW_ERRORS, value(0.08, &[])),
            (NOW_P99, value(2.0, &[])),
            (Quantity::P99Baseline, value(1.9, &[])),
        ];
        let figures = read(&answers);
        let version = figures.of("p", "v2").expect("figures");
        assert_eq!(version.requests, Some(400.0));
        assert_eq!(version.of(Signal::P99).baseline, Some(1.9));
        assert_eq!(version.health(), Health::Measured(Rating::Bad));
        assert_eq!(figures.of("p", "v1"), None);
    }

    #[test]
    fn of_several_clusters_the_one_where_a_version_does_worst_counts() {
        let quantities = [
            Quantity::Requests,
            NOW_ERRORS,
            NOW_P99,
            Quantity::P99Baseline,
            NOW_QUALITY,
            Quantity::QualityBaseline,
            COVERAGE_P99,
        ];
        let cluster = |name: &str, values: [f64; 7]| {
            let one = |(quantity, number): (Quantity, f64)| {
                let signal = if quantity == COVERAGE_P99 { &[("signal", "p99")][..] } else { &[] };
                (quantity, value(number, &[&[("cluster", name)][..], signal].concat()))
            };
            quantities.into_iter().zip(values).map(one).collect::<Vec<_>>()
        };
        let eu = cluster("eu", [900.0, 0.0, 1.0, 1.0, 0.6, 0.6, 4.0]);
        let us = cluster("us", [100.0, 0.4, 0.9, 0.3, 0.7, 0.9, 1.0]);
        for answers in [[eu.clone(), us.clone()].concat(), [us, eu].concat()] {
            let figures = read(&answers);
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
        let by = |replica: &str, number| value(number, &[("prometheus_replica", replica)]);
        let figures = read(&[
            (Quantity::Requests, by("a", 400.0)),
            (Quantity::Requests, by("b", 400.0)),
            (NOW_P99, by("b", 2.0)),
        ]);
        let version = figures.of("p", "v2").expect("figures");
        assert_eq!((version.requests, version.of(Signal::P99).now), (Some(400.0), Some(2.0)), "without a baseline");
    }

    #[test]
    fn the_label_is_the_name_and_figures_are_found_by_its_encoded_form() {
        let too_long = "€".repeat(50);
        let names = ["Support bot: v2@eu", "100%25", "", &too_long];
        let figures = read(&names.map(|prompt| (COVERAGE_P99, value(1.0, &[("prompt", prompt)]))));
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
        read_hour(&labels(), Signal::Errors, &[series(points)], to, &mut figures);
        let line = &figures.of("p", "v2").expect("figures").of(Signal::Errors).line;
        assert_eq!((line.len(), line[POINTS - 2], line[POINTS - 1]), (POINTS, 0.25, 0.5));
        assert!(line[..POINTS - 2].iter().all(|value| value.is_nan()), "{line:?}");
    }

    #[test]
    fn a_line_is_that_of_the_cluster_where_a_version_does_worst() {
        let to = Timestamp(3_600_000);
        let eu = series(vec![(to.minus(STEP * 2), 0.5), (to.minus(STEP), 0.25), (to, f64::NAN)]);
        let us = series(vec![(to.minus(STEP), 0.5), (to, 0.125)]);
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
