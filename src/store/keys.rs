//! All Redis keys. Only validated names become part of a key.

use super::ids::DrillId;
use super::schedule::{Target, Work, WorkItem};
use crate::decision::{IncidentId, PromptName, VersionName};

/// The key schema of one namespace. `active`, `routing`, `content`, `log` and `changes` are public; the rest is private.
#[derive(Debug, Clone)]
pub struct Keys {
    namespace: String,
    /// The keys that each commit declares besides its prompt's own, in the order of `commit.lua`.
    of_commits: Vec<String>,
}

impl Keys {
    pub fn new(namespace: impl Into<String>) -> Self {
        let mut keys = Self { namespace: namespace.into(), of_commits: Vec::new() };
        keys.of_commits = vec![
            keys.paused(),
            keys.automatic(),
            keys.prompts(),
            keys.activity(),
            keys.incidents(),
            keys.open(),
            keys.closed(),
            keys.phases(),
        ];
        keys.of_commits.extend(Work::OF_COMMITS.map(|work| keys.due(work)));
        keys
    }

    pub(super) fn of_commits(&self) -> &[String] {
        &self.of_commits
    }

    fn key(&self, kind: &str, rest: &str) -> String {
        let mut key = String::with_capacity(self.namespace.len() + kind.len() + rest.len() + 2);
        key.push_str(&self.namespace);
        key.push(':');
        key.push_str(kind);
        if !rest.is_empty() {
            key.push(':');
            key.push_str(rest);
        }
        key
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A pattern for all keys, in ACL syntax.
    pub fn pattern(&self) -> String {
        self.key("*", "")
    }

    pub fn active(&self, prompt: &PromptName) -> String {
        self.key("active", prompt.as_str())
    }

    /// The prefix of all `active` keys, for tracking and scans.
    pub fn active_prefix(&self) -> String {
        format!("{}:active:", self.namespace)
    }

    pub fn routing(&self, prompt: &PromptName) -> String {
        self.key("routing", prompt.as_str())
    }

    pub fn content(&self, prompt: &PromptName, version: &VersionName) -> String {
        self.key("content", &format!("{prompt}:{version}"))
    }

    pub fn log(&self, prompt: &PromptName) -> String {
        self.key("log", prompt.as_str())
    }

    /// Channel.
    pub fn changes(&self) -> String {
        self.key("changes", "")
    }

    /// Hash: `rev`, `schema`, `json` (the record), `serving`, `info` (metric labels), `commits` (the last commit ids),
    /// `dropped` (the position of the last event that was dropped).
    pub fn state(&self, prompt: &PromptName) -> String {
        self.key("state", prompt.as_str())
    }

    /// The prefix of all states, for tracking.
    pub fn state_prefix(&self) -> String {
        format!("{}:state:", self.namespace)
    }

    pub fn incident(&self, id: &IncidentId) -> String {
        self.key("incident", &id.0)
    }

    /// Sorted set, by name: all prompts.
    pub fn prompts(&self) -> String {
        self.key("prompts", "")
    }

    /// Sorted set: prompt, score = when its traffic last changed.
    pub fn activity(&self) -> String {
        self.key("activity", "")
    }

    /// Sorted set, by id (ULIDs sort by time): all incidents.
    pub fn incidents(&self) -> String {
        self.key("incidents", "")
    }

    /// Sorted set, by id: open incidents.
    pub fn open(&self) -> String {
        self.key("incidents", "open")
    }

    /// Sorted set: closed incidents, score = when they were closed.
    pub fn closed(&self) -> String {
        self.key("incidents", "closed")
    }

    /// Hash: open phase → number of incidents.
    pub fn phases(&self) -> String {
        self.key("phases", "")
    }

    /// Hash: prompt, or [`Keys::ALL`] → who paused automation, and why; [`Keys::OUTAGE_HOLD`].
    pub fn paused(&self) -> String {
        self.key("paused", "")
    }

    /// Sorted set: prompt, score = its last automatic rollback.
    pub fn automatic(&self) -> String {
        self.key("automatic", "")
    }

    /// Sorted set: wake-ups of this kind, score = when they are due.
    pub fn due(&self, work: Work) -> String {
        match work {
            Work::Incident => self.key("due", ""), // earlier the set of all kinds
            Work::Soak => self.key("soaks", ""),
            other => self.key("due", other.as_str()),
        }
    }

    /// Sorted set: claimed wake-ups of this kind, score = when the lease expires.
    pub fn leased(&self, work: Work) -> String {
        match work {
            Work::Incident => self.key("leased", ""),
            Work::Soak => self.key("soaks", "leased"),
            other => self.key("leased", other.as_str()),
        }
    }

    /// Hash: claimed wake-up → token of its worker.
    pub fn tokens(&self) -> String {
        self.key("tokens", "")
    }

    /// Hash: wake-up → how often in a row it failed.
    pub fn attempts(&self) -> String {
        self.key("attempts", "")
    }

    /// Sorted set: wake-ups that failed too often, score = when they became dead letters.
    pub fn dead_letters(&self) -> String {
        self.key("parked", "")
    }

    /// Sorted set: wake-ups with updates that a target does not show yet, score = since when.
    pub fn unsent(&self, target: Target) -> String {
        match target {
            Target::FIRST => self.key("unsent", ""),
            other => self.key("unsent", other.name()),
        }
    }

    /// Hash: the progress of this kind of work with `item`. Each target but the first has its own.
    pub fn progress(&self, work: Work, item: &WorkItem) -> String {
        match work {
            Work::Notify(target) if target != Target::FIRST => self.key("sync", &format!("{}:{item}", target.name())),
            _ => self.key("sync", &item.to_string()),
        }
    }

    /// Sorted set: the events of a prompt as JSON, for targets that show events; score = when, in ms, and above that of
    /// the previous event.
    pub fn events(&self, prompt: &PromptName) -> String {
        self.key("events", prompt.as_str())
    }

    /// The id of the open coordinating incident.
    pub fn outage(&self) -> String {
        self.key("mass", "")
    }

    /// Hash: `rev`, `schema`, `json` (the record) of a coordinating incident, open or closed.
    pub fn outage_record(&self, id: &IncidentId) -> String {
        self.key("mass", &id.0)
    }

    /// Hash: incident of a member → what the coordinating incident knows about it, as JSON.
    pub fn outage_members(&self, id: &IncidentId) -> String {
        self.key("mass:members", &id.0)
    }

    /// Sorted set: prompts whose alerts carried this `group` label, score = when last.
    pub fn related(&self, group: &PromptName) -> String {
        self.key("related", group.as_str())
    }

    /// Prometheus' measurements for an incident, as JSON.
    pub fn samples(&self, incident: &IncidentId) -> String {
        self.key("samples", &incident.0)
    }

    /// Hash: the progress of a drill.
    pub fn drill(&self, id: &DrillId) -> String {
        self.key("drill", id.as_str())
    }

    /// Exists while a slot is taken or something is on hold; its value is for how long, in ms.
    pub fn rate_limit(&self, channel: &str) -> String {
        self.key("pace", channel)
    }

    /// Exists while an action must not be repeated.
    pub fn claimed_once(&self, what: &str) -> String {
        self.key("once", what)
    }

    /// The outcome of a request that must be handled once, for a while.
    pub fn receipt(&self, request: &str) -> String {
        self.key("handled", request)
    }

    /// Hash: the last heartbeat of the alert path.
    pub fn heartbeat(&self) -> String {
        self.key("heartbeat", "")
    }

    /// The members of a user group, cached for a short time.
    pub fn group(&self, group: &str) -> String {
        self.key("group", group)
    }

    /// Written before a WAIT that has no other write to wait for, and to test whether writing works.
    pub fn wait_for_replicas(&self) -> String {
        self.key("fence", "")
    }

    /// A key outside the namespace, in the same cluster slot: readable only for users who may read everything.
    pub fn elsewhere(&self) -> String {
        format!("prompt-rollback:elsewhere:{}", self.namespace)
    }

    /// Prefix of the self-test's scratch keys.
    pub fn selftest(&self, what: &str) -> String {
        self.key("selftest", what)
    }

    /// The field of [`Keys::paused`] for all prompts; not a valid prompt name.
    pub const ALL: &'static str = "*";
    /// The field of [`Keys::paused`] for who put all prompts on hold because of an outage; not a valid prompt name. The
    /// scripts name it too.
    pub const OUTAGE_HOLD: &'static str = "*outage";
}
