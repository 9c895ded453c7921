//! Kinds of work, notification targets, and claims.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::decision::{IncidentId, PromptName};
use crate::store::drill::{DRILL, DrillId};

/// Kinds of work. Separate workers with separate sets do them: neither a worker that hangs nor a backlog delays another
/// kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Deadlines, observations, queries.
    Incident,
    /// Notifying a target. Each target is a kind of its own.
    Notify(Target),
    /// Paging people through Alertmanager.
    Page,
    /// Coordinating many prompts that fail together.
    Outage,
    /// Moving content to the archive and back.
    Archive,
    /// Posting the weekly report of a dry run.
    Report,
    /// Checking versions that soak.
    Soak,
}

impl Work {
    /// All kinds except notifications.
    pub const OWN: [Work; 6] = [Work::Incident, Work::Page, Work::Outage, Work::Archive, Work::Report, Work::Soak];
    /// The kinds that a commit schedules besides notifications, in the order in which `commit.lua` takes their sets.
    pub(in crate::store) const OF_COMMITS: [Work; 5] =
        [Work::Incident, Work::Page, Work::Outage, Work::Archive, Work::Soak];
    /// The kinds that earlier receivers stored in the set of [`Work::Incident`].
    pub(in crate::store) const ONCE_MIXED: [Work; 3] = [Work::Notify(Target::FIRST), Work::Outage, Work::Report];

    /// The name in metrics and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Work::Incident => "act",
            Work::Notify(target) => target.name(),
            Work::Page => "page",
            Work::Outage => "mass",
            Work::Archive => "archive",
            Work::Report => "report",
            Work::Soak => "soak",
        }
    }

    pub(in crate::store) fn suffix(self) -> &'static str {
        match self {
            Work::Incident => "|act",
            Work::Notify(target) => target.0,
            Work::Page => "|page",
            Work::Outage => "|mass",
            Work::Archive => "|archive",
            Work::Report => "|report",
            Work::Soak => "|soak",
        }
    }

    /// The member of the sorted sets.
    pub fn member(self, incident: &IncidentId) -> String {
        format!("{incident}{}", self.suffix())
    }

    /// The member for work of a prompt itself. No incident id begins like this.
    pub fn member_of(self, prompt: &PromptName) -> String {
        format!("{PROMPT}{prompt}{}", self.suffix())
    }

    /// Whether this wake-up waits for days by the config, not for minutes.
    pub(super) fn waits_for_days(self, member: &str) -> bool {
        match self {
            Work::Incident => member.starts_with(PROMPT), // a stage of a canary
            Work::Archive | Work::Report => true,
            Work::Notify(_) | Work::Page | Work::Outage | Work::Soak => false,
        }
    }
}

const PROMPT: char = '@';

/// A notification target, by its name in keys, wake-ups, metrics and log lines. Holds the suffix of its wake-ups:
/// `|NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(&'static str);

impl Target {
    /// The only target of earlier receivers; its keys keep their names.
    pub const FIRST: Target = Target("|slack");

    pub fn named(name: &str) -> Self {
        // never freed: all configs of a process have few names
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let suffix = format!("|{name}");
        if let Some(known) = names.get(suffix.as_str()) {
            return Self(known);
        }
        let suffix: &'static str = Box::leak(suffix.into_boxed_str());
        names.insert(suffix);
        Self(suffix)
    }

    pub fn name(self) -> &'static str {
        self.0.trim_start_matches('|')
    }
}

/// What a target subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Incidents, canaries and drills in their current state, which the record holds.
    Records,
    /// The events of a prompt, in order: [`Store::events`](crate::store::Store::events).
    Events,
}

/// A target, and what it subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    pub target: Target,
    pub shows: Shows,
}

impl Subscription {
    pub(in crate::store) fn work(self) -> Work {
        Work::Notify(self.target)
    }
}

/// A leased wake-up, until the lease expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub work: Work,
    pub incident: IncidentId,
    pub(in crate::store) token: String,
}

impl Claim {
    pub(in crate::store) fn member(&self) -> String {
        self.work.member(&self.incident)
    }

    /// The prompt, if this is not about an incident.
    pub fn prompt(&self) -> Option<PromptName> {
        PromptName::parse(self.incident.0.strip_prefix(PROMPT)?).ok()
    }

    /// The drill, if this is about one.
    pub fn drill(&self) -> Option<DrillId> {
        DrillId::parse(self.incident.0.strip_prefix(DRILL)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_always_the_same_target() {
        let (one, other) = (Target::named("slack"), Target::named("webhook.audit"));
        assert_eq!((one, one.name(), other.name()), (Target::FIRST, "slack", "webhook.audit"));
        assert_eq!(Target::named("webhook.audit"), other);
        assert_ne!(one, other);
        assert_eq!(Work::Notify(other).member(&IncidentId("01K".to_owned())), "01K|webhook.audit");
    }
}
