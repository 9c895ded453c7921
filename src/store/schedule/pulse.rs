//! Compares Redis' clock with the clock of this process, which is never set. If Redis' clock was set, or another master
//! took over, the next claim notices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::decision::Timestamp;

/// A new master's clock may differ a little, and replies take time.
const TOLERANCE: Duration = Duration::from_secs(5);
/// The number of jumps that are remembered: everything that an older one could have ended has ended.
const JUMPS: usize = 16;

/// How Redis' clock moved apart from the passing of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum ClockStep {
    Back(Duration),
    Ahead(Duration),
}

/// Redis TIME at the last claim, and the observed jumps.
#[derive(Debug, Default)]
pub(in crate::store) struct Pulse(Mutex<ClockReadings>);

#[derive(Debug, Default)]
struct ClockReadings {
    last: Option<(Instant, Timestamp)>,
    /// When, by the clock after the jump, and by how much.
    jumps: Vec<(Timestamp, Duration)>,
}

impl ClockReadings {
    fn step(&self, at: Instant, clock: Timestamp) -> Option<ClockStep> {
        let (last, then) = self.last?;
        let expected = then.plus(at.saturating_duration_since(last));
        let (back, ahead) = (expected.since(clock), clock.since(expected));
        match () {
            () if back > TOLERANCE => Some(ClockStep::Back(back)),
            () if ahead > TOLERANCE => Some(ClockStep::Ahead(ahead)),
            () => None,
        }
    }
}

/// Each method takes Redis' clock as it was read at `at`.
impl Pulse {
    /// Returns whether the clock was set since the last claim.
    pub fn step(&self, at: Instant, clock: Timestamp) -> Option<ClockStep> {
        self.seen().step(at, clock)
    }

    /// Records a claim without a step. One from before what another worker has recorded would show its step again.
    pub fn beat(&self, at: Instant, clock: Timestamp) {
        let mut seen = self.seen();
        if seen.last.is_none_or(|(last, _)| last <= at) {
            seen.last = Some((at, clock));
        }
    }

    /// Records a step back, which first cancels an earlier jump ahead; once, although several workers notice it.
    pub fn went_back(&self, at: Instant, clock: Timestamp) {
        let mut seen = self.seen();
        let Some(ClockStep::Back(mut left)) = seen.step(at, clock) else { return };
        while let Some((_, jump)) = seen.jumps.last_mut() {
            let taken = left.min(*jump);
            (left, *jump) = (left - taken, *jump - taken);
            if *jump > Duration::ZERO {
                break;
            }
            seen.jumps.pop();
        }
        seen.last = Some((at, clock));
    }

    /// Records a jump ahead, once. `now` is the time that all other code uses.
    pub fn jumped(&self, at: Instant, clock: Timestamp, now: Timestamp) {
        let mut seen = self.seen();
        let Some(ClockStep::Ahead(by)) = seen.step(at, clock) else { return };
        if seen.jumps.len() == JUMPS {
            seen.jumps.remove(0);
        }
        seen.jumps.push((now, by));
        seen.last = Some((at, clock));
    }

    /// How much of the time since `since` did not really pass.
    pub fn jumps_since(&self, since: Timestamp) -> Duration {
        self.seen().jumps.iter().filter(|(at, _)| since < *at).map(|(_, by)| *by).sum()
    }

    fn seen(&self) -> MutexGuard<'_, ClockReadings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn only_what_the_own_clock_does_not_confirm_is_a_step() {
        let pulse = Pulse::default();
        let start = Timestamp(1_000_000_000);
        let step = |clock| pulse.step(Instant::now(), clock);
        assert_eq!(step(start), None, "there is nothing to compare with");
        pulse.beat(Instant::now(), start);
        tokio::time::advance(60 * MINUTE).await;
        assert_eq!(step(start.plus(60 * MINUTE)), None, "Redis was away for an hour");
        assert_eq!(step(start.plus(70 * MINUTE)), Some(ClockStep::Ahead(10 * MINUTE)));
        assert_eq!(step(start.plus(50 * MINUTE)), Some(ClockStep::Back(10 * MINUTE)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_counts_for_what_began_before_it_until_it_is_taken_back() {
        let pulse = Pulse::default();
        let (before, at) = (Timestamp(1_000_000_000), Instant::now());
        pulse.beat(at, before);
        let jump = before.plus(10 * MINUTE);
        pulse.jumped(at, jump, jump);
        assert_eq!(pulse.jumps_since(before), 10 * MINUTE);
        assert_eq!(pulse.jumps_since(jump), Duration::ZERO);
        let further = jump.plus(5 * MINUTE);
        pulse.jumped(at, further, further);
        assert_eq!(pulse.jumps_since(before), 15 * MINUTE);
        pulse.went_back(at, further.minus(12 * MINUTE));
        assert_eq!(pulse.jumps_since(before), 3 * MINUTE);
        pulse.went_back(at, before.minus(60 * MINUTE));
        assert_eq!(pulse.jumps_since(before), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_several_workers_notice_counts_once() {
        let pulse = Pulse::default();
        let (before, at) = (Timestamp(1_000_000_000), Instant::now());
        pulse.beat(at, before);
        let ahead = before.plus(60 * MINUTE);
        let back = ahead.minus(20 * MINUTE);
        for _ in 0..3 {
            pulse.jumped(at, ahead, ahead);
        }
        assert_eq!(pulse.jumps_since(before), 60 * MINUTE);
        pulse.beat(at - MINUTE, before.minus(MINUTE)); // of a worker that was slower
        assert_eq!(pulse.step(at, ahead), None);
        // all see it before the first has made the tasks due
        assert_eq!(pulse.step(at, back), Some(ClockStep::Back(20 * MINUTE)));
        tokio::time::advance(MINUTE).await;
        for _ in 0..3 {
            pulse.went_back(at, back);
        }
        assert_eq!(pulse.jumps_since(before), 40 * MINUTE);
        assert_eq!(pulse.step(Instant::now(), back.plus(MINUTE)), None, "nor is the time that this took a step");
    }
}
