//! `POST /-/reload`: as SIGHUP, with an answer.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Context;
use super::reply::{Failure, Reply, json};
use crate::config::Change;

pub async fn reload(context: &Context) -> Result<Reply, Failure> {
    let result = context.reloader.reload("POST /-/reload").await;
    let result = result.ok_or_else(|| Failure::unavailable("shutting_down", "the receiver is shutting down"))?;
    let done = result.map_err(|problems| Failure::new(StatusCode::BAD_REQUEST, "bad_config", problems))?;
    let view = |changes: &[Change]| changes.iter().map(change).collect::<Vec<_>>();
    let answer = json!({ "success": true, "changed": view(&done.changed), "needs_restart": view(&done.needs_restart) });
    Ok(json(StatusCode::OK, &answer))
}

/// A secret is null before and after.
fn change(change: &Change) -> Value {
    let (from, to) = change.values.clone().unzip();
    json!({ "key": change.key, "from": from, "to": to })
}
