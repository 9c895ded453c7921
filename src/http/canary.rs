//! `POST /api/prompts/{prompt}/canary`: a person steers the prompt's canary.

use bytes::Bytes;

use super::Context;
use super::auth::Caller;
use super::input::{ApiResult, body, line, prompt_name};
use super::reply::Reply;
use super::serving::changed;
use crate::api;
use crate::decision::{Event, Steering};

pub async fn steer(context: &Context, caller: &Caller, prompt: &str, bytes: &Bytes) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: api::SteerRequest = body(bytes).await?;
    let event = Event::Steer(Steering {
        steer: request.action,
        about: None,
        operator: caller.operator(request.operator)?,
        force: request.force,
        reason: request.reason.map(|reason| line("reason", Some(reason), "")).transpose()?.filter(|r| !r.is_empty()),
    });
    let handled = context.engine.handle(&prompt, &event).await?;
    changed(&prompt, handled)
}
