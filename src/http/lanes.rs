//! The queue to Redis: how many prompts' alerts are handled at the same time, in all deliveries together.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Prompts with a critical alert that are handled at once: enough to fill the pipeline to Redis, few enough to bound memory.
pub const URGENT: usize = 128;
/// Other prompts that are handled at once. A critical waits for no more than these in Redis: a few milliseconds.
pub const OTHER: usize = 32;

/// Each delivery stands in line once, however many prompts it has: deliveries take turns.
#[derive(Debug)]
pub struct Lanes {
    urgent: Semaphore,
    other: Semaphore,
}

impl Lanes {
    pub fn new() -> Self {
        Self { urgent: Semaphore::new(URGENT), other: Semaphore::new(OTHER) }
    }

    /// Waits for a turn, which lasts until it is dropped.
    pub async fn acquire(&self, urgent: bool) -> Option<SemaphorePermit<'_>> {
        let lane = if urgent { &self.urgent } else { &self.other };
        lane.acquire().await.ok() // fails only once closed, which it never is
    }
}
