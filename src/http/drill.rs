//! `/api/drill`: starting a drill, and how far it has come.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::input::{self, body, prompt_name};
use super::reply::{Failure, Reply, json as answer};
use crate::drills;
use crate::store::drill::{Drill, DrillId, Hop};
use crate::store::rfc3339;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    prompt: String,
    operator: Option<String>,
}

pub async fn start(context: &Context, bytes: &Bytes) -> Result<Reply, Failure> {
    let request: StartBody = body(bytes).await?;
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
fn view(drill: &Drill) -> Value {
    let hop = |name: &str, done: Option<&Hop>, failed: Option<&Hop>| {
        let error = failed.filter(|_| done.is_none()).map(|failed| failed.text.as_str());
        json!({ "hop": name, "at": done.map(|hop| rfc3339(hop.at)), "error": error })
    };
    let with = |mut hop: Value, field: &str, value: Value| {
        hop[field] = value;
        hop
    };
    let mut urls: Vec<&String> = drill.posted.keys().chain(drill.failed.keys()).collect();
    urls.sort();
    urls.dedup();
    let post =
        |url: &&String| with(hop("alertmanager", drill.posted.get(*url), drill.failed.get(*url)), "url", json!(url));
    let mut hops: Vec<Value> = urls.iter().map(post).collect();
    if hops.is_empty() {
        hops.push(with(hop("alertmanager", None, None), "url", Value::Null));
    }
    hops.push(hop("webhook", drill.received.as_ref(), None));
    let decision = drills::decision(drill).unwrap_or_default();
    hops.push(with(hop("decided", drill.decided.as_ref(), None), "decision", decision));
    hops.push(hop("committed", drill.committed.as_ref(), None));
    if drill.tells {
        let channel = drill.told.as_ref().map_or(Value::Null, |told| json!(told.text));
        hops.push(with(hop("slack", drill.told.as_ref(), drill.untold.as_ref()), "channel", channel));
    }
    json!({
        "id": drill.id.as_str(),
        "prompt": drill.prompt.as_str(),
        "version": drill.version.as_str(),
        "operator": drill.operator,
        "started_at": rfc3339(drill.started),
        "slack": drill.tells,
        "done": hops.iter().all(|hop| !hop["at"].is_null()),
        "hops": hops,
    })
}
