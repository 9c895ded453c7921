//! A person answers an incident's question.

use super::answer::Answer;
use super::precondition::{
    must_be_allowed, must_be_free, must_be_last_move, must_be_seen, must_not_be_bad, no_known_good, unknown_version,
};
use super::transaction::{Cause, Transaction};
use super::{canary, confirm, gradual};
use crate::state::Silence;
use crate::time::spoken;
use crate::{
    Choice, Decide, InactiveAlert, Incident, IncidentId, NoteKind, OrRefusal, Pending, Phase, PhaseKind, Plan, Refusal,
    RefusalCode, SwitchMode, Timestamp, TrafficSplit, VersionName,
};

/// A person answers an incident's question.
pub(super) fn choose(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let known = tx.incident(&click.incident).is_some();
    let snapshot = tx.snapshot;
    match (&snapshot.incident, known) {
        (_, true) => {}
        // a closed incident is no longer in the state, but an undo or a refusal needs it
        (Some(closed), false) => tx.state.incidents.push(closed.clone()),
        (None, false) => {
            let message = format!("no incident {}: it may have expired", click.incident);
            return Err(Refusal::new(RefusalCode::UnknownIncident, message));
        }
    }
    match click.choice {
        Choice::Approve => approve(tx, click, None),
        Choice::ApproveGradual
            if tx.incident(&click.incident).is_some_and(|i| i.phase.kind() == PhaseKind::RollingBack) =>
        {
            undecided(tx, click, |_| true)?;
            gradual::resume(tx, &click.incident, &click.operator, click.force)
        }
        Choice::ApproveGradual => {
            must_be_free(tx, Some(&click.incident))?;
            let plan = tx.policy.gradual.clone();
            approve(tx, click, Some(plan))
        }
        Choice::Investigate => investigate(tx, click),
        Choice::Dismiss => dismiss(tx, click),
        Choice::Undo => undo(tx, click),
    }
}

/// The incident, if `still` allows this decision in its phase.
fn undecided<'d>(
    tx: &'d mut Transaction<'_>,
    click: &Decide,
    still: fn(&Incident) -> bool,
) -> OrRefusal<&'d mut Incident> {
    let now = tx.now;
    let Some(incident) = tx.incident(&click.incident) else {
        return Err(Refusal::new(RefusalCode::UnknownIncident, format!("no incident {}", click.incident)));
    };
    if still(incident) {
        if click.question_number.is_some_and(|question_number| question_number != incident.question_number) {
            let message = "the question has changed: check the message again".to_owned();
            return Err(Refusal::new(RefusalCode::Stale, message));
        }
        return Ok(incident);
    }
    let message = match (&incident.switch, &incident.decided_by) {
        (Some(switch), _) if incident.is_shipped() => {
            format!("{} replaced this with {} {} ago", switch.operator, switch.to, spoken(now.since(switch.at)))
        }
        (Some(switch), _) if incident.phase.kind() != PhaseKind::Dismissed => {
            format!("{} rolled this back to {} {} ago", switch.operator, switch.to, spoken(now.since(switch.at)))
        }
        _ if incident.phase.kind() == PhaseKind::Investigating => {
            let decided = incident.notes.iter().rev().find(|note| note.kind == NoteKind::Decided);
            format!("already under investigation: {}", decided.map_or("someone is investigating", |note| &note.text))
        }
        (_, Some(who)) => format!("{who} already decided this: {}", incident.phase),
        (_, None) => format!("this incident is already closed: {}", incident.phase),
    };
    Err(Refusal::new(RefusalCode::AlreadyDecided, message))
}

