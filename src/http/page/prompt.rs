//! One prompt.

use std::time::Duration;

use hyper::StatusCode;

use super::overview::automation;
use super::{Visitor, html};
use crate::deployed::DeploymentEntry;
use crate::http::context::Context;
use crate::http::error::ApiError;
use crate::http::input::{ApiResult, Query, prompt_name};
use crate::http::reply::Reply;
use crate::http::wait::patience;
use crate::http::{api, explain};
use crate::page::actions::StillOff;
use crate::page::prompt::{self, PromptPage};

/// How long the page waits for the rules of Prometheus.
const RULES: Duration = Duration::from_millis(500);
/// Entries of the log that are shown, and at most.
const ENTRIES: usize = 20;
const MOST_ENTRIES: usize = 1_000;

pub async fn prompt(context: &Context, reader: &Visitor<'_>, name: &str, query: &Query) -> ApiResult<Reply> {
    let name = prompt_name(name)?;
    let wrong = || ApiError::bad_request(format!("entries: expected a number from 1 to {MOST_ENTRIES}"));
    let limit = match query.text("entries") {
        None => ENTRIES,
        Some(text) => text.parse().ok().filter(|limit| (1..=MOST_ENTRIES).contains(limit)).ok_or_else(wrong)?,
    };
    let (engine, store) = (&context.engine, &context.engine.store);
    // notices what someone has just SET, as the API does
    api::known(context, &name).await?;
    let mut loaded = engine.load(&name).await?;
    let automation = automation(&engine.policy, &mut loaded);
    let view = api::prompt_view(context, reader.caller, &loaded.snapshot, loaded.now).await?;
    let log = store.log(&name, None, limit).await?;
    let entries: Vec<_> = log.items.iter().filter_map(|change| DeploymentEntry::read(&change.fields)).collect();
    let is_paused = store.paused_by(Some(&name)).await?.is_some();
    let still_off = StillOff::of(engine.policy.dry_run, store.paused_by(None).await?.is_some());
    let rules = context.books.rules.rules(patience(RULES, context.request_timeout)).await;
    let explained = explain::view(context, &name, None, rules).await?;
    let page = PromptPage {
        prompt: &name,
        view: &view,
        incidents: &loaded.snapshot.state.open_incidents().collect::<Vec<_>>(),
        automation: &automation,
        is_paused,
        still_off,
        asks_by_age: engine.policy.ask_when_active_for_longer_than.is_some(),
        canary: loaded.snapshot.state.running_canary(),
        explained: Some(&explained),
        log: &entries,
        has_more: log.next.is_some() && limit < MOST_ENTRIES,
        known: &context.books.figures.look(),
    };
    Ok(html(StatusCode::OK, prompt::prompt(&page, &reader.viewer)))
}
