//! Parses the webhook body into alerts. Pure.
//!
//! Each alert is parsed separately: a fault in one is its own outcome and affects no other. Unknown fields are normal
//! (newer Alertmanagers and Grafana send more) and are skipped, whatever they contain. The delivery's own `status` is
//! not read: it can say `resolved` while truncated alerts still fire.
//!
//! The subject and the status of an alert must be clear. An alert without a readable `status`, with a `prompt` or
//! `version` that is not text, or with a repeated field is *malformed*: it never counts as resolved and never causes an
//! action. `null` counts as absent. Any other value of the wrong type affects only itself: a label or annotation is
//! taken as written (`"severity": 5` is an unknown severity, so high), and a time, an address, a fingerprint or a
//! `verify` that is not text counts as absent.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use super::json::{Object, Repeated, Sections, in_one_pass, kind, list, lossy, text, written};
use crate::config::{Labels, parse_prometheus_duration};
use crate::decision::labels::GroupLabels;
use crate::decision::{
    Alert, AlertStatus, Measure, OutcomeReason, Policy, PromptName, Severity, Timestamp, Trigger, TriggerLabels,
    VersionName, fnv1a,
};
use sections::{AlertSection, AlertSections, misread};

mod sections;

/// Alerts of one delivery: as many real alerts as fit into 16 MiB.
const MAX_ALERTS: usize = 50_000;
/// Longest stored texts in bytes; the rest of an annotation can be read in Alertmanager.
const SHORT: usize = 500;
const LONG: usize = 2_000;
/// Longest label that groups prompts.
const MAX_SHARED: usize = 100;
/// Longest fingerprint that is stored as it is, in bytes.
const MAX_FINGERPRINT: usize = 64;

/// The name of a drill's alert. Receivers that do not know drills ignore it, as they do all alerts with its prefix.
pub const DRILL_ALERT: &str = "PromptRollbackDrill";
/// The name of the alert that always fires while rules are evaluated.
pub const HEARTBEAT_ALERT: &str = "PromptRollbackHeartbeat";
/// Its annotation with the time of the evaluation, in seconds by Prometheus' clock.
const EVALUATED_AT: &str = "evaluated_at";
/// The label with the id of the drill.
pub const DRILL_LABEL: &str = "prompt_rollback_drill";

/// Whether the alert is about the receiver itself.
pub fn is_own(alertname: &str) -> bool {
    alertname.starts_with("PromptRollback")
}

/// The body is not a delivery; the message names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(String);

/// The content of one request from Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub alerts: Vec<Delivered>,
    /// How many alerts of the group were left out because of `max_alerts`.
    pub truncated: u64,
}

/// One alert of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    Alert(Box<Alert>),
    /// The alert of a drill. Whether the drill exists is checked later.
    Drill {
        id: String,
        alert: Box<Alert>,
    },
    /// The heartbeat, with the time at which Prometheus evaluated the rules, by its own clock.
    Heartbeat {
        fingerprint: String,
        evaluated_at: Timestamp,
    },
    /// Causes no action, whatever the state of its prompt.
    Ignored(Ignored),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The sender's fingerprint or, if that cannot be read, a hash of the labels or of the whole alert: the same alert
    /// always has the same one.
    pub fingerprint: String,
    /// As delivered, shortened. Escape it before it is shown.
    pub prompt: Option<String>,
    pub version: Option<String>,
    pub severity: Severity,
    pub why: Why,
}

/// Why an alert is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    pub reason: OutcomeReason,
    /// For a malformed alert: the field, what was expected there and what was found, escaped. For one that its sender
    /// is not allowed to send: the sender.
    pub detail: Option<String>,
}

impl Why {
    fn plain(reason: OutcomeReason) -> Self {
        Self { reason, detail: None }
    }

    fn malformed(detail: String) -> Self {
        Self { reason: OutcomeReason::Malformed, detail: Some(detail) }
    }
}

