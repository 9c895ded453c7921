//! Limits how many prompts' alerts are handled at once, across all deliveries, on the way to Redis.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Prompts with a critical alert that are handled at once: enough to fill the pipeline to Redis, few enough to bound
/// memory.
pub const URGENT: usize = 128;
/// Other prompts that are handled at once. A critical alert waits for at most these, a few milliseconds.
pub const OTHER: usize = 32;

/// Huge deliveries that are handled at once.
pub const HUGE_AT_ONCE: usize = 2;

/// Rows of lists that are in memory at once: an incident takes up to 100 kB. A list has at most a thousand.
pub const ROWS_AT_ONCE: usize = 2_000;

/// Each delivery is in the queue once, however many prompts it has, so deliveries take turns.
#[derive(Debug)]
pub struct Lanes {
    urgent: Semaphore,
    other: Semaphore,
}

impl Lanes {
    pub fn new() -> Self {
        Self { urgent: Semaphore::new(URGENT), other: Semaphore::new(OTHER) }
    }

    /// Waits for a turn, which ends when it is dropped.
    pub async fn acquire(&self, urgent: bool) -> Option<SemaphorePermit<'_>> {
        let lane = if urgent { &self.urgent } else { &self.other };
        lane.acquire().await.ok() // fails only if the semaphore is closed, which never happens
    }
}
