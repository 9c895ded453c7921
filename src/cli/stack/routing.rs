//! `check --alertmanager-config`: where someone's own Alertmanager sends our alerts, how soon, and what keeps them away.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::alerts::{AlertKind, OurAlert, Sent};
use super::faults::Faults;
use super::lines;
use crate::alertmanager::config::{AlertmanagerFile, Receiver, RouteNode, WEBHOOK_PATH, WebhookEntry};
use crate::alertmanager::payload::DRILL_LABEL;
use crate::cli::check::Probe;
use crate::config::{Config, format_prometheus_duration as written};
use crate::decision::{Policy, Severity};
use crate::store::Level;
use crate::yaml::{Yaml, YamlError, YamlNode};

/// Longer intervals for critical alerts cause a warning.
const LONGEST_GROUP_INTERVAL: Duration = Duration::from_secs(10);
const LONGEST_CRITICAL_REPEAT: Duration = Duration::from_secs(5 * 60);

/// What was found in a file of Alertmanager.
#[derive(Debug, Default)]
pub struct RoutingReport {
    pub probes: Vec<Probe>,
    /// For scripts: each alert with the receivers that it reaches.
    pub alerts: Vec<Value>,
    /// The lines to add, as a patch; empty if there is nothing to add, or nothing that would help.
    pub patch: String,
    /// Problems that the patch does not fix.
    pub remaining: Vec<String>,
    /// Changes that a person must make, because a patch cannot.
    pub by_hand: Vec<String>,
}

/// Follows our alerts, as they leave this Prometheus, through the file.
pub fn review(
    path: &Path,
    text: &str,
    config: &Config,
    sent: &Sent<'_>,
    receiver_url: Option<&str>,
) -> Result<RoutingReport, YamlError> {
    let yaml = Yaml::parse(text)?;
    let node = YamlNode::root(&yaml);
    let alerts = OurAlert::all(config, sent);
    let file = AlertmanagerFile::read(&node)?;
    let review = Review { path, file, config, alerts: &alerts, receiver_url, token_is_there: false };
    let probes = review.probes();
    let for_scripts = alerts.iter().map(|alert| review.for_scripts(alert)).collect();
    let mut routing = RoutingReport { probes, alerts: for_scripts, ..RoutingReport::default() };
    if faults(&routing.probes) == (0, 0) {
        return Ok(routing);
    }
    let edits = lines::missing(text, &node, &review)?;
    // propose only changes that help, not, for example, routes to a pager without a receiver
    match AlertmanagerFile::parse(&edits.applied()) {
        // unless the other half is to be done by hand
        Ok(file) => {
            let patched = Review { file, token_is_there: true, ..review }.probes();
            if !edits.by_hand.is_empty() || faults(&patched) < faults(&routing.probes) {
                routing.patch = edits.patch(&path.display().to_string());
                let remaining = patched.iter().filter(|it| it.level != Level::Ok);
                routing.remaining = remaining.map(|it| it.name.clone()).collect();
            }
            routing.by_hand = edits.by_hand;
        }
        Err(_) => routing.by_hand = edits.all_by_hand(),
    }
    Ok(routing)
}

/// How many failures and warnings.
fn faults(probes: &[Probe]) -> (usize, usize) {
    let count = |level| probes.iter().filter(|probe| probe.level == level).count();
    (count(Level::Problem), count(Level::Warning))
}

/// Someone's Alertmanager, and what passes through it.
pub(super) struct Review<'a> {
    pub path: &'a Path,
    pub file: AlertmanagerFile,
    pub config: &'a Config,
    pub alerts: &'a [OurAlert],
    /// Where Alertmanager reaches the receiver, if it was said.
    pub receiver_url: Option<&'a str>,
    /// Whether to assume that a token's file exists, as after the steps that `init` prints.
    pub token_is_there: bool,
}

