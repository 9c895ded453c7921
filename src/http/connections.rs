//! The open connections, and which of them are closed when there are too many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The state of a connection that eviction uses.
#[derive(Debug)]
pub struct Slot {
    busy: AtomicBool,
    /// Milliseconds since the server started.
    idle_since: AtomicU64,
    /// Whether it has become idle and a waiting connection was not told yet.
    answered: AtomicBool,
    evict: Notify,
    freed: Arc<Notify>,
}

impl Slot {
    /// Called when a whole request has arrived: it is answered before the connection can be evicted.
    pub fn busy(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// Called when nothing is left in the write buffer. Only then a waiting connection is told that this one can be evicted:
    /// told earlier, it would take the place at once and cut the response off.
    pub fn written(&self) {
        if self.answered.swap(false, Ordering::Relaxed) {
            self.freed.notify_one();
        }
    }

    /// Completes when the connection must be closed.
    pub async fn evicted(&self) {
        self.evict.notified().await;
    }
}

/// Connections that were evicted and are not closed yet: new connections need not wait for these.
const LEAVING: usize = 64;

/// The open connections, up to the limit, and a few that are closing. At the limit, the connection that has been
/// longest without a whole request is evicted, so that slow or silent clients cannot keep Alertmanager out.
#[derive(Debug)]
pub struct Connections {
    started: Instant,
    slots: Mutex<Slots>,
    /// Told when a connection has ended or can be evicted.
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Slots {
    open: HashMap<u64, Arc<Slot>>,
    leaving: usize,
}

impl Slots {
    /// Evicts the connection that has been longest without a whole request.
    fn evict(&mut self) {
        let idle = self.open.iter().filter(|(_, slot)| !slot.busy.load(Ordering::Relaxed));
        let longest = idle.min_by_key(|(_, slot)| slot.idle_since.load(Ordering::Relaxed)).map(|(id, _)| *id);
        if let Some(slot) = longest.and_then(|id| self.open.remove(&id)) {
            self.leaving += 1;
            slot.evict.notify_one();
        }
    }
}

impl Connections {
    pub fn new() -> Self {
        Self { started: Instant::now(), slots: Mutex::default(), freed: Arc::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection, of at most `max`.
    pub async fn enter(&self, id: u64, max: usize) -> Arc<Slot> {
        loop {
            let freed = self.freed.notified();
            {
                let mut slots = self.slots();
                if slots.open.len() >= max && slots.leaving < LEAVING {
                    slots.evict();
                }
                if slots.open.len() < max {
                    let slot = Arc::new(Slot {
                        busy: AtomicBool::new(false),
                        idle_since: AtomicU64::new(self.now()),
                        answered: AtomicBool::new(false),
                        evict: Notify::new(),
                        freed: Arc::clone(&self.freed),
                    });
                    slots.open.insert(id, Arc::clone(&slot));
                    return slot;
                }
            }
            freed.await;
        }
    }

    /// Called when the request is answered and the connection waits for the next. It can be evicted even if the client has
    /// not read the whole response, because a client may read slowly.
    pub fn idle(&self, slot: &Slot) {
        slot.idle_since.store(self.now(), Ordering::Relaxed);
        slot.busy.store(false, Ordering::Relaxed);
        slot.answered.store(true, Ordering::Relaxed);
    }

    pub fn leave(&self, id: u64) {
        let mut slots = self.slots();
        if slots.open.remove(&id).is_none() {
            slots.leaving -= 1;
        }
        drop(slots);
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_takes_the_place_of_the_first_that_is_answered() {
        let connections = Connections::new();
        let slot = connections.enter(1, 1).await;
        slot.busy();
        let second = connections.enter(2, 1);
        tokio::pin!(second);
        let waited = Duration::from_secs(9);
        assert!(timeout(waited, &mut second).await.is_err(), "the first is busy");
        connections.idle(&slot);
        assert!(timeout(waited, &mut second).await.is_err(), "its response is not written yet");
        slot.written();
        timeout(waited, second).await.expect("a place");
        timeout(waited, slot.evicted()).await.expect("the first is evicted");
    }
}
