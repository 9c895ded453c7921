//! What is asked can't be seen where people look.

use super::super::names::IncidentId;
use super::super::note::NoteKind;
use super::{Answer, Transaction};

/// Slack takes the question of `id` for good nowhere, or not in its decider's channel: whoever decides is paged instead.
pub(super) fn page_instead(tx: &mut Transaction<'_>, id: &IncidentId, why: &str) -> Answer {
    let now = tx.now;
    if let Some(incident) = tx.incident(id).filter(|i| i.phase.is_undecided() && !i.undeliverable) {
        incident.undeliverable = true;
        incident.note(now, NoteKind::Escalated, format!("{why}: escalated"));
    }
    Answer::Noted
}
