//! Changes of the active version: `POST /api/rollback`, `…/activate` with its gates, `…/decide`.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::Instant;

use super::auth::Caller;
use super::context::Context;
use super::error::{ApiError, no_incident, unexpected};
use super::input::{ApiResult, Query, body, incident_id, line, optional_version, prompt_name, version};
use super::outage;
use super::reply::{Reply, answer};
use super::wait::Patience;
use crate::api::{self, DecisionKind, HoldDurations, Strategy};
use crate::config::parse_prometheus_duration;
use crate::decision::note::NoteKind;
use crate::decision::outage::OutageAction;
use crate::decision::phase::ObjectionKind;
use crate::decision::{
    self, Activation, Answer, Choice, Decide, Event, Gate, Incident, IncidentId, PhaseKind, Plan, PromptName,
    RefusalCode, Rollback, Snapshot, Switch, Timestamp, TrafficShare, VersionName,
};
use crate::engine::Handled;
use crate::store::rfc3339;
use crate::trace;

pub async fn rollback(context: &Context, caller: &Caller, bytes: &Bytes, arrived: Instant) -> ApiResult<Reply> {
    let request: api::RollbackRequest = body(bytes).await?;
    let prompt = prompt_name(&request.prompt)?;
    caller.require_prompt(&prompt)?;
    let gradual = match request.strategy {
        Some(Strategy::Gradual) => {
            Some(plan(request.stages, request.hold, &context.engine.policy.gradual, Plan::gradual)?)
        }
        Some(Strategy::Instant) | None if request.stages.is_some() || request.hold.is_some() => {
            return Err(ApiError::bad_request("stages, hold: only with strategy \"gradual\""));
        }
        Some(Strategy::Instant) | None => None,
    };
    let event = Event::Rollback(Rollback {
        target: optional_version("target_version", request.target_version.as_ref())?,
        from: optional_version("from_version", request.from_version.as_ref())?,
        reason: line("reason", request.reason, "requested")?,
        operator: caller.operator(request.operator)?,
        force: request.force,
        gradual,
    });
    let handled = context.engine.handle(&prompt, &event).await?;
    changed_or_confirming(context, &prompt, handled, arrived).await
}

type FromStages = fn(&[u8], Vec<Duration>) -> std::result::Result<Plan, String>;

/// The plan of a request; what the request omits comes from the config.
fn plan(
    stages: Option<Vec<u8>>,
    hold: Option<HoldDurations>,
    default: &Plan,
    from_stages: FromStages,
) -> ApiResult<Plan> {
    let holds = match hold {
        None => default.holds.clone(),
        Some(hold) => {
            let texts = match hold {
                HoldDurations::All(text) => vec![text],
                HoldDurations::Each(texts) => texts,
            };
            let read = |text: String| {
                parse_prometheus_duration(&text)
                    .map_err(|_| ApiError::bad_request("hold: expected durations such as \"10m\" or \"1h30m\""))
            };
            texts.into_iter().map(read).collect::<ApiResult<_>>()?
        }
    };
    let plan = match stages {
        Some(stages) => from_stages(&stages, holds),
        None => Plan { stages: default.stages.clone(), holds, limit: None }.checked(),
    };
    plan.map_err(|message| ApiError::new(StatusCode::BAD_REQUEST, "bad_stages", message))
}

async fn changed_or_confirming(
    context: &Context,
    prompt: &PromptName,
    handled: Handled,
    arrived: Instant,
) -> ApiResult<Reply> {
    let Answer::Confirming { incident: id, to } = &handled.answer else { return changed(prompt, handled) };
    let mut patience = Patience::begin(arrived, context.request_timeout);
    loop {
        let last = patience.wait().await;
        let incident = context.engine.store.incident(id).await?.ok_or_else(|| no_incident(id))?;
        if incident.phase.kind() != PhaseKind::Confirming {
            return confirmed(prompt, &incident, to, handled.now);
        }
        if last {
            let from = incident.pending().map(|pending| pending.from.to_string());
            let changed = switched(prompt, from, to, handled.now, Some(id));
            return Ok(answer(
                StatusCode::ACCEPTED,
                &api::ChangeResponse { success: false, confirming: true, ..changed },
            ));
        }
    }
}

