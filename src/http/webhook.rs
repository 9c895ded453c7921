//! `POST /webhooks/alertmanager`: 200 only once everything is committed.
//!
//! A delivery is parsed, handled and answered. Parsing and answering are pure computation, on another thread for a
//! large delivery; handling goes prompt by prompt, and deliveries take turns.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyper::StatusCode;
use serde::{Serialize, Serializer};
use tracing::{Instrument, Span};

use super::context::Context;
use super::error::ApiError;
use super::lanes::{Lanes, URGENT};
use super::reply::{Reply, json_of_length};
use crate::alertmanager::payload::{self, Delivered, Delivery, Ignored, Why};
use crate::config::{Labels, SourceConfig};
use crate::decision::{
    Action, Alert, AlertOutcome, AlertStatus, Answer, Event, Outcome, OutcomeReason, PromptName, Severity,
};
use crate::elsewhere::{self, Large};
use crate::engine::{Engine, EngineError, Handled};
use crate::service::drills;
use crate::store::StoreError;
use crate::trace;

/// Larger deliveries are handled two at a time: parsed, they take several times their size.
const HUGE: usize = 4 << 20;
/// The memory of an alert and its outcome until its delivery is answered, besides its texts, which are a part of the body.
const EACH: usize = size_of::<Delivered>() + size_of::<Option<AlertOutcome>>() + 32;
/// The length of an alert's result in the answer, with usual names.
const RESULT: usize = 192;
/// Log lines about single alerts of one delivery.
const LINES: usize = 20;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Results<'a> {
    #[serde(serialize_with = "results")]
    #[cfg_attr(test, schemars(with = "Vec<AlertResult<'a>>"))]
    results: &'a Received,
    /// How many alerts Alertmanager left out.
    #[serde(skip_serializing_if = "is_zero")]
    truncated_alerts: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct AlertResult<'a> {
    fingerprint: &'a str,
    prompt: Option<&'a str>,
    version: Option<&'a str>,
    outcome: &'static str,
    reason: &'static str,
    incident: Option<&'a str>,
    /// Only for an alert that is malformed or not allowed: the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Builds each result when it is written: a list of all would take as much memory as the answer.