/// Parses a delivery.
pub fn parse(body: &[u8], names: &Labels, policy: &Policy) -> Result<Delivery, BadPayload> {
    // bytes that are not UTF-8 affect only the text that contains them
    let body = lossy(body);
    let (mut alerts, delivery) = match quick(&body, names, policy) {
        Some(read) => read,
        None => thorough(&body, names, policy)?,
    };
    let url = delivery.get("externalURL").ok().flatten().and_then(text);
    let url = shorten(url.as_deref().unwrap_or_default(), SHORT);
    for delivered in &mut alerts {
        if let Delivered::Alert(alert) | Delivered::Drill { alert, .. } = delivered {
            alert.alertmanager_url.clone_from(&url);
        }
    }
    // an invalid number is ignored, because it is not worth losing alerts
    let truncated = delivery.get("truncatedAlerts").ok().flatten().and_then(|count| count.get().parse().ok());
    Ok(Delivery { alerts, truncated: truncated.unwrap_or_default() })
}

/// The alerts of a delivery, and its other fields.
type Contents<'a> = (Vec<Delivered>, Object<'a>);

/// Parses a body with the structure of a delivery in one pass, whatever its values.
fn quick<'a>(body: &'a str, names: &Labels, policy: &Policy) -> Option<Contents<'a>> {
    in_one_pass(body, "alerts", MAX_ALERTS, &mut |Sections { own, labels, annotations }| {
        let mut so_far = PartialAlert::default();
        let parts = AlertSections::new(own, labels.unwrap_or_default(), annotations.unwrap_or_default());
        match understand(&parts, &mut so_far, names, policy) {
            Ok(delivered) => Some(delivered),
            // without a fingerprint, it is identified by the whole alert
            Err(why) => so_far.fingerprint.is_some().then(|| so_far.ignored(String::new, why)),
        }
    })
}

/// Parses each alert separately, and reports what is wrong with it.
fn thorough<'a>(body: &'a str, names: &Labels, policy: &Policy) -> Result<Contents<'a>, BadPayload> {
    let delivery: Object<'_> = serde_json::from_str(body).map_err(|error| BadPayload(format!("body: {error}")))?;
    let expected =
        |found: &str| BadPayload(format!("alerts: expected a list of at most {MAX_ALERTS} alerts, found {found}"));
    let alerts = match delivery.get("alerts") {
        Ok(Some(alerts)) => list(alerts, MAX_ALERTS).ok_or_else(|| match kind(alerts) {
            "a list" => expected("more"),
            kind => expected(kind),
        })?,
        Ok(None) => return Err(expected("nothing")),
        Err(Repeated) => return Err(expected("the field twice")),
    };
    let read = |raw: &'a RawValue| {
        let mut so_far = PartialAlert::default();
        let understood = AlertSections::of(raw).and_then(|parts| understand(&parts, &mut so_far, names, policy));
        understood.unwrap_or_else(|why| so_far.ignored(|| format!("alert-{:016x}", fnv1a(raw.get().bytes())), why))
    };
    Ok((alerts.into_iter().map(read).collect(), delivery))
}

/// The fields of an alert that could be read.
struct PartialAlert<'a> {
    fingerprint: Option<Cow<'a, str>>,
    prompt: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
    severity: Severity,
}

impl Default for PartialAlert<'_> {
    fn default() -> Self {
        Self { fingerprint: None, prompt: None, version: None, severity: Severity::High }
    }
}

impl PartialAlert<'_> {
    /// `called` makes the fingerprint of an alert that has none.
    fn ignored(self, called: impl FnOnce() -> String, why: Why) -> Delivered {
        Delivered::Ignored(Ignored {
            fingerprint: self.fingerprint.map_or_else(called, Cow::into_owned),
            prompt: self.prompt.map(|name| match PromptName::of(&name) {
                Ok(prompt) => prompt.to_string(),
                Err(_) => shorten(&name, PromptName::MAX),
            }),
            version: self.version.map(|name| shorten(&name, VersionName::MAX)),
            severity: self.severity,
            why,
        })
    }
}

