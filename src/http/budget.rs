//! Memory for bodies and responses: what each request may use, and what all requests share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reply::ApiError;

/// The bytes that each request has for itself, so that a critical alert always fits.
pub const OWN: usize = 8 << 10;

/// The bytes that all requests share.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

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
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Adjusts `held` to `bytes`.
    pub fn hold(&self, held: &mut ReservedBytes, bytes: usize) -> Result<(), ApiError> {
        let wanted = bytes.saturating_sub(OWN);
        let more = wanted.saturating_sub(held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return Ok(());
        }
        let permit = u32::try_from(more).ok().and_then(|more| Arc::clone(&self.0).try_acquire_many_owned(more).ok());
        let Some(permit) = permit else {
            let message = "too many large requests and responses at once (server.max_buffered_bytes): try again";
            return Err(ApiError::unavailable("overloaded", message));
        };
        match &mut held.0 {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_is_free_and_what_is_large_shares() {
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
}
