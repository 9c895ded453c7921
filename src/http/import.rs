//! `POST /api/import`: takes over prompts that are served already, some at a time.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use super::input::{self, Result, body};
use super::reply::{Failure, Reply, json};
use crate::decision::{Adopt, Adoption, Answer, Event, PromptName, VersionName};
use crate::engine::EngineError;
use crate::store::{Layout, Read, StoreError};

/// After this long a request leaves the rest to the next one.
const WORK: Duration = Duration::from_secs(1);
/// Bytes of a foreign key that are shown.
const SHOWN: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    pattern: Option<String>,
    #[serde(default)]
    known_good: bool,
    #[serde(default)]
    dry_run: bool,
    operator: Option<String>,
    /// `next` of the answer before.
    cursor: Option<String>,
}

#[derive(Default)]
struct Summary {
    adopted: Vec<Value>,
    known: u64,
    skipped: Vec<Value>,
}

/// Bounded: the answer's `next` says where to go on; null at the end.
pub async fn import(context: &Context, bytes: &Bytes) -> Result<Reply> {
    let request: ImportBody = body(bytes).await?;
    let pattern = request.pattern.unwrap_or_else(|| "*".to_owned());
    let layout = Layout::parse(&pattern).map_err(|why| Failure::bad_request(format!("pattern: {why}")))?;
    let operator = input::operator(request.operator.or_else(|| Some("import".to_owned())))?;
    let cursor = request.cursor.as_deref().unwrap_or("0");
    let mut cursor: u64 =
        cursor.parse().map_err(|_| Failure::bad_request("cursor: expected the value of next in an answer"))?;
    let adopt = |version| Event::Adopt(Adopt { version, known_good: request.known_good, operator: operator.clone() });
    if matches!(layout, Layout::Foreign { .. }) && context.engine.store.reads_everything().await? {
        return Err(not_permitted(
            "this Redis lets the receiver read the keys of every application, and the API would let whoever has its token do \
             the same: give the receiver a user of its own with a key pattern for what is imported, such as %R~myapp:* \
             (config/users.acl)"
                .to_owned(),
        ));
    }
    let until = Instant::now() + WORK;
    let mut summary = Summary::default();
    loop {
        let Some((next, keys)) = context.engine.store.scan(&layout, cursor).await? else {
            return Err(not_permitted(
                "the receiver's Redis user may not list keys: grant it +scan for the time of the import (config/users.acl), or \
                 name one prompt as the pattern"
                    .to_owned(),
            ));
        };
        for found in keys {
            let key: String = String::from_utf8_lossy(&found.key).chars().take(SHOWN).collect();
            let Some(prompt) = found.prompt else {
                summary.skip(&key, "has no valid prompt name in it");
                continue;
            };
            let version = match &layout {
                Layout::Own(_) => None,
                Layout::Foreign { .. } => match read(context, &found.key, &key).await? {
                    Read::Version(version) => Some(version),
                    Read::Unusable(why) => {
                        summary.skip(&key, why);
                        continue;
                    }
                },
            };
            let event = adopt(version);
            let answer = if request.dry_run {
                context.engine.foresee(&prompt, &event).await
            } else {
                context.engine.handle(&prompt, &event).await.map(|handled| handled.answer)
            };
            summary.add(&key, &prompt, answer)?;
        }
        cursor = next;
        if next == 0 || Instant::now() >= until {
            break;
        }
    }
    let next = (cursor != 0).then(|| cursor.to_string());
    let Summary { adopted, known, skipped } = summary;
    let answer =
        json!({ "dry_run": request.dry_run, "adopted": adopted, "known": known, "skipped": skipped, "next": next });
    Ok(json(StatusCode::OK, &answer))
}

async fn read(context: &Context, key: &[u8], shown: &str) -> Result<Read> {
    context.engine.store.read_foreign(key).await.map_err(|error| match error {
        StoreError::Unavailable { kind: "noperm", .. } => not_permitted(format!(
            "the receiver's Redis user may not read {shown}: let it, with a key pattern such as %R~myapp:* in its ACL (config/users.acl)"
        )),
        error => error.into(),
    })
}

fn not_permitted(message: String) -> Failure {
    Failure::new(StatusCode::CONFLICT, "not_permitted", message)
}

impl Summary {
    fn skip(&mut self, key: &str, why: impl Into<String>) {
        self.skipped.push(json!({ "key": key, "reason": why.into() }));
    }

    fn add(
        &mut self,
        key: &str,
        prompt: &PromptName,
        answer: std::result::Result<Answer, EngineError>,
    ) -> std::result::Result<(), EngineError> {
        let adopted = |version: &VersionName, known_good: bool| json!({ "prompt": prompt.as_str(), "version": version.as_str(), "known_good": known_good });
        match answer {
            Ok(Answer::Adopted(Adoption::Adopted { version, known_good })) => {
                self.adopted.push(adopted(&version, known_good));
            }
            Ok(Answer::Adopted(Adoption::Known { .. })) => self.known += 1,
            Ok(Answer::Adopted(Adoption::Skipped(why))) => self.skip(key, why),
            Ok(_) => self.skip(key, "unexpected answer of the decision core"),
            // stays until someone repairs it, and must not stop the others
            Err(EngineError::Store(error @ (StoreError::Broken { .. } | StoreError::NewerRecord { .. }))) => {
                self.skip(key, error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