/// The answer about a rollback to `to` that has waited since `asked`.
fn confirmed(prompt: &PromptName, incident: &Incident, to: &VersionName, asked: Timestamp) -> ApiResult<Reply> {
    // Redis' clock may have stepped back since
    let is_since = |switch: &&Switch| switch.at >= asked || switch.decided_at == Some(asked);
    let switch = incident.switch.as_ref().filter(is_since);
    if let Some(switch) = switch.filter(|switch| switch.to == *to) {
        let changed = switched(prompt, Some(switch.from.to_string()), to, switch.at, Some(&incident.id));
        return Ok(answer(StatusCode::OK, &changed));
    }
    if let Some(split) = incident.gradual().filter(|split| split.arriving == *to) {
        let changed = switched(prompt, Some(split.leaving.to_string()), to, asked, Some(&incident.id));
        return Ok(answer(StatusCode::OK, &api::ChangeResponse { percent: Some(split.percent()), ..changed }));
    }
    let conflict = |code: &'static str, message: String| Err(ApiError::new(StatusCode::CONFLICT, code, message));
    if let Some(Switch { operator, from, to, .. }) = switch {
        return conflict("moved", format!("not rolled back: {operator} replaced {from} with {to} meanwhile"));
    }
    match incident.objection() {
        Some(objection) => {
            let (code, then) = match objection.kind {
                ObjectionKind::ContentMissing => {
                    ("archived", "repeat the request to try again, or use force to roll back without its content")
                }
                ObjectionKind::TargetFails => {
                    ("baseline_failed", "repeat the request, or use force, to roll back anyway")
                }
                ObjectionKind::Changed => ("healthy", "repeat the request, or use force, to roll back anyway"),
            };
            conflict(code, format!("{}: {then}", objection.text))
        }
        // after a rollback that did not help, only a missing content keeps the next one
        None if incident.phase.kind() == PhaseKind::Escalated => {
            let why = incident.notes.iter().rfind(|note| note.kind == NoteKind::Asked);
            conflict("archived", why.map_or_else(|| "not rolled back yet".to_owned(), |note| note.text.clone()))
        }
        None => conflict("already_decided", format!("decided by someone else meanwhile: {}", incident.phase)),
    }
}

pub(super) fn changed(prompt: &PromptName, handled: Handled) -> ApiResult<Reply> {
    let changed = match handled.answer {
        Answer::Changed { from, to, incident, unchanged, .. } => {
            api::ChangeResponse { unchanged, ..switched(prompt, from, &to, handled.now, incident.as_ref()) }
        }
        Answer::Shared { from, to, percent, incident } => {
            let changed = switched(prompt, Some(from.to_string()), &to, handled.now, incident.as_ref());
            api::ChangeResponse { percent: Some(percent), ..changed }
        }
        Answer::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(unexpected()),
    };
    Ok(answer(StatusCode::OK, &changed))
}

fn switched(
    prompt: &PromptName,
    from: Option<String>,
    to: &VersionName,
    at: Timestamp,
    incident: Option<&IncidentId>,
) -> api::ChangeResponse {
    api::ChangeResponse {
        success: true,
        prompt: prompt.to_string(),
        from_version: from,
        to_version: to.to_string(),
        timestamp: Some(rfc3339(at)),
        incident: incident.map(ToString::to_string),
        ..api::ChangeResponse::default()
    }
}

/// Waits until the worker has measured this version; the result is then in the prompt's record.
async fn measured(
    context: &Context,
    prompt: &PromptName,
    version: &VersionName,
    arrived: Instant,
) -> ApiResult<(Snapshot, Timestamp)> {
    let engine = &context.engine;
    let asked = engine.handle(prompt, &Event::AskGates { version: version.clone() }).await?;
    if let Answer::Refused(refusal) = asked.answer {
        return Err(refusal.into());
    }
    let mut patience = Patience::begin(arrived, context.request_timeout);
    loop {
        let last = patience.wait().await;
        let loaded = engine.load(prompt).await?;
        let waits = loaded.snapshot.state.to_measure().any(|record| record.version == *version);
        if last || !waits {
            return Ok((loaded.snapshot, loaded.now));
        }
    }
}

