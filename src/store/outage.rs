//! Coordinating incidents, their members, and groups of prompts.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys::Keys;
use super::pause_entry::written_hold;
use super::receipt::{HandledRequest, Receipt};
use super::record::{self, SCHEMA, Unknown};
use super::reply::text;
use super::schedule::{Shows, Subscription, Work, WorkItem};
use super::{INCIDENT_RETENTION, Store, StoreError, ids, millis};
use crate::decision::outage::{Member, Outage};
use crate::decision::{IncidentId, PromptName, Timestamp};
use crate::elsewhere;

/// How long a prompt belongs to a group after the last alert that named it.
const RELATED_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);

/// More members are read on another thread.
const FEW_MEMBERS: usize = 200;

/// A loaded coordinating incident, with what a write compares.
#[derive(Debug)]
pub struct Coordinated {
    pub outage: Outage,
    /// In the order in which they joined.
    pub members: Vec<Member>,
    rev: String,
    /// Whether `paused` has the hold that the loads of prompts read.
    prompts_are_held: bool,
    unknown: Unknown,
    unknown_members: HashMap<IncidentId, Unknown>,
    /// As they were read, so that only changes are written.
    before: HashMap<IncidentId, Member>,
}

impl Coordinated {
    /// A coordinating incident that is not stored yet.
    pub fn new(outage: Outage) -> Self {
        Self {
            outage,
            members: Vec::new(),
            rev: "0".to_owned(),
            prompts_are_held: false,
            unknown: Unknown::default(),
            unknown_members: HashMap::new(),
            before: HashMap::new(),
        }
    }

    /// Whether a member must be written.
    pub fn members_changed(&self) -> bool {
        self.members.iter().any(|member| self.before.get(&member.incident) != Some(member))
    }

    /// Whether the hold in `paused` differs from that in the record, for example because an earlier receiver wrote the record.
    pub fn hold_differs(&self) -> bool {
        self.outage.is_open() && self.prompts_are_held != self.outage.hold.is_some()
    }

    /// Where each incident is among the members.
    pub fn places(&self) -> HashMap<IncidentId, usize> {
        self.members.iter().enumerate().map(|(at, member)| (member.incident.clone(), at)).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    Done,
    /// Another write came first: load again.
    Moved,
}

/// Whether a coordinating incident covers an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Yes,
    No,
    /// Unknown until its report has been processed.
    Soon,
}

