//! Durations as Prometheus writes them: `30s`, `5m`, `1h30m`, `500ms`.

use std::time::Duration;

/// Prometheus stores durations as signed 64-bit nanoseconds; what it refuses is refused here.
const LONGEST: u128 = i64::MAX as u128;

/// The units in descending order, the only order in which they may appear.
const UNITS: [(&str, u128); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is not a Prometheus duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is empty.
    #[error("empty duration")]
    Empty,
    /// The text is not a list of numbers with units, in descending order of units.
    #[error("not a duration such as 30s, 5m or 1h30m")]
    Malformed,
    /// More than about 292 years.
    #[error("duration too long")]
    TooLong,
}

/// Parses a Prometheus duration: whole numbers with the units `y w d h m s ms`, each at most once and in that order, or
/// a bare `0`.
///
/// ```
/// # use prompt_rollback::config::parse_prometheus_duration;
/// # use std::time::Duration;
/// assert_eq!(parse_prometheus_duration("1h30m"), Ok(Duration::from_secs(5400)));
/// assert!(parse_prometheus_duration("30m1h").is_err());
/// ```
pub fn parse_prometheus_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut allowed = UNITS.as_slice();
    let mut millis: u128 = 0;
    while !rest.is_empty() {
        let (digits, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_at_first(after, |c| c.is_ascii_digit());
        let place = allowed.iter().position(|(name, _)| *name == unit).ok_or(DurationError::Malformed)?;
        if digits.is_empty() {
            return Err(DurationError::Malformed);
        }
        let count: u128 = digits.parse().map_err(|_| DurationError::TooLong)?;
        millis = count
            .checked_mul(allowed[place].1)
            .and_then(|more| millis.checked_add(more))
            .filter(|sum| *sum <= LONGEST / 1_000_000)
            .ok_or(DurationError::TooLong)?;
        allowed = &allowed[place + 1..];
        rest = after;
    }
    Ok(Duration::from_millis(millis as u64))
}

/// Formats a duration so that Prometheus, and [`parse_prometheus_duration`], can parse it.
pub fn format_prometheus_duration(duration: Duration) -> String {
    let mut left = duration.as_millis();
    let mut text = String::new();
    for (unit, millis) in UNITS {
        // like Prometheus: 90d is easier to read than 12w6d
        let only_whole = matches!(unit, "y" | "w");
        if left >= millis && (!only_whole || left.is_multiple_of(millis)) {
            text.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_prometheus_reads() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            ("1y", 31_536_000_000),
            ("1y2w3d4h5m6s7ms", 31_536_000_000 + 1_209_600_000 + 259_200_000 + 14_706_007),
            ("90m", 5_400_000),
            ("007s", 7_000),
            ("292y", 292 * 31_536_000_000),
        ] {
            assert_eq!(parse_prometheus_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        assert_eq!(parse_prometheus_duration(""), Err(DurationError::Empty));
        for text in [
            "1", "00", "s", "m5", "5 m", " 5m", "5m ", "-5m", "+5m", "1.5h", "30m1h", "1m1m", "5M", "5min", "1sm",
            "٣s", "5µs", "1h-", "\n",
        ] {
            assert_eq!(parse_prometheus_duration(text), Err(DurationError::Malformed), "{text:?}");
        }
        for text in ["293y", "9223372036855ms", "99999999999999999999999999999999999999999999s"] {
            assert_eq!(parse_prometheus_duration(text), Err(DurationError::TooLong), "{text}");
        }
    }
}
