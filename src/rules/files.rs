//! Rule files: their groups and alerts. Pure.

use std::time::Duration;

use super::AlertRule;
use crate::config::parse_prometheus_duration;
use crate::yaml::{Yaml, YamlError, YamlNode};

/// The files of `alert-rules/`, with their names there.
pub const SHIPPED: [(&str, &str); 8] = [
    ("native.yml", include_str!("../../alert-rules/native.yml")),
    ("native-histograms.yml", include_str!("../../alert-rules/native-histograms.yml")),
    ("otel.yml", include_str!("../../alert-rules/otel.yml")),
    ("otel-native-histograms.yml", include_str!("../../alert-rules/otel-native-histograms.yml")),
    ("baselines.yml", include_str!("../../alert-rules/baselines.yml")),
    ("alerts.yml", include_str!("../../alert-rules/alerts.yml")),
    ("heartbeat.yml", include_str!("../../alert-rules/heartbeat.yml")),
    ("self.yml", include_str!("../../alert-rules/self.yml")),
];

/// A group of a rule file.
#[derive(Debug, Clone)]
pub struct RuleGroup {
    pub name: String,
    /// `None`: Prometheus' `global.evaluation_interval`.
    pub interval: Option<Duration>,
    /// `None`: Prometheus' `global.rule_query_offset`.
    pub query_offset: Option<Duration>,
    pub alerts: Vec<AlertRule>,
}

/// The groups of a rule file.
pub fn groups(text: &str) -> Result<Vec<RuleGroup>, YamlError> {
    let yaml = Yaml::parse(text)?;
    let mut groups = Vec::new();
    for group in YamlNode::root(&yaml).list("groups")? {
        let mut alerts = Vec::new();
        // newer versions of Prometheus take labels for all rules of a group
        let of_group = group.table("labels")?;
        for rule in group.list("rules")? {
            if let Some(name) = rule.text_of("alert")? {
                let labels = of_group.iter().cloned().chain(rule.table("labels")?).collect();
                alerts.push(AlertRule { name, labels });
            }
        }
        let duration = |key| group.read(key, "a duration such as 5s", |text| parse_prometheus_duration(text).ok());
        groups.push(RuleGroup {
            name: group.text_of("name")?.ok_or_else(|| group.error("expected the key name"))?,
            interval: duration("interval")?,
            query_offset: duration("query_offset")?,
            alerts,
        });
    }
    Ok(groups)
}

/// The groups of a shipped file.
pub fn shipped(name: &str) -> Vec<RuleGroup> {
    let text = SHIPPED.iter().find(|(one, _)| *one == name).map_or("", |(_, text)| text);
    groups(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_files_are_understood() {
        for (name, text) in SHIPPED {
            let groups = groups(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!groups.is_empty(), "{name}");
            let alerts: usize = groups.iter().map(|group| group.alerts.len()).sum();
            assert_eq!(alerts, text.matches("- alert: ").count(), "{name}");
            assert_eq!(
                groups.iter().filter(|group| group.interval.is_some()).count(),
                text.matches("\n    interval: ").count(),
                "{name}"
            );
        }
    }
}
