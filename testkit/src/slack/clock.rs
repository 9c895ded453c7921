//! The double's clock, which a test may move.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The double's current time: for timestamps, rate limits, signatures, and the expiry of triggers and response URLs.
#[derive(Debug)]
pub struct Clock(Mutex<Kind>);

#[derive(Debug)]
enum Kind {
    /// The machine's time plus what was added by hand.
    Running(Duration),
    /// Stands still unless moved.
    Frozen(Duration),
    /// Went by `from` at `since`, and runs this many times as fast as the machine's clock since then.
    Fast { since: Instant, from: Duration, times: u32 },
}

impl Clock {
    pub(super) fn running() -> Self {
        Self(Mutex::new(Kind::Running(Duration::ZERO)))
    }

    pub(super) fn frozen(at: SystemTime) -> Self {
        Self(Mutex::new(Kind::Frozen(at.duration_since(UNIX_EPOCH).unwrap_or_default())))
    }

    /// Moves the clock forward. Nothing sleeps: a budget that refills in this time is full at once.
    pub fn advance(&self, by: Duration) {
        match &mut *self.lock() {
            Kind::Running(added) => *added += by,
            Kind::Frozen(at) => *at += by,
            Kind::Fast { from, .. } => *from += by,
        }
    }

    /// Makes the clock run faster by this factor: all limits stay in force, and a test with many messages finishes
    /// sooner.
    pub fn run_faster(&self, times: u32) {
        let from = self.since_epoch();
        *self.lock() = Kind::Fast { since: Instant::now(), from, times };
    }

    /// Now.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_epoch()
    }

    pub(super) fn since_epoch(&self) -> Duration {
        match &*self.lock() {
            Kind::Running(added) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + *added,
            Kind::Frozen(at) => *at,
            Kind::Fast { since, from, times } => *from + since.elapsed() * *times,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kind> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
