//! Questions that Slack cannot show to their decider.

use super::super::names::IncidentId;
use super::super::note::NoteKind;
use super::{Answer, Transaction};

/// Pages the decider of `id`, because Slack permanently rejects the question everywhere, or in the decider's channel.
pub(super) fn page_instead(tx: &mut Transaction<'_>, id: &IncidentId, why: &str) -> Answer {
    let now = tx.now;
    if let Some(incident) = tx.incident(id).filter(|i| i.phase.is_undecided() && !i.undeliverable) {
        incident.undeliverable = true;
        incident.note(now, NoteKind::Escalated, format!("{why}: escalated"));
    }
    Answer::Noted
}
