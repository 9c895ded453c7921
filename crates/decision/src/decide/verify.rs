//! Verification: checks after a switch, until recovery is confirmed or the time is over.

use super::answer::Answer;
use super::transaction::Transaction;
use crate::time::spoken;
use crate::verification::Traffic;
use crate::{
    Check, Checked, IncidentId, NoteKind, Phase, Policy, RollbackFailure, Severity, Timestamp, Verdict, Verification,
};

/// Handles one check of the version rolled back to.
pub(super) fn checked(tx: &mut Transaction<'_>, check: &Checked) -> Answer {
    let (policy, now) = (tx.policy, tx.now);
    let Some(incident) = tx.incident(&check.incident).filter(|incident| incident.is_checked()) else {
        return Answer::Noted;
    };
    let Some(switch) = incident.switch.clone().filter(|switch| switch.at == check.switched_at) else {
        return Answer::Noted;
    };
    let Some(mut verification) = switch.verification.clone() else { return Answer::Noted };
    // each answer counts once, also if several workers asked
    if verification.checks != check.number {
        return Answer::Noted;
    }
    count(&mut verification, check, policy, now);
    if let Some(blame) = check.blame.as_ref().filter(|_| !verification.blamed) {
        verification.blamed = true;
        incident.note(now, NoteKind::Checked, blame.clone());
    }
    if let Some(still) = check.traffic.as_ref().filter(|traffic| !traffic.still.is_empty() && !verification.stale) {
        verification.stale = true;
        incident.note(now, NoteKind::Checked, still_serving(still, switch.from.as_str()));
    }
    // an earlier measurement says nothing about now, so only what this check itself found counts
    let follows = check.traffic.as_ref().is_some_and(Traffic::all_follow);
    let still = check.traffic.as_ref().is_some_and(|traffic| !traffic.still.is_empty());
    let healthy = check.finding.verdict == Verdict::Healthy && verification.healthy >= policy.verify_healthy;
    let late = verification.late;
    let failing = late && verification.unhealthy >= policy.verify_healthy;
    let followed = verification.followed >= policy.verify_healthy;
    let waits_for_servers = incident.failure() == Some(RollbackFailure::NotFollowed);
    if let Some(switch) = &mut incident.switch {
        switch.verification = Some(verification);
    }
    // figures of one metric prove nothing where another one's alert fires
    let fires = tx.fires_on(&switch.to).is_some();
    if follows && healthy && !fires {
        recovered(tx, &check.incident);
    } else if waits_for_servers {
        if followed {
            followed_at_last(tx, &check.incident);
        }
    } else if failing || (late && still) {
        overdue(tx, &check.incident);
    }
    Answer::Noted
}

fn count(verification: &mut Verification, check: &Checked, policy: &Policy, now: Timestamp) {
    let finding = &check.finding;
    verification.checks += 1;
    match finding.verdict {
        Verdict::Healthy => {
            verification.healthy += 1;
            verification.unhealthy = 0;
            verification.found_bad = None;
            verification.healthy_since.get_or_insert(now);
        }
        Verdict::Unhealthy => {
            verification.unhealthy += 1;
            verification.healthy = 0;
            verification.found_bad = Some(finding.text.clone());
            verification.healthy_since = None;
        }
        Verdict::NoData => {
            verification.healthy = 0;
            verification.healthy_since = None;
        }
        // another receiver may reach Prometheus although this one does not
        Verdict::Unknown => {}
    }
    let often = verification.checks < policy.verify_fast_checks;
    verification.next = now.plus(if often { policy.verify_every } else { Policy::VERIFY_SLOWLY });
    verification.last = Some(Check { at: now, finding: finding.clone() });
    if let Some(traffic) = &check.traffic {
        verification.followed = if traffic.none_is_left() { verification.followed + 1 } else { 0 };
        verification.traffic = Some(traffic.clone());
        verification.traffic_at = Some(now);
    }
}

fn recovered(tx: &mut Transaction<'_>, id: &IncidentId) {
    let now = tx.now;
    let Some(incident) = tx.incident(id) else { return };
    let (Some(switch), Some(verification)) = (incident.switch.clone(), incident.verification()) else { return };
    let finding = verification.last.as_ref().map(|check| check.finding.text.clone()).unwrap_or_default();
    let proof = propagation(verification.traffic.as_ref(), switch.from.as_str(), switch.at);
    let after = spoken(now.since(switch.at));
    let text = format!("{} is healthy {after} after the switch: {finding}{proof}", switch.to);
    tx.close_without_traffic(id, Phase::Recovered, text);
}

/// The last servers have stopped serving the bad version: what is left is whether the target is healthy.
fn followed_at_last(tx: &mut Transaction<'_>, id: &IncidentId) {
    let (now, policy) = (tx.now, tx.policy);
    let Some(incident) = tx.incident(id) else { return };
    let Some(bad) = incident.switch.as_ref().map(|switch| switch.from.clone()) else { return };
    incident.note(now, NoteKind::Checked, format!("no instance serves {bad} any more"));
    // where too little was measured by the first deadline, another five minutes would not suffice either
    let late = incident.verification().is_some_and(|verification| verification.late);
    let given = if late { policy.verification_max } else { policy.verification_deadline };
    incident.phase = Phase::Verifying { until: now.plus(given) };
}

