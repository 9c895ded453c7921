//! The soak worker: checks versions that soak, and asks Prometheus how they served. It is separate, so that thousands
//! of soaks delay nothing urgent.

use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use super::incidents::IncidentWorker;
use super::worker::{GONE, WorkResult, carry_out, rest};
use crate::decision::{Event, SoakLook};
use crate::live::Current;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, LEASE, Work};

/// Prompts processed concurrently.
const BATCH: usize = 8;
/// How long one waits for which Prometheus has no turn to spare.
const RATE_LIMITED: Duration = Duration::from_secs(5);

/// Does what is due once. Returns how long until there may be more.
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
    // first handle what time and others changed: a clock that went back, a forgotten alert, another version in the key
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
                None => return Ok((Some(prompt), End::Done { rev, next: Some(now.plus(RATE_LIMITED)) })),
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

/// Runs while the process does.
pub async fn run(workers: Current<Arc<IncidentWorker>>) {
    let token = Ulid::generate().to_string();
    loop {
        let worker = workers.get();
        tokio::time::sleep(rest(tick(&worker, &token).await)).await;
    }
}
