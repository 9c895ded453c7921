//! The open connections, and who gives way when there are too many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// A connection, as its eviction sees it.
#[derive(Debug)]
pub struct Slot {
    busy: AtomicBool,
    /// Milliseconds since the server started.
    idle_since: AtomicU64,
    evict: Notify,
}

impl Slot {
    /// A whole request is there: it is answered before the connection may be taken away.
    pub fn busy(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// Completes when the connection is to give way.
    pub async fn evicted(&self) {
        self.evict.notified().await;
    }
}

/// The open connections, at most `max`. When they are all taken, the one longest without a whole request gives way:
/// clients that say nothing, or slowly, can't keep Alertmanager out.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    started: Instant,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    freed: Notify,
}

impl Connections {
    pub fn new(max: usize) -> Self {
        Self { max, started: Instant::now(), slots: Mutex::default(), freed: Notify::new() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn enter(&self, id: u64) -> Arc<Slot> {
        loop {
            let freed = self.freed.notified();
            {
                let mut slots = self.slots();
                if slots.len() < self.max {
                    let slot = Arc::new(Slot {
                        busy: AtomicBool::new(false),
                        idle_since: AtomicU64::new(self.now()),
                        evict: Notify::new(),
                    });
                    slots.insert(id, Arc::clone(&slot));
                    return slot;
                }
                let idle = slots.values().filter(|slot| !slot.busy.load(Ordering::Relaxed));
                if let Some(slot) = idle.min_by_key(|slot| slot.idle_since.load(Ordering::Relaxed)) {
                    slot.evict.notify_one();
                }
            }
            freed.await;
        }
    }

    /// The request is answered; the connection waits for the next.
    pub fn idle(&self, slot: &Slot) {
        slot.idle_since.store(self.now(), Ordering::Relaxed);
        slot.busy.store(false, Ordering::Relaxed);
    }

    pub fn leave(&self, id: u64) {
        self.slots().remove(&id);
        self.freed.notify_one();
    }
}
