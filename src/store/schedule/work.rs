//! Kinds of work, and a claim on one piece of it.

use crate::decision::{IncidentId, PromptName};
use crate::store::drill::{DRILL, DrillId};

/// Kinds of work, done by separate workers from separate sets: neither a worker that hangs nor a backlog delays another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Deadlines, observations, queries.
    Act,
    /// Telling people in Slack.
    Slack,
    /// Paging people through Alertmanager.
    Page,
    /// Coordinating many prompts that fail together.
    Mass,
    /// Moving texts to the archive and back.
    Archive,
    /// Telling people each week what a dry run would have done.
    Report,
    /// Looking at versions that soak.
    Soak,
}

impl Work {
    pub const ALL: [Work; 7] =
        [Work::Act, Work::Slack, Work::Page, Work::Mass, Work::Archive, Work::Report, Work::Soak];
    /// The kinds that a commit schedules, in the order in which `commit.lua` takes their sets.
    pub(in crate::store) const OF_COMMITS: [Work; 6] =
        [Work::Act, Work::Slack, Work::Page, Work::Mass, Work::Archive, Work::Soak];
    /// The kinds that earlier receivers left in the set of [`Work::Act`].
    pub(in crate::store) const ONCE_MIXED: [Work; 3] = [Work::Slack, Work::Mass, Work::Report];

    /// As metrics and keys name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Work::Act => "act",
            Work::Slack => "slack",
            Work::Page => "page",
            Work::Mass => "mass",
            Work::Archive => "archive",
            Work::Report => "report",
            Work::Soak => "soak",
        }
    }

    pub(in crate::store) fn suffix(self) -> &'static str {
        match self {
            Work::Act => "|act",
            Work::Slack => "|slack",
            Work::Page => "|page",
            Work::Mass => "|mass",
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
            Work::Act => member.starts_with(PROMPT), // a stage of a canary
            Work::Archive | Work::Report => true,
            Work::Slack | Work::Page | Work::Mass | Work::Soak => false,
        }
    }
}

const PROMPT: char = '@';

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
