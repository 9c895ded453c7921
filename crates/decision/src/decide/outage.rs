//! One prompt's part in an outage. What all of its prompts do together is in [`crate::outage`].

use super::answer::Answer;
use super::response;
use super::transaction::Transaction;
use crate::{Guard, Incident, IncidentId, NoteKind, Operator, Phase, Question, SwitchMode};

/// What the budget holds is a matter of many prompts, unless nothing is ever automatic.
pub(super) fn mark(tx: &mut Transaction<'_>) {
    if tx.policy.max_auto_rollbacks == 0 {
        return;
    }
    for incident in tx.state.incidents.iter_mut().filter(|i| i.phase.is_undecided() && !i.outage) {
        incident.outage = incident.held.as_ref().is_some_and(|held| held.guard == Guard::Budget);
    }
}

/// Whether what became of `after` changes what its coordinating incident shows or does.
pub(super) fn affects_outage(before: Option<&Incident>, after: &Incident) -> bool {
    let seen = |i: &Incident| (i.outage, i.phase.kind(), i.question_number, i.hold().is_some(), i.target.clone());
    after.outage && before.map(seen) != Some(seen(after))
}

/// Holds `id` back, or lets it go. Only where nobody has it in hand: a question that waits, or an automatic rollback that
/// is being confirmed.
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
        }
    }
    Answer::Noted
}

/// The budget may have room again: what it held acts without waiting for its alert to be repeated.
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
