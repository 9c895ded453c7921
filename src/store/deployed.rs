//! Reads deployment logs for people, with a bounded number of reads however many prompts and entries there are.

use redis::Pipeline;

use super::query::{Visible, if_permitted};
use super::{Store, StoreError};
use crate::decision::{IncidentId, PromptName, Timestamp};
use crate::deployed::{Deployed, Deployment, DeploymentEntry, NAMED, Other, WITHIN, in_service};

/// Entries read from the prompt's own log, from the end.
const OWN: usize = 100;
/// Prompts whose logs are read, and how many entries of each.
const LOOKED_INTO: usize = 20;
/// Names of prompts from which those are chosen.
const NAMES: usize = 500;
const ENTRIES: usize = 5;
/// Prompts of the same group that are considered.
const OF_GROUP: usize = 50;

type Raw = Vec<(String, Vec<(String, String)>)>;

impl Store {
    /// What was deployed until `at`, without the switches of `incident` itself. Unreadable logs are left out.
    pub async fn deployed(
        &self,
        prompt: &PromptName,
        group: Option<&PromptName>,
        at: Timestamp,
        incident: Option<&IncidentId>,
        visible: &Visible<'_>,
    ) -> Result<Deployed, StoreError> {
        match if_permitted(self.read_deployed(prompt, group, at, incident, visible).await) {
            Err(StoreError::Broken { .. }) => Ok(Deployed::default()),
            read => Ok(read?.unwrap_or_default()),
        }
    }

    async fn read_deployed(
        &self,
        prompt: &PromptName,
        group: Option<&PromptName>,
        at: Timestamp,
        incident: Option<&IncidentId>,
        visible: &Visible<'_>,
    ) -> Result<Deployed, StoreError> {
        let keys = &self.keys;
        let since = at.minus(WITHIN);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XREVRANGE").arg(keys.log(prompt)).arg("+").arg("-").arg("COUNT").arg(OWN);
        pipeline.cmd("ZRANGE").arg(keys.activity()).arg("+inf").arg(format!("({}", since.0));
        pipeline.arg("BYSCORE").arg("REV").arg("LIMIT").arg(0).arg(NAMES + 1);
        let (own, active): (Raw, Vec<String>) = self.link.read(&pipeline).await?;
        let own: Vec<DeploymentEntry> = own.iter().filter_map(|(_, fields)| DeploymentEntry::read(fields)).collect();
        let before =
            |entry: &&DeploymentEntry| entry.at <= at && incident.is_none_or(|incident| entry.incident != incident.0);
        let in_service = in_service(own.iter().rev().filter(before));

        let mut related = match group {
            Some(group) => self.related(group, OF_GROUP).await?.0,
            None => Vec::new(),
        };
        related.retain(|name| name != prompt && visible(name));
        let names = active.iter().filter_map(|name| PromptName::parse(name).ok());
        let others = names.filter(|name| name != prompt && !related.contains(name) && visible(name));
        let mut looked_into = self.changed_since(&related, since).await?;
        let of_group = looked_into.len();
        looked_into.extend(others);
        let at_least = looked_into.len() > LOOKED_INTO || active.len() > NAMES;
        looked_into.truncate(LOOKED_INTO);
        let changes = self.last_changes(&looked_into, since, at).await?;
        let mut others: Vec<Other> = looked_into
            .iter()
            .zip(changes)
            .enumerate()
            .filter_map(|(place, (prompt, entry))| Some(Other::new(prompt.to_string(), entry?, place < of_group)))
            .collect();
        let more = others.len().saturating_sub(NAMED);
        others.truncate(NAMED);
        Ok(Deployed { in_service, others, more, at_least })
    }

    /// The prompts whose active version changed after `since`, the latest first.
    async fn changed_since(&self, prompts: &[PromptName], since: Timestamp) -> Result<Vec<PromptName>, StoreError> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for prompt in prompts {
            pipeline.cmd("ZSCORE").arg(self.keys.activity()).arg(prompt.as_str());
        }
        let scores: Vec<Option<i64>> = self.link.read(&pipeline).await?;
        let mut changed: Vec<(i64, PromptName)> = scores
            .into_iter()
            .zip(prompts)
            .filter_map(|(score, prompt)| Some((score?, prompt.clone())))
            .filter(|(at, _)| *at > since.0)
            .collect();
        changed.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Ok(changed.into_iter().map(|(_, prompt)| prompt).collect())
    }

    /// The latest `most` entries that were made until `at`, the latest first. Ids only increase: after Redis' clock has
    /// stepped back, new entries have ids that are later than their time.
    pub async fn log_until(
        &self,
        prompt: &PromptName,
        at: Timestamp,
        most: usize,
    ) -> Result<Vec<DeploymentEntry>, StoreError> {
        let mut pipeline = Pipeline::new();
        for end in ["+".to_owned(), at.0.to_string()] {
            pipeline.cmd("XREVRANGE").arg(self.keys.log(prompt)).arg(end).arg("-").arg("COUNT").arg(most);
        }
        let (mut latest, by_id): (Raw, Raw) = self.link.read(&pipeline).await?;
        latest.retain(|(id, _)| by_id.iter().all(|(other, _)| other != id));
        let entries = latest.iter().chain(&by_id).filter_map(|(_, fields)| DeploymentEntry::read(fields));
        Ok(entries.filter(|entry| entry.at <= at).take(most).collect())
    }

    /// The versions with traffic of each prompt, as far as the last entries of its log tell.
    pub async fn in_service(&self, prompts: &[PromptName]) -> Result<Vec<Vec<Deployment>>, StoreError> {
        Ok(self.last_entries(prompts).await?.iter().map(|entries| in_service(entries.iter().rev())).collect())
    }

    /// The last change of each prompt after `since` and until `at`.
    async fn last_changes(
        &self,
        prompts: &[PromptName],
        since: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<Option<DeploymentEntry>>, StoreError> {
        let last = |entries: Vec<DeploymentEntry>| {
            let mut changes = entries.into_iter().filter(DeploymentEntry::is_change);
            changes.find(|entry| since < entry.at && entry.at <= at)
        };
        Ok(self.last_entries(prompts).await?.into_iter().map(last).collect())
    }

    /// The last entries of each log, the latest first; none of an unreadable one.
    async fn last_entries(&self, prompts: &[PromptName]) -> Result<Vec<Vec<DeploymentEntry>>, StoreError> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for prompt in prompts {
            pipeline.cmd("XREVRANGE").arg(self.keys.log(prompt)).arg("+").arg("-").arg("COUNT").arg(ENTRIES);
        }
        let Some(logs) = if_permitted(self.link.read_each::<Raw>(&pipeline).await)? else {
            return Ok(vec![Vec::new(); prompts.len()]);
        };
        let entries = |log: Raw| log.iter().filter_map(|(_, fields)| DeploymentEntry::read(fields)).collect();
        Ok(logs.into_iter().map(|log| log.map_or_else(|_| Vec::new(), entries)).collect())
    }
}
