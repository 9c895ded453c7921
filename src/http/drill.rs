//! `/api/drill`: starts a drill, and shows its progress.

use bytes::Bytes;
use hyper::StatusCode;

use super::auth::Caller;
use super::context::Context;
use super::error::ApiError;
use super::input::{body, prompt_name};
use super::reply::{Reply, answer};
use crate::api;
use crate::service::drills;
use crate::store::DrillId;
use crate::store::drill::{Drill, DrillStep};
use crate::store::rfc3339;

pub async fn start(context: &Context, caller: &Caller, bytes: &Bytes) -> Result<Reply, ApiError> {
    let request: api::DrillRequest = body(bytes).await?;
    let prompt = prompt_name(&request.prompt)?;
    caller.require_prompt(&prompt)?;
    let operator = caller.operator(request.operator)?;
    if !context.posts_alerts {
        let message = "alertmanager.urls is empty: the receiver has no Alertmanager to post a drill to";
        return Err(ApiError::new(StatusCode::CONFLICT, "no_alertmanager", message));
    }
    match drills::start(&context.engine, &prompt, &operator).await?? {
        Some(drill) => Ok(answer(StatusCode::CREATED, &view(&drill))),
        None => Err(ApiError::unavailable("drill", "the drill is gone: try again")),
    }
}

pub async fn drill(context: &Context, caller: &Caller, id: &str) -> Result<Reply, ApiError> {
    let drill = match DrillId::parse(id) {
        Some(id) => context.engine.store.drill(&id).await?,
        None => None,
    };
    match drill {
        Some(drill) => {
            caller.require_prompt(&drill.prompt)?;
            Ok(answer(StatusCode::OK, &view(&drill)))
        }
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_drill", "no such drill; each is kept for a day")),
    }
}

/// The steps in order. `at` is null for a step that is missing; `error` says why the last attempt failed.
fn view(drill: &Drill) -> api::DrillView {
    let hop = |name: &str, done: Option<&DrillStep>, failed: Option<&DrillStep>| api::DrillStepView {
        hop: name.to_owned(),
        at: done.map(|hop| rfc3339(hop.at)),
        error: failed.filter(|_| done.is_none()).map(|failed| failed.text.clone()),
        ..api::DrillStepView::default()
    };
    let mut urls: Vec<&String> = drill.posted.keys().chain(drill.failed.keys()).collect();
    urls.sort();
    urls.dedup();
    let post = |url: &&String| api::DrillStepView {
        url: Some(Some(url.to_string())),
        ..hop("alertmanager", drill.posted.get(*url), drill.failed.get(*url))
    };
    let mut hops: Vec<api::DrillStepView> = urls.iter().map(post).collect();
    if hops.is_empty() {
        hops.push(api::DrillStepView { url: Some(None), ..hop("alertmanager", None, None) });
    }
    hops.push(hop("webhook", drill.received.as_ref(), None));
    let decision = Some(drills::decision(drill));
    hops.push(api::DrillStepView { decision, ..hop("decided", drill.decided.as_ref(), None) });
    hops.push(hop("committed", drill.committed.as_ref(), None));
    if drill.notifies {
        let channel = Some(drill.notified.as_ref().map(|told| told.text.clone()));
        hops.push(api::DrillStepView { channel, ..hop("slack", drill.notified.as_ref(), drill.not_notified.as_ref()) });
    }
    api::DrillView {
        id: drill.id.as_str().to_owned(),
        prompt: drill.prompt.to_string(),
        version: drill.version.to_string(),
        operator: drill.operator.clone(),
        started_at: rfc3339(drill.started),
        slack: drill.notifies,
        done: hops.iter().all(|hop| hop.at.is_some()),
        hops,
    }
}
