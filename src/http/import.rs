//! `POST /api/import`: adopts prompts that are already served, some at a time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::StatusCode;
use tokio::time::Instant;

use super::auth::Caller;
use super::context::Context;
use super::error::ApiError;
use super::input::{ApiResult, body};
use super::reply::{Reply, answer};
use crate::api;
use crate::decision::{Adopt, Adoption, Answer, Event, PromptName, VersionName};
use crate::engine::EngineError;
use crate::store::{FoundKey, ImportedValue, Layout, RedisFault, StoreError};

/// After this time, a request leaves the rest to the next one.
const WORK: Duration = Duration::from_secs(1);
/// How many keys are handled at once: one after another, a page of them would not be done in time if Redis is far away.
const AT_ONCE: usize = 16;
/// How many bytes of a foreign key are shown.
const SHOWN: usize = 200;

/// Adopts a bounded number of prompts. The response's `next` is the cursor for the next request; null at the end.
pub async fn import(context: &Context, caller: &Caller, bytes: &Bytes) -> ApiResult<Reply> {
    caller.require_all_prompts()?;
    let request: api::ImportRequest = body(bytes).await?;
    let pattern = request.pattern.unwrap_or_else(|| "*".to_owned());
    let layout = Layout::parse(&pattern).map_err(|why| ApiError::bad_request(format!("pattern: {why}")))?;
    let operator = caller.operator(request.operator.or_else(|| Some("import".to_owned())))?;
    let cursor = request.cursor.as_deref().unwrap_or("0");
    let mut cursor: u64 =
        cursor.parse().map_err(|_| ApiError::bad_request("cursor: expected the value of next in an answer"))?;
    let adopt = |version| Event::Adopt(Adopt { version, known_good: request.known_good, operator: operator.clone() });
    if matches!(layout, Layout::Foreign { .. }) && context.engine.store.reads_everything().await? {
        return Err(not_permitted(
            "this Redis lets the receiver read the keys of every application, and the API would let anyone with its token \
             do the same: give the receiver a user of its own with a key pattern for what is imported, such as %R~myapp:* \
             (config/users.acl)"
                .to_owned(),
        ));
    }
    let until = Instant::now() + WORK.min(context.request_timeout / 2);
    let mut imported = api::ImportResponse { dry_run: request.dry_run, ..api::ImportResponse::default() };
    if cursor == 0 && context.engine.store.may_miss(&layout) {
        skip(&mut imported, &pattern, "keys on other nodes of the cluster: only that of the namespace is searched");
    }
    loop {
        let Some((next, keys)) = context.engine.store.scan(&layout, cursor).await? else {
            return Err(not_permitted(
                "the receiver's Redis user may not list keys: grant it +scan during the import (config/users.acl), or \
                 name one prompt as the pattern"
                    .to_owned(),
            ));
        };
        let handled = keys.into_iter().map(|found| handle(context, &layout, &adopt, request.dry_run, found));
        let mut handled = stream::iter(handled).buffered(AT_ONCE);
        while let Some(handled) = handled.next().await {
            match handled? {
                (key, Ok((prompt, answer))) => add(&mut imported, &key, &prompt, answer)?,
                (key, Err(why)) => skip(&mut imported, &key, why),
            }
        }
        cursor = next;
        if next == 0 || Instant::now() >= until {
            break;
        }
    }
    imported.next = (cursor != 0).then(|| cursor.to_string());
    Ok(answer(StatusCode::OK, &imported))
}

/// Returns the answer about one key, or why it is skipped.
async fn handle(
    context: &Context,
    layout: &Layout,
    adopt: &impl Fn(Option<VersionName>) -> Event,
    dry_run: bool,
    found: FoundKey,
) -> ApiResult<(String, Result<(PromptName, Result<Answer, EngineError>), &'static str>)> {
    let key: String = String::from_utf8_lossy(&found.key).chars().take(SHOWN).collect();
    let Some(prompt) = found.prompt else { return Ok((key, Err("contains no valid prompt name"))) };
    let version = match layout {
        Layout::Own(_) => None,
        Layout::Foreign { .. } => match read(context, &found.key, &key).await? {
            ImportedValue::Version(version) => Some(version),
            ImportedValue::Unusable(why) => return Ok((key, Err(why))),
        },
    };
    let event = adopt(version);
    let answer = if dry_run {
        context.engine.foresee(&prompt, &event).await
    } else {
        context.engine.handle(&prompt, &event).await.map(|handled| handled.answer)
    };
    Ok((key, Ok((prompt, answer))))
}

async fn read(context: &Context, key: &[u8], shown: &str) -> ApiResult<ImportedValue> {
    context.engine.store.read_foreign(key).await.map_err(|error| match error {
        StoreError::Unavailable { kind: RedisFault::NoPerm, .. } => not_permitted(format!(
            "the receiver's Redis user may not read {shown}: grant it a key pattern such as %R~myapp:* in its \
             ACL (config/users.acl)"
        )),
        error => error.into(),
    })
}

fn not_permitted(message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "not_permitted", message)
}

fn skip(imported: &mut api::ImportResponse, key: &str, why: impl Into<String>) {
    imported.skipped.push(api::Skipped { key: key.to_owned(), reason: why.into() });
}

fn add(
    imported: &mut api::ImportResponse,
    key: &str,
    prompt: &PromptName,
    answer: std::result::Result<Answer, EngineError>,
) -> std::result::Result<(), EngineError> {
    match answer {
        Ok(Answer::Adopted(Adoption::Adopted { version, known_good })) => {
            let (prompt, version) = (prompt.to_string(), version.to_string());
            imported.adopted.push(api::Adopted { prompt, version, known_good });
        }
        Ok(Answer::Adopted(Adoption::Known { .. })) => imported.known += 1,
        Ok(Answer::Adopted(Adoption::Skipped(why))) => skip(imported, key, why),
        Ok(_) => skip(imported, key, "unexpected answer of the decision core"),
        // lasts until someone repairs it, and must not stop the others
        Err(EngineError::Store(error @ (StoreError::Broken { .. } | StoreError::NewerRecord { .. }))) => {
            skip(imported, key, error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
