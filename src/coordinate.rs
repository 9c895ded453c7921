//! Decisions about many prompts at once: a person's word is written down, fenced by the coordinating incident's own
//! revision, and the reconciler carries it out.

use crate::decision::mass::Bulk;
use crate::decision::{IncidentId, Refusal, Timestamp};
use crate::engine::{Engine, EngineError};
use crate::store::mass::{Coordinated, Written};

/// Rounds of load and write before giving way.
const ROUNDS: u32 = 12;

/// Loads the coordinating incident, changes and writes it, as often as it takes; `None` if there is none. What `change`
/// refuses is not written.
pub async fn update<T, E>(
    engine: &Engine,
    id: &IncidentId,
    mut change: impl FnMut(&mut Coordinated, Timestamp) -> Result<T, E>,
) -> Result<Option<(Coordinated, Result<T, E>)>, EngineError> {
    for _ in 0..ROUNDS {
        let Some(mut found) = engine.store.mass(id).await? else { return Ok(None) };
        let now = engine.store.now().await?;
        let before = found.mass.clone();
        let result = change(&mut found, now);
        let unchanged = result.is_err() || (found.mass == before && !found.members_changed());
        if unchanged || engine.store.write_mass(&found, now).await? == Written::Done {
            if !unchanged {
                engine.announced.notify_one();
            }
            return Ok(Some((found, result)));
        }
    }
    Err(EngineError::Contended)
}

/// Takes in a person's decision about all prompts; `None` if there is no such incident.
pub async fn decide(
    engine: &Engine,
    id: &IncidentId,
    bulk: Bulk,
    by: &str,
    ask: Option<u32>,
) -> Result<Option<Result<Coordinated, Refusal>>, EngineError> {
    let decided = update(engine, id, |found, now| found.mass.decide(&found.members, bulk, by, ask, now)).await?;
    if let Some((found, Ok(()))) = &decided {
        tracing::info!(incident = %id, decision = bulk.as_str(), by, prompts = found.members.len(), "decided about all");
    }
    Ok(decided.map(|(found, result)| result.map(|()| found)))
}
