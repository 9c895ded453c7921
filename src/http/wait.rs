//! Requests that wait for a worker.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a request waits. The worker's query to Prometheus may take 2 s.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(25);
const SELDOM: Duration = Duration::from_millis(400);

/// Each look costs Redis a read, so they become rarer.
pub struct Patience {
    until: Instant,
    next: Duration,
}

impl Patience {
    pub fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE, next: LOOK_AGAIN }
    }

    /// Waits until the next check. Returns false if that is the last one.
    pub async fn wait(&mut self) -> bool {
        sleep(self.next).await;
        self.next = (self.next * 2).min(SELDOM);
        Instant::now() >= self.until
    }
}
