//! `/api`: what people and scripts ask for.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Context;
use super::reply::{Failure, Reply, json};
use super::{mass, views};
use crate::config::parse_prometheus_duration;
use crate::decision::mass::Bulk;
use crate::decision::verification::Objection;
use crate::decision::{
    self, Activation, Answer, Choice, Decide, Event, Incident, IncidentId, Phase, Plan, PromptName, Register, Rollback,
    Share, Snapshot, Timestamp, VersionName,
};
use crate::engine::Handled;
use crate::store::{Listed, Wanted, rfc3339};

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Entries of a list where the request names no limit, and the most that one page may hold.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Longest texts that people may send along.
const MAX_TEXT: usize = 500;
/// Longest content of a prompt version, in bytes.
const MAX_CONTENT: usize = 4 << 20;

/// Reads a JSON body; the error names the field.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let message: String = error.inner().to_string().chars().take(MAX_TEXT).collect();
        Failure::bad_request(if path == "." { format!("body: {message}") } else { format!("{path}: {message}") })
    })?;
    deserializer.end().map_err(|error| Failure::bad_request(format!("body: {error}")))?;
    Ok(value)
}

pub(super) fn prompt_name(text: &str) -> Result<PromptName> {
    PromptName::parse(text).map_err(|error| Failure::bad_request(format!("prompt: {error}")))
}

pub(super) fn version(field: &str, text: &str) -> Result<VersionName> {
    VersionName::parse(text).map_err(|error| Failure::bad_request(format!("{field}: {error}")))
}

fn optional_version(field: &str, text: Option<&String>) -> Result<Option<VersionName>> {
    text.map(|text| version(field, text)).transpose()
}

/// A text for people: of bounded length, on one line.
pub(super) fn line(field: &str, text: Option<String>, default: &str) -> Result<String> {
    let text = text.filter(|t| !t.trim().is_empty()).unwrap_or_else(|| default.to_owned());
    if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(Failure::bad_request(format!("{field}: expected one line of at most {MAX_TEXT} characters")));
    }
    Ok(text)
}

fn time(field: &str, text: Option<&String>) -> Result<Option<Timestamp>> {
    text.map(|text| {
        let at: jiff::Timestamp = text
            .parse()
            .map_err(|_| Failure::bad_request(format!("{field}: expected a time as 2026-11-21T00:38:12Z")))?;
        Ok(Timestamp(at.as_millisecond()))
    })
    .transpose()
}

/// The query string, decoded.
pub struct Query(HashMap<String, String>);

impl Query {
    pub fn parse(text: Option<&str>) -> Self {
        let decode =
            |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn limit(&self) -> Result<usize> {
        let Some(text) = self.0.get("limit") else { return Ok(PAGE) };
        let wrong = || Failure::bad_request(format!("limit: expected a number from 1 to {MAX_PAGE}"));
        text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(wrong)
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(Failure::bad_request(format!("{name}: expected true or false"))),
        }
    }