impl Store {
    /// The open coordinating incident.
    pub async fn open_outage(&self) -> Result<Option<IncidentId>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.outage());
        Ok(self.link.read::<Option<String>>(&command).await?.map(IncidentId))
    }

    /// Removes a hold of all prompts that no open coordinating incident has: an earlier receiver leaves it behind when it closes
    /// the incident. If a hold begins meanwhile, [`Coordinated::hold_differs`] notices that it is gone.
    pub async fn forget_stray_hold(&self) -> Result<(), StoreError> {
        if self.open_outage().await?.is_some() {
            return Ok(());
        }
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.paused()).arg(Keys::OUTAGE_HOLD);
        self.link.read::<Value>(&command).await.map(drop)
    }

    pub async fn outage(&self, id: &IncidentId) -> Result<Option<Coordinated>, StoreError> {
        let key = self.keys.outage_record(id);
        let names = [key.clone(), self.keys.outage_members(id), self.keys.paused()];
        let call = self.scripts.members.call(&names);
        type Fields = (Option<String>, Option<u32>, Option<Vec<u8>>);
        type Read = (Fields, HashMap<String, Vec<u8>>, Option<Vec<u8>>);
        let ((rev, schema, json), fields, hold): Read = self.link.read(&call).await?;
        let prompts_are_held = hold.is_some();
        let (Some(rev), Some(json)) = (rev, json) else { return Ok(None) };
        if let Some(found) = schema.filter(|schema| *schema > SCHEMA) {
            return Err(StoreError::NewerRecord { found: found.to_string() });
        }
        let many = fields.len() > FEW_MEMBERS;
        let read = move || {
            let (outage, unknown) = record::read(&text(json))?;
            let mut found = Coordinated { rev, prompts_are_held, unknown, ..Coordinated::new(outage) };
            for json in fields.into_values() {
                let (member, unknown) = record::read::<Member>(&text(json))?;
                found.unknown_members.insert(member.incident.clone(), unknown);
                found.before.insert(member.incident.clone(), member.clone());
                found.members.push(member);
            }
            found.members.sort_by(|a, b| (a.joined, a.began, &a.prompt).cmp(&(b.joined, b.began, &b.prompt)));
            Ok(found)
        };
        elsewhere::run_if(many, read).await.map(Some).map_err(|error| StoreError::unreadable(&key, error))
    }

    /// Writes the changes, unless another write came first, and wakes the workers that carry them out and show them.
    /// Then `found` is the stored one. Members that are still open when it closes are handled separately from then on.
    pub async fn write_outage(&self, found: &mut Coordinated, now: Timestamp) -> Result<WriteOutcome, StoreError> {
        self.write_outage_once(found, now, None).await
    }

    /// Like [`Store::write_outage`], and also stores the outcome of a request that must be handled once.
    pub async fn write_outage_once(
        &self,
        found: &mut Coordinated,
        now: Timestamp,
        receipt: Option<(&Receipt, &HandledRequest)>,
    ) -> Result<WriteOutcome, StoreError> {
        let keys = &self.keys;
        let id = &found.outage.id;
        let rev = ids::fresh_ulid(now);
        let receipts = receipt.map(|(receipt, before)| receipt.written(before, now));
        let receipts = receipts.iter().flatten();
        let mut names = vec![
            keys.outage_record(id),
            keys.outage_members(id),
            keys.outage(),
            keys.incidents(),
            keys.open(),
            keys.closed(),
            keys.due(Work::Outage),
            keys.paused(),
        ];
        let targets: Vec<Subscription> = self.subscriptions(Shows::Records).collect();
        names.extend(targets.iter().flat_map(|to| [keys.due(to.work()), keys.unsent(to.target)]));
        names.extend(receipts.clone().map(|(key, ..)| (*key).to_owned()));
        let mut call = self.scripts.outage.call(&names);
        let open = found.outage.is_open();
        let item = WorkItem::Incident(id.clone());
        let state = if open { "open" } else { "closed" };
        call.cmd.arg(&found.rev).arg(record::write(&found.outage, &found.unknown)).arg(SCHEMA).arg(&id.0);
        let hold = found.outage.hold.as_ref().map(|hold| written_hold(&hold.by));
        call.cmd
            .arg(state)
            .arg(now.0)
            .arg(millis(INCIDENT_RETENTION))
            .arg(&rev)
            .arg(hold.as_deref().unwrap_or_default());
        let changed = found.members.iter().filter(|member| found.before.get(&member.incident) != Some(member));
        let changed: Vec<Member> = changed.cloned().collect();
        call.cmd.arg(changed.len());
        let nothing = Unknown::default();
        for member in &changed {
            let unknown = found.unknown_members.get(&member.incident).unwrap_or(&nothing);
            call.cmd.arg(&member.incident.0).arg(record::write(member, unknown));
        }
        call.cmd.arg(if open { Work::Outage.member(&item) } else { String::new() });
        let mut wakes = Vec::new();
        for (index, to) in targets.iter().enumerate() {
            // before any single incident
            wakes.push((index + 1, to.work().member(&item), 0));
            let left = found.members.iter().filter(|member| !open && member.phase.is_open());
            let left = left.map(|member| WorkItem::Incident(member.incident.clone()));
            wakes.extend(left.map(|item| (index + 1, to.work().member(&item), now.0)));
        }
        call.cmd.arg(targets.len()).arg(wakes.len());
        for (target, member, score) in wakes {
            call.cmd.arg(target).arg(member).arg(score);
        }
        call.cmd.arg(receipts.clone().count());
        for (_, value, ttl) in receipts {
            call.cmd.arg(value).arg(*ttl);
        }
        match self.link.read::<i64>(&call).await {
            Ok(1) => {
                found.rev = rev;
                found.prompts_are_held = hold.is_some();
                found.before.extend(changed.into_iter().map(|member| (member.incident.clone(), member)));
                Ok(WriteOutcome::Done)
            }
            Ok(-1 | -2) => Ok(WriteOutcome::Moved),
            Ok(_) => Err(StoreError::unexpected("mass")),
            Err(error) => Err(error),
        }
    }

    /// Whether a coordinating incident covers `incident`.
    pub async fn speaks_for(&self, incident: &IncidentId) -> Result<Speaks, StoreError> {
        let wake = Work::Outage.member(&WorkItem::Incident(incident.clone()));
        let mut pipeline = Pipeline::new();
        // in the order in which a wake-up moves (formerly out of the mixed sets of earlier receivers): one that is no
        // longer scheduled belongs to a member already, or never will
        let keys = &self.keys;
        let sets =
            [keys.leased(Work::Incident), keys.due(Work::Incident), keys.due(Work::Outage), keys.leased(Work::Outage)];
        for set in sets {
            pipeline.cmd("ZSCORE").arg(set).arg(&wake);
        }
        pipeline.cmd("GET").arg(keys.outage());
        let (waits, open): ([Option<f64>; 4], Option<String>) = {
            let (a, b, c, d, open) = self.link.read(&pipeline).await?;
            ([a, b, c, d], open)
        };
        if waits.iter().any(Option::is_some) {
            return Ok(Speaks::Soon);
        }
        let Some(open) = open else { return Ok(Speaks::No) };
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.outage_members(&IncidentId(open))).arg(&incident.0);
        let member: Option<String> = self.link.read(&command).await?;
        Ok(if member.is_some() { Speaks::Yes } else { Speaks::No })
    }

    /// The automatic rollbacks since `since` that count against the budget, the earliest first.
    pub async fn automatic_since(&self, since: Timestamp) -> Result<Vec<(PromptName, Timestamp)>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.keys.automatic()).arg(format!("({}", since.0)).arg("+inf").arg("WITHSCORES");
        let found: Vec<(String, i64)> = self.link.read(&command).await?;
        Ok(found.into_iter().filter_map(|(name, at)| Some((PromptName::parse(&name).ok()?, Timestamp(at)))).collect())
    }

    /// Records that `prompt` belongs to `group`.
    pub async fn relate(&self, group: &PromptName, prompt: &PromptName, now: Timestamp) -> Result<(), StoreError> {
        let key = self.keys.related(group);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZADD").arg(&key).arg(now.0).arg(prompt.as_str());
        pipeline.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(now.minus(RELATED_FOR).0);
        pipeline.cmd("PEXPIRE").arg(&key).arg(millis(RELATED_FOR));
        self.link.run::<Value>(&pipeline).await.map(drop)
    }

    /// Prompts of `group`, those with the latest alert first, and how many there are.
    pub async fn related(&self, group: &PromptName, most: usize) -> Result<(Vec<PromptName>, usize), StoreError> {
        let key = self.keys.related(group);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZRANGE").arg(&key).arg(0).arg(most.saturating_sub(1)).arg("REV").cmd("ZCARD").arg(&key);
        let (names, all): (Vec<String>, usize) = self.link.read(&pipeline).await?;
        Ok((names.iter().filter_map(|name| PromptName::parse(name).ok()).collect(), all))
    }
}
