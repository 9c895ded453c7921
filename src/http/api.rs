//! The rest of `/api`: registering versions, lists, single prompts and incidents, the log, and the kill switch.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use super::auth::Caller;
use super::context::Context;
use super::error::{ApiError, no_prompt, unexpected};
use super::input::{ApiResult, Query, body, incident_id, is_incident_id, line, prompt_name, time, version};
use super::reply::{self, Reply, answer};
use super::wait::patience;
use super::{outage, views};
use crate::api;
use crate::config::Role;
use crate::decision::decide::Active;
use crate::decision::{Answer, Event, PromptName, Register, Snapshot, Timestamp};
use crate::deployed::group_of;
use crate::page::actions::StillOff;
use crate::store::{ListedIncident, ListedPrompt, LogCursor, Visible, is_entry};
use crate::trace;

/// Rows of a list that are built before other tasks get a turn: each takes tens of microseconds.
const ROWS: usize = 50;
/// How long a list waits for the first answer of Prometheus.
const FIGURES: Duration = Duration::from_secs(1);
/// Longest content of a prompt version, in bytes.
const MAX_CONTENT: usize = 4 << 20;

pub async fn register(context: &Context, caller: &Caller, prompt: &str, bytes: &Bytes) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: api::RegisterRequest = body(bytes).await?;
    let version = version("version", &request.version)?;
    trace::concerns(None, Some(version.as_str()), None);
    if request.known_good {
        // to trust a version is a decision: it becomes a target of automatic rollbacks
        caller.require(Role::Decide)?;
    }
    if request.content.as_ref().is_some_and(|content| content.len() > MAX_CONTENT) {
        return Err(ApiError::bad_request(format!("content: expected at most {MAX_CONTENT} bytes")));
    }
    let contact = request.contact.map(|contact| line("contact", Some(contact), "")).transpose()?;
    let event = Event::Register(Register {
        version: version.clone(),
        content: request.content,
        contact: contact.filter(|contact| !contact.is_empty()),
        staged_at: time("staged_at", request.staged_at.as_ref())?,
        known_good: request.known_good,
    });
    match context.engine.handle_owned(&prompt, event).await?.answer {
        Answer::Registered { created, known_good } => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let (prompt, version) = (prompt.to_string(), version.to_string());
            Ok(answer(status, &api::RegisterResponse { prompt, version, created, known_good }))
        }
        Answer::Refused(refusal) => Err(refusal.into()),
        _ => Err(unexpected()),
    }
}

pub async fn incidents(context: &Context, caller: &Caller, query: &Query) -> ApiResult<Reply> {
    let (store, cursor) = (&context.engine.store, query.cursor(is_incident_id)?);
    let visible = |prompt: &PromptName| caller.sees(prompt);
    let visible: Option<&Visible<'_>> = if caller.sees_all() { None } else { Some(&visible) };
    let page = store.listed(cursor, query.limit()?, query.flag("open")?, visible).await?;
    let rows = page.items.len();
    let row = |listed: &ListedIncident| match listed {
        ListedIncident::One(incident) => api::AnyIncident::OfPrompt(Box::new(views::incident_row(incident))),
        ListedIncident::Outage(found) => api::AnyIncident::Outage(Box::new(outage::row(found))),
    };
    let list = move || api::IncidentList { incidents: page.items.iter().map(row).collect(), next: page.next };
    Ok(reply::list(rows, list).await)
}

pub async fn incident(context: &Context, caller: &Caller, id: &str) -> ApiResult<Reply> {
    let id = incident_id(id)?;
    match context.engine.store.incident(&id).await? {
        Some(incident) => {
            caller.require_incident(&incident)?;
            Ok(answer(StatusCode::OK, &views::incident(&incident)))
        }
        None => {
            caller.require_outage(&id)?;
            outage::incident(context, &id).await
        }
    }
}

pub async fn prompts(context: &Context, caller: &Caller, query: &Query) -> ApiResult<Reply> {
    let engine = &context.engine;
    let without_target = query.flag("without_target")?;
    let cursor = query.cursor(|text| PromptName::parse(text).is_ok())?;
    let is_first = cursor.is_none();
    let visible = |prompt: &PromptName| caller.sees(prompt);
    let visible: Option<&Visible<'_>> = if caller.sees_all() { None } else { Some(&visible) };
    let page = engine.store.prompts(cursor, query.limit()?, visible).await?;
    // the later pages of a list follow at once
    let patience = if is_first { patience(FIGURES, context.request_timeout) } else { Duration::ZERO };
    let known = context.books.figures.within(patience).await;
    let row = |row: &ListedPrompt| match &row.loaded {
        Ok(loaded) => {
            let mut row = views::prompt_row(&loaded.snapshot, &engine.policy, loaded.now);
            row.coverage = views::coverage(&known, &row.prompt, row.active.as_deref());
            (!without_target || row.rollback_target.is_none()).then(|| api::AnyPrompt::Row(Box::new(row)))
        }
        Err(error) => Some(api::AnyPrompt::Unreadable { prompt: row.prompt.to_string(), error: error.to_string() }),
    };
    let mut prompts = Vec::with_capacity(page.items.len());
    for some in page.items.chunks(ROWS) {
        let read = engine.store.rows(some.to_vec(), engine.policy.budget_window).await?;
        prompts.extend(read.iter().filter_map(row));
    }
    Ok(reply::list(prompts.len(), move || api::PromptList { prompts, next: page.next }).await)
}