/// Each promotion gate of one version, with its figures.
pub async fn gates(context: &Context, prompt: &str, query: &Query, arrived: Instant) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let version = version("version", query.text("version").unwrap_or_default())?;
    let (snapshot, now) = measured(context, &prompt, &version, arrived).await?;
    let policy = &context.engine.policy;
    let all = decision::gates::gates(policy, &snapshot.state, &version, now);
    let closed = decision::gates::closed(policy, &snapshot.state, &version, true, now);
    let gate = |gate: Gate| api::GateView {
        gate: gate.name.to_string(),
        on: gate.on,
        passed: gate.passed,
        figures: gate.text,
    };
    let gates = api::GatesResponse {
        prompt: prompt.to_string(),
        version: version.to_string(),
        replaces: snapshot.state.replaced_by(&version).map(ToString::to_string),
        may_have_all_traffic: closed.is_none(),
        gates: all.into_iter().map(gate).collect(),
    };
    Ok(answer(StatusCode::OK, &gates))
}

pub async fn activate(
    context: &Context,
    caller: &Caller,
    prompt: &str,
    bytes: &Bytes,
    arrived: Instant,
) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: api::ActivateRequest = body(bytes).await?;
    let share = match request.percent {
        Some(_) if request.canary => return Err(ApiError::bad_request("percent: cannot be combined with canary")),
        _ if !request.canary
            && (request.stages.is_some() || request.hold.is_some() || request.hold_limit.is_some()) =>
        {
            return Err(ApiError::bad_request("stages, hold, hold_limit: only with \"canary\": true"));
        }
        None if request.canary => {
            let plan =
                plan(request.stages, request.hold, &context.engine.policy.canary.of(&prompt).plan, Plan::canary)?;
            let limit = request.hold_limit.map(|text| {
                let limit = parse_prometheus_duration(&text).ok().filter(|limit| Plan::may_hold(*limit));
                let expected = "hold_limit: expected a duration such as \"2h\", at most 30 days";
                limit.ok_or_else(|| ApiError::bad_request(expected))
            });
            TrafficShare::Canary(Plan { limit: limit.transpose()?, ..plan })
        }
        None | Some(100) => TrafficShare::All,
        Some(percent) => TrafficShare::Percent(percent),
    };
    let version = version("version", &request.version)?;
    trace::concerns(None, Some(version.as_str()), None);
    let event = Event::Activate(Activation {
        version: version.clone(),
        share,
        operator: caller.operator(request.operator)?,
        force: request.force,
        reason: request.reason.map(|reason| line("reason", Some(reason), "")).transpose()?.filter(|r| !r.is_empty()),
    });
    let engine = &context.engine;
    let mut handled = engine.handle(&prompt, &event).await?;
    let closed = matches!(&handled.answer, Answer::Refused(refusal) if refusal.code == RefusalCode::GateClosed);
    if closed && engine.policy.gates.ab_test && !request.force {
        measured(context, &prompt, &version, arrived).await?; // fresh measurements may open it
        handled = engine.handle(&prompt, &event).await?;
    }
    changed(&prompt, handled)
}

