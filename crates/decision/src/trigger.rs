//! The trigger table: what an alert's labels ask for.

use std::time::Duration;

use super::policy::Policy;
use super::severity::{Action, Severity};
use super::time::spoken;

/// The labels that the table reads, as delivered.
#[derive(Debug, Clone, Copy, Default)]
pub struct TriggerLabels<'a> {
    pub severity: Option<&'a str>,
    pub action: Option<&'a str>,
    pub decider: Option<&'a str>,
    /// The label's text and, if it is a Prometheus duration above zero, its value.
    pub time_limit: Option<(&'a str, Option<Duration>)>,
}

/// One row of the trigger table, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub severity: Severity,
    pub action: Action,
    pub decider: String,
    pub time_limit: Duration,
    /// Labels that were not understood, and how they were interpreted: shown in the incident, so that people fix the
    /// rule.
    pub remarks: Vec<String>,
}

impl Trigger {
    pub const SYSTEM: &'static str = "system";
    /// Bounds of a time limit: a person needs a minute to read the question, and a question must escalate within a day.
    pub const SHORTEST: Duration = Duration::from_secs(60);
    pub const LONGEST: Duration = Duration::from_secs(24 * 3_600);

    /// Whether the config knows this decider, or it is the receiver itself.
    pub(crate) fn knows(decider: &str, policy: &Policy) -> bool {
        let known = &policy.deciders;
        decider == Self::SYSTEM || decider == policy.fallback_decider || known.iter().any(|known| known == decider)
    }

    pub fn read(labels: TriggerLabels<'_>, policy: &Policy) -> Self {
        let mut remarks = Vec::new();
        let severity = match labels.severity {
            None => Severity::High,
            Some(text) => policy.severity(text).unwrap_or_else(|| {
                remarks.push(format!("unknown severity {}: treated as high", quoted(text)));
                Severity::High
            }),
        };
        let action = match labels.action {
            None => match severity {
                Severity::Critical => Action::Rollback,
                Severity::High => Action::Page,
                Severity::Medium => Action::Observe,
            },
            Some(text) => match Action::parse(text) {
                Some(Action::Rollback) if severity < Severity::Critical => {
                    remarks.push(format!("action \"rollback\" on a {severity} alert: treated as page"));
                    Action::Page
                }
                Some(action) => action,
                None => {
                    remarks.push(format!("unknown action {}: treated as page", quoted(text)));
                    Action::Page
                }
            },
        };
        let decider = match labels.decider {
            Some(Self::SYSTEM) if action == Action::Rollback => Self::SYSTEM.to_owned(),
            Some(name) if policy.deciders.iter().any(|known| known == name) => name.to_owned(),
            // a held rollback goes to the fallback decider anyway, so a missing decider needs no remark
            None if action == Action::Rollback => Self::SYSTEM.to_owned(),
            None | Some(Self::SYSTEM) => policy.fallback_decider.clone(),
            Some(name) => {
                remarks.push(format!("unknown decider {}: {} decides", quoted(name), policy.fallback_decider));
                policy.fallback_decider.clone()
            }
        };
        let time_limit = match labels.time_limit {
            Some((text, Some(limit))) => {
                let bounded = limit.clamp(Self::SHORTEST, Self::LONGEST);
                if bounded != limit {
                    remarks.push(format!(
                        "time_limit {} is outside of 1m to 24h: {} taken",
                        quoted(text),
                        spoken(bounded)
                    ));
                }
                bounded
            }
            Some((text, None)) => {
                let limit = action.default_time_limit();
                remarks.push(format!("time_limit {} is no duration: {} s taken", quoted(text), limit.as_secs()));
                limit
            }
            None => action.default_time_limit(),
        };
        Self { severity, action, decider, time_limit, remarks }
    }
}

/// Escapes and shortens a label for the log.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(severity: Option<&str>, action: Option<&str>, decider: Option<&str>) -> Trigger {
        let labels = TriggerLabels { severity, action, decider, time_limit: None };
        Trigger::read(labels, &Policy::default())
    }

    #[test]
    fn missing_labels_take_the_rows_defaults() {
        let rows = [
            (Some("critical"), Severity::Critical, Action::Rollback, "system", 120),
            (Some("high"), Severity::High, Action::Page, "on-call", 300),
            (Some("medium"), Severity::Medium, Action::Observe, "on-call", 3_600),
            (Some("warning"), Severity::High, Action::Page, "on-call", 300),
            (Some("info"), Severity::Medium, Action::Observe, "on-call", 3_600),
            (None, Severity::High, Action::Page, "on-call", 300),
        ];
        for (label, severity, action, decider, limit) in rows {
            let trigger = read(label, None, None);
            assert_eq!((trigger.severity, trigger.action), (severity, action), "{label:?}");
            assert_eq!((trigger.decider.as_str(), trigger.time_limit.as_secs()), (decider, limit), "{label:?}");
            assert!(trigger.remarks.is_empty(), "{label:?}");
        }
    }

    #[test]
    fn what_is_not_understood_asks_a_person_and_says_so() {
        let rows = [
            (read(Some("catastrophic"), None, None), Severity::High, Action::Page),
            (read(Some("critical"), Some("explode"), None), Severity::Critical, Action::Page),
            (read(Some("high"), Some("rollback"), Some("system")), Severity::High, Action::Page),
            (read(Some("high"), Some("page"), Some("the-ceo")), Severity::High, Action::Page),
        ];
        for (trigger, severity, action) in rows {
            assert_eq!((trigger.severity, trigger.action), (severity, action));
            assert_eq!(trigger.decider, "on-call");
            assert_eq!(trigger.remarks.len(), 1, "{:?}", trigger.remarks);
        }
    }

    #[test]
    fn a_time_limit_that_is_no_duration_takes_the_default() {
        let labels = TriggerLabels { time_limit: Some(("soon", None)), ..TriggerLabels::default() };
        let trigger = Trigger::read(labels, &Policy::default());
        assert_eq!(trigger.time_limit, Duration::from_secs(300));
        assert_eq!(trigger.remarks.len(), 1);
    }

    #[test]
    fn a_time_limit_is_kept_within_a_minute_and_a_day() {
        let read = |text, seconds: f64| {
            let limit = Duration::from_secs_f64(seconds);
            let labels = TriggerLabels { time_limit: Some((text, Some(limit))), ..TriggerLabels::default() };
            let trigger = Trigger::read(labels, &Policy::default());
            (trigger.time_limit.as_secs(), trigger.remarks.len())
        };
        assert_eq!(read("1ms", 0.001), (60, 1));
        assert_eq!(read("59s", 59.0), (60, 1));
        assert_eq!(read("1m", 60.0), (60, 0));
        assert_eq!(read("24h", 86_400.0), (86_400, 0));
        assert_eq!(read("999999h", 999_999.0 * 3_600.0), (86_400, 1));
    }

    #[test]
    fn a_named_decider_is_kept() {
        assert_eq!(read(Some("high"), Some("recommend"), Some("product-pm")).decider, "product-pm");
        assert_eq!(read(Some("critical"), Some("rollback"), Some("system")).decider, "system");
    }
}