fn approve(tx: &mut Transaction<'_>, click: &Decide, plan: Option<Plan>) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, |incident| incident.awaits_decision() || incident.gradual().is_some())?;
    let (waits_for_servers, version) = (incident.waits_for_servers(), incident.version.clone());
    // after a failed rollback, the served version is the one rolled back to
    let subject = incident.subject().clone();
    // someone went back to the version that the incident is about: the question is about its traffic, not that rollback
    let switch = incident.switch.clone().filter(|_| subject != version);
    let reason = incident.summary().to_owned();
    if waits_for_servers {
        let why =
            format!("prompt servers do not follow the change to {subject}, and there is no evidence against {subject}");
        return Err(elsewhere(tx, &why, &subject, ""));
    }
    if plan.is_some() && subject != version {
        let why = format!("this incident is about {version}, which was already rolled back");
        return Err(elsewhere(tx, &why, &subject, " --gradual"));
    }
    if let Some(switch) = switch {
        must_be_last_move(tx, &switch)?;
    }
    if !tx.has_traffic(&subject) {
        return Err(Refusal::new(RefusalCode::Moved, format!("{subject} is no longer active")));
    }
    let target = match &click.target {
        Some(target) => {
            must_be_allowed(tx, Some(&subject), target, click.force)?;
            target.clone()
        }
        None => tx.choices(&subject, &version).into_iter().next().ok_or_else(|| no_known_good(tx, Some(&subject)))?,
    };
    if target == subject {
        return Err(Refusal::new(RefusalCode::Moved, format!("{target} is already active")));
    }
    if tx.state.split().is_some() {
        tx.must_have_content(&target, click.force)?; // an instant rollback cannot wait for the content
    }
    let pending = Pending {
        by: SwitchMode::Approved,
        from: subject,
        to: target.clone(),
        operator: click.operator.clone(),
        reason: reason.clone(),
        gradual: plan,
        skip_confirmation: false,
        at: now,
    };
    if let Some(answer) = confirm::ask_first(tx, &click.incident, pending.clone(), click.force)? {
        return Ok(answer);
    }
    if pending.gradual.is_some() {
        let from = Some(pending.from.to_string());
        gradual::begin(tx, &click.incident, pending);
        return Ok(gradual::begun(tx, &click.incident, from, target, SwitchMode::Approved));
    }
    if let Some(incident) = tx.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
    }
    let from = Some(pending.from.to_string());
    let cause = Cause { operator: &click.operator, reason: &reason, incident: Some(&click.incident) };
    tx.switch(Some(&pending.from), &target, SwitchMode::Approved, cause);
    let incident = Some(click.incident.clone());
    Ok(Answer::Changed { from, to: target, incident, unchanged: false, mode: Some(SwitchMode::Approved) })
}

/// The incident is not about `subject`, which serves: a request opens an incident of its own.
fn elsewhere(tx: &Transaction<'_>, why: &str, subject: &VersionName, how: &str) -> Refusal {
    let prompt = &tx.snapshot.prompt;
    let message =
        format!("{why}: to roll {subject} back, use `prompt-rollback rollback {prompt}{how}` or POST /api/rollback");
    Refusal::new(RefusalCode::AlreadyDecided, message)
}

fn investigate(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, |incident| {
        incident.phase.is_undecided() && incident.phase.kind() != PhaseKind::Investigating
    })?;
    // no escalation until the question is asked again
    incident.phase = Phase::Investigating { until: now.plus(incident.time_limit) };
    incident.question_number += 1;
    incident.note(now, NoteKind::Decided, format!("{} is investigating", click.operator));
    Ok(Answer::Decided(PhaseKind::Investigating))
}

fn dismiss(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, Incident::awaits_decision)?;
    incident.decided_by = Some(click.operator.clone());
    silence(tx, &click.incident);
    if let Some(incident) = tx.incident(&click.incident) {
        incident.close(Phase::Dismissed, now, format!("{} dismissed this", click.operator));
    }
    Ok(Answer::Decided(PhaseKind::Dismissed))
}

/// Silences the alerts that fire now, until they resolve or get worse.
fn silence(tx: &mut Transaction<'_>, id: &IncidentId) {
    let now = tx.now;
    let Some(incident) = tx.state.incidents.iter().find(|incident| incident.id == *id) else { return };
    let version = &incident.version;
    // the record of a closed incident is not updated: whether its alerts still fire is stored separately
    let still = |fingerprint: &str| {
        let inactive = |s: &InactiveAlert| s.version == *version && s.alert.fingerprint == fingerprint;
        incident.phase.is_open() || tx.state.inactive_alerts.iter().any(inactive)
    };
    let silenced: Vec<_> = incident
        .alerts
        .iter()
        .filter(|alert| alert.firing && still(&alert.fingerprint))
        .map(|alert| Silence {
            version: version.clone(),
            fingerprint: alert.fingerprint.clone(),
            alertname: alert.alertname.clone(),
            severity: alert.severity,
            dismissed_at: Some(now),
            starts_at: alert.starts_at,
            since: now,
        })
        .collect();
    let known = |s: &Silence| silenced.iter().any(|n| n.fingerprint == s.fingerprint && n.version == s.version);
    tx.state.silences.retain(|s| !known(s));
    tx.state.silences.extend(silenced);
}

