//! Drills: an alert of the receiver itself takes the path of a real one, is decided like it, and changes nothing.
//!
//! A drill counts only if a receiver started it: its id must be a record in Redis, which says what its alert must name.

use crate::api::RehearsalView;
use crate::decision::{Alert, Operator, PromptName, Refusal, RefusalCode};
use crate::engine::{Engine, EngineError};
use crate::store::DrillId;
use crate::store::drill::{Drill, DrillProgress};
use crate::visible::shown;

/// Starts a drill about the active version of `prompt`. A worker posts its alert.
pub async fn start(
    engine: &Engine,
    prompt: &PromptName,
    operator: &Operator,
) -> Result<Result<Option<Drill>, Refusal>, EngineError> {
    let store = &engine.store;
    let loaded = engine.load(prompt).await?;
    let Some(version) = loaded.snapshot.active.version() else {
        let message = format!("{} has no active version: a drill needs an active version", shown(prompt));
        return Ok(Err(Refusal { code: RefusalCode::UnknownPrompt, message }));
    };
    let id = DrillId::fresh(loaded.now);
    store.start_drill(&id, prompt, version, operator).await?;
    engine.paging.notify_one();
    Ok(Ok(store.drill(&id).await?))
}

/// Handles the alert of a drill. Returns false if no such drill was started: then the alert is ignored.
///
/// If the receiver dies in between, the alert is delivered again: each step is recorded once, and the rest is done
/// then.
pub async fn receive(engine: &Engine, id: &str, alert: &Alert) -> Result<bool, EngineError> {
    let store = &engine.store;
    let Some(id) = DrillId::parse(id) else { return Ok(false) };
    let master = store.master().await?;
    let Some(drill) = store.drill(&id).await? else { return Ok(false) };
    if (&drill.prompt, &drill.version) != (&alert.prompt, &alert.version) {
        return Ok(false);
    }
    if drill.committed.is_some() {
        return Ok(true); // Alertmanager repeats alerts
    }
    store.note_drill(&id, DrillProgress::Received).await?;
    if drill.decided.is_none() {
        let loaded = engine.load(&alert.prompt).await?;
        let rehearsed = engine.rehearse(loaded, vec![alert.clone()]).await.pop();
        let decision = rehearsed.map(|rehearsed| RehearsalView {
            outcome: rehearsed.outcome.to_string(),
            reason: rehearsed.reason.to_string(),
            text: rehearsed.text,
        });
        store.note_drill(&id, DrillProgress::Decided(&serde_json::to_string(&decision).unwrap_or_default())).await?;
        engine.notifications_due.send_replace(());
    }
    store.wait_for_replicas(&master).await?;
    store.note_drill(&id, DrillProgress::Committed).await?;
    Ok(true)
}

/// The stored decision, for people.
pub fn decision(drill: &Drill) -> Option<RehearsalView> {
    serde_json::from_str(&drill.decided.as_ref()?.text).ok()
}