/// The alert, or why it is ignored.
fn understand<'a>(
    AlertSections { alert, labels, annotations }: &AlertSections<'a>,
    so_far: &mut PartialAlert<'a>,
    names: &Labels,
    policy: &Policy,
) -> Result<Delivered, Why> {
    let fingerprint = alert.get("fingerprint")?.and_then(text).filter(|text| !text.is_empty());
    let fingerprint = fingerprint.unwrap_or_else(|| Cow::Owned(derived(&labels.fields)));
    let fingerprint = identity(fingerprint);
    so_far.fingerprint = Some(fingerprint.clone());
    let (severity, action) = (labels.written("severity")?, labels.written("action")?);
    let (decider, time_limit) = (labels.written("decider")?, labels.written("time_limit")?);
    let duration = |text: &str| parse_prometheus_duration(text).ok().filter(|limit| *limit > Duration::ZERO);
    let trigger = Trigger::read(
        TriggerLabels {
            severity: severity.as_deref(),
            action: action.as_deref(),
            decider: decider.as_deref(),
            time_limit: time_limit.as_deref().map(|text| (text, duration(text))),
        },
        policy,
    );
    so_far.severity = trigger.severity;
    let (prompt, version) = (labels.get(&names.prompt)?, labels.get(&names.version)?);
    (so_far.prompt, so_far.version) = (prompt.map(written), version.map(written));

    let alertname = shorten(labels.written("alertname")?.as_deref().unwrap_or("unnamed alert"), SHORT);
    // an alert that names a drill never causes an action
    let drill = labels.written(DRILL_LABEL)?.filter(|id| !id.is_empty());
    if drill.is_none() && alertname == HEARTBEAT_ALERT && is_firing(alert)? {
        let evaluated_at = moment_of(annotations)?;
        return Ok(Delivered::Heartbeat { fingerprint: fingerprint.into_owned(), evaluated_at });
    }
    match drill {
        None if is_own(&alertname) => return Err(Why::plain(OutcomeReason::OwnAlert)),
        Some(_) if alertname != DRILL_ALERT => return Err(Why::plain(OutcomeReason::UnknownDrill)),
        _ => {}
    }
    let (prompt, version) = (labels.name(&names.prompt, prompt)?, labels.name(&names.version, version)?);
    let parsed = (prompt.and_then(|p| PromptName::of(&p).ok()), version.and_then(|v| VersionName::parse(&v).ok()));
    let (Some(prompt), Some(version)) = parsed else {
        let reason = if drill.is_some() { OutcomeReason::UnknownDrill } else { OutcomeReason::InvalidName };
        return Err(Why::plain(reason));
    };
    let status = match alert.get("status")? {
        Some(value) if text(value).is_some_and(|text| text.eq_ignore_ascii_case("firing")) => AlertStatus::Firing,
        Some(value) if text(value).is_some_and(|text| text.eq_ignore_ascii_case("resolved")) => AlertStatus::Resolved,
        other => return Err(misread("", "status", "\"firing\" or \"resolved\"", other)),
    };
    if status == AlertStatus::Firing && !was_measured(annotations, &alertname)? {
        return Err(Why::plain(OutcomeReason::NotMeasured));
    }
    if drill.is_some() && status == AlertStatus::Resolved {
        return Err(Why::plain(OutcomeReason::DrillOver));
    }

    let shared = |name| {
        let shared = labels.written(name)?;
        Ok(shared.map(|text| shorten(&text, MAX_SHARED)).unwrap_or_default())
    };
    let annotation = |name, most| {
        let annotation = annotations.written(name)?;
        Ok(annotation.map(|text| shorten(&text, most)).unwrap_or_default())
    };
    let moment = |value: Option<&RawValue>| {
        let moment = value.and_then(text).and_then(|text| text.parse::<jiff::Timestamp>().ok());
        moment.map(|at| Timestamp(at.as_millisecond()))
    };
    let (starts_at, ends_at) = (alert.get("startsAt")?, alert.get("endsAt")?);
    let alert = Box::new(Alert {
        fingerprint: fingerprint.into_owned(),
        prompt,
        version,
        status,
        trigger,
        starts_at: moment(starts_at),
        ends_at: moment(ends_at.filter(|_| status == AlertStatus::Resolved)),
        summary: annotation("summary", SHORT)?,
        description: annotation("description", LONG)?,
        value: annotation("value", 100)?,
        verify: annotations.get("verify")?.and_then(text).map(|text| shorten(&text, LONG)).unwrap_or_default(),
        measure: Measure {
            metric: annotation("metric", SHORT)?,
            label: annotation("metric_label", 100)?,
            unit: annotation("unit", 20)?,
            threshold: annotation("threshold", 40)?,
            reference: annotation("reference", 40)?,
        },
        runbook_url: annotation("runbook_url", SHORT)?,
        dashboard_url: annotation("dashboard_url", SHORT)?,
        alertmanager_url: String::new(), // stored beside the alerts
        generator_url: alert.get("generatorURL")?.and_then(text).map(|url| shorten(&url, LONG)).unwrap_or_default(),
        group_labels: GroupLabels { model: shared("model")?, provider: shared("provider")?, group: shared("group")? },
        alertname,
    });
    Ok(match drill {
        Some(id) => Delivered::Drill { id: id.into_owned(), alert },
        None => Delivered::Alert(alert),
    })
}

