//! `POST /-/reload`: reloads the config like SIGHUP, and reports the result.

use hyper::StatusCode;

use super::auth::Caller;
use super::context::Context;
use super::error::ApiError;
use super::reply::{Reply, answer};
use crate::api;
use crate::config::ConfigChange;

pub async fn reload(context: &Context, caller: &Caller) -> Result<Reply, ApiError> {
    caller.require_all_prompts()?;
    let result = context.reloader.reload("POST /-/reload").await;
    let result = result.ok_or_else(|| ApiError::unavailable("shutting_down", "the receiver is shutting down"))?;
    let done = result.map_err(|problems| ApiError::new(StatusCode::BAD_REQUEST, "bad_config", problems))?;
    let view = |changes: &[ConfigChange]| changes.iter().map(change).collect();
    let reloaded =
        api::ReloadResponse { success: true, changed: view(&done.changed), needs_restart: view(&done.needs_restart) };
    Ok(answer(StatusCode::OK, &reloaded))
}

fn change(change: &ConfigChange) -> api::KeyChange {
    let (from, to) = change.values.clone().unzip();
    api::KeyChange { key: change.key.clone(), from, to }
}
