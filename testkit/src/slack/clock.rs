//! The double's own time, which a test may move.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the double takes for "now": timestamps, rate limits, signatures, the life of triggers and response URLs.
#[derive(Debug)]
pub struct Clock(Mutex<Kind>);

#[derive(Debug)]
enum Kind {
    /// The machine's time plus what was added by hand.
    Running(Duration),
    /// Stands still unless moved.
    Frozen(Duration),
    /// Went by `from` at `since`, and goes so many times as fast as the machine's since then.
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

    /// From now on a second lasts so many times less: all limits hold as they are, and a test with many messages ends.
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
