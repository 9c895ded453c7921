//! The acting worker: deadlines, observations, escalations.

use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use crate::decision::{Event, PromptName};
use crate::engine::{Engine, EngineError};
use crate::store::schedule::{Claim, End, Finished, LEASE, Work};
use crate::store::StoreError;

/// Wake-ups claimed at once.
const BATCH: usize = 32;
/// Look again at least this often: another replica may have scheduled something earlier.
const IDLE: Duration = Duration::from_secs(1);

/// Does what is due once; tells how long until there may be more.
pub async fn tick(engine: &Engine, token: &str) -> Result<Option<Duration>, StoreError> {
    let claimed = engine.store.claim(Work::Act, BATCH, LEASE, token).await?;
    let full = claimed.claims.len() == BATCH;
    for claim in &claimed.claims {
        let end = match act(engine, claim).await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(incident = %claim.incident, %error, "a wake-up failed");
                (None, End::Failed)
            }
        };
        let finished = engine.store.finish(claim, end.0.as_ref(), end.1).await?;
        if finished == Finished::Parked {
            tracing::error!(incident = %claim.incident, "a wake-up failed too often and is parked");
        }
    }
    Ok(if full { Some(Duration::ZERO) } else { claimed.next })
}

async fn act(
    engine: &Engine,
    claim: &Claim,
) -> Result<(Option<PromptName>, End), EngineError> {
    let gone = End::Done { rev: None, next: None };
    let Some(incident) = engine.store.incident(&claim.incident).await? else { return Ok((None, gone)) };
    let event = Event::Timer { incident: claim.incident.clone() };
    let handled = engine.handle(&incident.prompt, &event).await?;
    let end = match handled.rev {
        // its own commit has put the next wake-up into `due`
        Some(rev) => End::Done { rev: Some(rev), next: None },
        None => End::Done { rev: None, next: handled.wakes },
    };
    Ok((Some(incident.prompt), end))
}

/// Runs for as long as the process does.
pub async fn run(engine: Arc<Engine>) {
    let token = Ulid::generate().to_string();
    loop {
        let wait = match tick(&engine, &token).await {
            Ok(next) => next.unwrap_or(IDLE).min(IDLE),
            // health reports it; nothing is lost, the wake-ups wait in Redis
            Err(_) => IDLE,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = engine.scheduled.notified() => {}
        }
    }
}
