//! Fix forward: another version is activated while an incident is open. The incident continues with that version, which
//! is verified like a rollback, so that people who were paged learn whether it is better. Without Prometheus, they decide.

use std::collections::HashMap;

use super::transaction::Transaction;
use crate::{
    Incident, NoteKind, Operator, Phase, Policy, Question, Switch, SwitchMode, Timestamp, Verification, VersionName,
};

/// Whether the incident continues with `heir`: people are paged, or the problem persists and Prometheus can tell whether
/// `heir` is better.
pub(super) fn is_unsettled(incident: &Incident, heir: &VersionName, policy: &Policy) -> bool {
    let unproved = matches!(incident.phase, Phase::Escalated { .. } | Phase::Verifying { .. });
    let persists = policy.verify && (unproved || incident.is_firing());
    incident.version != *heir && (persists || incident.pages())
}

/// Whether the version in trouble serves again, and people are paged about it in the incident at `place` alone.
pub(super) fn is_taken_back(incidents: &[Incident], place: usize, heir: &VersionName) -> bool {
    let incident = &incidents[place];
    let other = |i: &Incident| i.phase.is_open() && i.version == *heir && i.subject() == heir;
    incident.version == *heir && incident.is_firing() && incident.pages() && !incidents.iter().any(other)
}

/// The page goes on as a question about its version, whose alerts are handled as those of any version that gets traffic.
pub(super) fn take_back(incident: &mut Incident, now: Timestamp) {
    incident.note(now, NoteKind::Asked, format!("{} is served again", incident.version));
    incident.alerts.iter_mut().for_each(|alert| alert.firing = false);
    (incident.switch, incident.held) = (None, None);
    incident.ask(Question::until(now.plus(incident.time_limit)), now);
    incident.escalations = 1;
}

/// The indexes of the incidents that `heir` has taken over, by misbehaving version.
pub(super) fn taken(tx: &Transaction<'_>, heir: &VersionName) -> HashMap<VersionName, usize> {
    let mut taken = HashMap::new();
    for (place, incident) in tx.state.incidents.iter().enumerate() {
        if incident.phase.is_open() && incident.switch.is_some() && incident.subject() == heir {
            taken.entry(incident.version.clone()).or_insert(place);
        }
    }
    taken
}

/// Hands the incident at `place` over to `heir`, with which `operator` replaced the version in trouble.
pub(super) fn hand_on(
    tx: &mut Transaction<'_>,
    place: usize,
    heir: &VersionName,
    operator: &Operator,
    choices: &[VersionName],
    taken: &mut HashMap<VersionName, usize>,
) {
    let (policy, now, commit) = (tx.policy, tx.now, tx.snapshot.commit.clone());
    let incidents = &mut tx.state.incidents;
    let incident = &incidents[place];
    let (from, to) = (incident.subject().clone(), heir.clone());
    // a page that a decision has ended does not begin again
    let pages = incident.pages();
    let escalations = if pages { incident.escalations } else { 0 };
    let undeliverable = pages && incident.undeliverable;
    let version = incident.version.clone();
    let earlier = *taken.entry(version.clone()).or_insert(place);
    // the verification of a rollback does not page, so a page goes on in its own incident
    let is_silent = !incidents[earlier].pages() && !incidents[earlier].is_shipped();
    let kept = if pages && is_silent { place } else { earlier };
    if earlier != place {
        // one incident is enough
        let closed = if kept == place { earlier } else { place };
        let text = format!("{operator} replaced {from} with {heir}: see incident {}", incidents[kept].id);
        incidents[closed].close(Phase::Superseded { by: Some(to.clone()) }, now, text);
        taken.insert(version, kept);
    }
    if kept != place {
        // with the higher escalation
        let kept = &mut incidents[kept];
        kept.escalations = kept.escalations.max(escalations);
        kept.undeliverable |= undeliverable;
        return;
    }
    let incident = &mut incidents[place];
    (incident.escalations, incident.undeliverable) = (escalations, undeliverable);
    incident.question_number += 1; // an answer to the question about `from` is not about `to`
    incident.choices = choices.to_vec();
    let next = if policy.verify { "checking whether that helped" } else { "people decide whether that helped" };
    incident.note(now, NoteKind::Checked, format!("{operator} replaced {from} with {to}: {next}"));
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
        verification: policy.verify.then(|| Verification::starting(now, policy.verify_every)),
    });
    incident.phase = Phase::Verifying { until: now.plus(policy.verification_deadline) };
}
