//! `POST /webhooks/alertmanager`: 200 only once all is committed.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::StatusCode;
use serde::Serialize;

use super::Context;
use super::reply::{Failure, Reply, json};
use crate::alertmanager::payload::{self, Delivered, Delivery, Ignored, Why};
use crate::config::Source;
use crate::decision::{Action, Alert, AlertOutcome, AlertStatus, Answer, Event, Outcome, PromptName, Severity};
use crate::drills;
use crate::engine::{Engine, EngineError, Handled};
use crate::store::StoreError;

/// Prompts handled at once: enough to fill the pipeline to Redis, few enough to bound memory.
const AT_ONCE: usize = 128;

#[derive(Serialize)]
struct Results<'a> {
    results: Vec<AlertResult<'a>>,
    /// Alerts that Alertmanager left out.
    #[serde(skip_serializing_if = "is_zero")]
    truncated_alerts: u64,
}

#[derive(Serialize)]
struct AlertResult<'a> {
    fingerprint: &'a str,
    prompt: Option<&'a str>,
    version: Option<&'a str>,
    outcome: &'static str,
    reason: &'static str,
    incident: Option<&'a str>,
    /// Only of an alert that is malformed or not allowed: what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The alerts of one prompt: one load, one decision, one commit.
struct Group {
    prompt: PromptName,
    /// Places in the delivery.
    places: Vec<usize>,
    alerts: Vec<Alert>,
    urgent: bool,
}