/// The rollback was a mistake: serves the version again, and trusts it as before.
fn undo(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, |incident| {
        !matches!(incident.phase.kind(), PhaseKind::Dismissed | PhaseKind::Superseded)
    })?;
    let again = incident.gradual().map(|split| &split.leaving).or(incident.switch.as_ref().map(|switch| &switch.from));
    if let (Some(again), Some(named)) = (again, click.target.as_ref().filter(|named| again != Some(*named))) {
        let message = format!("undo would now activate {again} instead of {named}: check the message again");
        return Err(Refusal::new(RefusalCode::Stale, message));
    }
    if let Some(split) = incident.gradual().cloned() {
        must_not_be_bad(tx, &split.leaving, click.force)?;
        return Ok(back(tx, click, &split));
    }
    let Some(switch) = incident.switch.clone().filter(|_| !incident.is_shipped()) else {
        return Err(Refusal::new(RefusalCode::AlreadyDecided, "this incident has no rollback to undo"));
    };
    must_be_last_move(tx, &switch)?;
    must_be_seen(tx, click.force)?;
    must_not_be_bad(tx, &switch.from, click.force)?;
    tx.must_have_content(&switch.from, click.force)?;
    if tx.state.version(&switch.from).is_none() {
        return Err(unknown_version(tx, &switch.from));
    }
    silence(tx, &click.incident);
    if let Some(incident) = tx.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
        let text = format!("{} undid the rollback: {} is served again", click.operator, switch.from);
        incident.close(Phase::Dismissed, now, text);
    }
    let shipped_again = tx.state.version(&switch.from).and_then(|record| record.shipped_again);
    if let Some(answer) = canary::restore(tx, &switch, click)? {
        trust_again(tx, &switch.from, shipped_again);
        return Ok(answer);
    }
    let from = tx.served_text();
    let cause = Cause { operator: &click.operator, reason: "rollback undone", incident: Some(&click.incident) };
    tx.activate(&switch.from, from.clone(), cause);
    trust_again(tx, &switch.from, shipped_again);
    let incident = Some(click.incident.clone());
    Ok(Answer::Changed { from, to: switch.from, incident, unchanged: false, mode: None })
}

/// Ends the quarantine of a version after its return was counted, and trusts it as before. An undo ships nothing, so the
/// version is as new as it was.
fn trust_again(tx: &mut Transaction<'_>, version: &VersionName, shipped_again: Option<Timestamp>) {
    let Some(record) = tx.state.version_mut(version) else { return };
    if let Some(quarantine) = record.quarantine.take() {
        record.known_good = record.known_good.or(quarantine.known_good);
        record.shipped_again = shipped_again;
    }
}

/// Returns all traffic to the version that a gradual rollback was leaving.
fn back(tx: &mut Transaction<'_>, click: &Decide, split: &TrafficSplit) -> Answer {
    let now = tx.now;
    let left_with = tx.left_with(&split.arriving); // while the incident is still open
    silence(tx, &click.incident);
    if let Some(incident) = tx.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
        let text = format!("{} ended the gradual rollback: {} has all traffic again", click.operator, split.leaving);
        incident.close(Phase::Dismissed, now, text);
    }
    let (from, incident) = (Some(split.arriving.to_string()), Some(click.incident.clone()));
    let cause = Cause { operator: &click.operator, reason: "gradual rollback undone", incident: Some(&click.incident) };
    tx.activate(&split.leaving, from.clone(), cause);
    tx.retire_one(&split.arriving, Some(&split.leaving), None, left_with);
    Answer::Changed { from, to: split.leaving.clone(), incident, unchanged: false, mode: None }
}
