//! Looks at versions that soak, and asks Prometheus how they served. A worker of its own: where thousands soak at once, none
//! of what is urgent waits for them.

use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use super::incidents::IncidentWorker;
use super::worker::{GONE, WorkResult, carry_out, rest};
use crate::decision::{Event, SoakLook};
use crate::live::Current;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, LEASE, Work};

/// Prompts looked at side by side.
const BATCH: usize = 8;
/// How long one waits for which Prometheus has no turn to spare.
const NO_TURN: Duration = Duration::from_secs(5);

/// Does what is due once; tells how long until there may be more.
async fn tick(worker: &IncidentWorker, token: &str) -> Result<Option<Duration>, StoreError> {
    let store = &worker.engine.store;
    let claimed = store.claim(Work::Soak, BATCH, LEASE, token).await?;
    carry_out(store, &claimed, claimed.claims.iter().map(|claim| look(worker, claim))).await
}

async fn look(worker: &IncidentWorker, claim: &Claim) -> WorkResult {
    let Some(prompt) = claim.prompt().cloned() else { return Ok(GONE) };
    let (engine, policy) = (&worker.engine, &worker.engine.policy);
    let loaded = engine.load(&prompt).await?;
    let soaks = loaded.snapshot.state.versions.iter().filter_map(|record| record.soak.as_ref());
    let lasts = soaks.filter_map(|soak| engine.store.still_lasts(soak.from, soak.from.plus(policy.soak), loaded.now));
    if let Some(over) = lasts.min() {
        return Ok((Some(prompt), End::Done { rev: None, next: Some(over) }));
    }
    // what time did, and others: a clock that went back, an alert that is forgotten, another version in the key
    let mut rev = engine.handle(&prompt, &Event::CheckDrift).await?.rev;
    let loaded = engine.load(&prompt).await?;
    let now = loaded.now;
    for record in &loaded.snapshot.state.versions {
        let Some(soak) = record.soak.as_ref().filter(|s| s.watch.as_ref().is_some_and(|watch| watch.next <= now))
        else {
            continue;
        };
        let version = record.version.clone();
        let measured = if policy.verify && soak.is_over(policy, now) {
            match worker.verifier.soaked(&prompt, &version, now.since(soak.from)).await? {
                None => return Ok((Some(prompt), End::Done { rev, next: Some(now.plus(NO_TURN)) })),
                measured => measured,
            }
        } else {
            None
        };
        rev = engine.handle(&prompt, &Event::Soak(SoakLook { version, from: soak.from, measured })).await?.rev;
    }
    let next = engine.load(&prompt).await?.snapshot.state.soak_wake(policy);
    Ok((Some(prompt), End::Done { rev, next }))
}

/// Runs for as long as the process does.
pub async fn run(workers: Current<Arc<IncidentWorker>>) {
    let token = Ulid::generate().to_string();
    loop {
        let worker = workers.get();
        tokio::time::sleep(rest(tick(&worker, &token).await)).await;
    }
}
