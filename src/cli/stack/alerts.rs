//! The alerts that must arrive: those of the shipped rules, and those that the receiver posts itself.

use crate::alertmanager::matchers::LabelSet;
use crate::alertmanager::payload::{DRILL_ALERT, DRILL_LABEL};
use crate::config::Config;
use crate::decision::Severity;
use crate::prometheus::config::PrometheusFile;
use crate::rules::AlertRule;
use crate::rules::files::{self, RuleGroup};

/// The prompt of the alerts that are followed through the routes.
const PROMPT: &str = "customer-support";

/// What an alert is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AlertKind {
    Trigger(Severity),
    Drill,
    Heartbeat,
    /// About prompt-rollback itself: for people only.
    Own,
    /// About prompt-rollback itself, and needs no action: any receiver will do, or none.
    Notice,
}

impl AlertKind {
    /// Whether it must not wait for others.
    pub fn is_urgent(self) -> bool {
        matches!(self, AlertKind::Trigger(Severity::Critical) | AlertKind::Drill)
    }
}

/// An alert of ours, as Prometheus or the receiver sends it.
#[derive(Debug, Clone)]
pub(super) struct OurAlert {
    pub name: String,
    pub kind: AlertKind,
    pub labels: LabelSet,
}

/// What happens to the labels of our alerts on their way to Alertmanager.
#[derive(Debug, Default)]
pub(super) struct Sent<'a> {
    pub prometheus: Option<&'a PrometheusFile>,
    /// The groups of its rule files, whose alerts may have more labels than the shipped ones.
    pub groups: &'a [RuleGroup],
    /// Labels that every alert has, also those of the receiver.
    pub labels: &'a [(String, String)],
}

impl Sent<'_> {
    /// The alerts of a shipped group, with the labels that they have in the loaded group of this name.
    fn labelled(&self, shipped: &RuleGroup) -> Vec<(String, LabelSet)> {
        let loaded = self.groups.iter().filter(|group| group.name == shipped.name);
        let mut loaded: Vec<_> = loaded.flat_map(|group| &group.alerts).collect();
        let labels = |alert: &AlertRule| match loaded.iter().position(|one| one.name == alert.name) {
            // a group may have several alerts of one name, in this order
            Some(at) => loaded.remove(at).labels.clone(),
            None => alert.labels.clone(),
        };
        shipped.alerts.iter().map(|alert| alert.name.clone()).zip(shipped.alerts.iter().map(labels)).collect()
    }

    fn with_labels(&self, mut labels: LabelSet) -> LabelSet {
        for (name, value) in self.labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        labels
    }
}

impl OurAlert {
    /// All alerts of the shipped rules as they leave this Prometheus.
    pub fn of_rules(config: &Config, sent: &Sent<'_>) -> Vec<Self> {
        let policy = config.policy();
        let mut all = Vec::new();
        for file in ["alerts.yml", "heartbeat.yml", "self.yml"] {
            for (name, mut labels) in files::shipped(file).iter().flat_map(|group| sent.labelled(group)) {
                labels.insert("alertname".to_owned(), name.clone());
                if file == "alerts.yml" {
                    labels.extend(of_prompt(config));
                }
                let labels = sent.with_labels(labels);
                let labels = match sent.prometheus {
                    None => Some(labels),
                    Some(prometheus) => prometheus.sent(labels),
                };
                let Some(labels) = labels else { continue };
                let severity = labels.get("severity").and_then(|word| policy.severity(word));
                let kind = match file {
                    "heartbeat.yml" => AlertKind::Heartbeat,
                    "self.yml" if labels.get("severity").is_some_and(|severity| severity == "info") => {
                        AlertKind::Notice
                    }
                    "self.yml" => AlertKind::Own,
                    _ => AlertKind::Trigger(severity.unwrap_or(Severity::High)),
                };
                all.push(Self { name, kind, labels });
            }
        }
        all
    }

    /// Those, and what the receiver itself posts to Alertmanager: the drill and the escalation.
    pub fn all(config: &Config, sent: &Sent<'_>) -> Vec<Self> {
        let mut all = Self::of_rules(config, sent);
        let of_prompt = of_prompt(config);
        let posted = |name: &str, kind, more: Vec<(String, String)>| {
            let mut labels: LabelSet = config.alertmanager.labels.clone();
            labels.extend([("alertname".to_owned(), name.to_owned()), ("severity".to_owned(), "critical".to_owned())]);
            labels.extend(more);
            let labels = sent.with_labels(labels);
            Self { name: name.to_owned(), kind, labels }
        };
        let mut of_drill = of_prompt.to_vec();
        of_drill.push((DRILL_LABEL.to_owned(), "01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned()));
        of_drill.push(("action".to_owned(), "rollback".to_owned()));
        all.push(posted(DRILL_ALERT, AlertKind::Drill, of_drill));
        let of_escalation = vec![(of_prompt[0].0.clone(), PROMPT.to_owned())];
        all.push(posted("PromptRollbackEscalation", AlertKind::Own, of_escalation));
        all
    }
}

/// The labels of a prompt and its version.
fn of_prompt(config: &Config) -> [(String, String); 2] {
    [(&config.labels.prompt, PROMPT), (&config.labels.version, "v2.0.0")]
        .map(|(name, value)| (name.clone(), value.to_owned()))
}
