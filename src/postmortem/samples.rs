//! Prometheus' samples for an incident: queried when its checks end, and stored separately.

use serde::{Deserialize, Deserializer, Serialize};

use crate::decision::Timestamp;

/// The data about an incident's metric once the checks of a rollback have ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IncidentMetric {
    Missing(Missing),
    Samples(Box<Samples>),
}

/// It could not be measured, and will not be queried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub missing: String,
    /// Like [`Samples::switched_at`].
    #[serde(rename = "flip_at", default)]
    pub switched_at: i64,
}

impl IncidentMetric {
    /// Whether it belongs to the rollback at `switch`, not to an earlier one of the same incident.
    pub fn is_of(&self, switch: Timestamp) -> bool {
        let about = match self {
            Self::Missing(missing) => missing.switched_at,
            Self::Samples(samples) => samples.switched_at,
        };
        about == switch.0 || about == 0 // earlier receivers did not write it
    }
}

/// One metric of two versions around a rollback.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// The query, for people.
    pub expression: String,
    /// What the values measure, such as "error ratio".
    pub label: String,
    #[serde(default)]
    pub unit: Unit,
    #[serde(default, with = "number")]
    pub threshold: Option<f64>,
    pub step_ms: i64,
    /// The version that was rolled back.
    pub bad: SampleSeries,
    /// The version that was rolled back to.
    #[serde(default)]
    pub good: Option<SampleSeries>,
    /// The first sample beyond the threshold, in milliseconds since the Unix epoch by Prometheus' clock.
    #[serde(default)]
    pub first_bad_at: Option<i64>,
    /// The number of the bad version's failed responses from then until recovery: a counter's increase.
    #[serde(default, with = "number")]
    pub bad_responses: Option<f64>,
    /// The rollback that this is about, in milliseconds since the Unix epoch.
    #[serde(rename = "flip_at", default)]
    pub switched_at: i64,
    /// Whether `good` replaced `bad`, which was not rolled back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shipped: bool,
}

/// The unit of a value, for formatting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Ratios, shown in percent.
    Ratio,
    Seconds,
    /// A bare number; also any unit that only a later receiver knows.
    #[default]
    #[serde(other)]
    Number,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleSeries {
    pub version: String,
    #[serde(deserialize_with = "read_points")]
    points: Vec<(i64, Option<f64>)>,
}

impl SampleSeries {
    /// As many as fit into a picture.
    pub const MAX_POINTS: usize = 600;

    /// Points are milliseconds since the Unix epoch and a value; a value that is not finite is a gap in the line. Of
    /// more than [`Series::MAX_POINTS`], every n-th is kept.
    pub fn new(version: impl Into<String>, points: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let points = points.into_iter().map(|(at, value)| (at, value.is_finite().then_some(value))).collect();
        Self { version: version.into(), points: bounded(points) }
    }

    /// Sorted by time.
    pub fn points(&self) -> &[(i64, Option<f64>)] {
        &self.points
    }
}

impl Samples {
    pub fn series(&self) -> impl Iterator<Item = &SampleSeries> {
        std::iter::once(&self.bad).chain(&self.good)
    }

    pub fn first_bad(&self) -> Option<Timestamp> {
        self.first_bad_at.map(Timestamp)
    }
}

impl Unit {
    /// Formats a value for people: `7.3 %`, `1.25 s`, `0.81`.
    pub fn format(self, value: f64) -> String {
        match self {
            Unit::Ratio => format!("{} %", short(value * 100.0)),
            Unit::Seconds => format!("{} s", short(value)),
            Unit::Number => short(value),
        }
    }
}

/// About three significant digits; very large and very small values in scientific notation.
fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = match size {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.01.. => 4,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn bounded(mut points: Vec<(i64, Option<f64>)>) -> Vec<(i64, Option<f64>)> {
    points.sort_by_key(|(at, _)| *at);
    let every = points.len().div_ceil(SampleSeries::MAX_POINTS).max(1);
    if every > 1 { points.into_iter().step_by(every).collect() } else { points }
}

fn read_points<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(i64, Option<f64>)>, D::Error> {
    Vec::deserialize(deserializer).map(bounded)
}

/// JSON has no NaN and no infinity: they are written as null, and read as absent.
mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.filter(|value| value.is_finite()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_json_and_what_is_no_number_is_a_gap() {
        let bad = SampleSeries::new("v2", [(3_000, 0.07), (1_000, f64::NAN), (2_000, f64::INFINITY)]);
        assert_eq!(bad.points(), [(1_000, None), (2_000, None), (3_000, Some(0.07))]);
        let samples = Samples {
            expression: "errors / all".to_owned(),
            unit: Unit::Ratio,
            bad,
            good: Some(SampleSeries::new("v1", [(1_000, 0.0)])),
            threshold: Some(f64::NAN),
            bad_responses: Some(41.5),
            first_bad_at: Some(3_000),
            ..Samples::default()
        };
        let json = serde_json::to_string(&samples).unwrap();
        let read: Samples = serde_json::from_str(&json).unwrap();
        let expected = Samples { threshold: None, ..samples };
        assert_eq!(read, expected);
        let measured: IncidentMetric = serde_json::from_str(&json).unwrap();
        assert_eq!(measured, IncidentMetric::Samples(Box::new(expected)));
        let missing =
            IncidentMetric::Missing(Missing { missing: "Prometheus was unreachable".to_owned(), switched_at: 3 });
        let json = serde_json::to_string(&missing).unwrap();
        assert_eq!(serde_json::from_str::<IncidentMetric>(&json).unwrap(), missing);
        assert!(missing.is_of(Timestamp(3)) && !missing.is_of(Timestamp(4)));
    }

    #[test]
    fn a_series_is_bounded_however_it_comes() {
        let many: Vec<(i64, f64)> = (0..6_001).map(|i| (i, 1.0)).collect();
        assert_eq!(SampleSeries::new("v2", many.clone()).points().len(), 546, "every eleventh");
        let json = format!(r#"{{"version":"v2","points":{}}}"#, serde_json::to_string(&many).unwrap());
        assert_eq!(serde_json::from_str::<SampleSeries>(&json).unwrap().points().len(), 546);
        let full = SampleSeries::new("v2", many.into_iter().take(SampleSeries::MAX_POINTS));
        assert_eq!(full.points().len(), SampleSeries::MAX_POINTS, "what fits is kept whole");
    }

    #[test]
    fn a_later_unit_is_a_bare_number() {
        assert_eq!(serde_json::from_str::<Unit>(r#""bytes""#).unwrap(), Unit::Number);
    }

    #[test]
    fn values_are_written_as_people_say_them() {
        let said = [(Unit::Ratio, 0.0731), (Unit::Ratio, 1.0), (Unit::Seconds, 1.25), (Unit::Number, 0.0)];
        assert_eq!(said.map(|(unit, value)| unit.format(value)), ["7.31 %", "100 %", "1.25 s", "0"]);
        assert_eq!([1e300, -2.5e-7, 123_456.7].map(short), ["1.00e300", "-2.50e-7", "123457"]);
    }
}
