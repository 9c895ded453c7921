//! Reads about all prompts at once, for the page: their names, what is open, and who paused automation.

use std::collections::BTreeMap;

use super::pause_entry::describe_pause;
use super::{ListedIncident, Store, StoreError};
use crate::decision::{Incident, PromptName};

/// Names that are read at once.
const NAMES: usize = 2_000;
/// Open incidents that are read at once.
const INCIDENTS: usize = 200;

/// The open incidents.
#[derive(Debug, Default)]
pub struct OpenIncidents {
    pub incidents: Vec<Incident>,
    /// Whether there are more.
    pub partial: bool,
}

impl Store {
    /// The names of all prompts, sorted.
    pub async fn prompt_names(&self) -> Result<Vec<PromptName>, StoreError> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.names(self.keys.prompts(), cursor.as_deref(), NAMES, false).await?;
            all.extend(page.items.iter().filter_map(|name| PromptName::parse(name).ok()));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// Who paused automation, and why, by prompt. All prompts are not among them.
    pub async fn paused_prompts(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.paused());
        let all: BTreeMap<String, String> = self.link.read(&command).await?;
        let named = all.into_iter().filter(|(prompt, _)| PromptName::parse(prompt).is_ok());
        Ok(named.map(|(prompt, json)| (prompt, describe_pause(&json))).collect())
    }

    /// The latest `most` open incidents of prompts.
    pub async fn open_incidents(&self, most: usize) -> Result<OpenIncidents, StoreError> {
        let (mut incidents, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.listed(cursor.as_deref(), INCIDENTS, true, Some(&|_| true)).await?;
            incidents.extend(page.items.into_iter().filter_map(|listed| match listed {
                ListedIncident::One(incident) => Some(*incident),
                ListedIncident::Outage(_) => None,
            }));
            cursor = page.next;
            if cursor.is_none() || incidents.len() >= most {
                return Ok(OpenIncidents { incidents, partial: cursor.is_some() });
            }
        }
    }
}
