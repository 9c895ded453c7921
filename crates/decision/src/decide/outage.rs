//! One prompt's part in an outage. [`crate::outage`] holds what all its prompts do together.

use super::answer::Answer;
use super::transaction::Transaction;
use super::{question, response};
use crate::{Guard, Incident, IncidentId, NoteKind, Operator, Phase, Question, SwitchMode};

/// Lets the coordinating incident take in incidents that the budget holds, unless automatic rollbacks are off.
pub(super) fn mark(tx: &mut Transaction<'_>) {
    let most = tx.policy.max_auto_rollbacks;
    let is_spent = tx.snapshot.recent_auto >= most || tx.snapshot.outage_hold.is_some();
    // a guard that held while automation was off says nothing about other prompts
    if most == 0 || !is_spent {
        return;
    }
    for incident in tx.state.incidents.iter_mut().filter(|i| i.phase.is_undecided() && !i.outage) {
        incident.outage = incident.held.as_ref().is_some_and(|held| held.guard == Guard::Budget);
    }
}

/// Whether the change to `after` matters to the coordinating incident.
pub(super) fn affects_outage(before: Option<&Incident>, after: &Incident) -> bool {
    let seen = |i: &Incident| (i.outage, i.phase.kind(), i.question_number, i.hold().is_some(), i.target.clone());
    after.outage && before.map(seen) != Some(seen(after))
}

/// Puts `id` on hold, or ends the hold. Only while no person is handling it: for a waiting question, or an automatic
/// rollback that is being confirmed.
pub(super) fn hold(tx: &mut Transaction<'_>, id: &IncidentId, by: Option<&Operator>) -> Answer {
    let now = tx.now;
    let Some(incident) = tx.incident(id).filter(|i| i.outage) else { return Answer::Noted };
    match by {
        Some(by) => {
            let waits = match &incident.phase {
                Phase::AwaitingDecision(question) => question.hold.is_none(),
                Phase::Confirming(confirming) => confirming.pending.by == SwitchMode::Auto,
                _ => false,
            };
            if !waits {
                return Answer::Noted;
            }
            let objection = incident.objection().cloned();
            let hold = Some(by.clone());
            incident.phase = Phase::AwaitingDecision(Question { hold, objection, ..Question::default() });
            incident.note(now, NoteKind::Decided, format!("{by} put this incident on hold with the other prompts"));
        }
        None => {
            let deadline = now.plus(incident.time_limit);
            let Phase::AwaitingDecision(question) = &mut incident.phase else { return Answer::Noted };
            let Some(by) = question.hold.take() else { return Answer::Noted };
            question.deadline = Some(deadline);
            incident.escalations = 0;
            incident.note(now, NoteKind::Decided, format!("the hold by {by} has ended"));
            question::recheck(tx, id);
        }
    }
    Answer::Noted
}

/// Lets an incident act that the budget held, without waiting for its alert to repeat: the budget may have room again.
pub(super) fn resume(tx: &mut Transaction<'_>, id: &IncidentId) -> Answer {
    let by_budget = |i: &&mut Incident| i.held.as_ref().is_some_and(|held| held.guard == Guard::Budget);
    let Some(version) = tx.incident(id).filter(by_budget).map(|i| i.version.clone()) else { return Answer::Noted };
    let from = tx.served_text();
    response::process_if_unheld(tx, id, &version);
    match tx.active.clone() {
        Some(to) => {
            let incident = Some(id.clone());
            Answer::Changed { from, to, incident, unchanged: false, mode: Some(SwitchMode::Auto) }
        }
        None => Answer::Noted,
    }
}
