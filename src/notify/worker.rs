//! One worker for each target: claims what is due for it, has it shown, and gives each claim back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use ulid::Ulid;

use super::{Acceptance, Notifier, Notifiers, NotifyTask, Reachable, Shown, backoff};
use crate::decision::Timestamp;
use crate::live::Current;
use crate::reconciler::worker::while_leased;
use crate::store::StoreError;
use crate::store::schedule::{End, Finished, IDLE, LEASE, Target, Work, WorkItem};

/// What came of showing what was due.
#[derive(Debug)]
pub struct Ticked {
    /// How long to wait before there may be more.
    pub wait: Duration,
    /// The target took something.
    pub taken: bool,
    /// It took nothing at all, not even of these; with their places in the queue.
    pub untaken: Vec<(WorkItem, Timestamp)>,
}

/// Runs for as long as the process does: a worker for each target that is configured at the moment.
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

/// Shows `target` what is due until it is not configured any more.
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
                    () = wait_until_reachable(&*notifier, &ticked.untaken, in_vain) => {}
                    () = notifiers.replaced() => {} // other settings may be taken
                }
                IDLE
            }
            Err(_) => IDLE, // health reports Redis; it waits there
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = news.changed() => {} // never closed: the engine holds it
        }
    }
    target
}

/// Shows what is due, once.
pub async fn tick(notifier: &dyn Notifier, token: &str) -> Result<Ticked, StoreError> {
    let store = &notifier.engine().store;
    let claimed = store.claim(Work::Notify(notifier.target()), notifier.batch(), LEASE, token).await?;
    let tasks = notifier.notify(&claimed.claims, claimed.now).await;
    let done = tasks.into_iter().map(|task| carry_out(notifier, task, claimed.now));
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

/// Shows what one claim is about and gives the claim back.
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
            tracing::error!(notifier = target, incident = %claim.item, %error, "a notification can't be made");
            End::after(&error)
        }
    };
    if store.finish(claim, None, end).await? == Finished::DeadLettered {
        tracing::error!(notifier = target, incident = %claim.item, "a notification failed too often and is parked");
    }
    Ok((&claim.item, notified.acceptance))
}

/// The target took nothing: if that is so for everything, the rest is not tried until it can be reached again. What was
/// tried then goes back to its place in the queue.
async fn wait_until_reachable(notifier: &dyn Notifier, untaken: &[(WorkItem, Timestamp)], in_vain: u32) {
    let target = notifier.target();
    let mut tries = 0;
    loop {
        match notifier.reachable().await {
            Reachable::Yes => break,
            Reachable::No(error) => {
                tries += 1;
                if tries == 1 {
                    tracing::warn!(notifier = target.name(), error, "the target takes no notifications; they wait");
                }
                tokio::time::sleep(backoff(tries)).await; // news do not make it answer sooner
            }
            Reachable::Unknown => return tokio::time::sleep(backoff(in_vain)).await,
        }
    }
    for (item, place) in untaken.iter().filter(|_| tries > 0) {
        let _ = notifier.engine().store.wake_by(Work::Notify(target), item, *place).await; // or it is shown a little later
    }
}
