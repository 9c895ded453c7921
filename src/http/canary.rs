//! `POST /api/prompts/{prompt}/canary`: a person steers the prompt's canary.

use bytes::Bytes;

use super::auth::Caller;
use super::context::Context;
use super::error::ApiError;
use super::input::{ApiResult, body, incident_id, line, prompt_name};
use super::reply::Reply;
use super::serving::changed;
use crate::api;
use crate::decision::{Event, Steering};

pub async fn steer(context: &Context, caller: &Caller, prompt: &str, bytes: &Bytes) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: api::SteerRequest = body(bytes).await?;
    let about = match (request.canary, request.stage) {
        (Some(canary), Some(stage)) => Some((incident_id(&canary)?, stage)),
        (None, None) => None,
        _ => return Err(ApiError::bad_request("canary, stage: expected both, or neither")),
    };
    let event = Event::Steer(Steering {
        steer: request.action,
        about,
        operator: caller.operator(request.operator)?,
        force: request.force,
        reason: request.reason.map(|reason| line("reason", Some(reason), "")).transpose()?.filter(|r| !r.is_empty()),
    });
    let handled = context.engine.handle(&prompt, &event).await?;
    changed(&prompt, handled)
}
