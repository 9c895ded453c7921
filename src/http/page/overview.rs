//! All prompts, and those whose traffic moves.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use super::{Visitor, html};
use crate::decision::{IncidentId, Outcome, OutcomeReason, Policy, PromptName, Rehearsed, Timestamp};
use crate::deployed::Deployment;
use crate::elsewhere;
use crate::figures::Known;
use crate::http::auth::Caller;
use crate::http::board::{self, Entry, Index};
use crate::http::context::Context;
use crate::http::error::ApiError;
use crate::http::input::{ApiResult, Query};
use crate::http::reply::Reply;
use crate::http::views;
use crate::page::incidents;
use crate::page::overview::{self, Automation, Filter, ListRequest, Overview, Row};
use crate::page::rollouts::{self, RolloutRow, Rollouts};
use crate::service::explain;
use crate::store::{ListedPrompt, Loaded};

/// Prompts of one page.
const ROWS: usize = 100;
/// Rows that are built before other tasks get a turn: a guard's answer takes tens of microseconds.
const AT_ONCE: usize = 20;
/// What it costs to consider a prompt, in bytes of JSON.
const CONSIDERED: usize = 32;
/// Longest text to search for: a prompt's name.
const MAX_SEARCH: usize = 128;
/// Rollouts that are shown.
const ROLLOUTS: usize = 50;

pub async fn overview(context: &Context, reader: &Visitor<'_>, query: &Query) -> ApiResult<Reply> {
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let (search, group) = (text("search").trim().to_owned(), text("group"));
    for (name, text) in [("search", &search), ("group", &group)] {
        if text.chars().count() > MAX_SEARCH {
            return Err(ApiError::bad_request(format!("{name}: expected at most {MAX_SEARCH} characters")));
        }
    }
    let filter = match query.text("state").unwrap_or_default() {
        "" => Filter::All,
        word => Filter::parse(word).ok_or_else(|| {
            let words = Filter::ALL.map(Filter::word).join(", ");
            ApiError::bad_request(format!("state: expected one of {words}"))
        })?,
    };
    let page = match query.text("page").unwrap_or_default() {
        "" => 1,
        text => text.parse().map_err(|_| ApiError::bad_request("page: expected a number"))?,
    };

    let engine = &context.engine;
    let (index, age) = context.board.index(engine).await?;
    // a text that is no name is no group either, and finds nothing
    let group = PromptName::written(&group).map_or(group, |group| group.to_string());
    let limited = (!reader.caller.sees_all()).then(|| reader.caller.clone());
    let wanted = (search.to_lowercase(), group.clone(), filter, page);
    let Selection { names, found, total, pages, page, counts, groups } =
        select(Arc::clone(&index), wanted, limited).await;

    let in_service = engine.store.in_service(&names).await?;
    let mut in_service = in_service.into_iter();
    let mut now = None;
    let mut rows = Vec::with_capacity(names.len());
    for some in names.chunks(AT_ONCE) {
        for one in engine.store.rows(some.to_vec(), engine.policy.budget_window).await? {
            now = one.loaded.as_ref().ok().map(|loaded| loaded.now).max(now);
            rows.push(row(one, in_service.next().unwrap_or_default(), &engine.policy));
        }
    }
    let now = match now {
        Some(now) => now,
        None => engine.store.now().await?,
    };
    let known = context.books.figures.look();
    let outage = index.outage.clone().filter(|_| reader.caller.sees_all());
    let (viewer, is_dry_run) = (reader.viewer.clone(), engine.policy.dry_run);
    let asks_by_age = engine.policy.ask_when_active_for_longer_than.is_some();
    // a hundred rows take milliseconds, during which alerts must not wait
    let document = elsewhere::run(move || {
        let choice = ListRequest { search: &search, filter, group: &group, page };
        overview::overview(
            &of(
                &index,
                choice,
                (found, total, pages),
                (groups, outage.as_ref()),
                counts,
                rows,
                now,
                (is_dry_run, asks_by_age),
                (&known, age),
            ),
            &viewer,
        )
    });
    Ok(html(StatusCode::OK, document.await))
}

