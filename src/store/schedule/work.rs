//! Kinds of work, who is notified, and a claim on one piece of work.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::decision::{IncidentId, PromptName};
use crate::store::drill::{DRILL, DrillId};

/// Kinds of work, done by separate workers from separate sets: neither a worker that hangs nor a backlog delays another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Deadlines, observations, queries.
    Incident,
    /// Showing a target what happens. Each target is a kind of its own.
    Notify(Target),
    /// Paging people through Alertmanager.
    Page,
    /// Coordinating many prompts that fail together.
    Outage,
    /// Moving texts to the archive and back.
    Archive,
    /// Telling people each week what a dry run would have done.
    Report,
    /// Looking at versions that soak.
    Soak,
}

impl Work {
    /// All kinds but notifying.
    pub const OWN: [Work; 6] = [Work::Incident, Work::Page, Work::Outage, Work::Archive, Work::Report, Work::Soak];
    /// The kinds that a commit schedules besides notifying, in the order in which `commit.lua` takes their sets.
    pub(in crate::store) const OF_COMMITS: [Work; 5] =
        [Work::Incident, Work::Page, Work::Outage, Work::Archive, Work::Soak];
    /// The kinds that earlier receivers left in the set of [`Work::Act`].
    pub(in crate::store) const ONCE_MIXED: [Work; 3] = [Work::Notify(Target::FIRST), Work::Outage, Work::Report];

    /// As metrics and keys name it.
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

    /// Of what is due for a prompt itself. No incident's id begins like that.
    pub fn member_of(self, prompt: &PromptName) -> String {
        format!("{PROMPT}{prompt}{}", self.suffix())
    }

    /// Whether this wake-up waits for days by the config rather than for minutes.
    pub(super) fn waits_for_days(self, member: &str) -> bool {
        match self {
            Work::Incident => member.starts_with(PROMPT), // a stage of a canary
            Work::Archive | Work::Report => true,
            Work::Notify(_) | Work::Page | Work::Outage | Work::Soak => false,
        }
    }
}

const PROMPT: char = '@';

/// Who is notified, by the name that keys, wake-ups, metrics and log lines have. Holds the end of its wake-ups: `|NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(&'static str);

impl Target {
    /// The only target of earlier receivers, whose keys keep their names.
    pub const FIRST: Target = Target("|slack");

    pub fn named(name: &str) -> Self {
        // kept for as long as the process runs: the names of all its configs are few
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

/// What a target is woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Incidents, canaries and drills, each as it is now: the record says what is to be shown.
    Records,
    /// What happened to a prompt, one event after the other: [`Store::events`](crate::store::Store::events).
    Events,
}

/// A target, and what it is woken for.
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

/// A wake-up that is ours until the lease expires.
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

    /// The prompt that this is about, if it is about no incident.
    pub fn prompt(&self) -> Option<PromptName> {
        PromptName::parse(self.incident.0.strip_prefix(PROMPT)?).ok()
    }

    /// The drill that this is about, if it is about one.
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
