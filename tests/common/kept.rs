//! What the receiver keeps in Redis for itself. The format may change, so tests read it with the store, and name its keys by
//! `Keys`: only the tests in `store/` know the format.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::decision::{IncidentId, PromptName, Timestamp};
use prompt_rollback::store::keys::Keys;
use prompt_rollback::store::schedule::{Target, Work, WorkItem};
use prompt_rollback::store::{Clock, Store};
use serde_json::Value;

use super::{Redis, config, eventually};

/// Showing incidents in Slack.
pub const SLACK: Work = Work::Notify(Target::FIRST);

/// The keys of the default namespace.
pub fn keys() -> Keys {
    Keys::new("{prompts}")
}

pub fn prompt(name: &str) -> PromptName {
    PromptName::parse(name).expect("a prompt name")
}

/// A field of what is kept of how far a kind of work has come with an item.
pub async fn progress(redis: &Redis, work: Work, item: &WorkItem, field: &str) -> Result<Option<String>> {
    redis.cmd(&["HGET", &keys().progress(work, item), field]).await
}

pub fn incident_id(id: &str) -> IncidentId {
    IncidentId(id.to_owned())
}

/// The store of the receivers on `redis`, for a user who may do everything.
pub fn store(redis: &Redis) -> Result<Store> {
    let config = config(&redis.admin_url(), &[("REDIS__USERNAME", "")]);
    Ok(Store::new(&config.redis, Clock::default())?)
}

/// Copies the keys of `from` to the prompts `names`, which is faster than shipping them.
pub async fn copy_prompt(redis: &Redis, from: &str, names: &[String]) -> Result<()> {
    let (keys, mut connection) = (keys(), redis.connection().await?);
    let version = super::active(redis, from).await?.context("a version to copy")?;
    for names in names.chunks(1_000) {
        let mut pipeline = redis::pipe();
        for name in names {
            let to = prompt(name);
            pipeline.cmd("COPY").arg(keys.state(&prompt(from))).arg(keys.state(&to)).ignore();
            pipeline.cmd("COPY").arg(keys.routing(&prompt(from))).arg(keys.routing(&to)).ignore();
            pipeline.cmd("SET").arg(keys.active(&to)).arg(&version).ignore();
            pipeline.cmd("ZADD").arg(keys.prompts()).arg(0).arg(name).ignore();
        }
        pipeline.exec_async(&mut connection).await?;
    }
    Ok(())
}

/// Every incident of `prompt`, open or closed, as it is stored.
pub async fn incidents(redis: &Redis, prompt: &str) -> Result<Vec<Value>> {
    let all = all_incidents(redis).await?;
    Ok(all.into_iter().filter(|incident| incident["prompt"] == prompt).collect())
}

/// Every incident that this release can read, open or closed, as it is stored, the oldest first.
pub async fn all_incidents(redis: &Redis) -> Result<Vec<Value>> {
    let (store, mut found, mut cursor) = (store(redis)?, Vec::new(), None::<String>);
    loop {
        let page = store.incidents(cursor.as_deref(), 1_000, false).await?;
        for incident in page.items {
            found.push(serde_json::to_value(incident)?);
        }
        cursor = page.next;
        if cursor.is_none() {
            found.reverse();
            return Ok(found);
        }
    }
}

/// How many members a sorted set has.
pub async fn count(redis: &Redis, set: &str) -> Result<usize> {
    redis.cmd(&["ZCARD", set]).await
}

/// When the work on this incident is due, in ms; `None` if it is not scheduled.
pub async fn due_at(redis: &Redis, work: Work, incident: &str) -> Result<Option<f64>> {
    redis.cmd(&["ZSCORE", &keys().due(work), &work.member(&WorkItem::Incident(incident_id(incident)))]).await
}

/// Whether a worker has claimed the work on this incident.
pub async fn is_leased(redis: &Redis, work: Work, incident: &str) -> Result<bool> {
    let until: Option<f64> =
        redis.cmd(&["ZSCORE", &keys().leased(work), &work.member(&WorkItem::Incident(incident_id(incident)))]).await?;
    Ok(until.is_some())
}

/// How many tasks of this kind there are: under way, or scheduled for whenever.
pub async fn waiting(redis: &Redis, work: Work) -> Result<usize> {
    tasks(redis, &[work], "+inf").await
}

/// Waits until no task of this kind is scheduled or under way.
pub async fn until_none_waits(redis: &Redis, work: Work, within: Duration) -> Result<()> {
    eventually(&format!("no work left: {}", work.as_str()), within, async || {
        (waiting(redis, work).await.ok()? == 0).then_some(())
    })
    .await
}

/// How many tasks of these kinds are due at `now` or under way. With none, nothing happens by itself until time passes: a test
/// that shows that something does not happen waits for this, and not for a while.
pub async fn unfinished(redis: &Redis, works: &[Work], now: Timestamp) -> Result<usize> {
    tasks(redis, works, &now.0.to_string()).await
}

async fn tasks(redis: &Redis, works: &[Work], until: &str) -> Result<usize> {
    let mut pipeline = redis::pipe();
    pipeline.atomic(); // a task that moves between two looks would be missed
    for work in works {
        pipeline.cmd("ZCOUNT").arg(keys().due(*work)).arg("-inf").arg(until);
        pipeline.cmd("ZCARD").arg(keys().leased(*work));
    }
    let counts: Vec<usize> = pipeline.query_async(&mut redis.connection().await?).await?;
    Ok(counts.iter().sum())
}
