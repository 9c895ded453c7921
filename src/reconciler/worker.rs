//! Code that workers share: claiming due tasks, keeping the leases meanwhile, and returning the claims.

use std::time::Duration;

use futures_util::future::join_all;
use tracing::{Instrument, Span};

use crate::decision::PromptName;
use crate::engine::EngineError;
use crate::store::schedule::{Claim, Claimed, End, Finished, IDLE, LEASE};
use crate::store::{Store, StoreError};
use crate::trace;

/// How often leases are renewed: two renewals may fail before another worker takes over.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// No task takes this long. One that does hangs, and another worker gets its claims.
const LONGEST: Duration = Duration::from_secs(300);

/// The result of a claim: the prompt whose record was read, and how to return the claim.
pub(super) type WorkResult = Result<(Option<PromptName>, End), EngineError>;

/// Nothing is left to do.
pub(super) const GONE: (Option<PromptName>, End) = (None, End::Done { rev: None, next: None });

/// How long a worker pauses after a tick. The health check reports a fault of Redis, in which the wake-ups wait
/// meanwhile.
pub(super) fn rest(ticked: Result<Option<Duration>, StoreError>) -> Duration {
    ticked.ok().flatten().unwrap_or(IDLE).min(IDLE)
}

/// Processes claims concurrently, one of `works` for each. Returns how long until there may be more.
pub(super) async fn carry_out<F: Future<Output = WorkResult>>(
    store: &Store,
    claimed: &Claimed,
    works: impl Iterator<Item = F>,
) -> Result<Option<Duration>, StoreError> {
    let done = claimed.claims.iter().zip(works).map(|(claim, work)| {
        let done = async move {
            let outcome = work.await;
            give_back(store, claim, outcome).await
        };
        done.instrument(span(claim))
    });
    for result in while_leased(store, &claimed.claims, join_all(done)).await {
        result?;
    }
    Ok(if claimed.full { Some(Duration::ZERO) } else { claimed.next })
}

/// The span of what is claimed.
pub(super) fn span(claim: &Claim) -> Span {
    let (prompt, id) = claim.named();
    trace::task(claim.work.as_str(), prompt, id.as_deref())
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

/// Runs `work`, and renews the leases of `claims` meanwhile, so that no other worker does the same.
pub(crate) async fn while_leased<T>(store: &Store, claims: &[Claim], work: impl Future<Output = T>) -> T {
    let renewing = async {
        for _ in 0..LONGEST.as_secs() / RENEW.as_secs() {
            tokio::time::sleep(RENEW).await;
            // refused for claims that were returned; the work itself notices a fault of Redis
            let _ = join_all(claims.iter().map(|claim| store.renew(claim))).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        done = work => done,
        never = renewing => never,
    }
}