fn is_firing(alert: &AlertSection<'_>) -> Result<bool, Why> {
    Ok(alert.get("status")?.and_then(text).is_some_and(|text| text.eq_ignore_ascii_case("firing")))
}

/// When the rules of a heartbeat were evaluated.
fn moment_of(annotations: &AlertSection<'_>) -> Result<Timestamp, Why> {
    let value = annotations.get(EVALUATED_AT)?;
    let seconds =
        value.and_then(text).and_then(|text| text.parse::<f64>().ok()).filter(|at| at.is_finite() && *at > 0.0);
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    let moment = seconds.map(|seconds| Timestamp((seconds * 1e3) as i64));
    moment.ok_or_else(|| misread("annotations.", EVALUATED_AT, "seconds since 1970", value))
}

/// Whether anything was measured. If Grafana's data source fails or has no data, it fires alerts with the rule's own
/// labels. It gives them a name of its own or, if the rule is set to fire anyway or to keep its state, says so in an
/// annotation such as `NoData, KeepLast`. `values` is no evidence: it is null for measured alerts as well.
fn was_measured(annotations: &AlertSection<'_>, alertname: &str) -> Result<bool, Why> {
    let reason = annotations.written("grafana_state_reason")?.unwrap_or_default();
    let mut reasons = reason.split(|c: char| !c.is_ascii_alphanumeric());
    Ok(!matches!(alertname, "DatasourceError" | "DatasourceNoData")
        && !reasons.any(|reason| matches!(reason, "Error" | "NoData")))
}

fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// A fingerprint as it is stored. A long one becomes a hash: two that begin alike are two alerts.
fn identity(fingerprint: Cow<'_, str>) -> Cow<'_, str> {
    if fingerprint.len() <= MAX_FINGERPRINT {
        return fingerprint;
    }
    Cow::Owned(format!("long-{:016x}", fnv1a(fingerprint.bytes())))
}

/// For a sender without fingerprints: a hash of the labels.
fn derived(labels: &Object<'_>) -> String {
    let mut sorted: Vec<_> = labels.fields().map(|(name, value)| (name, written(value))).collect();
    sorted.sort();
    let bytes = sorted.iter().flat_map(|(name, value)| [name, "\0", value, "\0"]).flat_map(str::bytes);
    format!("labels-{:016x}", fnv1a(bytes))
}

#[cfg(test)]
mod tests;
