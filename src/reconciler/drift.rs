//! Notices `active` keys that someone SETs by hand or from CI: by tracking while connected, and by checking all prompts
//! at each start of tracking and hourly. Prompts that were never registered are found only if Redis permits SCAN.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::decision::{Event, PromptName};
use crate::engine::{Engine, EngineError};
use crate::live::Current;
use crate::store::StoreError;
use crate::store::watch::WatchEvent;

/// How long changes are collected before they are checked together.
const GATHER: Duration = Duration::from_millis(50);
/// How often all prompts are checked, because tracking can lose a message.
const RESCAN: Duration = Duration::from_secs(3_600);
/// The pause between two pages of a scan, so that a scan of millions of keys does not block Redis.
const BREATH: Duration = Duration::from_millis(2);
const RECONNECT: Duration = Duration::from_secs(1);
/// The longest pause before all prompts are checked again, because not all changes could be handled.
const MAX_RECONNECT: Duration = Duration::from_secs(60);
const ASK_ALIVE: Duration = Duration::from_secs(5);
/// Prompts compared by one script, which blocks Redis for less time than a commit.
const BATCH: usize = 10;

/// Checks `prompts`, and handles those that were changed externally. Fails if Redis could not take one of the changes,
/// which is announced once: then all prompts must be checked again.
pub async fn look(engine: &Engine, prompts: &[PromptName]) -> Result<(), StoreError> {
    let mut looked = Ok(());
    for batch in prompts.chunks(BATCH) {
        for prompt in engine.store.drifted(batch).await? {
            let Err(error) = engine.handle(&prompt, &Event::CheckDrift).await else { continue };
            tracing::warn!(%prompt, %error, "could not process a change made outside of prompt-rollback");
            if let EngineError::Store(error @ StoreError::Unavailable { .. }) = error {
                looked = Err(error);
            }
        }
    }
    looked
}

/// Checks all known prompts, and those that only have an `active` key. A change that fails hides none of the others.
async fn scan(engines: &Current<Arc<Engine>>) -> Result<(), StoreError> {
    let (mut behind, mut looked) = (None, Ok(()));
    loop {
        let engine = engines.get();
        let page = engine.store.known(behind.as_deref()).await?;
        looked = looked.and(look(&engine, &page.items).await);
        match page.next {
            Some(next) => behind = Some(next),
            None => break,
        }
        tokio::time::sleep(BREATH).await;
    }
    let mut cursor = 0;
    loop {
        let engine = engines.get();
        let Some((next, prompts)) = engine.store.scan_active(cursor).await? else { return looked };
        looked = looked.and(look(&engine, &prompts).await);
        if next == 0 {
            return looked;
        }
        cursor = next;
        tokio::time::sleep(BREATH).await;
    }
}

/// Runs while the process does.
pub async fn run(engines: Current<Arc<Engine>>) {
    let mut wait = RECONNECT;
    loop {
        if let Err(error) = follow(&engines, &mut wait).await {
            tracing::debug!(%error, "tracking of active keys was interrupted");
        }
        tokio::time::sleep(wait).await;
    }
}

/// Watches until the connection is lost or a change could not be handled. Sets `wait`, the pause before the next time:
/// it doubles while scans fail.
async fn follow(engines: &Current<Arc<Engine>>, wait: &mut Duration) -> Result<(), StoreError> {
    let store = engines.get().store.clone();
    let longer = (*wait * 2).min(MAX_RECONNECT);
    *wait = RECONNECT;
    let generation = store.generation().max(1); // of the first connection, which the scan may open
    let mut watch = store.watch().await?;
    // tracking first, then the scan: changes during the scan are announced
    *wait = longer;
    scan(engines).await?;
    *wait = RECONNECT;
    let mut rescan = tokio::time::interval_at(tokio::time::Instant::now() + RESCAN, RESCAN);
    let mut ask_alive = tokio::time::interval(ASK_ALIVE);
    loop {
        let heard = tokio::select! {
            heard = watch.hear() => heard,
            _ = rescan.tick() => WatchEvent::Everything,
            _ = ask_alive.tick() => {
                // other connections were lost: this one may lead to a master that was replaced
                let stays = store.generation() == generation && watch.is_alive().await;
                if stays { continue } else { WatchEvent::Lost }
            }
        };
        match heard {
            WatchEvent::Lost => return Ok(()),
            WatchEvent::Everything => {
                store.forget_own_writes();
                scan(engines).await?;
            }
            WatchEvent::Prompts(prompts) => {
                let mut changed: BTreeSet<PromptName> = prompts.into_iter().collect();
                let gathered = tokio::time::sleep(GATHER);
                tokio::pin!(gathered);
                let mut everything = false;
                loop {
                    tokio::select! {
                        () = &mut gathered => break,
                        heard = watch.hear() => match heard {
                            WatchEvent::Prompts(prompts) => changed.extend(prompts),
                            WatchEvent::Everything => everything = true,
                            WatchEvent::Lost => return Ok(()),
                        },
                    }
                }
                if everything {
                    store.forget_own_writes();
                    scan(engines).await?;
                } else {
                    let changed = store.not_as_written(changed).await;
                    look(&engines.get(), &changed).await?;
                }
            }
        }
    }
}