/// Handles the deadline without recovery: pages if the target was measured as unhealthy. If too little was measured,
/// the checks continue until `verification.max`.
pub(super) fn overdue(tx: &mut Transaction<'_>, id: &IncidentId) {
    let (policy, now) = (tx.policy, tx.now);
    let Some(incident) = tx.incident(id) else { return };
    let Some(switch) = incident.switch.clone() else { return };
    let Some(verification) = incident.verification().cloned() else {
        // there is no Prometheus to ask
        unverified(tx, id, "nothing was measured");
        return;
    };
    let limit = spoken(now.since(switch.at));
    // servers may have followed since an earlier check: the page must be true now
    let latest = verification.traffic.as_ref().filter(|_| verification.traffic_is_latest());
    if let Some(traffic) = latest.filter(|traffic| !traffic.still.is_empty()) {
        let change = if incident.is_shipped() { "replacement" } else { "rollback" };
        let text =
            format!("prompt servers do not follow the {change}: {}", still_serving(traffic, switch.from.as_str()));
        escalate(tx, id, RollbackFailure::NotFollowed, text);
        return;
    }
    if verification.unhealthy > 0 {
        let last = verification.last.map(|check| check.finding.text).unwrap_or_default();
        let last = match verification.found_bad {
            Some(bad) if bad != last => format!("{bad}; the last check: {last}"),
            _ => last,
        };
        let change = if incident.is_shipped() { "it was put in service" } else { "the rollback" };
        let text = format!("{} is unhealthy {limit} after {change}: {last}", switch.to);
        escalate(tx, id, RollbackFailure::NotRecovered, text);
        return;
    }
    // a person went back to the very version that the incident is about
    if incident.version == switch.to && incident.is_firing() {
        let text = format!("{} is unhealthy {limit} after the rollback: {} fires on it", switch.to, incident.summary());
        escalate(tx, id, RollbackFailure::NotRecovered, text);
        return;
    }
    let missing = tx.fires_on(&switch.to).unwrap_or_else(|| missing(&verification));
    let Some(incident) = tx.incident(id) else { return };
    // who is paged for what was shipped instead decides now
    if !verification.late && !incident.pages() {
        let rest = policy.verification_max.saturating_sub(policy.verification_deadline);
        let text = format!("not verified {limit} after the switch: {missing}. Checks continue for {}", spoken(rest));
        incident.note(now, NoteKind::Checked, text);
        incident.phase = Phase::Verifying { until: now.plus(rest) };
        if let Some(verification) = incident.switch.as_mut().and_then(|switch| switch.verification.as_mut()) {
            verification.late = true;
        }
        return;
    }
    unverified(tx, id, &missing);
}

fn unverified(tx: &mut Transaction<'_>, id: &IncidentId, missing: &str) {
    let Some(incident) = tx.incident(id) else { return };
    let text = format!("could not verify the recovery of {}: {missing}. Check it manually", incident.subject());
    if incident.pages() {
        // people who were paged before another version was activated learn that it is better, or decide
        escalate(tx, id, RollbackFailure::NotRecovered, text);
    } else {
        tx.close_without_traffic(id, Phase::Unverified, text);
    }
}

fn escalate(tx: &mut Transaction<'_>, id: &IncidentId, reason: RollbackFailure, mut text: String) {
    let now = tx.now;
    let Some(switch) = tx.incident(id).and_then(|incident| incident.switch.clone()) else { return };
    let contact = tx.state.version(&switch.from).and_then(|record| record.contact.clone());
    let choices = tx.choices(&switch.to, &switch.from);
    let until = tx.rests_at();
    let Some(incident) = tx.incident(id) else { return };
    // if servers follow what was shipped, the page ends unless there was one before
    let ends_with_it = reason == RollbackFailure::NotFollowed && incident.is_shipped() && !incident.pages();
    incident.escalations = u32::from(!ends_with_it);
    incident.phase = Phase::Escalated { until, reason };
    incident.severity = Severity::Critical;
    incident.question_number += 1;
    incident.choices = choices;
    if let Some(contact) = contact {
        text.push_str(&format!(". Contact for {}: {contact}", switch.from));
    }
    incident.note(now, NoteKind::Escalated, text);
}

/// What has not been measured.
fn missing(verification: &Verification) -> String {
    let finding =
        verification.last.as_ref().map_or_else(|| "nothing was measured".to_owned(), |c| c.finding.text.clone());
    match &verification.traffic {
        Some(traffic) if !traffic.all_follow() => {
            let measured = verification.traffic_at.filter(|_| !verification.traffic_is_latest());
            let at = measured.map(|at| format!(" (measured at {})", at.time_of_day())).unwrap_or_default();
            format!("{finding}; {}{at}", traffic.followers())
        }
        _ => finding,
    }
}

fn still_serving(traffic: &Traffic, bad: &str) -> String {
    format!(
        "{bad} is still served ({} % of the latest requests) by {}: these prompt servers do not follow the key",
        traffic.bad_percent, traffic.still
    )
}

/// `; 9 of 9 instances follow; v2 was last seen 4 s after the switch`, as far as it is known.
fn propagation(traffic: Option<&Traffic>, bad: &str, switch: Timestamp) -> String {
    let Some(traffic) = traffic else { return String::new() };
    let seen = match traffic.bad_last_seen {
        Some(at) => format!("{bad} was last seen {} after the switch", spoken(at.since(switch))),
        None => format!("{bad} was not seen after the switch"),
    };
    format!("; {}; {seen}", traffic.followers())
}
