//! Did the rollback help? Checks after a flip, until it is proved or the deadline passes.

use std::time::Duration;

use super::super::event::Checked;
use super::super::names::IncidentId;
use super::super::note::NoteKind;
use super::super::phase::{Phase, PhaseKind};
use super::super::policy::Policy;
use super::super::severity::Severity;
use super::super::time::spoken;
use super::super::verification::{Check, Traffic, Verdict};
use super::{Answer, Draft};

/// Takes in one look at the version rolled back to.
pub(super) fn checked(draft: &mut Draft<'_>, check: &Checked) -> Answer {
    let (policy, now) = (draft.policy, draft.now);
    let Some(incident) = draft.incident(&check.incident).filter(|i| i.phase.kind() == PhaseKind::Verifying) else {
        return Answer::Noted;
    };
    let Some(flip) = incident.flip.clone().filter(|flip| flip.at == check.flip) else { return Answer::Noted };
    let Some(mut verification) = flip.verification.clone() else { return Answer::Noted };
    let finding = &check.finding;
    verification.checks += 1;
    let healthy = finding.verdict == Verdict::Healthy;
    verification.healthy = if healthy { verification.healthy + 1 } else { 0 };
    verification.healthy_since = healthy.then(|| verification.healthy_since.unwrap_or(now));
    verification.measured |= matches!(finding.verdict, Verdict::Healthy | Verdict::Unhealthy);
    verification.next =
        now.plus(if verification.checks < policy.verify_checks { policy.verify_every } else { Policy::VERIFY_SLOWLY });
    verification.last = Some(Check { at: now, finding: finding.clone() });
    if let Some(blame) = check.blame.as_ref().filter(|_| !verification.blamed) {
        verification.blamed = true;
        incident.note(now, NoteKind::Checked, blame.clone());
    }
    if let Some(traffic) = &check.traffic {
        let stale = now.since(flip.at) >= Policy::PROPAGATED && !traffic.still.is_empty();
        if stale && !verification.stale {
            verification.stale = true;
            incident.note(now, NoteKind::Checked, still_serving(traffic, flip.from.as_str()));
        }
        verification.traffic = Some(traffic.clone());
    }
    // users are served well again when nobody is served the bad version; who ignores the key is not waited for
    let gone = verification.traffic.as_ref().and_then(|traffic| traffic.bad_last_seen);
    let gone = gone.is_none_or(|at| now.since(at) >= Policy::GONE)
        || verification.stale
        || now.since(flip.at) >= 2 * Policy::PROPAGATED;
    let recovered = verification.healthy >= policy.verify_healthy && gone;
    let proof = propagation(verification.traffic.as_ref(), flip.from.as_str(), now.since(flip.at), flip.at);
    if let Some(flip) = &mut incident.flip {
        flip.verification = Some(verification);
    }
    if recovered {
        let after = spoken(now.since(flip.at));
        let text = format!("{} serves well {after} after the flip: {}{proof}", flip.to, finding.text);
        draft.close_without_traffic(&check.incident, Phase::Recovered, text);
    }
    Answer::Noted
}

/// No proof by the deadline.
pub(super) fn overdue(draft: &mut Draft<'_>, id: &IncidentId) {
    let (policy, now) = (draft.policy, draft.now);
    let Some((bad, target)) =
        draft.incident(id).and_then(|i| i.flip.as_ref()).map(|flip| (flip.from.clone(), flip.to.clone()))
    else {
        return;
    };
    let contact = draft.state.version(&bad).and_then(|record| record.contact.clone());
    let choices = draft.choices(&target, &bad);
    let rest = draft.rests_at();
    let Some(incident) = draft.incident(id) else { return };
    let last = incident.verification().and_then(|v| v.last.as_ref()).map(|check| check.finding.text.clone());
    // who was paged before another version was shipped is told when that is better, or decides
    if !incident.pages() && !incident.verification().is_some_and(|v| v.measured) {
        let why = last.unwrap_or_else(|| "nothing was measured".to_owned());
        let text = format!("could not verify the recovery of {target}: {why}. Check it by hand");
        draft.close_without_traffic(id, Phase::Unverified, text);
        return;
    }
    incident.phase = Phase::Escalated { until: rest };
    incident.severity = Severity::Critical;
    incident.ask += 1;
    incident.escalations = 1;
    incident.choices = choices;
    let limit = spoken(policy.verification_deadline);
    let change = if incident.is_shipped() { "it was put in service" } else { "the rollback" };
    let mut text = format!("{target} does not serve well {limit} after {change}: {}", last.unwrap_or_default());
    if let Some(contact) = contact {
        text.push_str(&format!(". Contact for {bad}: {contact}"));
    }
    incident.note(now, NoteKind::Escalated, text);
}

fn still_serving(traffic: &Traffic, bad: &str) -> String {
    format!(
        "{bad} is still served ({} % of the requests since the flip) by {}: these prompt servers do not follow the key",
        traffic.bad_percent(),
        traffic.still.join(", ")
    )
}

/// `; v2 last seen 4 s after the flip`, if that is known.
fn propagation(traffic: Option<&Traffic>, bad: &str, since: Duration, flip: super::Timestamp) -> String {
    match traffic {
        Some(traffic) if !traffic.still.is_empty() && since >= Policy::PROPAGATED => {
            format!("; {bad} is still served by {}", traffic.still.join(", "))
        }
        Some(Traffic { bad_last_seen: Some(at), .. }) => {
            format!("; {bad} was last seen {} after the flip", spoken(at.since(flip)))
        }
        Some(_) => format!("; {bad} was not seen after the flip"),
        None => String::new(),
    }
}
