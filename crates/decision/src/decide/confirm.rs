//! A rollback that waits for Prometheus: whether the version still fails, and whether its target would be better.

use super::super::event::Confirmed;
use super::super::guards::{Guard, Held};
use super::super::names::IncidentId;
use super::super::note::NoteKind;
use super::super::operator::Operator;
use super::super::phase::{Objection, Pending, Phase, Question};
use super::super::policy::Policy;
use super::super::switch::SwitchMode;
use super::super::verification::{Finding, Verdict};
use super::{Answer, Transaction, alerts, gradual, retention};

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
        object_by_lapse(tx, id, &pending, fault);
        return Answer::Noted;
    }
    if tx.lacks_content(&pending.to) {
        retention::object(tx, id, &pending);
        return Answer::Noted;
    }
    let Finding { verdict, text } = &answer.finding;
    if pending.by == SwitchMode::Auto {
        let held = match (&answer.blame, verdict) {
            _ if pending.skip_confirmation => tx.guard(&pending.from),
            (Some(blame), _) => Some(Held { guard: Guard::TargetUnhealthy, detail: blame.clone() }),
            (None, Verdict::Unhealthy) => tx.guard(&pending.from),
            (None, Verdict::Healthy) => unconfirmed(format!("{} looks healthy again: {text}", pending.from)),
            (None, _) => unconfirmed(format!("cannot tell whether {} still fails: {text}", pending.from)),
        };
        match held {
            Some(held) => alerts::hold(tx, id, held),
            None => {
                let reason = match pending.skip_confirmation {
                    true => pending.reason.clone(),
                    false => format!("{} (asked again: {text})", pending.reason),
                };
                // the target may have changed since
                let target = tx.state.target(Some(&pending.from), tx.policy, now).cloned();
                let target = target.filter(|target| !tx.lacks_content(target)).unwrap_or(pending.to);
                tx.switch(Some(&pending.from), &target, SwitchMode::Auto, &Operator::SYSTEM, &reason, Some(id));
            }
        }
        return Answer::Noted;
    }
    let objection = match (&answer.precheck, verdict) {
        _ if pending.skip_confirmation => None,
        (Some(failure), _) => Some(Objection {
            precheck: true,
            content_missing: false,
            text: format!("{} fails its baseline test: {failure}", pending.to),
        }),
        (None, Verdict::Healthy) => Some(Objection {
            precheck: false,
            content_missing: false,
            text: format!("{} looks healthy again: {text}", pending.from),
        }),
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
        Some(objection) => object(tx, id, &pending, objection),
    }
    Answer::Noted
}

/// Whether this request was the first to notice that `active` lost its version, so that its sender could not know.
fn unseen_lapse(tx: &Transaction<'_>, pending: &Pending) -> Option<String> {
    let lapsed = tx.state.lapsed.as_ref().filter(|lapsed| lapsed.since == pending.at)?;
    (pending.by != SwitchMode::Auto).then(|| lapsed.fault())
}

/// `active` lost its version after a person decided: the person decides again, because nothing is overwritten unseen.
pub(super) fn object_to_lapse(tx: &mut Transaction<'_>, id: &IncidentId, fault: &str) -> bool {
    let Some(incident) = tx.incident(id) else { return false };
    let asked = incident.pending().filter(|pending| pending.by != SwitchMode::Auto).map(|pending| pending.at);
    let Some(pending) = asked.and_then(|at| incident.answered(at)) else { return false };
    object_by_lapse(tx, id, &pending, fault.to_owned());
    true
}

/// Keeps an earlier page: nothing has been decided.
fn object_by_lapse(tx: &mut Transaction<'_>, id: &IncidentId, pending: &Pending, fault: String) {
    let Some(escalations) = tx.incident(id).map(|incident| incident.escalations) else { return };
    object(tx, id, pending, Objection { precheck: false, content_missing: false, text: fault });
    if let Some(incident) = tx.incident(id) {
        incident.escalations = escalations.min(Policy::ESCALATIONS - 1);
    }
}

fn unconfirmed(detail: String) -> Option<Held> {
    Some(Held { guard: Guard::Unconfirmed, detail })
}

/// Records the objection and asks again. A second approval overrules it.
pub(super) fn object(tx: &mut Transaction<'_>, id: &IncidentId, pending: &Pending, objection: Objection) {
    let now = tx.now;
    let Some(incident) = tx.incident(id) else { return };
    let again = if objection.content_missing { "try again" } else { "roll back anyway" };
    let text = format!("not rolled back yet: {}. {} may approve again to {again}", objection.text, pending.operator);
    incident.note(now, NoteKind::Asked, text);
    match incident.phase {
        // people are still paged about the rollback that did not help
        Phase::Escalated { .. } => incident.question_number += 1,
        _ => {
            let question = Question::until(now.plus(incident.time_limit));
            incident.ask(Question { objection: Some(objection), ..question }, now);
        }
    }
}
