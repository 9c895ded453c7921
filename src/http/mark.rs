//! `POST /api/prompts/{prompt}/versions/{version}/mark`: a person marks a version.

use bytes::Bytes;
use hyper::StatusCode;

use super::auth::Caller;
use super::context::Context;
use super::error::{ApiError, no_incident, unexpected};
use super::input::{ApiResult, body, incident_id, line, prompt_name, version};
use super::reply::{Reply, answer};
use crate::api;
use crate::decision::decide::Marked;
use crate::decision::{Answer, Event, MarkKind, Marking, PromptName, VersionName};
use crate::store::rfc3339;
use crate::trace;

pub async fn mark(context: &Context, caller: &Caller, prompt: &str, name: &str, bytes: &Bytes) -> ApiResult<Reply> {
    let (prompt, version) = (prompt_name(prompt)?, version("version", name)?);
    trace::concerns(None, Some(version.as_str()), None);
    let request: api::MarkRequest = body(bytes).await?;
    let incident = request.incident.as_deref().map(incident_id).transpose()?;
    if let Some(id) = &incident {
        let found = context.engine.store.incident(id).await?;
        found.filter(|incident| incident.prompt == prompt).ok_or_else(|| no_incident(id))?;
    }
    let reason = line("reason", request.reason, "")?;
    if reason.is_empty() {
        return Err(ApiError::bad_request("reason: expected a reason for the mark"));
    }
    let marking = Marking {
        version: version.clone(),
        kind: request.mark,
        reason,
        operator: caller.operator(request.operator)?,
        incident,
    };
    let handled = context.engine.handle(&prompt, &Event::Mark(marking)).await?;
    let marked = match handled.answer {
        Answer::Marked(marked) => marked,
        Answer::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(unexpected()),
    };
    let view = api::MarkResponse {
        success: true,
        prompt: prompt.to_string(),
        version: version.to_string(),
        mark: marked.kind.to_string(),
        percent: marked.percent,
        rollback_target: marked.target.as_ref().map(ToString::to_string),
        timestamp: rfc3339(handled.now),
        unchanged: marked.unchanged,
        message: still_serves(&prompt, &version, &marked),
    };
    Ok(answer(StatusCode::OK, &view))
}

/// Explains how to roll back a bad version that has traffic, because a mark moves none.
fn still_serves(prompt: &PromptName, version: &VersionName, marked: &Marked) -> Option<String> {
    if marked.kind != MarkKind::Bad || marked.percent == 0 {
        return None;
    }
    let rollback = format!("prompt-rollback rollback {prompt} --from {version}");
    let way = match &marked.target {
        Some(target) => format!("`{rollback}` goes back to {target}"),
        None => format!("no other version is known-good: name one with `{rollback} --to VERSION --force`"),
    };
    Some(format!("{version} still serves ({} % of the traffic): nothing was rolled back. {way}", marked.percent))
}
