//! Fix forward: another version is shipped while an incident is open. The incident goes on with that version, verified like
//! a rollback: whoever was paged is told when it is better.

use super::super::flip::{Flip, FlipMode};
use super::super::names::{IncidentId, VersionName};
use super::super::note::NoteKind;
use super::super::operator::Operator;
use super::super::phase::Phase;
use super::super::verification::Verification;
use super::Draft;

/// Whether the trouble of `id` is not over, so that `heir` must prove to be better.
pub(super) fn is_unsettled(draft: &Draft<'_>, id: &IncidentId, heir: &VersionName) -> bool {
    draft.state.open_incidents().find(|incident| incident.id == *id).is_some_and(|incident| {
        let unproved = matches!(incident.phase, Phase::Escalated { .. } | Phase::Verifying { .. });
        incident.version != *heir && (unproved || incident.is_firing())
    })
}

/// `operator` has put `heir` in the place of the version that `id` is about.
pub(super) fn hand_on(draft: &mut Draft<'_>, id: &IncidentId, heir: &VersionName, operator: &Operator) {
    let (policy, now, commit) = (draft.policy, draft.now, draft.snapshot.commit.clone());
    let Some(incident) = draft.incident(id) else { return };
    let (version, from, to) = (incident.version.clone(), incident.subject().clone(), heir.clone());
    let (escalations, unheard) = (incident.escalations, incident.unheard);
    let other = |i: &&mut super::Incident| {
        i.phase.is_open() && i.id != *id && i.version == version && i.subject() == heir && i.is_shipped()
    };
    if let Some(other) = draft.state.incidents.iter_mut().find(other) {
        // one of them is enough, as loud as the louder one
        other.escalations = other.escalations.max(escalations);
        other.unheard |= unheard;
        let text = format!("{operator} put {heir} in the place of {from}: see incident {}", other.id);
        if let Some(incident) = draft.incident(id) {
            incident.close(Phase::Superseded { by: Some(to) }, now, text);
        }
        return;
    }
    let Some(incident) = draft.incident(id) else { return };
    incident.note(now, NoteKind::Checked, format!("{operator} put {to} in the place of {from}: is it better?"));
    incident.target = Some(to.clone());
    incident.held = None;
    incident.flip = Some(Flip {
        commit,
        at: now,
        decided_at: None,
        from,
        to,
        mode: FlipMode::Shipped,
        operator: operator.clone(),
        verification: Some(Verification::starting(now, policy.verify_every)),
    });
    incident.phase = Phase::Verifying { until: now.plus(policy.verification_deadline) };
}
