//! Fix forward: another version is shipped while an incident is open. The incident goes on with that version, verified like
//! a rollback: whoever was paged is told when it is better.

use std::collections::HashMap;

use super::transaction::Transaction;
use crate::{Incident, NoteKind, Operator, Phase, Switch, SwitchMode, Verification, VersionName};

/// Whether the trouble is not over, so that `heir` must prove to be better.
pub(super) fn is_unsettled(incident: &Incident, heir: &VersionName) -> bool {
    let unproved = matches!(incident.phase, Phase::Escalated { .. } | Phase::Verifying { .. });
    incident.version != *heir && (unproved || incident.is_firing())
}

/// Where in the state the incidents are that `heir` has taken over, by the version that misbehaved.
pub(super) fn taken(tx: &Transaction<'_>, heir: &VersionName) -> HashMap<VersionName, usize> {
    let mut taken = HashMap::new();
    for (place, incident) in tx.state.incidents.iter().enumerate() {
        if incident.phase.is_open() && incident.is_shipped() && incident.subject() == heir {
            taken.entry(incident.version.clone()).or_insert(place);
        }
    }
    taken
}

/// `operator` has put `heir` in the place of the version that the incident at `place` is about.
pub(super) fn hand_on(
    tx: &mut Transaction<'_>,
    place: usize,
    heir: &VersionName,
    operator: &Operator,
    taken: &mut HashMap<VersionName, usize>,
) {
    let (policy, now, commit) = (tx.policy, tx.now, tx.snapshot.commit.clone());
    let incidents = &mut tx.state.incidents;
    let incident = &incidents[place];
    let (from, to) = (incident.subject().clone(), heir.clone());
    let (escalations, undeliverable) = (incident.escalations, incident.undeliverable);
    let other = *taken.entry(incident.version.clone()).or_insert(place);
    if other != place {
        // one of them is enough, as loud as the louder one
        let other = &mut incidents[other];
        other.escalations = other.escalations.max(escalations);
        other.undeliverable |= undeliverable;
        let text = format!("{operator} put {heir} in the place of {from}: see incident {}", other.id);
        incidents[place].close(Phase::Superseded { by: Some(to) }, now, text);
        return;
    }
    let incident = &mut incidents[place];
    incident.note(now, NoteKind::Checked, format!("{operator} put {to} in the place of {from}: is it better?"));
    incident.target = Some(to.clone());
    incident.held = None;
    incident.switch = Some(Switch {
        commit,
        at: now,
        decided_at: None,
        from,
        to,
        mode: SwitchMode::Shipped,
        operator: operator.clone(),
        verification: Some(Verification::starting(now, policy.verify_every)),
    });
    incident.phase = Phase::Verifying { until: now.plus(policy.verification_deadline) };
}
