//! What is asked can't be seen where people look.

use super::super::names::IncidentId;
use super::super::note::NoteKind;
use super::{Answer, Draft};

/// Slack takes the question of `id` for good nowhere, or not in its decider's channel: whoever decides is paged instead.
pub(super) fn page_instead(draft: &mut Draft<'_>, id: &IncidentId, why: &str) -> Answer {
    let now = draft.now;
    if let Some(incident) = draft.incident(id).filter(|i| i.phase.is_undecided() && !i.unheard) {
        incident.unheard = true;
        incident.note(now, NoteKind::Escalated, format!("{why}, so this is an escalation"));
    }
    Answer::Noted
}