pub async fn decide(context: &Context, caller: &Caller, id: &str, bytes: &Bytes, arrived: Instant) -> ApiResult<Reply> {
    let request: api::DecideRequest = body(bytes).await?;
    let id = incident_id(id)?;
    let choice = match request.decision {
        DecisionKind::Approve => Some((Choice::Approve, Some(OutageAction::RollBack))),
        DecisionKind::Investigate => Some((Choice::Investigate, None)),
        DecisionKind::Dismiss => Some((Choice::Dismiss, Some(OutageAction::Hold))),
        DecisionKind::Undo => Some((Choice::Undo, Some(OutageAction::Undo))),
        DecisionKind::Release => None,
        DecisionKind::ApproveGradual => Some((Choice::ApproveGradual, None)),
    };
    let operator = caller.decider(request.operator)?;
    let target = optional_version("target_version", request.target_version.as_ref())?;
    let names_one =
        matches!(request.decision, DecisionKind::Approve | DecisionKind::ApproveGradual | DecisionKind::Undo);
    if target.is_some() && !names_one {
        return Err(ApiError::bad_request("target_version: only approve, approve_gradual and undo have a target"));
    }
    let Some(incident) = context.engine.store.incident(&id).await? else {
        caller.require_outage(&id)?;
        let outage_action = choice.map_or(Some(OutageAction::Release), |(_, outage_action)| outage_action);
        let for_one_prompt = target.map(|_| "target_version").or(request.force.then_some("force"));
        return outage::decide(context, &id, outage_action, for_one_prompt, &operator, request.question).await;
    };
    caller.require_incident(&incident)?;
    trace::concerns(Some(incident.prompt.as_str()), Some(incident.version.as_str()), None);
    let Some((choice, _)) = choice else {
        return Err(ApiError::bad_request(
            "decision: release applies only to coordinating incidents, and this incident is about one prompt",
        ));
    };
    let (force, question_number) = (request.force, request.question);
    let click = Decide { incident: id.clone(), choice, operator, target, force, question_number };
    let event = Event::Decide(click);
    let handled = context.engine.handle(&incident.prompt, &event).await?;
    match &handled.answer {
        Answer::Decided(phase) => {
            let answered = api::Answered {
                success: true,
                incident: id.to_string(),
                phase: phase.to_string(),
                timestamp: rfc3339(handled.now),
                ..api::Answered::default()
            };
            Ok(answer(StatusCode::OK, &answered))
        }
        _ => changed_or_confirming(context, &incident.prompt, handled, arrived).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{CommitId, Operator, Phase, SwitchMode};

    const ASKED: Timestamp = Timestamp(1_800_000_000_000);

    /// The answer about a rollback from v2 to v1 that was requested at `ASKED`; since then v2 was replaced with `to`.
    fn answered(
        to: &str,
        mode: SwitchMode,
        at: Timestamp,
        decided_at: Option<Timestamp>,
    ) -> Result<StatusCode, &'static str> {
        let name = |text: &str| VersionName::parse(text).unwrap();
        let (id, prompt) = (IncidentId("I".to_owned()), PromptName::parse("p").unwrap());
        let switch = Switch {
            commit: CommitId::default(),
            at,
            decided_at,
            from: name("v2"),
            to: name(to),
            mode,
            operator: Operator::recorded("mia"),
            verification: None,
        };
        let incident = Incident {
            phase: Phase::Verifying { until: ASKED },
            switch: Some(switch),
            ..Incident::new(id, prompt.clone(), name("v2"), "on-call".to_owned(), ASKED)
        };
        let reply = confirmed(&prompt, &incident, &name("v1"), ASKED);
        reply.map(|reply| reply.status()).map_err(|error| error.code)
    }

    #[test]
    fn a_rollback_is_found_although_the_clock_went_back_since_its_request() {
        let at = |decided_at| answered("v1", SwitchMode::Manual, ASKED.minus(Duration::from_secs(600)), decided_at);
        assert_eq!(at(Some(ASKED)), Ok(StatusCode::OK));
        assert_eq!(at(None), Err("already_decided"), "an earlier rollback");
    }

    #[test]
    fn another_version_that_serves_meanwhile_is_no_success() {
        for (to, mode, expected) in [
            ("v1", SwitchMode::Manual, Ok(StatusCode::OK)),
            ("v1", SwitchMode::Shipped, Ok(StatusCode::OK)), // somebody has SET what was requested
            ("v3", SwitchMode::Shipped, Err("moved")),
            ("v0", SwitchMode::Approved, Err("moved")),
        ] {
            assert_eq!(answered(to, mode, ASKED, None), expected, "{to} {mode:?}");
        }
    }
}
