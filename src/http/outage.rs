//! Coordinating incidents in the API: their views, and decisions about them.

use hyper::StatusCode;

use super::context::Context;
use super::error::{ApiError, no_incident};
use super::input::ApiResult;
use super::reply::{Reply, answer};
use super::views::event;
use crate::api;
use crate::decision::outage::{Member, OutageAction, shared};
use crate::decision::{Action, IncidentId, Operator, Severity};
use crate::service::coordinate;
use crate::store::outage::Coordinated;
use crate::store::rfc3339;

/// Members shown at most; all are stored.
const MEMBERS: usize = 1_000;

/// The entry in a list.
pub fn row(found: &Coordinated) -> api::OutageView {
    let (outage, members) = (&found.outage, &found.members);
    let waiting = members.iter().filter(|member| member.waits()).count();
    let shared = shared(members).into_iter().map(|(label, value, prompts)| api::SharedLabel {
        label: label.to_owned(),
        value: value.to_owned(),
        prompts,
    });
    api::OutageView {
        id: outage.id.to_string(),
        kind: "outage".to_owned(),
        prompt: (),
        version: (),
        target: (),
        phase: outage.phase(members).to_string(),
        severity: Severity::Critical.to_string(),
        action: Action::Rollback.to_string(),
        decider: outage.decider.clone(),
        opened_at: rfc3339(outage.opened_at),
        updated_at: rfc3339(outage.updated_at),
        closed_at: outage.closed_at.map(rfc3339),
        deadline: (),
        guard: (),
        switch: (),
        summary: format!("{} prompts fail together, {waiting} wait for a decision", members.len()),
        prompts: members.len(),
        waiting,
        shared: shared.collect(),
        hold: outage.hold.as_ref().map(|hold| api::HeldBack { by: hold.by.to_string(), at: rfc3339(hold.at) }),
        carrying_out: outage.execution.as_ref().map(|execution| api::OutageExecution {
            decision: execution.what.to_string(),
            by: execution.by.to_string(),
            at: rfc3339(execution.at),
        }),
        choices: outage.choices(members).into_iter().map(|action| word(action).to_owned()).collect(),
        events: None,
        members: None,
        alerts: None,
    }
}

/// The API's word for a decision.
fn word(action: OutageAction) -> &'static str {
    match action {
        OutageAction::RollBack => "approve",
        OutageAction::Hold => "dismiss",
        OutageAction::Undo => "undo",
        OutageAction::Release => "release",
    }
}

fn member(member: &Member) -> api::OutageMember {
    let failed = member.done.as_ref().filter(|done| done.failed).map(|done| &done.text);
    api::OutageMember {
        incident: member.incident.to_string(),
        prompt: member.prompt.to_string(),
        version: member.version.to_string(),
        target: member.target.as_ref().map(ToString::to_string),
        phase: member.phase.to_string(),
        began: rfc3339(member.began),
        rolled_back_before: member.before,
        held_back: member.hold,
        labels: member.group_labels.pairs().map(|(label, value)| (label.to_owned(), value.to_owned())).collect(),
        failed: member.objection.as_ref().or(failed).cloned(),
    }
}

pub async fn incident(context: &Context, id: &IncidentId) -> ApiResult<Reply> {
    let found = context.engine.store.outage(id).await?.ok_or_else(|| no_incident(id))?;
    // if not all fit, those that wait for a decision come first
    let mut members: Vec<&Member> = found.members.iter().collect();
    members.sort_by_key(|member| !member.waits());
    let outage = api::OutageView {
        events: Some(found.outage.notes.iter().map(event).collect()),
        members: Some(members.into_iter().take(MEMBERS).map(member).collect()),
        alerts: Some(Vec::new()),
        ..row(&found)
    };
    Ok(answer(StatusCode::OK, &outage))
}

/// Stores the decision, which is then carried out prompt by prompt. `action` is `None` if the decision does not apply to
/// a coordinating incident. `for_one_prompt`: a field of the request that does not apply to one either.
pub async fn decide(
    context: &Context,
    id: &IncidentId,
    action: Option<OutageAction>,
    for_one_prompt: Option<&str>,
    operator: &Operator,
    question: Option<u32>,
) -> ApiResult<Reply> {
    let (Some(action), None) = (action, for_one_prompt) else {
        context.engine.store.outage(id).await?.ok_or_else(|| no_incident(id))?;
        let message = match for_one_prompt {
            Some(field) if action.is_some() => format!(
                "{field}: this is a coordinating incident, and each prompt goes back to its own target: use {field} with \
                 the prompt's own incident"
            ),
            _ => "decision: expected approve, dismiss, undo or release: this is a coordinating incident".to_owned(),
        };
        return Err(ApiError::bad_request(message));
    };
    let decided = coordinate::decide(&context.engine, id, action, operator, question, None).await?;
    let found = decided.ok_or_else(|| no_incident(id))??;
    let meant = |member: &&Member| match &found.outage.execution {
        Some(execution) => member.is_due(execution),
        None => member.waits(),
    };
    let answered = api::Answered {
        success: true,
        incident: id.to_string(),
        decision: Some(word(action).to_owned()),
        phase: found.outage.phase(&found.members).to_string(),
        prompts: Some(found.members.iter().filter(meant).count()),
        timestamp: rfc3339(found.outage.updated_at),
    };
    Ok(answer(StatusCode::OK, &answered))
}