    fn cursor(&self) -> Result<Option<&str>> {
        let cursor = self.0.get("cursor").map(String::as_str).filter(|c| !c.is_empty());
        match cursor {
            Some(text) if text.len() > PromptName::MAX => Err(Failure::bad_request("cursor: not one of ours")),
            cursor => Ok(cursor),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    prompt: String,
    target_version: Option<String>,
    from_version: Option<String>,
    reason: Option<String>,
    operator: Option<String>,
    strategy: Option<Strategy>,
    stages: Option<Vec<u8>>,
    hold: Option<Hold>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Strategy {
    Instant,
    Gradual,
}

pub async fn rollback(context: &Context, bytes: &Bytes) -> Result<Reply> {
    let request: RollbackBody = body(bytes)?;
    let prompt = prompt_name(&request.prompt)?;
    let gradual = match request.strategy {
        Some(Strategy::Gradual) => {
            Some(plan(request.stages, request.hold, &context.engine.policy.gradual, Plan::gradual)?)
        }
        Some(Strategy::Instant) | None if request.stages.is_some() || request.hold.is_some() => {
            return Err(Failure::bad_request("stages, hold: only with strategy \"gradual\""));
        }
        Some(Strategy::Instant) | None => None,
    };
    let event = Event::Rollback(Rollback {
        target: optional_version("target_version", request.target_version.as_ref())?,
        from: optional_version("from_version", request.from_version.as_ref())?,
        reason: line("reason", request.reason, "asked for")?,
        operator: line("operator", request.operator, "api")?,
        force: request.force,
        gradual,
    });
    let handled = context.engine.handle(&prompt, &event).await?;
    changed_or_confirming(context, &prompt, handled).await
}

/// One duration for all stages, or one for each; the last one holds for the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Hold {
    All(String),
    Each(Vec<String>),
}

type Checked = fn(&[u8], Vec<Duration>) -> std::result::Result<Plan, String>;

/// The plan of a request; what it leaves out is as in the config.
fn plan(stages: Option<Vec<u8>>, hold: Option<Hold>, default: &Plan, checked: Checked) -> Result<Plan> {
    let holds = match hold {
        None => default.holds.clone(),
        Some(hold) => {
            let texts = match hold {
                Hold::All(text) => vec![text],
                Hold::Each(texts) => texts,
            };
            let read = |text: String| {
                parse_prometheus_duration(&text)
                    .map_err(|_| Failure::bad_request("hold: expected durations such as \"10m\" or \"1h30m\""))
            };
            texts.into_iter().map(read).collect::<Result<_>>()?
        }
    };
    let Some(stages) = stages else { return Ok(Plan { holds, ..default.clone() }) };
    checked(&stages, holds).map_err(|message| Failure::new(StatusCode::CONFLICT, "bad_stages", message))
}

/// How long a request waits for a rollback that is being confirmed. Prometheus has 2 s.
pub(super) const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(25);

async fn changed_or_confirming(context: &Context, prompt: &PromptName, handled: Handled) -> Result<Reply> {
    let Answer::Confirming { incident: id, to } = &handled.answer else { return changed(prompt, handled) };
    let patience = tokio::time::Instant::now() + CONFIRMED_WITHIN;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let incident = context.engine.store.incident(id).await?.ok_or_else(|| no_incident(id))?;
        if incident.phase != Phase::Confirming {
            return confirmed(prompt, &incident, handled.now);
        }
        if tokio::time::Instant::now() >= patience {
            let answer = json!({
                "success": false,
                "confirming": true,
                "prompt": prompt.as_str(),
                "from_version": incident.pending.as_ref().map(|pending| pending.from.as_str()),
                "to_version": to.as_str(),
                "timestamp": rfc3339(handled.now),
                "incident": id.0,
            });
            return Ok(json(StatusCode::ACCEPTED, &answer));
        }
    }
}

/// What became of a rollback that waited since `asked`.
fn confirmed(prompt: &PromptName, incident: &Incident, asked: Timestamp) -> Result<Reply> {
    if let Some(flip) = incident.flip.as_ref().filter(|flip| flip.at >= asked) {
        return Ok(json(
            StatusCode::OK,
            &flipped(prompt, Some(flip.from.as_str()), &flip.to, flip.at, Some(&incident.id)),
        ));
    }
    if let Some(split) = &incident.gradual {
        return Ok(json(
            StatusCode::OK,
            &shared(prompt, &split.leaving, &split.arriving, split.percent(), asked, Some(&incident.id)),
        ));
    }
    let conflict = |code: &'static str, message: String| Err(Failure::new(StatusCode::CONFLICT, code, message));
    match &incident.objection {
        Some(objection) => {
            let (code, then) = match objection {
                Objection { text_missing: true, .. } => {
                    ("archived", "ask once more to try again, or with force to roll back without its text")
                }
                Objection { baseline: true, .. } => {
                    ("baseline_failed", "ask once more, or with force, to roll back all the same")
                }
                _ => ("healthy", "ask once more, or with force, to roll back all the same"),
            };
            conflict(code, format!("{}: {then}", objection.text))
        }
        None => conflict("already_decided", format!("decided by someone else meanwhile: {}", incident.phase)),
    }
}

fn changed(prompt: &PromptName, handled: Handled) -> Result<Reply> {
    match handled.answer {
        Answer::Changed { from, to, incident, unchanged, .. } => {
            let mut answer = flipped(prompt, from.as_deref(), &to, handled.now, incident.as_ref());
            if unchanged {
                answer["unchanged"] = Value::Bool(true);
            }
            Ok(json(StatusCode::OK, &answer))
        }
        Answer::Shared { from, to, percent, incident } => {
            Ok(json(StatusCode::OK, &shared(prompt, &from, &to, percent, handled.now, incident.as_ref())))
        }
        Answer::Refused(refusal) => Err(refusal.into()),
        _ => Err(unexpected()),
    }
}

/// As [`flipped`], with the percent that `to` has for now.
fn shared(
    prompt: &PromptName,
    from: &VersionName,
    to: &VersionName,
    percent: u8,
    at: Timestamp,
    incident: Option<&IncidentId>,
) -> Value {
    let mut answer = flipped(prompt, Some(from.as_str()), to, at, incident);
    answer["percent"] = percent.into();
    answer
}

fn flipped(
    prompt: &PromptName,
    from: Option<&str>,
    to: &VersionName,
    at: Timestamp,
    incident: Option<&IncidentId>,
) -> Value {
    json!({
        "success": true,
        "prompt": prompt.as_str(),
        "from_version": from,
        "to_version": to.as_str(),
        "timestamp": rfc3339(at),
        "incident": incident.map(|id| &id.0),
    })
}

pub(super) fn unexpected() -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "unexpected answer of the decision core")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    version: String,
    content: Option<String>,
    contact: Option<String>,
    staged_at: Option<String>,
    #[serde(default)]
    known_good: bool,
}