/// The prompts of one page, and what the page says about the others.
struct Selection {
    names: Vec<PromptName>,
    found: usize,
    total: usize,
    pages: usize,
    page: usize,
    counts: [usize; 5],
    groups: Vec<(String, usize)>,
}

/// Selects what is `wanted`: a text in lower case, a group, a filter, and the number of the page. Very many prompts are
/// searched on another thread. `limited`: the caller, if they may not see all prompts.
async fn select(
    index: Arc<Index>,
    (needle, group, filter, page): (String, String, Filter, usize),
    limited: Option<Caller>,
) -> Selection {
    elsewhere::run_sized(index.entries.len() * CONSIDERED, move || {
        let sees = |prompt: &PromptName| limited.as_ref().is_none_or(|caller| caller.sees(prompt));
        let visible: Vec<&Entry> = index.entries.iter().filter(|entry| sees(&entry.prompt)).collect();
        let candidates: Vec<&Entry> = visible.iter().copied().filter(|entry| matches(entry, &needle, &group)).collect();
        let shows = |filter, entry: &Entry| shows(filter, entry, index.paused_for_all.is_some());
        let counts = Filter::ALL.map(|filter| candidates.iter().filter(|entry| shows(filter, entry)).count());
        let found: Vec<&Entry> = candidates.into_iter().filter(|entry| shows(filter, entry)).collect();
        let pages = found.len().div_ceil(ROWS).max(1);
        let page = page.clamp(1, pages);
        let names = found.iter().skip((page - 1) * ROWS).take(ROWS).map(|entry| entry.prompt.clone()).collect();
        let groups = match limited {
            None => index.groups.clone(),
            Some(_) => board::groups(visible.iter().map(|entry| &entry.prompt)),
        };
        Selection { names, found: found.len(), total: visible.len(), pages, page, counts, groups }
    })
    .await
}

#[allow(clippy::too_many_arguments, reason = "each becomes one field")]
fn of<'a>(
    index: &'a Index,
    choice: ListRequest<'a>,
    (found, total, pages): (usize, usize, usize),
    (groups, outage): (Vec<(String, usize)>, Option<&'a IncidentId>),
    counts: [usize; 5],
    rows: Vec<Row>,
    now: Timestamp,
    (is_dry_run, asks_by_age): (bool, bool),
    (known, age): (&'a Known, Option<Duration>),
) -> Overview<'a> {
    Overview {
        now,
        choice,
        rows,
        found,
        total,
        pages,
        counts,
        groups,
        paused_for_all: index.paused_for_all.as_deref(),
        is_dry_run,
        asks_by_age,
        outage: outage.map(|id| id.0.as_str()),
        is_partial: index.partial,
        age,
        known,
    }
}

fn matches(entry: &Entry, needle: &str, group: &str) -> bool {
    let in_group = group.is_empty() || board::group(&entry.prompt).is_some_and(|own| own.as_str() == group);
    let (name, encoded) = (entry.prompt.name(), entry.prompt.as_str());
    let has_needle = |text: &str| text.to_lowercase().contains(needle);
    // people copy encoded forms from logs and Redis; most names are their own
    in_group && (needle.is_empty() || has_needle(&name) || (name != encoded && has_needle(encoded)))
}

fn shows(filter: Filter, entry: &Entry, all_paused: bool) -> bool {
    match filter {
        Filter::All => true,
        Filter::NeedsPerson => entry.concern.needs_person(),
        Filter::Open => entry.open,
        Filter::Rollout => entry.rollout,
        Filter::Paused => entry.paused || all_paused,
    }
}

