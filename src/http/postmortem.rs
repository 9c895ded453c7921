//! `/api/incidents/{id}/postmortem`: the post-mortem draft of an incident.

use hyper::StatusCode;

use super::auth::Caller;
use super::context::Context;
use super::error::{ApiError, no_incident};
use super::input::incident_id;
use super::reply::{Reply, reply};
use crate::service::drafts;

pub async fn postmortem(context: &Context, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let id = incident_id(id)?;
    let incident = context.engine.store.incident(&id).await?.ok_or_else(|| no_incident(&id))?;
    caller.require_incident(&incident)?;
    let text = drafts::postmortem(&context.engine, incident).await?;
    Ok(reply(StatusCode::OK, "text/markdown; charset=utf-8", text))
}
