//! `POST /api/prompts/{prompt}/versions/{version}/restore`: restores a version's content from the archive.

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::Instant;

use super::context::Context;
use super::error::{ApiError, unexpected};
use super::input::{ApiResult, body, prompt_name, version};
use super::reply::{Reply, answer};
use super::wait::Patience;
use crate::api;
use crate::decision::{Answer, Event};
use crate::trace;

/// The reconciler reads the file; this waits for it for a while.
pub async fn restore(context: &Context, prompt: &str, name: &str, bytes: &Bytes, arrived: Instant) -> ApiResult<Reply> {
    if !bytes.is_empty() {
        let api::RestoreRequest {} = body(bytes).await?;
    }
    let (prompt, version) = (prompt_name(prompt)?, version("version", name)?);
    trace::concerns(None, Some(version.as_str()), None);
    let engine = &context.engine;
    let answer = |status, restored, unchanged| {
        let (prompt, version) = (prompt.to_string(), version.to_string());
        Ok(answer(status, &api::RestoreResponse { prompt, version, restored, unchanged }))
    };
    match engine.handle(&prompt, &Event::Restore { version: version.clone() }).await?.answer {
        Answer::Restoring { ready: true } => return answer(StatusCode::OK, true, true),
        Answer::Restoring { ready: false } => {}
        Answer::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(unexpected()),
    }
    let mut patience = Patience::begin(arrived, context.request_timeout);
    loop {
        let last = patience.wait().await;
        let state = engine.load(&prompt).await?.snapshot.state;
        match state.version(&version).and_then(|record| record.archived.as_ref()) {
            None => return answer(StatusCode::OK, true, false),
            Some(archived) if archived.lost => {
                let fault = archived.fault.as_deref().unwrap_or("it is gone");
                let message = format!("the content of {version} cannot be restored: {fault}");
                return Err(ApiError::new(StatusCode::CONFLICT, "archived", message));
            }
            Some(_) if last => return answer(StatusCode::ACCEPTED, false, false),
            Some(_) => {}
        }
    }
}
