//! What workers share: claiming what is due, keeping the leases while it is done, and giving each claim back.

use std::time::Duration;

use futures_util::future::join_all;

use crate::decision::PromptName;
use crate::engine::EngineError;
use crate::store::schedule::{Claim, Claimed, End, Finished, IDLE, LEASE};
use crate::store::{Store, StoreError};

/// Leases are renewed this often: two renewals may fail before another worker takes over.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// No work takes this long. One that does hangs, and another worker gets its claims.
const LONGEST: Duration = Duration::from_secs(300);

/// What came of a claim: the prompt whose record was looked at, and how to give the claim back.
pub(super) type WorkResult = Result<(Option<PromptName>, End), EngineError>;

/// Nothing is to be done about it any more.
pub(super) const GONE: (Option<PromptName>, End) = (None, End::Done { rev: None, next: None });

/// How long a worker rests after a tick. Health reports a fault of Redis, in which the wake-ups wait meanwhile.
pub(super) fn rest(ticked: Result<Option<Duration>, StoreError>) -> Duration {
    ticked.ok().flatten().unwrap_or(IDLE).min(IDLE)
}

/// Carries out what was claimed, side by side, one of `works` for each claim; tells how long until there may be more.
pub(super) async fn carry_out<F: Future<Output = WorkResult>>(
    store: &Store,
    claimed: &Claimed,
    works: impl Iterator<Item = F>,
) -> Result<Option<Duration>, StoreError> {
    let done = claimed.claims.iter().zip(works).map(|(claim, work)| async move {
        let outcome = work.await;
        give_back(store, claim, outcome).await
    });
    for result in while_leased(store, &claimed.claims, join_all(done)).await {
        result?;
    }
    Ok(if claimed.full { Some(Duration::ZERO) } else { claimed.next })
}

/// Ends a claim: done, or to be tried again.
pub(super) async fn give_back(store: &Store, claim: &Claim, outcome: WorkResult) -> Result<(), StoreError> {
    let work = claim.work.as_str();
    let (prompt, end) = outcome.unwrap_or_else(|error| {
        tracing::warn!(incident = %claim.item, work, %error, "a task failed");
        let end = match &error {
            EngineError::Store(error) => End::after(error),
            EngineError::Contended => End::Failed,
        };
        (None, end)
    });
    if store.finish(claim, prompt.as_ref(), end).await? == Finished::DeadLettered {
        tracing::error!(incident = %claim.item, work, "a task failed too often: moved to the dead letters");
    }
    Ok(())
}

/// Does `work` and renews the leases of `claims` meanwhile, so that no other worker does the same.
pub(crate) async fn while_leased<T>(store: &Store, claims: &[Claim], work: impl Future<Output = T>) -> T {
    let renewing = async {
        for _ in 0..LONGEST.as_secs() / RENEW.as_secs() {
            tokio::time::sleep(RENEW).await;
            // refused for those that were given back; a fault of Redis is noticed by the work itself
            let _ = join_all(claims.iter().map(|claim| store.renew(claim))).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        done = work => done,
        never = renewing => never,
    }
}
