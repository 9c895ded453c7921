//! The canary worker: decides at the end of each stage of a canary. It is separate, because its
//! queries wait for their turn: thousands of canaries delay neither deadlines nor the verification of rollbacks.

use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use super::incidents::IncidentWorker;
use super::worker::{GONE, WorkResult, carry_out, rest};
use crate::decision::{Event, Promotion, TrafficSplit, retention};
use crate::live::Current;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, LEASE, Work, WorkItem};

/// Prompts processed concurrently: their queries together get their turns well before one gives up.
const BATCH: usize = 8;

/// Runs while the process does.
pub async fn run(workers: Current<Arc<IncidentWorker>>) {
    let token = Ulid::generate().to_string();
    loop {
        let worker = workers.get();
        tokio::time::sleep(rest(tick(&worker, &token).await)).await;
    }
}

/// Does what is due once. Returns how long until there may be more.
async fn tick(worker: &IncidentWorker, token: &str) -> Result<Option<Duration>, StoreError> {
    let store = &worker.engine.store;
    let claimed = store.claim(Work::Canary, BATCH, LEASE, token).await?;
    carry_out(store, &claimed, claimed.claims.iter().map(|claim| look(worker, claim))).await
}

async fn look(worker: &IncidentWorker, claim: &Claim) -> WorkResult {
    let Some(prompt) = claim.prompt().cloned() else { return Ok(GONE) };
    let (engine, verifier) = (&worker.engine, &worker.verifier);
    // notices first that Redis' clock went back
    let mut rev = engine.handle(&prompt, &Event::CheckDrift).await?.rev;
    let loaded = engine.load(&prompt).await?;
    let state = &loaded.snapshot.state;
    let canary = state.running_canary().filter(|canary| canary.split.wake().is_some_and(|at| at <= loaded.now));
    let lasts = canary.and_then(|canary| {
        let wake = canary.split.wake()?;
        // after the end of the stage, the canary waits from one check to the next
        let since = if canary.waiting.is_some() { wake.minus(TrafficSplit::CHECK_EVERY) } else { canary.split.since };
        engine.store.still_lasts(since, wake, loaded.now)
    });
    let due = canary.map(|canary| canary.split.clone()).filter(|_| lasts.is_none());
    // the gate before the last stage
    let last = due.as_ref().filter(|split| split.next_percent().is_none_or(|percent| percent == 100));
    if let Some(version) = last.filter(|_| engine.policy.gates.ab_test).map(|split| split.arriving.clone()) {
        let evidence = verifier.measure(&prompt, state, &version, loaded.now, true).await;
        rev = engine.handle(&prompt, &Event::Measured { version, evidence }).await?.rev;
    }
    if let Some(split) = due {
        let look = match engine.policy.canary.of(&prompt).analysis {
            true => Some(verifier.look_at_canary(&prompt, state, &split, loaded.now).await?),
            false => None,
        };
        let event = Event::Promotion(Promotion { since: split.since, look });
        rev = engine.handle(&prompt, &event).await?.rev;
    }
    let loaded = engine.load(&prompt).await?;
    let state = &loaded.snapshot.state;
    // earlier receivers handled content with this wake-up
    if let Some(at) = retention::next(state, &engine.policy, loaded.now) {
        engine.store.wake_by(Work::Archive, &WorkItem::Prompt(prompt.clone()), at).await?;
    }
    Ok((Some(prompt), End::Done { rev, next: lasts.or_else(|| state.next_wake()) }))
}
