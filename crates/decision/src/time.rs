//! Moments in Redis TIME.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC. Read from Redis TIME with each load, never from the local clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This moment minus `duration`, saturating.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// `10:02:11 UTC`.
    pub fn time_of_day(self) -> String {
        let seconds = self.0.div_euclid(1_000).rem_euclid(86_400);
        format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }

    /// How long ago `earlier` was; zero if it lies ahead, because clocks of two Redis masters may differ.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Formats a duration for people: `45 s`, `2 min`, `3 h`, `2 d`. Rounded down to its largest unit.
pub fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3_600 => format!("{} min", s / 60),
        s @ 3_600..86_400 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_ahead_is_no_time_ago() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(5)), Duration::from_millis(4));
    }

    #[test]
    fn the_time_of_day_is_told_in_utc() {
        assert_eq!(Timestamp(1_800_000_131_999).time_of_day(), "08:02:11 UTC");
        assert_eq!(Timestamp(-1).time_of_day(), "23:59:59 UTC");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(1).plus(Duration::MAX), Timestamp(i64::MAX));
        assert_eq!(Timestamp(i64::MIN).minus(Duration::from_secs(1)), Timestamp(i64::MIN));
    }

    #[test]
    fn durations_are_spoken_in_their_largest_unit() {
        let said: Vec<_> = [0, 59, 60, 3_599, 3_600, 86_400].map(|s| spoken(Duration::from_secs(s))).into();
        assert_eq!(said, ["0 s", "59 s", "1 min", "59 min", "1 h", "1 d"]);
    }
}
