//! Incidents, their pictures and their post-mortems.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};

use super::{Visitor, html, secured};
use crate::decision::{Incident, IncidentId, PromptName, Timestamp, fnv1a};
use crate::deployed::{DeploymentEntry, group_of};
use crate::elsewhere;
use crate::http::context::Context;
use crate::http::error::{ApiError, no_incident};
use crate::http::input::{ApiResult, Query, incident_id, is_incident_id};
use crate::http::reply::{Reply, reply};
use crate::page::actions::StillOff;
use crate::page::incident::{self, IncidentPage, Picture};
use crate::page::incidents::{self, Incidents, Listed};
use crate::page::outage;
use crate::postmortem::{IncidentMetric, chart};
use crate::service::{drafts, explain};
use crate::store::{ListedIncident, Visible};

/// Entries of the deployment log that are shown, and how long after the incident they may be: the log has Redis' own
/// time.
const ENTRIES: usize = 20;
const LATER: Duration = Duration::from_secs(60);
/// Prompts of the same group that are considered, and that are shown.
const OF_GROUP: usize = 1_000;
/// How long after the last change a picture may still come: longer than Prometheus is asked again.
const AWAITED: Duration = Duration::from_secs(15 * 60);
const RELATED: usize = 20;

pub async fn incidents(context: &Context, reader: &Visitor<'_>, query: &Query) -> ApiResult<Reply> {
    let open_only = query.text("open").is_none() || query.flag("open")?;
    let store = &context.engine.store;
    let visible = |prompt: &PromptName| reader.caller.sees(prompt);
    let visible: Option<&Visible<'_>> = if reader.caller.sees_all() { None } else { Some(&visible) };
    let page = store.listed(query.cursor(is_incident_id)?, query.limit()?, open_only, visible).await?;
    let rows = page.items.iter().map(|listed| match listed {
        ListedIncident::One(incident) => Listed::One(incident),
        ListedIncident::Outage(found) => Listed::Outage {
            id: found.outage.id.0.clone(),
            prompts: found.members.len(),
            waiting: found.members.iter().filter(|member| member.waits()).count(),
            opened_at: found.outage.opened_at,
            closed_at: found.outage.closed_at,
        },
    });
    let rows = rows.collect();
    let view = Incidents { now: store.now().await?, open_only, rows, next: page.next.as_deref() };
    Ok(html(StatusCode::OK, incidents::incidents(&view, &reader.viewer)))
}

pub async fn incident(context: &Context, reader: &Visitor<'_>, id: &str, query: &Query) -> ApiResult<Reply> {
    let id = incident_id(id)?;
    let (engine, store) = (&context.engine, &context.engine.store);
    let Some(found) = store.incident(&id).await? else {
        reader.caller.require_outage(&id)?;
        let outage = store.outage(&id).await?.ok_or_else(|| no_incident(&id))?;
        return Ok(html(StatusCode::OK, outage::outage(&outage.outage, &outage.members, &reader.viewer)));
    };
    reader.caller.require_incident(&found)?;
    let is_open = found.phase.is_open();
    let (is_split, rehearsed) = if is_open {
        let mut loaded = engine.load(&found.prompt).await?;
        (loaded.snapshot.state.split().is_some(), explain::if_critical(&engine.policy, &mut loaded))
    } else {
        (false, None)
    };
    let is_paused = match is_open {
        true => Some(store.paused_by(Some(&found.prompt)).await?.is_some()),
        false => None,
    };
    let is_all_paused = is_open && store.paused_by(None).await?.is_some();
    let log = log(context, &found).await?;
    let group = group_of(&found);
    let visible = |prompt: &PromptName| reader.caller.sees(prompt);
    let deployed = store.deployed(&found.prompt, group.as_ref(), found.opened_at, Some(&id), &visible).await?;
    let of_group = match &group {
        Some(group) => store.related(group, OF_GROUP).await?.0,
        None => Vec::new(),
    };
    let others = of_group.iter().filter(|prompt| **prompt != found.prompt && visible(prompt));
    let related: Vec<String> = others.take(RELATED).map(ToString::to_string).collect();
    let now = store.now().await?;
    let measured = samples(context, &found).await?;
    let picture = match &measured {
        Some(IncidentMetric::Samples(of)) => Picture::Drawn(fnv1a(serde_json::to_vec(of).unwrap_or_default())),
        Some(IncidentMetric::Missing(missing)) => Picture::Missing(&missing.missing),
        None if drafts::is_awaited(&found) && now.since(found.updated_at) < AWAITED => Picture::Awaited,
        None if is_open => Picture::Missing("The receiver draws it after it has checked the rollback."),
        None => Picture::Missing("Nothing was measured for this incident."),
    };
    // people read the draft of a closed incident; that of an open one changes with each event
    let draft = match !is_open || query.flag("draft")? {
        true => Some(drafts::postmortem(engine, found.clone()).await?),
        false => None,
    };
    let view = IncidentPage {
        now,
        incident: &found,
        is_split,
        rehearsed: rehearsed.as_ref(),
        is_paused,
        still_off: StillOff::of(engine.policy.dry_run, is_all_paused),
        asks_by_age: engine.policy.ask_when_active_for_longer_than.is_some(),
        log: &log,
        deployed: &deployed,
        related: &related,
        picture,
        draft: draft.as_deref(),
    };
    Ok(html(StatusCode::OK, incident::incident(&view, &reader.viewer)))
}

async fn log(context: &Context, found: &Incident) -> ApiResult<Vec<DeploymentEntry>> {
    let end = found.closed_at.map_or(Timestamp(i64::MAX), |at| at.plus(LATER));
    Ok(context.engine.store.log_until(&found.prompt, end, ENTRIES).await?)
}

/// What was measured about the present rollback: the record may hold an earlier one.
async fn samples(context: &Context, found: &Incident) -> ApiResult<Option<IncidentMetric>> {
    let measured = context.engine.store.samples(&found.id).await?;
    Ok(measured.filter(|measured| found.switch.as_ref().is_none_or(|switch| measured.is_of(switch.at))))
}

/// The picture of the post-mortem.
pub async fn picture(context: &Context, reader: &Visitor<'_>, id: &str) -> ApiResult<Reply> {
    let id = incident_id(id)?;
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "no_picture", "this incident has no picture");
    let store = &context.engine.store;
    let found = store.incident(&id).await?.ok_or_else(|| no_incident(&id))?;
    reader.caller.require_incident(&found)?;
    let Some(IncidentMetric::Samples(samples)) = samples(context, &found).await? else { return Err(missing()) };
    let switch = found.switch.as_ref().map(|switch| switch.at);
    let drawn = elsewhere::run(move || chart::svg(&samples, switch)).await.map_err(|error| impossible(&id, &error))?;
    let mut answer = secured(reply(StatusCode::OK, "image/svg+xml", drawn));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=60"));
    Ok(answer)
}

fn impossible(id: &IncidentId, error: &chart::ChartError) -> ApiError {
    tracing::warn!(incident = %id, %error, "the picture");
    ApiError::new(StatusCode::NOT_FOUND, "no_picture", "the picture of this incident cannot be drawn")
}
