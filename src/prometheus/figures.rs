//! The queries about all versions at once, for the page, and their answers. Pure.

use super::client::Series;
use crate::config::Labels;
use crate::decision::{PromptName, Timestamp};
use crate::figures::{Coverage, Figures, POINTS, STEP, Signal, VersionFigures};

/// The label that identifies the values of one answer.
const FIGURE: &str = "figure";
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
        let coverage = format!("{COVERAGE}{{signal=\"{}\"}}", signal.name());
        parts.push(tagged(&coverage, &format!("coverage-{}", signal.label())));
    }
    parts.join(" or ")
}

/// Reads the answer to [`present`].
pub fn read_present(labels: &Labels, series: &[Series], figures: &mut Figures) {
    for one in series {
        let value = Some(one.value()).filter(|value| value.is_finite());
        let Some(version) = entry(labels, one, figures) else { continue };
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
}

/// The query for the last hour of a signal.
pub fn hour(signal: Signal) -> &'static str {
    recorded(signal).0
}

/// Reads the answer to [`hour`] about the hour until `to`.
pub fn read_hour(labels: &Labels, signal: Signal, series: &[Series], to: Timestamp, figures: &mut Figures) {
    let from = to.minus(STEP * u32::try_from(POINTS - 1).unwrap_or(u32::MAX));
    for one in series {
        let mut line = vec![f64::NAN; POINTS];
        for (at, value) in &one.points {
            let steps = at.since(from).as_millis() / STEP.as_millis();
            let place = usize::try_from(steps).ok().and_then(|place| line.get_mut(place));
            if let Some(place) = place {
                *place = *value;
            }
        }
        if let Some(version) = entry(labels, one, figures) {
            version.of_mut(signal).line = line;
        }
    }
}

/// `None`: no prompt has this name.
fn entry<'f>(labels: &Labels, series: &Series, figures: &'f mut Figures) -> Option<&'f mut VersionFigures> {
    let prompt = PromptName::of(series.label(&labels.prompt)).ok()?;
    Some(figures.entry(&prompt, series.label(&labels.version)))
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
}
