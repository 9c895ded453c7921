//! Requests that wait for a worker.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a request waits. The worker's query to Prometheus may take 2 s.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(25);

pub struct Patience(Instant);

impl Patience {
    pub fn begin() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// Waits until the next check. Returns false if that is the last one.
    pub async fn wait(&self) -> bool {
        sleep(LOOK_AGAIN).await;
        Instant::now() >= self.0
    }
}
