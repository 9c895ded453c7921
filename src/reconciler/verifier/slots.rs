//! Slots for queries: all replicas together send fewer than twenty queries a second to Prometheus.

use std::time::Duration;

use super::Verifier;
use crate::prometheus::client::{Prometheus, QueryResult};
use crate::store::StoreError;

/// Between two queries: fourteen a second, so that delayed queries do not make twenty in the next second.
const QUERY_INTERVAL: Duration = Duration::from_millis(70);
/// Between two queries about canaries: they take at most half of the slots.
const CANARY_INTERVAL: Duration = QUERY_INTERVAL.saturating_mul(2);
/// Longest wait for a slot, well below a lease; after it, the check is made later.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longest wait for the turn of one query about a canary: as long as those of several receivers take.
const BETWEEN: Duration = Duration::from_secs(15);
/// Longest wait of optional queries.
pub(super) const SPARE: Duration = Duration::from_millis(500);
const RATE_LIMITED: &str = "the Prometheus query limit is reached: the receiver will try again soon";

impl Verifier {
    /// Queries as soon as a slot is free; slots are not saved up. `None`: no slot was free in time.
    pub(super) async fn query_rate_limited(
        &self,
        prometheus: &Prometheus,
        query: &str,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(if self.acquire().await? { Some(prometheus.instant(query).await) } else { None })
    }

    pub(super) async fn verify_rate_limited(
        &self,
        prometheus: &Prometheus,
        query: &str,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(if self.acquire().await? { Some(prometheus.verify(query).await) } else { None })
    }

    /// Waits for the turn of a query about a canary.
    pub(super) async fn take_turn(&self) -> Result<(), String> {
        let taken = self.acquire_of("prometheus:canary", CANARY_INTERVAL, BETWEEN).await;
        match taken.map_err(|error| error.to_string())? && self.acquire().await.map_err(|error| error.to_string())? {
            true => Ok(()),
            false => Err(RATE_LIMITED.to_owned()),
        }
    }

    /// Waits for the next slot, which all replicas share. Returns false if it takes too long.
    pub(super) async fn acquire(&self) -> Result<bool, StoreError> {
        self.acquire_within(PATIENCE).await
    }

    pub(super) async fn acquire_within(&self, patience: Duration) -> Result<bool, StoreError> {
        self.acquire_of("prometheus", QUERY_INTERVAL, patience).await
    }

    async fn acquire_of(&self, slots: &str, every: Duration, patience: Duration) -> Result<bool, StoreError> {
        let patience = tokio::time::Instant::now() + patience;
        while let Some(wait) = self.engine.store.acquire(slots, every).await? {
            if tokio::time::Instant::now() + wait > patience {
                return Ok(false);
            }
            tokio::time::sleep(wait).await;
        }
        Ok(true)
    }
}
