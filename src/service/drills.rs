//! Drills: an alert of our own makes the way of a real one, is decided like it, and changes nothing.
//!
//! A drill counts only if it was started here: its id is a record in Redis, which says what its alert must name.

use crate::api::RehearsalView;
use crate::decision::{Alert, Operator, PromptName, Refusal, RefusalCode};
use crate::engine::{Engine, EngineError};
use crate::store::drill::{Drill, DrillId, DrillProgress};

/// Starts a drill on what `prompt` serves. Posting its alert is others' work.
pub async fn start(
    engine: &Engine,
    prompt: &PromptName,
    operator: &Operator,
) -> Result<Result<Option<Drill>, Refusal>, EngineError> {
    let store = &engine.store;
    let loaded = engine.load(prompt).await?;
    let Some(version) = loaded.snapshot.active.version() else {
        let message = format!("{prompt} has no active version: a drill needs an active version");
        return Ok(Err(Refusal { code: RefusalCode::UnknownPrompt, message }));
    };
    let id = DrillId::fresh(loaded.now);
    store.start_drill(&id, prompt, version, operator).await?;
    engine.paging.notify_one();
    Ok(Ok(store.drill(&id).await?))
}

/// Takes in the alert of a drill. False if it is none of ours: then it is no alert at all.
///
/// Whatever dies in between, the alert is delivered again: each step is noted once, and the rest is done then.
pub async fn receive(engine: &Engine, id: &str, alert: &Alert) -> Result<bool, EngineError> {
    let store = &engine.store;
    let Some(id) = DrillId::parse(id) else { return Ok(false) };
    let Some(drill) = store.drill(&id).await? else { return Ok(false) };
    if (&drill.prompt, &drill.version) != (&alert.prompt, &alert.version) {
        return Ok(false);
    }
    if drill.committed.is_some() {
        return Ok(true); // Alertmanager repeats itself
    }
    store.note_drill(&id, DrillProgress::Received).await?;
    if drill.decided.is_none() {
        let rehearsed = engine.rehearse(alert).await?;
        let decision = RehearsalView {
            outcome: rehearsed.outcome.to_string(),
            reason: rehearsed.reason.to_string(),
            text: rehearsed.text,
        };
        store.note_drill(&id, DrillProgress::Decided(&serde_json::to_string(&decision).unwrap_or_default())).await?;
        engine.notifications_due.send_replace(());
    }
    store.wait_for_replicas().await?;
    store.note_drill(&id, DrillProgress::Committed).await?;
    Ok(true)
}

/// What is kept of the decision, for people.
pub fn decision(drill: &Drill) -> Option<RehearsalView> {
    serde_json::from_str(&drill.decided.as_ref()?.text).ok()
}
