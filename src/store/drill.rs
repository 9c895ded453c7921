//! The progress of drills, step by step. Each drill has a record of its own, which expires; nothing else is written.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::schedule::{Shows, Subscription, Work, WorkItem};
use super::{DrillId, Store, StoreError, millis};
use crate::decision::{Operator, PromptName, Timestamp, VersionName};

/// How long the result of a drill can be read.
const RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// When a step was completed, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillStep {
    pub at: Timestamp,
    pub text: String,
}

/// A drill and its progress so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    pub id: DrillId,
    pub prompt: PromptName,
    pub version: VersionName,
    pub started: Timestamp,
    pub operator: String,
    /// Whether a notification target must show it.
    pub notifies: bool,
    /// When each Alertmanager accepted the alert, by address.
    pub posted: BTreeMap<String, DrillStep>,
    /// Why each Alertmanager last did not accept it, by address.
    pub failed: BTreeMap<String, DrillStep>,
    pub received: Option<DrillStep>,
    /// Its text is a [`Rehearsed`](crate::decision::Rehearsed) as JSON.
    pub decided: Option<DrillStep>,
    /// The decision is in Redis, and on replicas if `min_replicas_acked` requires it.
    pub committed: Option<DrillStep>,
    /// Its text is the place: a Slack channel.
    pub notified: Option<DrillStep>,
    /// Why it could not be shown at the last attempt.
    pub not_notified: Option<DrillStep>,
}

/// News about a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillProgress<'a> {
    Posted(&'a str),
    NotPosted { to: &'a str, why: &'a str },
    Received,
    Decided(&'a str),
    Committed,
    Notified(&'a str),
    NotNotified(&'a str),
}

const POSTED: &str = "posted ";
const FAILED: &str = "failed ";

impl DrillProgress<'_> {
    /// Its field and text, and whether the last report counts instead of the first.
    fn field(&self) -> (String, &str, bool) {
        match *self {
            DrillProgress::Posted(to) => (format!("{POSTED}{to}"), "", false),
            DrillProgress::NotPosted { to, why } => (format!("{FAILED}{to}"), why, true),
            DrillProgress::Received => ("received".to_owned(), "", false),
            DrillProgress::Decided(what) => ("decided".to_owned(), what, false),
            DrillProgress::Committed => ("committed".to_owned(), "", false),
            DrillProgress::Notified(channel) => ("told".to_owned(), channel, false),
            DrillProgress::NotNotified(why) => ("untold".to_owned(), why, true),
        }
    }
}

impl Store {
    /// Stores a new drill, and schedules its alert.
    pub async fn start_drill(
        &self,
        id: &DrillId,
        prompt: &PromptName,
        version: &VersionName,
        operator: &Operator,
    ) -> Result<(), StoreError> {
        let notifies = if self.subscriptions(Shows::Records).next().is_some() { "yes" } else { "no" };
        let fields = [
            ("started", operator.as_str()),
            ("prompt", prompt.as_str()),
            ("version", version.as_str()),
            ("tells", notifies),
        ];
        let master = self.master().await?;
        self.write_drill(id, "start", &fields, &[]).await?;
        self.wait_for_replicas(&master).await
    }

    /// Stores `news`, and notifies targets once the drill is decided. Returns false if the drill does not exist.
    pub async fn note_drill(&self, id: &DrillId, news: DrillProgress<'_>) -> Result<bool, StoreError> {
        let (field, text, last) = news.field();
        let decided = matches!(news, DrillProgress::Decided(_));
        let wakes: Vec<_> = self.subscriptions(Shows::Records).filter(|_| decided).collect();
        self.write_drill(id, if last { "last" } else { "first" }, &[(&field, text)], &wakes).await
    }

    async fn write_drill(
        &self,
        id: &DrillId,
        how: &str,
        fields: &[(&str, &str)],
        wakes: &[Subscription],
    ) -> Result<bool, StoreError> {
        let (keys, item) = (&self.keys, WorkItem::Drill(id.clone()));
        let mut names = vec![keys.drill(id), keys.due(Work::Page)];
        names.extend(wakes.iter().flat_map(|to| [keys.due(to.work()), keys.unsent(to.target)]));
        let mut call = self.scripts.drill.call(&names);
        call.cmd.arg(how).arg(self.clock.ahead()).arg(millis(RETENTION)).arg(Work::Page.member(&item));
        call.cmd.arg(wakes.len());
        for to in wakes {
            call.cmd.arg(to.work().member(&item));
        }
        for (field, text) in fields {
            call.cmd.arg(field).arg(text);
        }
        let noted: i64 = self.link.run(&call).await?;
        Ok(noted == 1)
    }

    pub async fn drill(&self, id: &DrillId) -> Result<Option<Drill>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.drill(id));
        let fields: HashMap<String, String> = self.link.read(&command).await?;
        Ok(read(id, &fields))
    }
}

/// Returns `None` if the drill was never started, has expired, or is damaged.
fn read(id: &DrillId, fields: &HashMap<String, String>) -> Option<Drill> {
    let hop = |text: &str| {
        let (at, text) = text.split_once(' ')?;
        Some(DrillStep { at: Timestamp(at.parse().ok()?), text: text.to_owned() })
    };
    let field = |name: &str| fields.get(name).and_then(|text| hop(text));
    let each = |prefix: &str| {
        let of_prefix = |(name, text): (&String, &String)| Some((name.strip_prefix(prefix)?.to_owned(), hop(text)?));
        fields.iter().filter_map(of_prefix).collect()
    };
    let started = field("started")?;
    Some(Drill {
        id: id.clone(),
        prompt: PromptName::parse(&field("prompt")?.text).ok()?,
        version: VersionName::parse(&field("version")?.text).ok()?,
        started: started.at,
        operator: started.text,
        notifies: field("tells").is_some_and(|notifies| notifies.text == "yes"),
        posted: each(POSTED),
        failed: each(FAILED),
        received: field("received"),
        decided: field("decided"),
        committed: field("committed"),
        notified: field("told"),
        not_notified: field("untold"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ulid_names_a_drill() {
        let id = DrillId::fresh(Timestamp(1_763_717_000_000));
        assert_eq!(DrillId::parse(id.as_str()), Some(id));
        for wrong in ["", "x", "01KAJ4B8N4GZQ6V9C2M7T5R3X", "01kaj4b8n4gzq6v9c2m7t5r3xw", "01KAJ4B8N4GZQ6V9C2M7T5R3X}"]
        {
            assert_eq!(DrillId::parse(wrong), None, "{wrong}");
        }
    }
}