fn results<S: Serializer>(received: &&Received, serializer: S) -> Result<S::Ok, S::Error> {
    let results = received.delivered.iter().zip(&received.outcomes);
    serializer.collect_seq(results.map(|(delivered, outcome)| result(delivered, outcome.as_ref())))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The alerts of one prompt: one load, one decision, one commit.
struct Group {
    prompt: PromptName,
    /// Indexes in the delivery.
    places: Vec<usize>,
    alerts: Vec<Alert>,
    urgent: bool,
}

/// A delivery, and the outcomes of its alerts so far.
#[derive(Default)]
struct Received {
    delivered: Vec<Delivered>,
    outcomes: Vec<Option<AlertOutcome>>,
    truncated: u64,
}

/// `source`: the sender, if it may not send all alerts.
pub async fn handle(context: &Context, source: Option<(&str, &SourceConfig)>, body: &Bytes) -> Result<Reply, ApiError> {
    let engine = &context.engine;
    let _one_of_few = if body.len() > HUGE { context.huge.acquire().await.ok() } else { None };
    let read = {
        let (body, labels, engine) = (body.clone(), Arc::clone(&context.labels), Arc::clone(engine));
        let source = source.map(|(name, source)| (name.to_owned(), source.clone()));
        let parsed = context.parsed.clone();
        move || {
            let (received, groups) = Received::read(&body, &labels, source.as_ref(), &engine)?;
            let held = parsed.hold(received.bytes())?;
            Ok::<_, ApiError>((received, groups, held))
        }
    };
    let (received, groups, _held) = elsewhere::run_sized(elsewhere::json_size(body), read).await?;
    let answered = received.delivered.len() * RESULT;
    // also if the request is abandoned
    let mut received = Large::new(received, answered > elsewhere::LARGE);
    let failed = handle_all(context, received.get(), groups).await;
    let received = received.into_inner();
    let engine = Arc::clone(engine);
    elsewhere::run_sized(answered, move || received.answer(&engine, failed)).await
}

/// Handles the alerts. What is not done now may be done when Alertmanager sends the delivery again.
async fn handle_all(context: &Context, received: &mut Received, groups: Vec<Group>) -> Option<EngineError> {
    let engine = &*context.engine;
    let Received { delivered, outcomes, .. } = received;
    let mut failed: Option<EngineError> = None;
    // criticals first: a rollback does not wait for a thousand observations
    let several = groups.len() > 1;
    let (urgent, other): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(|group| group.urgent);
    for groups in [urgent, other] {
        let mut handled = handle_groups(engine, &context.lanes, groups, several);
        while let Some((places, result)) = handled.next().await {
            match result {
                Ok(handled) => {
                    if let Answer::Alerts(answers) = handled.answer {
                        for (place, answer) in places.into_iter().zip(answers) {
                            outcomes[place] = Some(answer);
                        }
                    }
                }
                // a lasting fault: sending it again would not help
                Err(EngineError::Store(error @ StoreError::Broken { .. })) => {
                    tracing::error!(%error, "alerts are held: the state of their prompt is broken");
                    for place in places {
                        outcomes[place] = Some(AlertOutcome::new(Outcome::Held, OutcomeReason::BrokenState, None));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
    }
    // drills last: they never delay real alerts
    for (delivered, outcome) in delivered.iter().zip(&mut *outcomes) {
        let Delivered::Drill { id, alert } = delivered else { continue };
        match drills::receive(engine, id, alert).await {
            Ok(ours) => {
                let reason = if ours { OutcomeReason::Drill } else { OutcomeReason::UnknownDrill };
                *outcome = Some(AlertOutcome::new(Outcome::Ignored, reason, None));
            }
            Err(EngineError::Store(error @ StoreError::Broken { .. })) => {
                tracing::error!(%error, "the state of a drill's prompt is broken");
                *outcome = Some(AlertOutcome::new(Outcome::Held, OutcomeReason::BrokenState, None));
            }
            Err(error) => failed = Some(error),
        }
    }
    // of several evaluations, the latest counts
    let moment = |delivered: &Delivered| match delivered {
        Delivered::Heartbeat { evaluated_at, .. } => Some(*evaluated_at),
        _ => None,
    };
    if let Some(latest) = delivered.iter().filter_map(moment).max() {
        match engine.store.beat(latest).await {
            Ok(()) => {
                for (delivered, outcome) in delivered.iter().zip(outcomes) {
                    if moment(delivered).is_some() {
                        *outcome = Some(AlertOutcome::new(Outcome::Ignored, OutcomeReason::Heartbeat, None));
                    }
                }
            }
            Err(error) => failed = Some(error.into()),
        }
    }
    failed
}

/// Handles `groups`, all urgent or none, as it is their turn. Those of several prompts each have a span of their own.
fn handle_groups<'a>(
    engine: &'a Engine,
    lanes: &'a Lanes,
    groups: Vec<Group>,
    several: bool,
) -> BoxStream<'a, (Vec<usize>, Result<Handled, EngineError>)> {
    futures_util::stream::iter(groups)
        // one after another: the delivery as a whole waits for its turn
        .then(move |group| async move { (lanes.acquire(group.urgent).await, group) })
        // boxed, because the stream reserves room for one more than are in progress, and each takes kilobytes
        .map(move |(permit, group)| {
            let span = if several { trace::alerts() } else { Span::none() };
            let handle = Box::pin(async move {
                let handled = engine.handle_owned(&group.prompt, Event::Alerts(group.alerts)).await;
                drop(permit);
                (group.places, handled)
            });
            handle.instrument(span)
        })
        .buffer_unordered(URGENT)
        .boxed()
}

impl Received {
    fn read(
        body: &[u8],
        labels: &Labels,
        source: Option<&(String, SourceConfig)>,
        engine: &Engine,
    ) -> Result<(Self, Vec<Group>), ApiError> {
        let parsed = payload::parse(body, labels, &engine.policy);
        let Delivery { alerts: mut delivered, truncated } =
            parsed.map_err(|error| ApiError::bad_request(error.to_string()))?;
        if let Some((name, source)) = source {
            delivered.iter_mut().for_each(|delivered| bind(delivered, name, source));
        }
        let mut log = Lines::default();
        let outcomes = delivered.iter().enumerate().map(|(place, delivered)| ignored(place, delivered, &mut log));
        let outcomes = outcomes.collect();
        log.end("alerts ignored");
        let groups = groups(&delivered);
        Ok((Self { delivered, outcomes, truncated }, groups))
    }

    /// The memory that it takes until it is answered, besides the texts of the body.
    fn bytes(&self) -> usize {
        let more = |delivered: &Delivered| match delivered {
            // as it was read, and in its group
            Delivered::Alert(alert) => 2 * (size_of::<Alert>() + alert.alertmanager_url.len()),
            Delivered::Drill { alert, .. } => size_of::<Alert>() + alert.alertmanager_url.len(),
            Delivered::Heartbeat { .. } => 0,
            Delivered::Ignored(ignored) => ignored.why.detail.as_ref().map_or(0, String::len),
        };
        self.delivered.iter().map(|delivered| EACH + more(delivered)).sum()
    }

    /// Counts and logs the outcomes, and builds the answer.
    fn answer(self, engine: &Engine, failed: Option<EngineError>) -> Result<Reply, ApiError> {
        let Self { delivered, outcomes, truncated } = &self;
        let mut log = Lines::default();
        for (delivered, outcome) in delivered.iter().zip(outcomes) {
            let Some(outcome) = outcome else { continue };
            engine.metrics.alert(severity(delivered), outcome);
            if let (Delivered::Alert(alert), OutcomeReason::UnknownVersion) = (delivered, outcome.reason)
                && log.one_more()
            {
                let (prompt, version, alertname) = (&alert.prompt, &alert.version, &alert.alertname);
                let reason = outcome.reason.as_str();
                tracing::warn!(reason, %prompt, %version, alertname, "an alert names a version that its prompt never had");
            }
        }
        log.end("alerts name versions that their prompt never had");
        // committed alerts answer `duplicate` when the delivery is sent again
        if let Some(error) = failed {
            return Err(error.into());
        }
        let truncated = *truncated;
        if truncated > 0 {
            tracing::warn!(truncated, "Alertmanager left alerts out of a delivery: set max_alerts to 0");
            engine.metrics.truncated(truncated);
        }
        let length = delivered.len() * RESULT;
        Ok(json_of_length(StatusCode::OK, &Results { results: &self, truncated_alerts: truncated }, length))
    }
}

/// Log lines about the alerts of one delivery. One sender must not fill the log, or spend the time to write it.
#[derive(Default)]
struct Lines(usize);

impl Lines {
    fn one_more(&mut self) -> bool {
        self.0 += 1;
        self.0 <= LINES
    }

    fn end(self, what: &str) {
        if let Some(more @ 1..) = self.0.checked_sub(LINES) {
            tracing::warn!(more, "{what} in the same delivery, not logged one by one");
        }
    }
}

/// Ignores what `source` is not allowed to send: an alert, firing or resolved, of another team's prompt, and a
/// heartbeat, which counts for all prompts.
fn bind(delivered: &mut Delivered, name: &str, source: &SourceConfig) {
    let (alert, may) = match &*delivered {
        Delivered::Alert(alert) | Delivered::Drill { alert, .. } => (Some(alert), source.allows(&alert.prompt)),
        Delivered::Heartbeat { .. } => (None, source.allows_all()),
        Delivered::Ignored(_) => return,
    };
    if may {
        return;
    }
    let about = alert.map_or("a heartbeat, which counts for all prompts".to_owned(), |alert| alert.prompt.to_string());
    let detail = format!("source {name} is not allowed to send {about}: see sources.{name}.allowed_prompts");
    let ignored = Ignored {
        fingerprint: match &*delivered {
            Delivered::Heartbeat { fingerprint, .. } => fingerprint.clone(),
            _ => alert.map(|alert| alert.fingerprint.clone()).unwrap_or_default(),
        },
        prompt: alert.map(|alert| alert.prompt.to_string()),
        version: alert.map(|alert| alert.version.to_string()),
        severity: severity(delivered),
        why: Why { reason: OutcomeReason::NotAllowed, detail: Some(detail) },
    };
    *delivered = Delivered::Ignored(ignored);
}

fn ignored(place: usize, delivered: &Delivered, log: &mut Lines) -> Option<AlertOutcome> {
    let Delivered::Ignored(Ignored { fingerprint, prompt, version, why, .. }) = delivered else { return None };
    let reason = why.reason;
    match &why.detail {
        _ if !log.one_more() => {}
        Some(detail) => tracing::warn!(
            at = format!("alerts[{place}]"),
            detail,
            ?prompt,
            ?version,
            ?fingerprint,
            %reason,
            "an alert is ignored; the other alerts of its delivery are not"
        ),
        None => tracing::info!(%reason, ?prompt, ?version, ?fingerprint, "alert ignored"),
    }
    Some(AlertOutcome::new(Outcome::Ignored, reason, None))
}

fn groups(delivered: &[Delivered]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<&PromptName, usize> = HashMap::new();
    for (place, delivered) in delivered.iter().enumerate() {
        let Delivered::Alert(alert) = delivered else { continue };
        let index = *known.entry(&alert.prompt).or_insert_with(|| {
            // most prompts have one
            let (places, alerts) = (Vec::with_capacity(1), Vec::with_capacity(1));
            groups.push(Group { prompt: alert.prompt.clone(), places, alerts, urgent: false });
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.places.push(place);
        group.urgent |= alert.status == AlertStatus::Firing && alert.trigger.action == Action::Rollback;
        group.alerts.push(Alert::clone(alert));
    }
    groups
}

fn severity(delivered: &Delivered) -> Severity {
    match delivered {
        Delivered::Alert(alert) | Delivered::Drill { alert, .. } => alert.trigger.severity,
        Delivered::Heartbeat { .. } => Severity::Medium,
        Delivered::Ignored(ignored) => ignored.severity,
    }
}

fn result<'a>(delivered: &'a Delivered, outcome: Option<&'a AlertOutcome>) -> AlertResult<'a> {
    let (fingerprint, prompt, version, message) = match delivered {
        Delivered::Alert(alert) | Delivered::Drill { alert, .. } => {
            (&alert.fingerprint, Some(alert.prompt.as_str()), Some(alert.version.as_str()), None)
        }
        Delivered::Heartbeat { fingerprint, .. } => (fingerprint, None, None, None),
        Delivered::Ignored(Ignored { fingerprint, prompt, version, why, .. }) => {
            (fingerprint, prompt.as_deref(), version.as_deref(), why.detail.as_deref())
        }
    };
    AlertResult {
        fingerprint,
        prompt,
        version,
        outcome: outcome.map_or(Outcome::Ignored, |o| o.outcome).as_str(),
        reason: outcome.map_or(OutcomeReason::NotActive, |o| o.reason).as_str(),
        incident: outcome.and_then(|o| o.incident.as_ref()).map(|id| id.0.as_str()),
        message,
    }
}
