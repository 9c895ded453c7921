//! Requests that wait for a worker.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a request waits. The worker's query to Prometheus may take 2 s.
const PATIENCE: Duration = Duration::from_secs(3);
/// The part of `server.request_timeout` that is kept for the last check and for the answer.
const REST: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(25);
const SELDOM: Duration = Duration::from_millis(400);

/// How long a request waits for what a worker reads from Prometheus, at most `most`. `timeout`: `server.request_timeout`.
pub fn patience(most: Duration, timeout: Duration) -> Duration {
    most.min(timeout.saturating_sub(REST).max(timeout / 2))
}

/// Each look costs Redis a read, so they become rarer.
pub struct Patience {
    until: Instant,
    next: Duration,
}

impl Patience {
    /// The wait of a request that began to arrive at `arrived`. `timeout`: `server.request_timeout`, which counts from then as well.
    pub fn begin(arrived: Instant, timeout: Duration) -> Self {
        let patience = PATIENCE.min(timeout.saturating_sub(REST));
        Self { until: arrived + patience, next: LOOK_AGAIN }
    }

    /// Waits until the next check. Returns false if that is the last one.
    pub async fn wait(&mut self) -> bool {
        sleep(self.next).await;
        self.next = (self.next * 2).min(SELDOM);
        Instant::now() >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_time_for_its_answer() {
        let kept =
            [(3_000, 4_000, 3_000), (3_000, 2_000, 1_000), (1_000, 4_000, 1_000), (1_000, 1_000, 500), (500, 600, 300)];
        for (most, timeout, expected) in kept {
            let patience = patience(Duration::from_millis(most), Duration::from_millis(timeout));
            assert_eq!(patience.as_millis(), expected, "{most} ms of {timeout} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_it_may_take() {
        for (timeout, shortest, longest) in
            [(4_999, 3_000, 3_400), (4_000, 3_000, 3_400), (2_000, 1_000, 1_400), (500, 0, 50)]
        {
            let start = Instant::now();
            let mut patience = Patience::begin(start, Duration::from_millis(timeout));
            while !patience.wait().await {}
            let waited = start.elapsed().as_millis();
            assert!((shortest..longest).contains(&waited), "{waited} ms of {timeout} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_request_took_before_it_waits_counts_as_well() {
        for (took, longest) in [(1_900, 3_400), (3_500, 3_600)] {
            let arrived = Instant::now();
            sleep(Duration::from_millis(took)).await; // the body arrives, and Redis is connected again
            let mut patience = Patience::begin(arrived, Duration::from_secs(4));
            while !patience.wait().await {}
            let waited = arrived.elapsed().as_millis();
            assert!(waited < longest, "{waited} ms after {took} ms");
        }
    }
}
