//! The worker of each target: claims due tasks, notifies, and returns the claims.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tracing::Instrument;
use ulid::Ulid;

use super::notifier::{Acceptance, Notifier, Notifiers, NotifyTask, Reachable, Shown, backoff};
use crate::decision::Timestamp;
use crate::live::Current;
use crate::reconciler::worker::while_leased;
use crate::store::StoreError;
use crate::store::schedule::{End, Finished, IDLE, LEASE, Target, Work, WorkItem};
use crate::trace;

/// The result of one tick.
#[derive(Debug)]
pub struct Ticked {
    /// How long to wait before there may be more.
    pub wait: Duration,
    /// Whether the target accepted anything.
    pub taken: bool,
    /// Claims of which it accepted nothing, with their places in the queue.
    pub untaken: Vec<(WorkItem, Timestamp)>,
}

/// Runs a worker for each configured target while the process runs.
pub async fn run(mut notifiers: Current<Notifiers>) {
    let (mut workers, mut working) = (FuturesUnordered::new(), BTreeSet::new());
    loop {
        for target in notifiers.get().iter().map(|notifier| notifier.target()) {
            if working.insert(target) {
                workers.push(serve(target, notifiers.clone()));
            }
        }
        tokio::select! {
            Some(ended) = workers.next() => drop(working.remove(&ended)),
            () = notifiers.replaced() => {}
        }
    }
}

/// Notifies `target` until it is no longer configured.
async fn serve(target: Target, mut notifiers: Current<Notifiers>) -> Target {
    let configured = |notifiers: &Current<Notifiers>| {
        let all = notifiers.get();
        all.iter().find(|notifier| notifier.target() == target).map(Arc::clone)
    };
    let token = Ulid::generate().to_string();
    let Some(mut news) = configured(&notifiers).map(|notifier| notifier.engine().notifications_due.subscribe()) else {
        return target;
    };
    let mut in_vain = 0;
    while let Some(notifier) = configured(&notifiers) {
        let wait = match tick(&*notifier, &token).await {
            Ok(ticked) if ticked.untaken.is_empty() => {
                in_vain = if ticked.taken { 0 } else { in_vain };
                ticked.wait.min(IDLE)
            }
            Ok(ticked) => {
                in_vain += 1;
                tokio::select! {
                    wait = wait_until_reachable(&*notifier, &ticked.untaken, in_vain) => wait,
                    () = notifiers.replaced() => Duration::ZERO, // the target may accept other settings
                }
            }
            Err(_) => IDLE, // the health check reports Redis; wait there
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = news.changed() => {} // never closed: the engine holds it
            () = notifiers.replaced() => {}
        }
    }
    target
}

/// Processes due tasks once.
pub async fn tick(notifier: &dyn Notifier, token: &str) -> Result<Ticked, StoreError> {
    let store = &notifier.engine().store;
    let claimed = store.claim(Work::Notify(notifier.target()), notifier.batch(), LEASE, token).await?;
    let tasks = notifier.notify(&claimed.claims, claimed.now).await;
    let done = tasks.into_iter().map(|task| {
        let (prompt, id) = task.claim.named();
        let span = trace::notify(notifier.target().name(), prompt, id.as_deref());
        carry_out(notifier, task, claimed.now).instrument(span)
    });
    let (mut taken, mut untaken) = (false, Vec::new());
    for outcome in while_leased(store, &claimed.claims, join_all(done)).await {
        match outcome? {
            (_, Acceptance::Taken) => taken = true,
            (_, Acceptance::NotAsked) => {}
            (item, Acceptance::Untaken { place }) => untaken.push((item.clone(), place)),
        }
    }
    if taken {
        untaken.clear();
    }
    let wait = if claimed.full { Duration::ZERO } else { claimed.next.unwrap_or(IDLE) };
    Ok(Ticked { wait, taken, untaken })
}

/// Processes one claim, and returns it.
async fn carry_out<'a>(
    notifier: &dyn Notifier,
    NotifyTask { claim, notified }: NotifyTask<'a>,
    claimed: Timestamp,
) -> Result<(&'a WorkItem, Acceptance), StoreError> {
    let (store, target) = (&notifier.engine().store, notifier.target().name());
    let notified = notified.await;
    let end = match notified.shown {
        Ok(Shown::All) => End::Sent(claimed),
        Ok(Shown::Part { next, since }) => End::Unsent { next, since },
        Ok(Shown::Lost) => return Ok((&claim.item, Acceptance::NotAsked)),
        Err(error @ StoreError::Unavailable { .. }) => return Err(error),
        Err(error) => {
            tracing::error!(notifier = target, incident = %claim.item, %error, "cannot create a notification");
            End::after(&error)
        }
    };
    if store.finish(claim, None, end).await? == Finished::DeadLettered {
        tracing::error!(notifier = target, incident = %claim.item, "a notification failed too often: moved to the dead letters");
    }
    Ok((&claim.item, notified.acceptance))
}

/// If the target accepted nothing at all, waits until it is reachable again before trying the rest. What was tried
/// returns to its place in the queue. Returns how long to wait for news afterwards: it may be accepted although what
/// was tried was not.
async fn wait_until_reachable(notifier: &dyn Notifier, untaken: &[(WorkItem, Timestamp)], in_vain: u32) -> Duration {
    let target = notifier.target();
    let mut tries = 0;
    loop {
        match notifier.reachable().await {
            Reachable::Yes => break,
            Reachable::No(error) => {
                tries += 1;
                if tries == 1 {
                    tracing::warn!(
                        notifier = target.name(),
                        error,
                        "the target does not accept notifications: they are queued"
                    );
                }
                tokio::time::sleep(backoff(tries)).await; // new notifications do not make it answer sooner
            }
            Reachable::Unknown => return backoff(in_vain),
        }
    }
    for (item, place) in untaken.iter().filter(|_| tries > 0) {
        let _ = notifier.engine().store.wake_by(Work::Notify(target), item, *place).await; // or it is shown a little later
    }
    IDLE
}
