//! `/api/drill`: starting a drill, and how far it has come.

use bytes::Bytes;
use hyper::StatusCode;

use super::Context;
use super::input::{self, body, prompt_name};
use super::reply::{Failure, Reply, answer};
use crate::api;
use crate::drills;
use crate::store::drill::{Drill, DrillId, DrillStep};
use crate::store::rfc3339;

pub async fn start(context: &Context, bytes: &Bytes) -> Result<Reply, Failure> {
    let request: api::StartDrill = body(bytes).await?;
    let prompt = prompt_name(&request.prompt)?;
    let operator = input::operator(request.operator)?;
    if !context.posts_alerts {
        let message = "alertmanager.urls is empty: the receiver has no Alertmanager to post a drill to";
        return Err(Failure::new(StatusCode::CONFLICT, "no_alertmanager", message));
    }
    match drills::start(&context.engine, &prompt, &operator).await?? {
        Some(drill) => Ok(answer(StatusCode::CREATED, &view(&drill))),
        None => Err(Failure::unavailable("drill", "the drill is gone: try again")),
    }
}

pub async fn drill(context: &Context, id: &str) -> Result<Reply, Failure> {
    let drill = match DrillId::parse(id) {
        Some(id) => context.engine.store.drill(&id).await?,
        None => None,
    };
    match drill {
        Some(drill) => Ok(answer(StatusCode::OK, &view(&drill))),
        None => Err(Failure::new(StatusCode::NOT_FOUND, "unknown_drill", "no such drill; each is kept for a day")),
    }
}

/// The hops in the order of the way. `at` is null for what has not come yet; `error` says why it last did not.
fn view(drill: &Drill) -> api::Drill {
    let hop = |name: &str, done: Option<&DrillStep>, failed: Option<&DrillStep>| api::DrillStep {
        hop: name.to_owned(),
        at: done.map(|hop| rfc3339(hop.at)),
        error: failed.filter(|_| done.is_none()).map(|failed| failed.text.clone()),
        ..api::DrillStep::default()
    };
    let mut urls: Vec<&String> = drill.posted.keys().chain(drill.failed.keys()).collect();
    urls.sort();
    urls.dedup();
    let post = |url: &&String| api::DrillStep {
        url: Some(Some(url.to_string())),
        ..hop("alertmanager", drill.posted.get(*url), drill.failed.get(*url))
    };
    let mut hops: Vec<api::DrillStep> = urls.iter().map(post).collect();
    if hops.is_empty() {
        hops.push(api::DrillStep { url: Some(None), ..hop("alertmanager", None, None) });
    }
    hops.push(hop("webhook", drill.received.as_ref(), None));
    let decision = Some(drills::decision(drill));
    hops.push(api::DrillStep { decision, ..hop("decided", drill.decided.as_ref(), None) });
    hops.push(hop("committed", drill.committed.as_ref(), None));
    if drill.tells {
        let channel = Some(drill.told.as_ref().map(|told| told.text.clone()));
        hops.push(api::DrillStep { channel, ..hop("slack", drill.told.as_ref(), drill.untold.as_ref()) });
    }
    api::Drill {
        id: drill.id.as_str().to_owned(),
        prompt: drill.prompt.to_string(),
        version: drill.version.to_string(),
        operator: drill.operator.clone(),
        started_at: rfc3339(drill.started),
        slack: drill.tells,
        done: hops.iter().all(|hop| hop.at.is_some()),
        hops,
    }
}