/// `source`: who sends this, if not everything may be said by them.
pub async fn handle(context: &Context, source: Option<(&str, &Source)>, body: &Bytes) -> Result<Reply, Failure> {
    let engine = &context.engine;
    let Delivery { alerts: mut delivered, truncated } =
        payload::parse(body, &context.labels, &engine.policy).map_err(|e| Failure::bad_request(e.to_string()))?;
    if let Some((name, source)) = source {
        for delivered in &mut delivered {
            bind(delivered, name, source);
        }
    }
    let mut outcomes: Vec<Option<AlertOutcome>> =
        delivered.iter().enumerate().map(|(place, delivered)| ignored(place, delivered)).collect();

    // criticals first: a rollback does not wait for a thousand observations
    let (urgent, other): (Vec<Group>, Vec<Group>) = groups(&delivered).into_iter().partition(|g| g.urgent);
    let mut failed: Option<EngineError> = None;
    for groups in [urgent, other] {
        // boxed: the stream keeps room for one more than are under way, and each takes kilobytes
        let handling = groups.into_iter().map(|group| Box::pin(handle_group(engine, group)));
        let mut handled = futures_util::stream::iter(handling).buffer_unordered(AT_ONCE);
        while let Some((places, result)) = handled.next().await {
            match result {
                Ok(handled) => {
                    if let Answer::Alerts(answers) = handled.answer {
                        for (place, answer) in places.into_iter().zip(answers) {
                            outcomes[place] = Some(answer);
                        }
                    }
                }
                // a fault that stays: sending it again would not help
                Err(EngineError::Store(error @ StoreError::Broken { .. })) => {
                    tracing::error!(%error, "alerts are held: the state of their prompt is broken");
                    for place in places {
                        outcomes[place] =
                            Some(AlertOutcome { outcome: Outcome::Held, reason: "broken_state", incident: None });
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
    }
    // drills last: they never delay what is real
    for (delivered, outcome) in delivered.iter().zip(&mut outcomes) {
        let Delivered::Drill { id, alert } = delivered else { continue };
        match drills::receive(engine, id, alert).await {
            Ok(ours) => {
                let reason = if ours { "drill" } else { "unknown_drill" };
                *outcome = Some(AlertOutcome { outcome: Outcome::Ignored, reason, incident: None });
            }
            Err(EngineError::Store(error @ StoreError::Broken { .. })) => {
                tracing::error!(%error, "the state of a drill's prompt is broken");
                *outcome = Some(AlertOutcome { outcome: Outcome::Held, reason: "broken_state", incident: None });
            }
            Err(error) => failed = Some(error),
        }
    }
    for (delivered, outcome) in delivered.iter().zip(&mut outcomes) {
        let Delivered::Heartbeat { evaluated_at, .. } = delivered else { continue };
        match engine.store.beat(*evaluated_at).await {
            Ok(()) => *outcome = Some(AlertOutcome { outcome: Outcome::Ignored, reason: "heartbeat", incident: None }),
            Err(error) => failed = Some(error.into()),
        }
    }
    for (delivered, outcome) in delivered.iter().zip(&outcomes) {
        if let Some(outcome) = outcome {
            engine.metrics.alert(severity(delivered), outcome);
            if let (Delivered::Alert(alert), "unknown_version") = (delivered, outcome.reason) {
                let (prompt, version, alertname) = (&alert.prompt, &alert.version, &alert.alertname);
                let reason = outcome.reason;
                tracing::warn!(reason, %prompt, %version, alertname, "an alert names a version that its prompt never had");
            }
        }
    }
    // those that were committed answer `duplicate` when all are sent again
    if let Some(error) = failed {
        return Err(error.into());
    }
    if truncated > 0 {
        tracing::warn!(truncated, "Alertmanager left alerts out of a delivery: set max_alerts to 0");
        engine.metrics.truncated(truncated);
    }
    let results =
        delivered.iter().zip(&outcomes).map(|(delivered, outcome)| result(delivered, outcome.as_ref())).collect();
    Ok(json(StatusCode::OK, &Results { results, truncated_alerts: truncated }))
}

/// What `source` may not say is ignored: that an alert of another team's prompt fires, and that it has ended. A heartbeat
/// speaks for the alerts of all prompts.
fn bind(delivered: &mut Delivered, name: &str, source: &Source) {
    let (alert, may) = match &*delivered {
        Delivered::Alert(alert) | Delivered::Drill { alert, .. } => (Some(alert), source.allows(&alert.prompt)),
        Delivered::Heartbeat { .. } => (None, source.allows_all()),
        Delivered::Ignored(_) => return,
    };
    if may {
        return;
    }
    let about = alert.map_or("a heartbeat, which speaks for every prompt".to_owned(), |alert| alert.prompt.to_string());
    let detail = format!("the token of source {name} may not speak of {about}: see sources.{name}.allowed_prompts");
    let ignored = Ignored {
        fingerprint: match &*delivered {
            Delivered::Heartbeat { fingerprint, .. } => fingerprint.clone(),
            _ => alert.map(|alert| alert.fingerprint.clone()).unwrap_or_default(),
        },
        prompt: alert.map(|alert| alert.prompt.to_string()),
        version: alert.map(|alert| alert.version.to_string()),
        severity: severity(delivered),
        why: Why { reason: "not_allowed", detail: Some(detail) },
    };
    *delivered = Delivered::Ignored(ignored);
}

async fn handle_group(engine: &Engine, group: Group) -> (Vec<usize>, Result<Handled, EngineError>) {
    let event = Event::Alerts(group.alerts);
    (group.places, engine.handle(&group.prompt, &event).await)
}

fn ignored(place: usize, delivered: &Delivered) -> Option<AlertOutcome> {
    let Delivered::Ignored(Ignored { fingerprint, prompt, version, why, .. }) = delivered else { return None };
    let reason = why.reason;
    match &why.detail {
        Some(detail) => tracing::warn!(
            at = format!("alerts[{place}]"),
            detail,
            ?prompt,
            ?version,
            ?fingerprint,
            reason,
            "an alert is ignored, the others of its delivery are not"
        ),
        None => tracing::info!(reason, ?prompt, ?version, ?fingerprint, "alert ignored"),
    }
    Some(AlertOutcome { outcome: Outcome::Ignored, reason, incident: None })
}

fn groups(delivered: &[Delivered]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<&PromptName, usize> = HashMap::new();
    for (place, delivered) in delivered.iter().enumerate() {
        let Delivered::Alert(alert) = delivered else { continue };
        let index = *known.entry(&alert.prompt).or_insert_with(|| {
            groups.push(Group { prompt: alert.prompt.clone(), places: Vec::new(), alerts: Vec::new(), urgent: false });
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
        reason: outcome.map_or("not_active", |o| o.reason),
        incident: outcome.and_then(|o| o.incident.as_ref()).map(|id| id.0.as_str()),
        message,
    }
}
