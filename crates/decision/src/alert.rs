//! Alerts: as delivered, and as an incident records them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, millis};
use super::labels::GroupLabels;
use super::names::{PromptName, VersionName};
use super::policy::Policy;
use super::severity::{Action, Severity};
use super::time::Timestamp;
use super::trigger::Trigger;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertStatus {
    Firing,
    Resolved,
}

/// One alert with valid names, after the trigger table was applied to its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub fingerprint: String,
    pub alertname: String,
    pub prompt: PromptName,
    pub version: VersionName,
    pub status: AlertStatus,
    pub trigger: Trigger,
    pub starts_at: Option<Timestamp>,
    /// For a resolved alert: when it ended, by the sender's clock.
    pub ends_at: Option<Timestamp>,
    pub summary: String,
    pub description: String,
    pub value: String,
    pub verify: String,
    pub measure: Measure,
    pub runbook_url: String,
    pub dashboard_url: String,
    pub generator_url: String,
    pub alertmanager_url: String,
    pub group_labels: GroupLabels,
}

/// What a rule measures, in the words of its annotations. Empty where the rule does not say it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measure {
    /// The recorded series, by prompt and version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: String,
    /// The metric's name for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub label: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub threshold: String,
    /// What the measured value was compared with, formatted for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reference: String,
}

impl Alert {
    /// When it began to fire, by the sender's clock. `None` if that time is implausible: before 1970 (such as
    /// `0001-01-01`), or in the future.
    pub fn began(&self, now: Timestamp) -> Option<Timestamp> {
        plausible(self.starts_at, now)
    }

    /// When it ended, by the sender's clock. `None` if that time is implausible.
    pub fn ended(&self, now: Timestamp) -> Option<Timestamp> {
        plausible(self.ends_at, now)
    }
}

pub(crate) fn plausible(starts_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    starts_at.filter(|at| at.0 > 0 && *at <= now)
}

/// One alert as an incident records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRecord {
    pub fingerprint: String,
    pub alertname: String,
    pub severity: Severity,
    pub action: Action,
    pub decider: String,
    #[serde(with = "millis")]
    pub time_limit: Duration,
    pub firing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    pub first_seen: Timestamp,
    /// Updated at most once per [`Policy::refresh_after`].
    pub last_seen: Timestamp,
    /// Whether Alertmanager's API has ever listed it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub listed: bool,
    /// Since when the API no longer lists it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub summary: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub value: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub measure: Measure,
    #[serde(default, skip_serializing_if = "is_default")]
    pub runbook_url: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub dashboard_url: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub generator_url: String,
    /// The external URL of the Alertmanager that sent it, for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub alertmanager_url: String,
    #[serde(rename = "shares", default, skip_serializing_if = "is_default")]
    pub group_labels: GroupLabels,
}

impl AlertRecord {
    /// Texts that Alertmanager can show as well.
    fn details(&mut self) -> [&mut String; 5] {
        let Self { description, runbook_url, dashboard_url, generator_url, alertmanager_url, .. } = self;
        [description, runbook_url, dashboard_url, generator_url, alertmanager_url]
    }

    /// Leaves out details of the least important alerts, so that all together have at most
    /// [`Policy::MAX_ALERT_DETAILS`].
    pub(crate) fn limit_details<'a>(records: impl Iterator<Item = &'a mut Self>) {
        let mut records: Vec<_> = records.collect();
        let length = |record: &mut &mut Self| record.details().iter().map(|text| text.len()).sum::<usize>();
        let mut all: usize = records.iter_mut().map(length).sum();
        if all <= Policy::MAX_ALERT_DETAILS {
            return;
        }
        records.sort_by(|a, b| (a.firing, a.rank(), &a.fingerprint).cmp(&(b.firing, b.rank(), &b.fingerprint)));
        for record in &mut records {
            if all <= Policy::MAX_ALERT_DETAILS {
                return;
            }
            all -= length(record);
            record.details().into_iter().for_each(String::clear);
        }
    }

    /// Restores the alert as it was delivered. Without a plausible start time, it began when it was first seen.
    pub fn to_alert(&self, prompt: &PromptName, version: &VersionName) -> Alert {
        let Self { severity, action, decider, time_limit, .. } = self.clone();
        let usable = self.began(self.first_seen).filter(|at| self.first_seen.since(*at) < Policy::KNOWN_LATE);
        Alert {
            fingerprint: self.fingerprint.clone(),
            alertname: self.alertname.clone(),
            prompt: prompt.clone(),
            version: version.clone(),
            status: AlertStatus::Firing,
            trigger: Trigger { severity, action, decider, time_limit, remarks: Vec::new() },
            starts_at: usable.or(Some(self.first_seen)),
            ends_at: None,
            summary: self.summary.clone(),
            description: self.description.clone(),
            value: self.value.clone(),
            verify: self.verify.clone(),
            measure: self.measure.clone(),
            runbook_url: self.runbook_url.clone(),
            dashboard_url: self.dashboard_url.clone(),
            generator_url: self.generator_url.clone(),
            alertmanager_url: self.alertmanager_url.clone(),
            group_labels: self.group_labels.clone(),
        }
    }

    pub fn new(alert: &Alert, now: Timestamp) -> Self {
        Self {
            fingerprint: alert.fingerprint.clone(),
            alertname: alert.alertname.clone(),
            severity: alert.trigger.severity,
            action: alert.trigger.action,
            decider: alert.trigger.decider.clone(),
            time_limit: alert.trigger.time_limit,
            firing: true,
            starts_at: alert.starts_at,
            first_seen: now,
            last_seen: now,
            listed: false,
            absent_since: None,
            summary: alert.summary.clone(),
            description: alert.description.clone(),
            value: alert.value.clone(),
            verify: alert.verify.clone(),
            measure: alert.measure.clone(),
            runbook_url: alert.runbook_url.clone(),
            dashboard_url: alert.dashboard_url.clone(),
            generator_url: alert.generator_url.clone(),
            alertmanager_url: alert.alertmanager_url.clone(),
            group_labels: alert.group_labels.clone(),
        }
    }

    /// Whether `alert` is a repeat that asks for nothing new.
    pub fn covers(&self, alert: &Alert) -> bool {
        self.firing
            && self.fingerprint == alert.fingerprint
            && self.severity >= alert.trigger.severity
            && self.action >= alert.trigger.action
    }

    pub fn rank(&self) -> (Action, Severity) {
        (self.action, self.severity)
    }

    /// See [`Alert::began`].
    pub fn began(&self, now: Timestamp) -> Option<Timestamp> {
        plausible(self.starts_at, now)
    }
}
