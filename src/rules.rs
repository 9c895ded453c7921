//! Alert rules: what a rule says about its alerts. The shipped rules, those that Prometheus has, and requests for them.

pub mod files;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::format_prometheus_duration;

/// Labels that only the receiver reads. Other rules have a `severity` as well.
const OURS: [&str; 3] = ["action", "decider", "time_limit"];
/// Requests that wait for the rules.
const MOST: usize = 64;

/// An alert rule, without its expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRule {
    pub name: String,
    /// As written in the rule: a value may be a template, which Prometheus fills in when the alert fires.
    pub labels: BTreeMap<String, String>,
}

impl AlertRule {
    /// Whether its labels tell the receiver what to do.
    pub fn is_trigger(&self) -> bool {
        OURS.iter().any(|label| self.labels.contains_key(*label))
    }
}

/// Alert rules, and where they come from.
#[derive(Debug, Clone)]
pub struct Rules {
    pub all: Arc<[AlertRule]>,
    pub from: RuleSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    Prometheus,
    /// The shipped rules; and, if a Prometheus is configured, why its rules are not known.
    Shipped(Option<String>),
}

impl Rules {
    pub fn of_prometheus(rules: Vec<AlertRule>) -> Self {
        if !rules.iter().any(AlertRule::is_trigger) {
            let labels = OURS.join(", ");
            return Self::shipped(Some(format!("no alert rule of Prometheus has one of the labels {labels}")));
        }
        Self { all: rules.into(), from: RuleSource::Prometheus }
    }

    pub fn shipped(fault: Option<String>) -> Self {
        let triggers = files::shipped("alerts.yml").into_iter().flat_map(|group| group.alerts);
        Self { all: triggers.collect(), from: RuleSource::Shipped(fault) }
    }
}

#[derive(Deserialize)]
struct RulesResponse {
    data: RulesData,
}

#[derive(Deserialize)]
struct RulesData {
    groups: Vec<GroupResponse>,
}

#[derive(Deserialize)]
struct GroupResponse {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Parses the answer of Prometheus to `/api/v1/rules`. `None`: it is something else.
pub fn parse(body: &[u8]) -> Option<Vec<AlertRule>> {
    let response: RulesResponse = serde_json::from_slice(body).ok()?;
    let rules = response.data.groups.into_iter().flat_map(|group| group.rules);
    let alerts = rules.filter(|rule| rule.kind == "alerting");
    Some(alerts.map(|rule| AlertRule { name: rule.name, labels: rule.labels.unwrap_or_default() }).collect())
}

/// Requests the alert rules from the worker that reads them.
#[derive(Debug, Clone)]
pub struct RuleBook(mpsc::Sender<oneshot::Sender<Rules>>);

/// Requests for the rules, for the task that reads them.
#[derive(Debug)]
pub struct RuleRequests(mpsc::Receiver<oneshot::Sender<Rules>>);

impl RuleBook {
    pub fn new() -> (Self, RuleRequests) {
        let (book, requests) = mpsc::channel(MOST);
        (Self(book), RuleRequests(requests))
    }

    /// The rules that Prometheus has, or the shipped ones if they are not read within `patience`.
    pub async fn rules(&self, patience: Duration) -> Rules {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.0.send(answer).await.ok()?;
            answered.await.ok()
        };
        let rules = timeout(patience, asked).await.ok().flatten();
        rules.unwrap_or_else(|| {
            let patience = format_prometheus_duration(patience);
            Rules::shipped(Some(format!("the rules of Prometheus were not read within {patience}")))
        })
    }
}

impl RuleRequests {
    /// All requests that wait, at least one. `None` after the last [`RuleBook`] was dropped.
    pub async fn next(&mut self) -> Option<Vec<oneshot::Sender<Rules>>> {
        let mut waiting = vec![self.0.recv().await?];
        while let Ok(more) = self.0.try_recv() {
            waiting.push(more);
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_are_those_of_the_file() {
        let rules = Rules::shipped(None);
        assert_eq!(rules.all.len(), 9);
        assert!(rules.all.iter().all(|rule| rule.is_trigger() && rule.labels.len() == 4), "{rules:?}");
        let critical = &rules.all[0];
        assert_eq!(critical.name, "PromptErrorRateCritical");
        let labels = [("action", "rollback"), ("decider", "system"), ("severity", "critical"), ("time_limit", "2m")];
        assert_eq!(critical.labels, labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn only_alert_rules_are_read_and_anything_else_is_no_answer() {
        let rules = r#"{"status":"success","data":{"groups":[{"name":"g","rules":[
            {"type":"recording","name":"a:b:c","query":"1"},
            {"type":"alerting","name":"NodeDown","labels":{"severity":"critical"},"alerts":[{"labels":{}}]},
            {"type":"alerting","name":"Ours","labels":{"action":"page"}},
            {"type":"alerting","name":"Bare","labels":null}
        ]}]}}"#;
        let rules = parse(rules.as_bytes()).expect("rules");
        let named: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.is_trigger())).collect();
        assert_eq!(named, [("NodeDown", false), ("Ours", true), ("Bare", false)]);
        assert_eq!(Rules::of_prometheus(rules).from, RuleSource::Prometheus);
        let none = Rules::of_prometheus(Vec::new());
        let RuleSource::Shipped(Some(why)) = &none.from else { panic!("{none:?}") };
        assert_eq!(why, "no alert rule of Prometheus has one of the labels action, decider, time_limit");
        for other in ["", "ok", "{}", "[]", r#"{"data":[]}"#, r#"{"data":{"groups":[{"rules":[1]}]}}"#, "\u{0}"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_the_shipped_rules_are_taken() {
        let (book, _requests) = RuleBook::new();
        let said = |rules: Rules| match rules.from {
            RuleSource::Shipped(Some(why)) => why,
            other => panic!("{other:?}"),
        };
        let patience = Duration::from_millis(1_500);
        assert_eq!(said(book.rules(patience).await), "the rules of Prometheus were not read within 1s500ms");
        let (book, requests) = RuleBook::new();
        drop(requests);
        assert!(said(book.rules(patience).await).contains("not read"));
    }
}
