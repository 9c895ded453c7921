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
    evict: Notify,
}

impl Slot {
    /// Called when a whole request has arrived: it is answered before the connection can be evicted.
    pub fn busy(&self) {
        self.busy.store(true, Ordering::Relaxed);
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
    freed: Notify,
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
        Self { started: Instant::now(), slots: Mutex::default(), freed: Notify::new() }
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
                        evict: Notify::new(),
                    });
                    slots.open.insert(id, Arc::clone(&slot));
                    return slot;
                }
            }
            freed.await;
        }
    }

    /// Called when the request is answered and the connection waits for the next.
    pub fn idle(&self, slot: &Slot) {
        slot.idle_since.store(self.now(), Ordering::Relaxed);
        slot.busy.store(false, Ordering::Relaxed);
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
