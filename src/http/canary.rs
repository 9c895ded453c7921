//! `POST /api/prompts/{prompt}/canary`: a person steers the canary that is under way.

use bytes::Bytes;
use serde::Deserialize;

use super::Context;
use super::input::{self, Result, body, line, prompt_name};
use super::reply::{Failure, Reply};
use super::serving::changed;
use crate::decision::{Event, Steer, Steering};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SteerBody {
    action: String,
    operator: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

pub async fn steer(context: &Context, prompt: &str, bytes: &Bytes) -> Result<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: SteerBody = body(bytes).await?;
    let Some(steer) = Steer::ALL.into_iter().find(|steer| steer.as_str() == request.action) else {
        let words = Steer::ALL.map(Steer::as_str).join(", ");
        return Err(Failure::bad_request(format!("action: expected one of {words}")));
    };
    let event = Event::Steer(Steering {
        steer,
        about: None,
        operator: input::operator(request.operator)?,
        force: request.force,
        reason: request.reason.map(|reason| line("reason", Some(reason), "")).transpose()?.filter(|r| !r.is_empty()),
    });
    let handled = context.engine.handle(&prompt, &event).await?;
    changed(&prompt, handled)
}
