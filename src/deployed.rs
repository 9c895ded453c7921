//! Facts from deployment logs, for people: since when, and by whom, each version serves, and what else changed shortly
//! before. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::{Incident, LogEvent, PromptName, Timestamp};

/// A change this shortly before an incident may be related.
pub const WITHIN: Duration = Duration::from_secs(3_600);
/// Other prompts that are named; the rest is counted.
pub const NAMED: usize = 3;

/// The group that the alerts of an incident name, by the rules of a prompt's name, because keys have its encoded form.
pub fn group_of(incident: &Incident) -> Option<PromptName> {
    PromptName::of(&incident.group_labels().group).ok()
}

/// An entry of a deployment log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentEntry {
    pub at: Timestamp,
    /// The word of [`LogEvent::as_str`].
    pub event: String,
    pub from: String,
    pub to: String,
    pub operator: String,
    pub reason: String,
    /// The id of its incident, or empty.
    pub incident: String,
}

impl DeploymentEntry {
    /// `None` for an entry without a time, which cannot be sorted.
    pub fn read(fields: &[(String, String)]) -> Option<Self> {
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let at: jiff::Timestamp = field("at").parse().ok()?;
        Some(Self {
            at: Timestamp(at.as_millisecond()),
            event: field("event"),
            from: field("from"),
            to: field("to"),
            operator: field("operator"),
            reason: field("reason"),
            incident: field("incident"),
        })
    }

    /// Whether the active version changed; false for a mark.
    pub fn is_change(&self) -> bool {
        is_change(&self.event)
    }

    fn shares(&self) -> bool {
        [LogEvent::Canary, LogEvent::Gradual].iter().any(|event| event.as_str() == self.event)
    }
}

/// Whether this word of a log entry stands for a change of the active version.
pub fn is_change(event: &str) -> bool {
    LogEvent::parse(event).is_none_or(LogEvent::is_change)
}

/// The facts about one prompt at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deployed {
    /// Each version with traffic.
    pub in_service: Vec<Deployment>,
    /// Other prompts that changed within the hour: those of the same group first, then the latest. At most [`NAMED`].
    pub others: Vec<Other>,
    /// How many more there are, or the least number.
    pub more: usize,
    pub at_least: bool,
}

/// How a version got its traffic: the first of it, or all of it after a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deployment {
    pub version: String,
    /// When it last got traffic after having none. `None`: before the entries that were read.
    pub since: Option<i64>,
    pub event: String,
    pub operator: String,
}

/// The last change of another prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Other {
    pub prompt: String,
    pub at: i64,
    pub event: String,
    pub from: String,
    pub to: String,
    pub operator: String,
    /// Whether its alerts carry the same `group`.
    pub same_group: bool,
}

impl Deployment {
    pub fn since(&self) -> Option<Timestamp> {
        self.since.map(Timestamp)
    }
}

impl Other {
    pub fn new(prompt: String, entry: DeploymentEntry, same_group: bool) -> Self {
        let DeploymentEntry { at, event, from, to, operator, .. } = entry;
        Self { prompt, at: at.0, event, from, to, operator, same_group }
    }
}

/// The versions with traffic after the last of these entries, which are sorted by age, oldest first.
pub fn in_service<'a>(log: impl Iterator<Item = &'a DeploymentEntry>) -> Vec<Deployment> {
    let mut serving: Vec<Deployment> = Vec::new();
    for entry in log.filter(|entry| entry.is_change()) {
        let served = |version: &str| serving.iter().find(|placed| placed.version == version).cloned();
        let gains = || Deployment {
            version: entry.to.clone(),
            since: Some(entry.at.0),
            event: entry.event.clone(),
            operator: entry.operator.clone(),
        };
        let unknown = || Deployment { version: entry.from.clone(), ..Deployment::default() };
        let arrives = |version: &str| matches!(&serving[..], [_, arriving] if arriving.version == version);
        serving = match (entry.to.is_empty(), entry.shares()) {
            (true, _) => Vec::new(),
            (false, true) => vec![served(&entry.from).unwrap_or_else(unknown), served(&entry.to).unwrap_or_else(gains)],
            (false, false) => match served(&entry.to) {
                // who gave it all traffic is asked about it, not who gave it the first
                Some(placed) if arrives(&entry.to) => vec![Deployment { since: placed.since, ..gains() }],
                placed => vec![placed.unwrap_or_else(gains)],
            },
        };
    }
    serving
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: i64, event: &str, from: &str, to: &str, operator: &str) -> DeploymentEntry {
        let [event, from, to, operator] = [event, from, to, operator].map(str::to_owned);
        DeploymentEntry { at: Timestamp(at), event, from, to, operator, ..DeploymentEntry::default() }
    }

    fn told(log: &[DeploymentEntry]) -> Vec<String> {
        let one = |placed: &Deployment| {
            let since = placed.since.map_or("?".to_owned(), |since| since.to_string());
            format!("{} {since} {}", placed.version, placed.operator)
        };
        in_service(log.iter()).iter().map(one).collect()
    }

    #[test]
    fn a_version_serves_since_it_gained_traffic_from_none() {
        let mut log = vec![entry(1, "activate", "", "v1", "mia"), entry(2, "activate", "v1", "v2", "ci")];
        assert_eq!(told(&log), ["v2 2 ci"]);
        log.push(entry(3, "canary", "v2", "v3", "bo"));
        log.push(entry(4, "canary", "v2", "v3", "bo"));
        assert_eq!(told(&log), ["v2 2 ci", "v3 3 bo"], "a stage is no activation");
        let stopped = [&log[..], &[entry(5, "activate", "v3", "v2", "bo")]].concat();
        assert_eq!(told(&stopped), ["v2 2 ci"], "it never lost its traffic");
        let mut finished = [&log[..], &[entry(5, "activate", "v2", "v3", "mia")]].concat();
        assert_eq!(told(&finished), ["v3 3 mia"], "who gave it all traffic");
        finished.push(entry(6, "activate", "v3", "v3", "ci"));
        assert_eq!(told(&finished), ["v3 3 mia"], "it had it already");
        log.push(entry(5, "rollback", "v3", "v1", "system"));
        assert_eq!(told(&log), ["v1 5 system"], "served before, and not since");
    }

    #[test]
    fn a_mark_deploys_nothing_and_a_deleted_key_serves_nothing() {
        let mut log = vec![entry(1, "activate", "v1", "v2", "ci"), entry(2, "mark_bad", "", "v1", "mia")];
        assert_eq!(told(&log), ["v2 1 ci"]);
        log.push(entry(3, "external", "v2", "", "external"));
        assert_eq!(told(&log), [""; 0]);
        log.push(entry(4, "external", "", "v2", "external"));
        assert_eq!(told(&log), ["v2 4 external"]);
    }

    #[test]
    fn what_is_older_than_the_log_has_no_time() {
        assert_eq!(told(&[entry(3, "gradual", "v2", "v1", "mia")]), ["v2 ? ", "v1 3 mia"]);
        assert_eq!(told(&[]), [""; 0]);
    }
}
