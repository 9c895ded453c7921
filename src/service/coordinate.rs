//! Stores decisions about many prompts at once, fenced by the coordinating incident's own revision. The reconciler
//! carries them out.

use crate::decision::outage::OutageAction;
use crate::decision::{IncidentId, Operator, Refusal, RefusalCode, Timestamp};
use crate::engine::{Engine, EngineError};
use crate::store::outage::{Coordinated, WriteOutcome};
use crate::store::receipt::{HandledRequest, Receipt};

/// Attempts to load and write before giving up.
const ROUNDS: u32 = 12;

/// Changes a loaded coordinating incident and writes it. If another write came first, loads it again; `None` if there is
/// none any more. If `change` refuses, nothing is written.
pub async fn update<T, E>(
    engine: &Engine,
    mut found: Coordinated,
    mut change: impl FnMut(&mut Coordinated, Timestamp) -> Result<T, E>,
) -> Result<Option<(Coordinated, Result<T, E>)>, EngineError> {
    for _ in 0..ROUNDS {
        let now = engine.store.now().await?;
        let before = found.outage.clone();
        let result = change(&mut found, now);
        let same = found.outage == before && !found.members_changed() && !found.hold_differs();
        let unchanged = result.is_err() || same;
        if unchanged || engine.store.write_outage(&mut found, now).await? == WriteOutcome::Done {
            if !unchanged {
                engine.notifications_due.send_replace(());
            }
            return Ok(Some((found, result)));
        }
        let Some(again) = engine.store.outage(&found.outage.id).await? else { return Ok(None) };
        found = again;
    }
    Err(EngineError::Contended)
}

/// Stores a person's decision about all prompts, once for each `receipt`; `None` if there is no such incident.
pub async fn decide(
    engine: &Engine,
    id: &IncidentId,
    action: OutageAction,
    by: &Operator,
    question_number: Option<u32>,
    receipt: Option<&Receipt>,
) -> Result<Option<Result<Coordinated, Refusal>>, EngineError> {
    let store = &engine.store;
    let master = store.master().await?;
    let decided = async {
        for _ in 0..ROUNDS {
            let Some(mut found) = store.outage(id).await? else { return Ok(None) };
            let now = store.now().await?;
            for member in &mut found.members {
                member.joined = member.joined.min(now); // a time in the future is from before the clock went back
            }
            if let Some(receipt) = receipt
                && let Some(before) = store.handled_before(receipt, now).await?
            {
                return Ok(Some(match before {
                    HandledRequest::Done => Ok(found),
                    HandledRequest::Refused(message) => Err(Refusal { code: RefusalCode::AlreadyDecided, message }),
                }));
            }
            if let Err(refusal) = found.outage.decide(&found.members, action, by, question_number, now) {
                if let Some(receipt) = receipt {
                    // otherwise it is decided again
                    let _ = store.remember_refused(receipt, now, &refusal.message).await;
                }
                return Ok(Some(Err(refusal)));
            }
            if store.write_outage_once(&mut found, now, receipt.map(|receipt| (receipt, &HandledRequest::Done))).await?
                == WriteOutcome::Done
            {
                engine.notifications_due.send_replace(());
                let prompts = found.members.len();
                tracing::info!(incident = %id, decision = action.as_str(), %by, prompts, "decided about all");
                return Ok(Some(Ok(found)));
            }
        }
        Err(EngineError::Contended)
    };
    let decided = decided.await?;
    store.wait_for_replicas(&master).await?; // the answer depends on a write, perhaps of an earlier attempt
    Ok(decided)
}