fn row(listed: ListedPrompt, in_service: Vec<Deployment>, policy: &Policy) -> Row {
    let prompt = listed.prompt.to_string();
    let mut loaded = match listed.loaded {
        Ok(loaded) => loaded,
        Err(error) => return Row { prompt, fault: Some(error.to_string()), ..Row::default() },
    };
    let automation = automation(policy, &mut loaded);
    let (snapshot, now) = (&loaded.snapshot, loaded.now);
    let state = &snapshot.state;
    let active = snapshot.active.version();
    let record = active.and_then(|version| state.version(version));
    let placed = in_service.into_iter().find(|placed| active.is_some_and(|active| active.as_str() == placed.version));
    let placed = placed.unwrap_or_default();
    let gained = record.and_then(|record| record.traffic_since);
    let shares = state.served().into_iter().map(|version| (version.to_string(), state.percent(&version)));
    Row {
        prompt,
        active: active.map(ToString::to_string),
        fault: views::fault(snapshot),
        since: gained.or(state.serving.as_ref().map(|serving| serving.since)),
        event: Some(placed.event).filter(|event| !event.is_empty()),
        operator: Some(placed.operator).filter(|operator| !operator.is_empty()),
        is_known_good: record.is_some_and(|record| record.known_good(policy, now).is_some()),
        shares: shares.collect(),
        rollout: moving(&loaded),
        automation,
        incidents: state.open_incidents().map(incidents::line).collect(),
    }
}

/// The traffic that moves, in a few words.
fn moving(loaded: &Loaded) -> Option<String> {
    let state = &loaded.snapshot.state;
    let split = state.split()?;
    let what = if state.running_canary().is_some() { "Canary" } else { "Gradual rollback" };
    Some(format!("{what}: {} % on {}", split.percent(), split.arriving))
}

/// What a critical alert would lead to now, by the decision function itself.
pub fn automation(policy: &Policy, loaded: &mut Loaded) -> Automation {
    if let Some(by) = &loaded.snapshot.paused {
        return Automation::Paused(by.clone());
    }
    if policy.dry_run {
        return Automation::DryRun;
    }
    let Some(rehearsed) = explain::if_critical(policy, loaded) else { return Automation::NothingServed };
    let Rehearsed { outcome, reason, text, target, guards, .. } = rehearsed;
    let target = target.map(|target| target.version.to_string());
    match (outcome, guards.into_iter().next()) {
        (Outcome::RolledBack, _) => Automation::Armed { target, asks_first: false },
        (Outcome::Held, _) if reason == OutcomeReason::Confirming => Automation::Armed { target, asks_first: true },
        (Outcome::Held, Some(guard)) => Automation::Held(guard),
        _ => Automation::Other(text),
    }
}

pub async fn rollouts(context: &Context, reader: &Visitor<'_>) -> ApiResult<Reply> {
    let engine = &context.engine;
    let (index, age) = context.board.index(engine).await?;
    let moving = index.entries.iter().filter(|entry| entry.rollout && reader.caller.sees(&entry.prompt));
    let names: Vec<PromptName> = moving.map(|entry| entry.prompt.clone()).collect();
    let left_out = names.len().saturating_sub(ROLLOUTS);
    let names = names.into_iter().take(ROLLOUTS).collect();
    let listed = engine.store.rows(names, engine.policy.budget_window).await?;
    let loaded = listed.iter().filter_map(|one| one.loaded.as_ref().ok());
    let mut rollouts = Vec::new();
    for loaded in loaded {
        let state = &loaded.snapshot.state;
        rollouts.extend(state.running_canary().map(|canary| RolloutRow::Canary(&loaded.snapshot.prompt, canary)));
        let gradual = state.open_incidents().filter(|incident| incident.gradual().is_some());
        rollouts.extend(gradual.map(RolloutRow::Gradual));
    }
    let known = context.books.figures.look();
    Ok(html(StatusCode::OK, rollouts::rollouts(&Rollouts { rollouts, left_out, age, known: &known }, &reader.viewer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::board::Concern;

    #[test]
    fn a_page_of_very_many_prompts_is_selected_on_another_thread() {
        for (prompts, expected) in [(100, false), (20_000, true)] {
            let entry = |n| Entry {
                prompt: PromptName::parse(&format!("team/p-{n}")).expect("a name"),
                concern: Concern::Nothing,
                open: false,
                rollout: false,
                paused: false,
            };
            let index = Arc::new(Index { entries: (0..prompts).map(entry).collect(), ..Index::default() });
            let wanted = ("p-7".to_owned(), String::new(), Filter::All, 1);
            let selected = select(index, wanted, None);
            assert_eq!(elsewhere::needs_another_thread(selected), expected, "{prompts} prompts");
        }
    }
}
