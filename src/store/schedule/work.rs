//! Kinds of work, notification targets, and claims.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::decision::{IncidentId, PromptName};
use crate::store::ids::DrillId;

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
    /// Stages of canaries that are due, and their gates. Commits schedule them as [`Work::Incident`], which hands them over.
    Canary,
}

impl Work {
    /// All kinds except notifications.
    pub const OWN: [Work; 7] =
        [Work::Incident, Work::Page, Work::Outage, Work::Archive, Work::Report, Work::Soak, Work::Canary];
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
            Work::Canary => "canary",
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
            Work::Canary => "|canary",
        }
    }

    /// The member of the sorted sets.
    pub fn member(self, item: &WorkItem) -> String {
        format!("{item}{}", self.suffix())
    }

    /// What a member of the sorted sets is about.
    pub(super) fn item(self, member: &str) -> WorkItem {
        WorkItem::parse(member.strip_suffix(self.suffix()).unwrap_or(member))
    }

    /// Whether it waits for days by the config, so that a delay does no harm.
    pub(super) fn may_be_late(self) -> bool {
        match self {
            Work::Archive | Work::Report => true,
            Work::Incident | Work::Notify(_) | Work::Page | Work::Outage | Work::Soak | Work::Canary => false,
        }
    }
}

/// What a task is about. Its text in Redis is the member of the sorted sets without the kind of work, and the end of the key that
/// holds its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkItem {
    /// An incident, or one that coordinates many prompts.
    Incident(IncidentId),
    /// What is due for a prompt itself: stages of its canary, gates, soaks, content, events.
    Prompt(PromptName),
    Drill(DrillId),
    /// The report of a dry run.
    WeeklyReport,
    /// A text that this receiver does not understand.
    Unknown(String),
}

const PROMPT: char = '@';
const DRILL: &str = "drill:";
const WEEKLY_REPORT: &str = "weekly";

impl WorkItem {
    fn parse(text: &str) -> Self {
        let known = if let Some(name) = text.strip_prefix(PROMPT) {
            PromptName::parse(name).ok().map(Self::Prompt)
        } else if let Some(id) = text.strip_prefix(DRILL) {
            DrillId::parse(id).map(Self::Drill)
        } else if text == WEEKLY_REPORT {
            Some(Self::WeeklyReport)
        } else {
            Some(Self::Incident(IncidentId(text.to_owned())))
        };
        known.unwrap_or_else(|| Self::Unknown(text.to_owned()))
    }
}

impl fmt::Display for WorkItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incident(id) => id.fmt(f),
            Self::Prompt(name) => write!(f, "{PROMPT}{name}"),
            Self::Drill(id) => write!(f, "{DRILL}{}", id.as_str()),
            Self::WeeklyReport => f.write_str(WEEKLY_REPORT),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

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
    pub item: WorkItem,
    pub(in crate::store) token: String,
}

impl Claim {
    pub(in crate::store) fn member(&self) -> String {
        self.work.member(&self.item)
    }

    pub fn incident(&self) -> Option<&IncidentId> {
        match &self.item {
            WorkItem::Incident(id) => Some(id),
            _ => None,
        }
    }

    /// What a span says of it: its prompt, or what else it is about, as log lines name it.
    pub fn named(&self) -> (Option<&PromptName>, Option<String>) {
        let prompt = self.prompt();
        (prompt, prompt.is_none().then(|| self.item.to_string()))
    }

    pub fn prompt(&self) -> Option<&PromptName> {
        match &self.item {
            WorkItem::Prompt(name) => Some(name),
            _ => None,
        }
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
        let incident = WorkItem::Incident(IncidentId("01K".to_owned()));
        assert_eq!(Work::Notify(other).member(&incident), "01K|webhook.audit");
    }

    /// Receivers of the release before read and write the same texts.
    #[test]
    fn the_item_of_a_task_is_read_as_it_was_written() {
        let id = "01KAJ4B8N4GZQ6V9C2M7T5R3XW";
        let drill = DrillId::parse(id).expect("an id");
        for (text, item) in [
            (id, WorkItem::Incident(IncidentId(id.to_owned()))),
            ("@team/refund", WorkItem::Prompt(PromptName::parse("team/refund").expect("a name"))),
            ("drill:01KAJ4B8N4GZQ6V9C2M7T5R3XW", WorkItem::Drill(drill)),
            ("weekly", WorkItem::WeeklyReport),
            ("@no prompt", WorkItem::Unknown("@no prompt".to_owned())),
            ("drill:x", WorkItem::Unknown("drill:x".to_owned())),
        ] {
            let member = Work::Page.member(&item);
            assert_eq!(member, format!("{text}|page"));
            assert_eq!(Work::Page.item(&member), item);
        }
    }
}
