//! What someone's inhibit rules keep back.

use super::alerts::{AlertKind, OurAlert};
use super::faults::Faults;
use super::routing::Review;
use crate::alertmanager::config::InhibitRule;
use crate::alertmanager::matchers::{LabelSet, Matcher};
use crate::cli::check::Probe;
use crate::store::Level;

impl Review<'_> {
    /// The finding about an inhibit rule. `None`: it inhibits none of our alerts.
    pub fn inhibition(&self, rule: &InhibitRule) -> Option<Probe> {
        let inhibited = self.inhibited(rule);
        let first: Vec<&str> = inhibited.iter().take(3).map(|alert| alert.name.as_str()).collect();
        let more = match inhibited.len() - first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let source = match rule.source.as_slice() {
            [] => "any alert".to_owned(),
            all => format!("an alert with {}", all.iter().map(Matcher::to_string).collect::<Vec<_>>().join(", ")),
        };
        let equal = if rule.equal.is_empty() { "" } else { " and the same " };
        let level =
            if inhibited.iter().all(|alert| alert.kind == AlertKind::Own) { Level::Warning } else { Level::Problem };
        let text = format!(
            "inhibits {}{more} while {source}{equal}{} fires: Alertmanager delivers neither an inhibited alert nor its `resolved`",
            first.join(", "),
            rule.equal.join(", "),
        );
        let faults = Faults::from([(level, text)]);
        let probe = || faults.probe(format!("alertmanager {}", rule.path), format!("line {}", rule.line));
        (!inhibited.is_empty()).then(probe)
    }

    /// Our alerts that a rule can inhibit.
    pub fn inhibited(&self, rule: &InhibitRule) -> Vec<&OurAlert> {
        let matches = |matchers: &[Matcher], labels: &LabelSet| matchers.iter().all(|it| it.matches(labels));
        let possible = |alert: &&OurAlert| {
            if alert.kind == AlertKind::Notice || !matches(&rule.target, &alert.labels) {
                return false;
            }
            let two_sided = matches(&rule.source, &alert.labels);
            // An alert with the same name is one of ours, so all its labels are known.
            if rule.equal.iter().any(|name| name == "alertname") {
                let namesakes = self.alerts.iter().filter(|other| other.name == alert.name);
                let mut sources = namesakes.filter(|other| matches(&rule.source, &other.labels));
                return sources.any(|source| !(two_sided && matches(&rule.target, &source.labels)));
            }
            let same = |matcher: &&Matcher| rule.equal.contains(&matcher.name);
            let excluded = two_sided && self.only_itself(rule);
            !excluded && rule.source.iter().filter(same).all(|it| it.matches(&alert.labels))
        };
        self.alerts.iter().filter(possible).collect()
    }

    /// Whether every alert that can be the source of a rule is a target of it too: such alerts do not inhibit one another.
    fn only_itself(&self, rule: &InhibitRule) -> bool {
        let source: Vec<String> = rule.source.iter().map(Matcher::to_string).collect();
        rule.target.iter().all(|matcher| source.contains(&matcher.to_string()))
    }
}
