//! What would happen if alerts fired now: an alert of each rule takes the path of a delivered one, is decided by the same
//! function, and nothing is committed.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::alertmanager::payload::{self, Delivered};
use crate::config::Labels;
use crate::decision::labels::GroupLabels;
use crate::decision::state::Silence;
use crate::decision::{
    Action, Alert, AlertStatus, Measure, Policy, PromptName, Rehearsed, Severity, Timestamp, Trigger, VersionName,
    in_service, known_alert,
};
use crate::engine::{Engine, EngineError, rehearse_one};
use crate::rules::AlertRule;
use crate::store::{Loaded, rfc3339};

/// The labels that a decision reads, besides the name of the alert.
const READ: [&str; 4] = ["severity", "action", "decider", "time_limit"];

/// The alert begins that much later: what began in the same millisecond as an activation may be older than that.
const MOMENT: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct Explained {
    pub now: Timestamp,
    /// How many alerts on versions with traffic a person dismissed.
    pub dismissed: usize,
    pub alerts: Vec<ForeseenAlert>,
}

#[derive(Debug)]
pub struct ForeseenAlert {
    pub name: String,
    pub version: VersionName,
    pub percent: u8,
    /// `None` if the receiver ignores alerts with this name.
    pub trigger: Option<Trigger>,
    pub rehearsed: Rehearsed,
}

/// Whether alerts of this rule can be about `prompt`, and not about the receiver itself.
pub fn applies(rule: &AlertRule, labels: &Labels, prompt: &PromptName) -> bool {
    !payload::is_own(&rule.name) && may_be(rule, &labels.prompt, &prompt.name())
}

fn may_be(rule: &AlertRule, label: &str, value: &str) -> bool {
    rule.labels.get(label).is_none_or(|text| text == value || is_template(text))
}

fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// What an alert of each rule would do now, on each version with traffic. `None`: there is no such prompt.
pub async fn explain(
    engine: &Engine,
    labels: &Labels,
    prompt: &PromptName,
    rules: &[&AlertRule],
) -> Result<Option<Explained>, EngineError> {
    let mut loaded = engine.load(prompt).await?;
    loaded.now = loaded.now.plus(MOMENT);
    let (state, now) = (&loaded.snapshot.state, loaded.now);
    let versions = in_service(&engine.policy, &loaded.snapshot, now);
    if versions.is_empty() && state.versions.is_empty() {
        return Ok(None);
    }
    let pairs = versions.iter().flat_map(|(version, percent)| {
        let rules = rules.iter().filter(|rule| may_be(rule, &labels.version, version.as_str()));
        rules.map(move |rule| (*rule, version, *percent))
    });
    let pairs: Vec<_> = pairs.collect();
    let alert = |rule, version| alert(&engine.policy, rule, labels, version, &loaded);
    let alerts: Vec<Value> = pairs.iter().map(|(rule, version, _)| alert(rule, version)).collect();
    let body = json!({ "alerts": alerts }).to_string();
    let parsed = payload::parse(body.as_bytes(), labels, &engine.policy);
    let delivered = parsed.map(|delivery| delivery.alerts).unwrap_or_default();
    let known = delivered.iter().filter_map(|delivered| match delivered {
        Delivered::Alert(alert) => Some(alert.as_ref().clone()),
        _ => None,
    });
    let known: Vec<_> = known.collect();
    let silenced = |silence: &&Silence| {
        let lasts = now.since(silence.since) < engine.policy.alert_resolve_timeout;
        lasts && versions.iter().any(|(version, _)| silence.version == *version)
    };
    let dismissed = state.silences.iter().filter(silenced).count();
    let mut rehearsed = engine.rehearse(loaded, known).await.into_iter();
    let alerts = pairs.into_iter().zip(delivered).filter_map(|((rule, version, percent), delivered)| {
        let (trigger, rehearsed) = match delivered {
            Delivered::Alert(alert) => (Some(with_remarks(alert.trigger, rule)), rehearsed.next()?),
            Delivered::Ignored(ignored) => (None, Rehearsed::ignored(ignored.why.reason)),
            Delivered::Drill { .. } | Delivered::Heartbeat { .. } => return None,
        };
        Some(ForeseenAlert { name: rule.name.clone(), version: version.clone(), percent, trigger, rehearsed })
    });
    Ok(Some(Explained { now, dismissed, alerts: alerts.collect() }))
}

/// What a critical alert on the active version would do, if it began now. While the key holds no version, the alert is on
/// one that had traffic before. `None`: there is none.
pub fn if_critical(policy: &Policy, loaded: &mut Loaded) -> Option<Rehearsed> {
    let version = match loaded.snapshot.active.version() {
        Some(active) => active.clone(),
        None => in_service(policy, &loaded.snapshot, loaded.now).into_iter().next()?.0,
    };
    loaded.now = loaded.now.plus(MOMENT);
    let (severity, action) = (Severity::Critical, Action::Rollback);
    let trigger = Trigger {
        severity,
        action,
        decider: policy.fallback_decider.clone(),
        time_limit: action.default_time_limit(),
        remarks: Vec::new(),
    };
    let alert = Alert {
        fingerprint: "page".to_owned(),
        alertname: "Critical".to_owned(),
        prompt: loaded.snapshot.prompt.clone(),
        version,
        status: AlertStatus::Firing,
        trigger,
        starts_at: Some(loaded.now),
        ends_at: None,
        summary: String::new(),
        description: String::new(),
        value: String::new(),
        verify: String::new(),
        measure: Measure::default(),
        runbook_url: String::new(),
        dashboard_url: String::new(),
        generator_url: String::new(),
        alertmanager_url: String::new(),
        group_labels: GroupLabels::default(),
    };
    Some(rehearse_one(policy, loaded, &alert))
}

/// An alert of `rule` as Alertmanager would deliver it: one that fires already is delivered again, any other begins now.
fn alert(policy: &Policy, rule: &AlertRule, names: &Labels, version: &VersionName, loaded: &Loaded) -> Value {
    let read = READ.into_iter().filter_map(|label| Some((label, rule.labels.get(label)?)));
    let read = read.filter(|(_, value)| !is_template(value));
    let mut labels: Map<String, Value> = read.map(|(label, value)| (label.to_owned(), value.as_str().into())).collect();
    labels.insert("alertname".to_owned(), rule.name.as_str().into());
    labels.insert(names.prompt.clone(), loaded.snapshot.prompt.name().into());
    labels.insert(names.version.clone(), version.as_str().into());
    let known = known_alert(policy, &loaded.snapshot.state, version, &rule.name, loaded.now);
    let began = known.filter(|known| known.firing).and_then(|known| known.starts_at);
    json!({
        "status": "firing",
        "labels": labels,
        "startsAt": rfc3339(began.unwrap_or(loaded.now)),
        "fingerprint": known.map(|known| known.fingerprint),
    })
}

/// A label that Prometheus fills in when the alert fires is read as if it were missing.
fn with_remarks(mut trigger: Trigger, rule: &AlertRule) -> Trigger {
    let templates = READ.into_iter().filter(|label| rule.labels.get(*label).is_some_and(|text| is_template(text)));
    trigger.remarks.extend(templates.map(|label| {
        format!("{label} is a template: its value is known only when the alert fires, so it counts as missing here")
    }));
    trigger
}
