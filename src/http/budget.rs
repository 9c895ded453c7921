//! Memory for bodies and responses: what each request may use, and what all requests share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// The bytes that each request has for itself, so that a critical alert always fits.
pub const OWN: usize = 8 << 10;

/// The bytes that all requests share.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    bytes: usize,
    /// The bodies that are still arriving, the oldest first, if they give way when the budget is full.
    arriving: Option<Arc<Mutex<VecDeque<Arc<BodyReservation>>>>>,
}

/// A part of the budget, returned when dropped.
#[derive(Debug, Default)]
pub struct ReservedBytes(Option<OwnedSemaphorePermit>);

impl ReservedBytes {
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(bytes)), bytes, arriving: None }
    }

    /// For bodies that anyone may send: when it is full, the oldest body that is still arriving gives way. Otherwise a few
    /// senders that never finish would keep all others out.
    pub fn unsigned(bytes: usize) -> Self {
        Self { arriving: Some(Arc::default()), ..Self::new(bytes) }
    }

    /// Adjusts `held` to `bytes`.
    pub fn hold(&self, held: &mut ReservedBytes, bytes: usize) -> Result<(), ApiError> {
        let wanted = bytes.saturating_sub(OWN);
        let more = wanted.saturating_sub(held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return Ok(());
        }
        let permit = u32::try_from(more).ok().and_then(|more| Arc::clone(&self.free).try_acquire_many_owned(more).ok());
        let permit = permit.ok_or_else(overloaded)?;
        match &mut held.0 {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }

    /// A body that begins to arrive.
    pub fn body(&self) -> Arriving<'_> {
        Arriving { budget: self, share: None }
    }

    /// A body that has arrived and gives way again, until it is [`complete`](Arriving::complete): its request waits.
    pub fn lend(&self, held: ReservedBytes) -> Arriving<'_> {
        let share = (!held.is_none()).then(|| self.enter(held));
        Arriving { budget: self, share }
    }

    fn enter(&self, held: ReservedBytes) -> Arc<BodyReservation> {
        let share = Arc::new(BodyReservation { held: Mutex::new(held), given_up: Notify::new() });
        if let Some(arriving) = &self.arriving {
            lock(arriving).push_back(Arc::clone(&share));
        }
        share
    }

    /// Takes the memory of the oldest body that is still arriving, if that is not `own`.
    fn give_up_oldest(&self, own: &Arc<BodyReservation>) -> bool {
        let Some(arriving) = &self.arriving else { return false };
        let mut arriving = lock(arriving);
        let Some(oldest) = arriving.iter().position(|share| !Arc::ptr_eq(share, own)) else { return false };
        let Some(share) = arriving.remove(oldest) else { return false };
        drop(share.take());
        share.given_up.notify_one();
        true
    }

    fn leave(&self, own: &Arc<BodyReservation>) {
        if let Some(arriving) = &self.arriving {
            lock(arriving).retain(|share| !Arc::ptr_eq(share, own));
        }
    }
}

pub fn overloaded() -> ApiError {
    let message = "too many large requests and responses at once (server.max_buffered_bytes): try again";
    ApiError::unavailable("overloaded", message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a body that is still arriving has of the budget.
#[derive(Debug)]
struct BodyReservation {
    held: Mutex<ReservedBytes>,
    given_up: Notify,
}

impl BodyReservation {
    fn take(&self) -> ReservedBytes {
        std::mem::take(&mut *lock(&self.held))
    }
}

/// A body that is still arriving. Gives its memory back when dropped.
#[derive(Debug)]
pub struct Arriving<'a> {
    budget: &'a Budget,
    /// `None` while it is small.
    share: Option<Arc<BodyReservation>>,
}

impl Arriving<'_> {
    /// Adjusts its memory to `bytes`.
    pub fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= OWN {
            return Ok(());
        }
        let share = self.share.get_or_insert_with(|| self.budget.enter(ReservedBytes::default()));
        loop {
            let held = self.budget.hold(&mut lock(&share.held), bytes);
            if held.is_ok() || !self.budget.give_up_oldest(share) {
                return held;
            }
        }
    }

    /// Completes when it must give way to another body.
    pub async fn given_up(&self) {
        match &self.share {
            Some(share) => share.given_up.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The memory of the whole body, which from now on gives way to no other.
    pub fn complete(self) -> ReservedBytes {
        let Some(share) = &self.share else { return ReservedBytes::default() };
        self.budget.leave(share);
        share.take()
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            self.budget.leave(share);
        }
    }
}

/// Memory for parsed deliveries. Large ones have a part of their own, so that they keep no small one out.
#[derive(Debug, Clone)]
pub struct ParsedBudget {
    small: Budget,
    large: Budget,
}

