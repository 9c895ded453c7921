//! A rollback that waits for Prometheus: whether the version still fails, and whether its target would be better.

use super::answer::Answer;
use super::precondition::must_be_seen;
use super::transaction::{Cause, Transaction};
use super::{gradual, question, retention};
use crate::phase::ObjectionKind;
use crate::{
    Confirmed, Finding, Guard, Held, IncidentId, NoteKind, Operator, OrRefusal, Pending, PhaseKind, Policy, Refusal,
    RefusalCode, SwitchMode, Verdict,
};

/// Postpones `pending` until the answer arrives, or the time limit for it has passed.
pub(super) fn begin(tx: &mut Transaction<'_>, id: &IncidentId, pending: Pending) {
    let now = tx.now;
    let Some(incident) = tx.incident(id) else { return };
    let text = match pending.by {
        _ if pending.skip_confirmation => {
            format!("restoring the content of {} from the archive before rolling back", pending.to)
        }
        SwitchMode::Auto => format!("asking Prometheus whether {} still fails before rolling back", pending.from),
        _ => {
            format!(
                "{} requested a rollback from {} to {}: asking Prometheus first",
                pending.operator, pending.from, pending.to
            )
        }
    };
    // a repeated alert is asked about again without another note
    if pending.by != SwitchMode::Auto || incident.held.is_none() {
        incident.note(now, NoteKind::Checked, text);
    }
    incident.confirm(pending, now.plus(Policy::CONFIRM));
}

/// Prometheus did not answer in time: handled like an answer without data.
pub(super) fn overdue(tx: &mut Transaction<'_>, id: &IncidentId) {
    let Some(at) = tx.incident(id).and_then(|incident| incident.pending()).map(|pending| pending.at) else {
        return;
    };
    let finding = Finding::new(Verdict::Unknown, "no answer from Prometheus in time");
    confirmed(tx, &Confirmed { incident: id.clone(), at, finding, blame: None, precheck: None });
}

pub(super) fn confirmed(tx: &mut Transaction<'_>, answer: &Confirmed) -> Answer {
    let now = tx.now;
    let id = &answer.incident;
    let Some(pending) = tx.incident(id).and_then(|incident| incident.answered(answer.at)) else {
        return Answer::Noted;
    };
    if !tx.has_traffic(&pending.from) {
        return Answer::Noted;
    }
    if let Some(fault) = unseen_lapse(tx, &pending) {
        question::object_by_lapse(tx, id, &pending, fault);
        return Answer::Noted;
    }
    if tx.lacks_content(&pending.to) {
        retention::object(tx, id, &pending);
        return Answer::Noted;
    }
    let Finding { verdict, text } = &answer.finding;
    let fires = tx.incident(id).is_some_and(|incident| incident.is_firing());
    if pending.by == SwitchMode::Auto {
        let held = match (&answer.blame, verdict) {
            _ if pending.skip_confirmation && !fires => return Answer::Noted, // it ended meanwhile
            _ if pending.skip_confirmation => tx.guard(&pending.from),
            (Some(blame), _) => Some(Held { guard: Guard::TargetUnhealthy, detail: blame.clone() }),
            (None, Verdict::Unhealthy) => tx.guard(&pending.from),
            (None, Verdict::Healthy) => unconfirmed(format!("{} looks healthy again: {text}", pending.from)),
            (None, _) => unconfirmed(format!("cannot tell whether {} still fails: {text}", pending.from)),
        };
        match held {
            Some(held) => question::hold(tx, id, held),
            None => {
                let reason = match pending.skip_confirmation {
                    true => pending.reason.clone(),
                    false => format!("{} (asked again: {text})", pending.reason),
                };
                // the target may have changed since, and its content may be in the archive
                let target = tx.state.target(Some(&pending.from), tx.policy, now).cloned();
                let target = target.unwrap_or_else(|| pending.to.clone());
                if tx.lacks_content(&target) {
                    begin(tx, id, Pending { to: target, reason, skip_confirmation: true, at: now, ..pending });
                    return Answer::Noted;
                }
                let cause = Cause { operator: &Operator::SYSTEM, reason: &reason, incident: Some(id) };
                tx.switch(Some(&pending.from), &target, SwitchMode::Auto, cause);
            }
        }
        return Answer::Noted;
    }
    let objection = match (&answer.precheck, verdict) {
        _ if pending.skip_confirmation => None,
        (Some(failure), _) => {
            Some((ObjectionKind::TargetFails, format!("{} failed its precheck: {failure}", pending.to)))
        }
        (None, Verdict::Healthy) => {
            Some((ObjectionKind::Changed, format!("{} looks healthy again: {text}", pending.from)))
        }
        // the requester has decided, and nothing contradicts
        (None, Verdict::Unhealthy | Verdict::NoData | Verdict::Unknown) => None,
    };
    match objection {
        None => {
            if let Some(incident) = tx.incident(id) {
                incident.decided_by = Some(pending.operator.clone());
                let text = match pending.skip_confirmation {
                    true => format!("the content of {} was restored from the archive", pending.to),
                    false => format!("asked Prometheus: {text}"),
                };
                incident.note(now, NoteKind::Checked, text);
            }
            let decided_at = pending.at;
            gradual::begin(tx, id, pending);
            let switch = tx.incident(id).and_then(|incident| incident.switch.as_mut());
            if let Some(switch) = switch.filter(|switch| switch.at == now) {
                switch.decided_at = Some(decided_at);
            }
        }
        Some((kind, text)) => question::object(tx, id, &pending, kind, text),
    }
    Answer::Noted
}

/// Whether this request was the first to notice that `active` lost its version, so that its sender could not know.
fn unseen_lapse(tx: &Transaction<'_>, pending: &Pending) -> Option<String> {
    let lapsed = tx.state.lapsed.as_ref().filter(|lapsed| lapsed.since == pending.at)?;
    (pending.by != SwitchMode::Auto).then(|| lapsed.fault())
}

fn unconfirmed(detail: String) -> Option<Held> {
    Some(Held { guard: Guard::Unconfirmed, detail })
}

/// Postpones a person's rollback until Prometheus has answered, unless that is pointless or was overruled, and until
/// the target's content is in Redis.
pub(super) fn ask_first(
    tx: &mut Transaction<'_>,
    id: &IncidentId,
    mut pending: Pending,
    force: bool,
) -> OrRefusal<Option<Answer>> {
    let policy = tx.policy;
    let has_text = tx.must_have_content(&pending.to, force).is_ok();
    let of_canary = question::is_about_canary(tx, id);
    let Some(incident) = tx.incident(id) else { return Ok(None) };
    if let Some(other) = incident.pending().filter(|other| other.by != SwitchMode::Auto && !force) {
        let message = format!("{} has just requested this: waiting for an answer from Prometheus", other.operator);
        return Err(Refusal::new(RefusalCode::AlreadyDecided, message));
    }
    // after a rollback that failed, the checks have said how bad it is, and those of a canary why it waits; what is on its way
    // was confirmed when it began
    let known = of_canary
        || matches!(incident.phase.kind(), PhaseKind::Escalated | PhaseKind::RollingBack | PhaseKind::Verifying);
    let answered = incident.objection().is_some_and(|objection| objection.is_overruled_by(&pending.to));
    let overruled = force || answered || known;
    pending.skip_confirmation = !policy.confirm || overruled;
    if pending.skip_confirmation && has_text {
        must_be_seen(tx, force)?;
        return Ok(None);
    }
    let to = pending.to.clone();
    begin(tx, id, pending);
    Ok(Some(Answer::Confirming { incident: id.clone(), to }))
}