/// Returns the prompt's snapshot, or 404.
pub(super) async fn known(context: &Context, prompt: &PromptName) -> ApiResult<(Snapshot, Timestamp)> {
    let engine = &context.engine;
    // notices and logs what someone has just SET, so that the answer shows it; while Redis refuses writes, the answer shows
    // what was noticed before
    let noticed = engine.handle(prompt, &Event::CheckDrift).await;
    let loaded = engine.load(prompt).await?;
    if loaded.snapshot.state.versions.is_empty() {
        noticed?; // its first version may not be noticed yet
        return Err(no_prompt(prompt));
    }
    Ok((loaded.snapshot, loaded.now))
}

pub async fn prompt(context: &Context, caller: &Caller, prompt: &str) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let (snapshot, now) = known(context, &prompt).await?;
    let mut view = prompt_view(context, caller, &snapshot, now).await?;
    let figures = context.books.figures.within(patience(FIGURES, context.request_timeout)).await;
    view.coverage = views::coverage(&figures, &view.prompt, view.active.as_deref());
    Ok(answer(StatusCode::OK, &view))
}

/// The prompt with what was deployed.
pub(super) async fn prompt_view(
    context: &Context,
    caller: &Caller,
    snapshot: &Snapshot,
    now: Timestamp,
) -> ApiResult<api::PromptView> {
    // which group it belongs to is known from the alerts of its incidents only
    let group = snapshot.state.incidents.iter().find_map(group_of);
    let visible = |prompt: &PromptName| caller.sees(prompt);
    let deployed = context.engine.store.deployed(&snapshot.prompt, group.as_ref(), now, None, &visible).await?;
    Ok(views::prompt(snapshot, &context.engine.policy, &deployed, now))
}

pub async fn log(context: &Context, prompt: &str, query: &Query) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let cursor = query.cursor(is_entry)?;
    known(context, &prompt).await?;
    let page = context.engine.store.log(&prompt, cursor, query.limit()?).await?;
    let rows = page.items.len();
    let list = move || {
        let entries = page.items.iter().map(|entry| views::log_entry(&prompt, entry)).collect();
        api::DeploymentLog { entries, next: page.next, unreadable: Vec::new() }
    };
    Ok(reply::list(rows, list).await)
}

/// The logs of all prompts.
pub async fn logs(context: &Context, caller: &Caller, query: &Query) -> ApiResult<Reply> {
    let store = &context.engine.store;
    let cursor = query.cursor(|text| LogCursor::parse(text).is_some())?.and_then(LogCursor::parse);
    let since = query.since("7d", store.now().await?)?;
    let visible = |prompt: &PromptName| caller.sees(prompt);
    let visible: Option<&Visible<'_>> = if caller.sees_all() { None } else { Some(&visible) };
    let (page, unreadable) = store.log_of_all(cursor, since, query.limit()?, visible).await?;
    let rows = page.items.len();
    let list = move || {
        let entries = page.items.iter().map(|(prompt, entry)| views::log_entry(prompt, entry)).collect();
        let unreadable = unreadable.iter().map(ToString::to_string).collect();
        api::DeploymentLog { entries, next: page.next, unreadable }
    };
    Ok(reply::list(rows, list).await)
}

/// Why nothing rolls back automatically although automation, perhaps of one prompt only, was resumed.
async fn still_off(context: &Context, is_of_one: bool) -> Option<String> {
    let engine = &context.engine;
    // automation is resumed: a read that fails must not make it look refused
    let is_all_paused = is_of_one && engine.store.paused_by(None).await.is_ok_and(|by| by.is_some());
    StillOff::of(engine.policy.dry_run, is_all_paused).map(|why| why.text().to_owned())
}

pub async fn pause(context: &Context, caller: &Caller, bytes: &Bytes, pause: bool) -> ApiResult<Reply> {
    // an empty body means all prompts
    let request: api::PauseRequest = if bytes.is_empty() { api::PauseRequest::default() } else { body(bytes).await? };
    // a caller that means all prompts must not pause a prompt of this name instead
    if request.prompt.as_deref() == Some("*") {
        return Err(ApiError::bad_request("prompt: expected a prompt name, found *; leave it out for all prompts"));
    }
    let prompt = request.prompt.as_deref().map(prompt_name).transpose()?;
    match &prompt {
        Some(prompt) => caller.require_prompt(prompt)?,
        None => caller.require_all_prompts()?,
    }
    let operator = caller.operator(request.operator)?;
    let reason = match request.reason {
        Some(reason) => line("reason", Some(reason), "")?,
        None => String::new(),
    };
    let store = &context.engine.store;
    let changed = if pause {
        store.pause(prompt.as_ref(), &operator, &reason).await?
    } else {
        store.resume(prompt.as_ref()).await?
    };
    let scope = prompt.as_ref().map_or("all prompts", PromptName::as_str);
    tracing::info!(paused = pause, scope, %operator, reason, "automation switched");
    // automation of a prompt may be paused before its first version; a name with a typo looks the same
    let unknown =
        match &prompt {
            // the pause is made: a record that cannot be read must not make it look refused
            Some(prompt) => context.engine.load(prompt).await.is_ok_and(|loaded| {
                loaded.snapshot.state.versions.is_empty() && loaded.snapshot.active == Active::Absent
            }),
            None => false,
        };
    let message = if pause { None } else { still_off(context, prompt.is_some()).await };
    let prompt = prompt.as_ref().map(ToString::to_string);
    Ok(answer(StatusCode::OK, &api::PauseResponse { paused: pause, prompt, changed, unknown, message }))
}