impl ParsedBudget {
    /// Parsed deliveries of at most this many bytes are small: about 700 alerts.
    const SMALL: usize = 1 << 20;

    /// Of a receiver whose bodies and responses may take `buffered` bytes.
    pub fn new(buffered: usize) -> Self {
        Self { small: Budget::new(buffered / 6), large: Budget::new(buffered / 2) }
    }

    /// Reserves `bytes`. A delivery that takes more than there is fits if it is the only one.
    pub fn hold(&self, bytes: usize) -> Result<ReservedBytes, ApiError> {
        let budget = if bytes <= Self::SMALL { &self.small } else { &self.large };
        let mut held = ReservedBytes::default();
        budget.hold(&mut held, bytes.min(budget.bytes))?;
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn small_bodies_are_free_and_large_ones_share_the_budget() {
        let budget = Budget::new(100_000);
        let (mut one, mut other, mut small) =
            (ReservedBytes::default(), ReservedBytes::default(), ReservedBytes::default());
        assert!(budget.hold(&mut one, OWN + 60_000).is_ok());
        assert!(budget.hold(&mut one, OWN + 90_000).is_ok(), "it grows by the difference");
        let refused = budget.hold(&mut other, OWN + 20_000).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (503, "overloaded"), "Alertmanager tries again");
        for _ in 0..1_000 {
            assert!(budget.hold(&mut small, OWN).is_ok());
        }
        drop(one);
        assert!(budget.hold(&mut other, OWN + 20_000).is_ok());
    }

    #[test]
    fn the_oldest_unsigned_body_that_is_still_arriving_gives_way() {
        let budget = Budget::unsigned(100_000);
        let given_up = |body: &Arriving<'_>| body.given_up().now_or_never().is_some();
        let (mut whole, mut oldest, mut older) = (budget.body(), budget.body(), budget.body());
        whole.hold(OWN + 20_000).expect("there is room");
        let whole = whole.complete();
        oldest.hold(OWN + 40_000).expect("there is room");
        older.hold(OWN + 40_000).expect("there is room");
        let mut newest = budget.body();
        newest.hold(OWN + 30_000).expect("another gives way");
        assert!(given_up(&oldest) && !given_up(&older), "the oldest one, and no more than needed");
        drop(oldest);
        newest.hold(OWN + 70_000).expect("another gives way");
        assert!(given_up(&older));
        // what has arrived is kept
        newest.hold(OWN + 90_000).expect_err("there is no more");
        drop((newest, older, whole));
        assert_eq!(budget.free.available_permits(), 100_000);
        assert!(lock(budget.arriving.as_ref().expect("a queue")).is_empty());
    }

    #[test]
    fn a_body_whose_request_waits_gives_way_until_it_goes_on() {
        let budget = Budget::unsigned(100_000);
        let (mut forged, mut next, mut last) = (budget.body(), budget.body(), budget.body());
        forged.hold(OWN + 90_000).expect("there is room");
        let waiting = budget.lend(forged.complete());
        next.hold(OWN + 90_000).expect("the waiting one gives way");
        assert!(waiting.given_up().now_or_never().is_some());
        assert!(waiting.complete().is_none(), "its memory is gone");
        let goes_on = budget.lend(next.complete()).complete();
        last.hold(OWN + 20_000).expect_err("there is no more");
        drop((goes_on, last));
        assert_eq!(budget.free.available_permits(), 100_000);
        assert!(lock(budget.arriving.as_ref().expect("a queue")).is_empty());
    }

    #[test]
    fn a_signed_body_gives_way_to_no_other() {
        let budget = Budget::new(100_000);
        let (mut first, mut second) = (budget.body(), budget.body());
        first.hold(OWN + 90_000).expect("there is room");
        let refused = second.hold(OWN + 20_000).expect_err("there is no more");
        assert_eq!((refused.status.as_u16(), refused.code), (503, "overloaded"));
        assert!(first.given_up().now_or_never().is_none());
    }

    #[test]
    fn a_large_parsed_delivery_keeps_no_small_one_out() {
        let budget = ParsedBudget::new(18 << 20);
        let huge = budget.hold(100 << 20).expect("it is the only one");
        let refused = budget.hold(2 << 20).expect_err("a second large one");
        assert_eq!((refused.status.as_u16(), refused.code), (503, "overloaded"), "Alertmanager tries again");
        let small: Vec<_> = (0..3).map(|_| budget.hold(1 << 20).expect("a small one")).collect();
        assert!(budget.hold(1 << 20).is_err());
        drop((huge, small));
        assert!(budget.hold(2 << 20).is_ok() && budget.hold(1 << 20).is_ok());
    }
}