impl Review<'_> {
    fn probes(&self) -> Vec<Probe> {
        let delivered = self.alerts.iter().filter(|alert| !matches!(alert.kind, AlertKind::Own | AlertKind::Notice));
        let mut probes: Vec<Probe> = delivered.map(|alert| self.follow(alert)).collect();
        probes.push(self.own_alerts());
        probes.extend(self.file.receivers.iter().filter(|it| is_ours(it)).map(|it| self.receiver(it)));
        probes.extend(self.file.inhibit_rules.iter().filter_map(|rule| self.inhibition(rule)));
        probes
    }

    /// Whether routes must be added.
    pub fn needs_routes(&self) -> bool {
        // if no receiver notifies anybody, no route leads to one
        let someone = self.file.receivers.iter().any(|receiver| receiver.notifies && !is_ours(receiver));
        self.alerts.iter().any(|alert| match alert.kind {
            AlertKind::Own => someone && !self.reaches_people(alert),
            AlertKind::Notice => false,
            AlertKind::Trigger(_) if !someone => !self.ways(alert).any(|faults| faults.count() == (0, 0)),
            _ => self.delivery(alert).count() != (0, 0),
        })
    }

    /// What is wrong with each way of an alert to our receiver.
    fn ways(&self, alert: &OurAlert) -> impl Iterator<Item = Faults> {
        let routes = self.file.routes(&alert.labels).into_iter();
        let ours = routes.filter(|route| self.receiver_of(route).is_some_and(is_ours));
        ours.map(|route| self.faults(alert, route))
    }

    fn receiver_of(&self, route: &RouteNode) -> Option<&Receiver> {
        self.file.receiver(&route.receiver)
    }

    fn faults(&self, alert: &OurAlert, route: &RouteNode) -> Faults {
        let mut faults = Faults::default();
        let repeat = route.repeat();
        let timeout = self.config.incidents.alert_resolve_timeout;
        if repeat >= timeout {
            let expected = format!("less than {} (incidents.alert_resolve_timeout)", written(timeout));
            let why = "an alert that is not repeated for that long counts as ended";
            faults.setting(Level::Problem, "repeat_interval", written(repeat), &expected, why);
        }
        for (key, intervals) in [("mute_time_intervals", &route.muted_in), ("active_time_intervals", &route.active_in)]
        {
            if !intervals.is_empty() {
                let why = "a muted alert is not delivered";
                faults.setting(Level::Problem, key, intervals.join(", "), "none", why);
            }
        }
        if alert.kind == AlertKind::Heartbeat {
            if repeat > Policy::HEARTBEAT / 2 {
                let expected = format!("at most {}", written(Policy::HEARTBEAT / 2));
                let why = "canaries wait while no heartbeat arrives";
                faults.setting(Level::Problem, "repeat_interval", written(repeat), &expected, why);
            }
            return faults;
        }
        let urgent = alert.kind.is_urgent();
        let level = if urgent { Level::Problem } else { Level::Warning };
        if !route.group_wait.is_zero() {
            let why = if urgent {
                "each second of delay means more bad responses"
            } else {
                "the receiver asks people that much later"
            };
            faults.setting(level, "group_wait", written(route.group_wait), "0s", why);
        }
        if route.group_interval > LONGEST_GROUP_INTERVAL {
            let why = "an alert that joins a group waits this long, and a resolved alert too";
            faults.setting(level, "group_interval", written(route.group_interval), "at most 10s", why);
        }
        if urgent && repeat > LONGEST_CRITICAL_REPEAT && repeat < timeout {
            let why = "the receiver retries a rollback that a guard held at each repeat";
            faults.setting(Level::Warning, "repeat_interval", written(repeat), "at most 5m", why);
        }
        if let Some((label, other)) = self.shares_group(alert, route) {
            let text =
                format!("group_by: expected {label} in it: in a group with {other}, it waits for group_interval");
            faults.add(level, text);
        }
        faults
    }

    /// The label that is missing in `group_by`, and the alert that could be in a group with this one.
    fn shares_group(&self, alert: &OurAlert, route: &RouteNode) -> Option<(String, String)> {
        let labels = &self.config.labels;
        let names = [&labels.prompt, &labels.version].into_iter();
        let missing: Vec<&str> = names.map(String::as_str).filter(|name| !route.group_by.separates(name)).collect();
        if !missing.is_empty() {
            return Some((missing.join(" and "), "an alert of another prompt".to_owned()));
        }
        if alert.kind != AlertKind::Trigger(Severity::Critical) {
            return None;
        }
        let value = |alert: &OurAlert, name: &str| alert.labels.get(name).cloned().unwrap_or_default();
        let same_group = |other: &&OurAlert| {
            let mut names = alert.labels.keys().chain(other.labels.keys());
            self.file.routes(&other.labels).iter().any(|it| it.path == route.path)
                && names.all(|name| !route.group_by.separates(name) || value(alert, name) == value(other, name))
        };
        let lesser = |other: &&OurAlert| match other.kind {
            AlertKind::Trigger(severity) => severity < Severity::Critical,
            kind => kind == AlertKind::Drill,
        };
        let other = self.alerts.iter().filter(lesser).find(same_group)?;
        let label = if other.kind == AlertKind::Drill { DRILL_LABEL } else { "severity" };
        Some((label.to_owned(), other.name.clone()))
    }

    fn follow(&self, alert: &OurAlert) -> Probe {
        let shown = |route: &&RouteNode| {
            let RouteNode { receiver, path, line, .. } = route;
            format!(
                "{receiver} after {}, every {} ({path}, line {line})",
                written(route.group_wait),
                written(route.repeat())
            )
        };
        let routes: Vec<String> = self.file.routes(&alert.labels).iter().map(shown).collect();
        let mut faults = self.delivery(alert);
        let pages = matches!(alert.kind, AlertKind::Trigger(Severity::High | Severity::Critical));
        // on purpose, perhaps: the lines to add do not change that
        if pages && self.reaches_people(alert) && !self.always_reaches_people(alert) {
            let text = "expected a receiver that notifies a person at any time: each route to one has mute_time_intervals or active_time_intervals";
            faults.add(Level::Warning, text);
        }
        faults.probe(format!("alertmanager {}", alert.name), format!("reaches {}", routes.join(", and ")))
    }

    /// What is wrong with the best way of an alert to our receiver, and with those to people.
    fn delivery(&self, alert: &OurAlert) -> Faults {
        // one good way is enough: the receiver recognizes duplicates
        let best = self.ways(alert).min_by_key(Faults::count);
        let mut faults = best.unwrap_or_else(|| {
            let text = format!("expected a receiver whose webhook has the path {WEBHOOK_PATH}");
            Faults::from([(Level::Problem, text)])
        });
        match (alert.kind, self.reaches_people(alert)) {
            (AlertKind::Trigger(Severity::High | Severity::Critical), false) => {
                let text = "expected also a receiver that notifies a person, for the time when prompt-rollback is down";
                faults.add(Level::Warning, text);
            }
            (AlertKind::Heartbeat, true) => {
                faults.add(Level::Warning, "expected no receiver that notifies a person: this alert always fires");
            }
            (AlertKind::Drill, true) => {
                faults.add(Level::Warning, "expected no receiver that notifies a person: a drill is not an emergency");
            }
            _ => {}
        }
        faults
    }

    /// Whether somebody is notified of it, apart from our receiver.
    fn reaches_people(&self, alert: &OurAlert) -> bool {
        self.file.routes(&alert.labels).into_iter().any(|route| self.notifies(route))
    }

    fn always_reaches_people(&self, alert: &OurAlert) -> bool {
        self.file.routes(&alert.labels).into_iter().any(|route| self.notifies(route) && route.is_always_on())
    }

    fn notifies(&self, route: &RouteNode) -> bool {
        self.receiver_of(route).is_some_and(|receiver| receiver.notifies)
    }

    /// Whether one of the file's own routes takes a drill to somebody.
    pub fn drills_notify(&self) -> bool {
        let drills = self.alerts.iter().filter(|alert| alert.kind == AlertKind::Drill);
        let mut routes = drills.flat_map(|alert| self.file.routes(&alert.labels)).filter(|route| route.path != "route");
        routes.any(|route| self.notifies(route))
    }

    fn own_alerts(&self) -> Probe {
        let own = || self.alerts.iter().filter(|alert| alert.kind == AlertKind::Own);
        let routes = own().flat_map(|alert| self.file.routes(&alert.labels));
        let receivers: BTreeSet<&str> = routes.map(|route| route.receiver.as_str()).collect();
        let lost = own().filter(|alert| !self.always_reaches_people(alert)).map(|alert| alert.name.as_str());
        let lost: Vec<&str> = lost.collect();
        let mut faults = Faults::default();
        if !lost.is_empty() {
            let first = lost.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            let text =
                format!("{} of them reach no receiver that notifies a person at any time, such as {first}", lost.len());
            faults.add(Level::Warning, text);
        }
        let receivers = receivers.into_iter().collect::<Vec<_>>().join(", ");
        let detail = format!("{} alerts about prompt-rollback reach {receivers}", own().count());
        faults.probe("alertmanager own alerts".to_owned(), detail)
    }

    fn for_scripts(&self, alert: &OurAlert) -> Value {
        let receivers: Vec<Value> = self
            .file
            .routes(&alert.labels)
            .iter()
            .map(|route| {
                json!({
                    "receiver": route.receiver, "route": route.path, "line": route.line,
                    "group_wait": written(route.group_wait), "group_interval": written(route.group_interval),
                    "repeat_interval": written(route.repeat()),
                    "mute_time_intervals": route.muted_in, "active_time_intervals": route.active_in,
                })
            })
            .collect();
        let rules = self.file.inhibit_rules.iter();
        let inhibited_by: Vec<&str> = rules
            .filter(|rule| self.inhibited(rule).iter().any(|it| it.labels == alert.labels))
            .map(|rule| rule.path.as_str())
            .collect();
        json!({ "alert": alert.name, "labels": alert.labels, "receivers": receivers, "inhibited_by": inhibited_by })
    }
}

pub(super) fn is_ours(receiver: &Receiver) -> bool {
    receiver.webhooks.iter().any(WebhookEntry::is_ours)
}