pub async fn register(context: &Context, prompt: &str, bytes: &Bytes) -> Result<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: RegisterBody = body(bytes)?;
    let version = version("version", &request.version)?;
    if request.content.as_ref().is_some_and(|content| content.len() > MAX_CONTENT) {
        return Err(Failure::bad_request(format!("content: expected at most {MAX_CONTENT} bytes")));
    }
    let contact = request.contact.map(|contact| line("contact", Some(contact), "")).transpose()?;
    let event = Event::Register(Register {
        version: version.clone(),
        content: request.content,
        contact: contact.filter(|contact| !contact.is_empty()),
        staged_at: time("staged_at", request.staged_at.as_ref())?,
        known_good: request.known_good,
    });
    match context.engine.handle(&prompt, &event).await?.answer {
        Answer::Registered { created, known_good } => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let answer = json!({
                "prompt": prompt.as_str(), "version": version.as_str(), "created": created, "known_good": known_good,
            });
            Ok(json(status, &answer))
        }
        Answer::Refused(refusal) => Err(refusal.into()),
        _ => Err(unexpected()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivateBody {
    version: String,
    percent: Option<u8>,
    #[serde(default)]
    canary: bool,
    stages: Option<Vec<u8>>,
    hold: Option<Hold>,
    operator: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

/// Waits until the worker has asked Prometheus about this version; what it found is in the prompt's record then.
async fn measured(context: &Context, prompt: &PromptName, version: &VersionName) -> Result<(Snapshot, Timestamp)> {
    let engine = &context.engine;
    let asked = engine.handle(prompt, &Event::AskGates { version: version.clone() }).await?;
    if let Answer::Refused(refusal) = asked.answer {
        return Err(refusal.into());
    }
    let patience = tokio::time::Instant::now() + CONFIRMED_WITHIN;
    loop {
        let loaded = engine.store.load(prompt, engine.policy.budget_window, Wanted::default()).await?;
        let there = !loaded.snapshot.state.to_measure().any(|record| record.version == *version);
        if there || tokio::time::Instant::now() >= patience {
            return Ok((loaded.snapshot, loaded.now));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Each promotion gate of one version, with its figures.
pub async fn gates(context: &Context, prompt: &str, query: &Query) -> Result<Reply> {
    let prompt = prompt_name(prompt)?;
    let version = version("version", query.0.get("version").map_or("", String::as_str))?;
    let (snapshot, now) = measured(context, &prompt, &version).await?;
    let policy = &context.engine.policy;
    let all = decision::gates::gates(policy, &snapshot.state, &version, now);
    let closed = decision::gates::closed(policy, &snapshot.state, &version, true, now);
    let answer = json!({
        "prompt": prompt.as_str(),
        "version": version.as_str(),
        "replaces": snapshot.state.replaced_by(&version).map(VersionName::as_str),
        "may_have_all_traffic": closed.is_none(),
        "gates": all.iter().map(|gate| json!({
            "gate": gate.name, "on": gate.on, "passed": gate.passed, "figures": gate.text,
        })).collect::<Vec<_>>(),
    });
    Ok(json(StatusCode::OK, &answer))
}

pub async fn activate(context: &Context, prompt: &str, bytes: &Bytes) -> Result<Reply> {
    let prompt = prompt_name(prompt)?;
    let request: ActivateBody = body(bytes)?;
    let share = match request.percent {
        Some(_) if request.canary => return Err(Failure::bad_request("percent: not together with canary")),
        _ if !request.canary && (request.stages.is_some() || request.hold.is_some()) => {
            return Err(Failure::bad_request("stages, hold: only with \"canary\": true"));
        }
        None if request.canary => {
            Share::Canary(plan(request.stages, request.hold, &context.engine.policy.canary, Plan::canary)?)
        }
        None | Some(100) => Share::All,
        Some(percent) => Share::Percent(percent),
    };
    let version = version("version", &request.version)?;
    let engine = &context.engine;
    if engine.policy.gates.ab_test && share == Share::All && !request.force {
        measured(context, &prompt, &version).await?;
    }
    let event = Event::Activate(Activation {
        version,
        share,
        operator: line("operator", request.operator, "api")?,
        force: request.force,
        reason: request.reason.map(|reason| line("reason", Some(reason), "")).transpose()?.filter(|r| !r.is_empty()),
    });
    let handled = context.engine.handle(&prompt, &event).await?;
    changed(&prompt, handled)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecideBody {
    decision: Decision,
    operator: String,
    target_version: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Approve,
    ApproveGradual,
    Investigate,
    Dismiss,
    Undo,
    Release,
}

pub async fn decide(context: &Context, id: &str, bytes: &Bytes) -> Result<Reply> {
    let request: DecideBody = body(bytes)?;
    let id = incident_id(id)?;
    let choice = match request.decision {
        Decision::Approve => Some((Choice::Approve, Some(Bulk::RollBack))),
        Decision::Investigate => Some((Choice::Investigate, None)),
        Decision::Dismiss => Some((Choice::Dismiss, Some(Bulk::Hold))),
        Decision::Undo => Some((Choice::Undo, Some(Bulk::Undo))),
        Decision::Release => None,
        Decision::ApproveGradual => Some((Choice::ApproveGradual, None)),
    };
    let operator = line("operator", Some(request.operator), "")?;
    if operator.is_empty() {
        return Err(Failure::bad_request("operator: expected who decides"));
    }
    let target = optional_version("target_version", request.target_version.as_ref())?;
    let Some(incident) = context.engine.store.incident(&id).await? else {
        let bulk = choice.map_or(Some(Bulk::Release), |(_, bulk)| bulk);
        return mass::decide(context, &id, bulk, &operator).await;
    };
    let Some((choice, _)) = choice else {
        return Err(Failure::bad_request(
            "decision: release is for what holds many prompts back; this is one prompt's",
        ));
    };
    let click = Decide { incident: id.clone(), choice, operator, target, force: request.force, ask: None };
    let event = Event::Decide(click);
    let handled = context.engine.handle(&incident.prompt, &event).await?;
    match &handled.answer {
        Answer::Decided(phase) => {
            let answer = json!({
                "success": true,
                "incident": id.0,
                "phase": phase.as_str(),
                "timestamp": rfc3339(handled.now),
            });
            Ok(json(StatusCode::OK, &answer))
        }
        _ => changed_or_confirming(context, &incident.prompt, handled).await,
    }
}

pub fn incident_id(text: &str) -> Result<IncidentId> {
    // a ULID; anything else can't name an incident and must not become part of a key
    if text.len() == 26 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(IncidentId(text.to_ascii_uppercase()))
    } else {
        Err(Failure::new(StatusCode::NOT_FOUND, "unknown_incident", "no such incident"))
    }
}

pub fn no_incident(id: &IncidentId) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "unknown_incident", format!("no incident {id}: it may have expired"))
}

pub async fn incidents(context: &Context, query: &Query) -> Result<Reply> {
    let page = context.engine.store.listed(query.cursor()?, query.limit()?, query.flag("open")?).await?;
    let row = |listed: &Listed| match listed {
        Listed::One(incident) => views::incident_row(incident),
        Listed::Mass(found) => mass::row(found),
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    Ok(json(StatusCode::OK, &json!({ "incidents": rows, "next": page.next })))
}

pub async fn incident(context: &Context, id: &str) -> Result<Reply> {
    let id = incident_id(id)?;
    match context.engine.store.incident(&id).await? {
        Some(incident) => Ok(json(StatusCode::OK, &views::incident(&incident))),
        None => mass::incident(context, &id).await,
    }
}

pub async fn prompts(context: &Context, query: &Query) -> Result<Reply> {
    let engine = &context.engine;
    let without_target = query.flag("without_target")?;
    let page = engine.store.prompts(query.cursor()?, query.limit()?, engine.policy.budget_window).await?;
    let rows = page.items.iter().filter_map(|row| match &row.loaded {
        Ok(loaded) => {
            let row = views::prompt_row(&loaded.snapshot, &engine.policy, loaded.now);
            (!without_target || row["rollback_target"].is_null()).then_some(row)
        }
        Err(error) => Some(json!({ "prompt": row.prompt.as_str(), "error": error.to_string() })),
    });
    Ok(json(StatusCode::OK, &json!({ "prompts": rows.collect::<Vec<_>>(), "next": page.next })))
}

/// The prompt's snapshot, or 404.
async fn known(context: &Context, prompt: &PromptName) -> Result<(Snapshot, Timestamp)> {
    let engine = &context.engine;
    // whoever asks sees what someone has just SET, noticed and logged
    engine.handle(prompt, &Event::Look).await?;
    let loaded = engine.store.load(prompt, engine.policy.budget_window, Wanted::default()).await?;
    if loaded.snapshot.state.versions.is_empty() {
        let message = format!("no prompt {prompt} is registered or active");
        return Err(Failure::new(StatusCode::NOT_FOUND, "unknown_prompt", message));
    }
    Ok((loaded.snapshot, loaded.now))
}

pub async fn prompt(context: &Context, prompt: &str) -> Result<Reply> {
    let prompt = prompt_name(prompt)?;
    let (snapshot, now) = known(context, &prompt).await?;
    Ok(json(StatusCode::OK, &views::prompt(&snapshot, &context.engine.policy, now)))
}

pub async fn log(context: &Context, prompt: &str, query: &Query) -> Result<Reply> {
    let prompt = prompt_name(prompt)?;
    let cursor = query.cursor()?;
    if cursor.is_some_and(|c| !c.bytes().all(|b| b.is_ascii_digit() || b == b'-')) {
        return Err(Failure::bad_request("cursor: not one of ours"));
    }
    known(context, &prompt).await?;
    let page = context.engine.store.log(&prompt, cursor, query.limit()?).await?;
    let entries: Vec<_> = page.items.iter().map(views::log_entry).collect();
    Ok(json(StatusCode::OK, &json!({ "entries": entries, "next": page.next })))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    prompt: Option<String>,
    operator: Option<String>,
    reason: Option<String>,
}

pub async fn pause(context: &Context, bytes: &Bytes, pause: bool) -> Result<Reply> {
    // an empty body means: all prompts
    let request: PauseBody = if bytes.is_empty() { PauseBody::default() } else { body(bytes)? };
    let prompt = request.prompt.as_deref().map(prompt_name).transpose()?;
    let operator = line("operator", request.operator, "api")?;
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
    tracing::info!(paused = pause, scope, operator, reason, "automation switched");
    let answer = json!({ "paused": pause, "prompt": prompt.as_ref().map(PromptName::as_str), "changed": changed });
    Ok(json(StatusCode::OK, &answer))
}
