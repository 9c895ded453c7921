//! Incidents, one and in lists.

use redis::Pipeline;

use super::{AT_ONCE, Page, Visible};
use crate::decision::{Incident, IncidentId, PromptName};
use crate::store::outage::Coordinated;
use crate::store::record::{self, StoredIncident};
use crate::store::reply::text;
use crate::store::{Store, StoreError};

/// Incidents that are read for a page of those that may be listed.
const MOST_READ: usize = 1_000;
/// The cursor before the latest incident: no ULID begins with a Z.
const BEFORE_ALL: &str = "ZZZZZZZZZZZZZZZZZZZZZZZZZZ";

/// An incident in a list.
#[derive(Debug)]
pub enum ListedIncident {
    /// An incident of one prompt.
    One(Box<Incident>),
    /// A coordinating incident.
    Outage(Box<Coordinated>),
}

impl ListedIncident {
    fn id(&self) -> &IncidentId {
        match self {
            Self::One(incident) => &incident.id,
            Self::Outage(found) => &found.outage.id,
        }
    }
}

impl Store {
    /// Incidents of prompts, the latest first.
    pub async fn incidents(
        &self,
        cursor: Option<&str>,
        limit: usize,
        open_only: bool,
    ) -> Result<Page<Incident>, StoreError> {
        let page = self.listed(cursor, limit, open_only, Some(&|_| true)).await?;
        let of_prompt = |listed| match listed {
            ListedIncident::One(incident) => Some(*incident),
            ListedIncident::Outage(_) => None,
        };
        Ok(Page { items: page.items.into_iter().filter_map(of_prompt).collect(), next: page.next })
    }

    /// Incidents of `visible` prompts, the latest first. `None`: of all prompts, and coordinating incidents; the open one
    /// comes before all others, because it is older than most of its members.
    ///
    /// A page has fewer than `limit` incidents, and a cursor, if [`MOST_READ`] others had to be read for it.
    pub async fn listed(
        &self,
        cursor: Option<&str>,
        limit: usize,
        open_only: bool,
        visible: Option<&Visible<'_>>,
    ) -> Result<Page<ListedIncident>, StoreError> {
        let key = if open_only { self.keys.open() } else { self.keys.incidents() };
        let outage = self.open_outage().await?;
        let mut items = Vec::new();
        if let (Some(id), None, None) = (&outage, cursor, visible) {
            items.extend(self.outage(id).await?.map(|found| ListedIncident::Outage(Box::new(found))));
        }
        let is_full = items.len() == limit;
        let mut next = cursor.map(str::to_owned);
        let mut read = 0;
        loop {
            let mut page = self.names(key.clone(), next.as_deref(), limit, true).await?;
            read += page.items.len();
            page.items.retain(|id| outage.as_ref().is_none_or(|outage| outage.0 != *id));
            self.read_listed(&page.items, visible, &mut items).await?;
            next = page.next;
            if items.len() > limit {
                items.truncate(limit);
                // the open coordinating incident is older than those that follow it
                next = if is_full { Some(BEFORE_ALL.to_owned()) } else { items.last().map(|last| last.id().0.clone()) };
            }
            if next.is_none() || items.len() == limit || read >= MOST_READ {
                return Ok(Page { items, next });
            }
        }
    }

    /// Adds those of these incidents that may be listed.
    async fn read_listed(
        &self,
        ids: &[String],
        visible: Option<&Visible<'_>>,
        items: &mut Vec<ListedIncident>,
    ) -> Result<(), StoreError> {
        for ids in ids.chunks(AT_ONCE) {
            let mut pipeline = Pipeline::new();
            for id in ids {
                pipeline.cmd("GET").arg(self.keys.incident(&IncidentId(id.clone())));
            }
            let records = self.link.read_each::<Option<Vec<u8>>>(&pipeline).await?;
            let all = visible.is_none();
            let listed = ids.iter().zip(records).map(|(id, json)| self.listed_as(IncidentId(id.clone()), json, all));
            for listed in futures_util::future::join_all(listed).await {
                // an expired or damaged record must not hide the others
                match listed {
                    Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                    listed => items.extend(listed.ok().flatten().filter(|listed| match (listed, visible) {
                        (_, None) => true,
                        (ListedIncident::One(incident), Some(visible)) => visible(&incident.prompt),
                        (ListedIncident::Outage(_), Some(_)) => false,
                    })),
                }
            }
        }
        Ok(())
    }

    /// The incident at whose key this was found; with `outages`, also a coordinating one.
    async fn listed_as(
        &self,
        id: IncidentId,
        json: Result<Option<Vec<u8>>, StoreError>,
        outages: bool,
    ) -> Result<Option<ListedIncident>, StoreError> {
        let Some(json) = json? else {
            if !outages {
                return Ok(None);
            }
            return Ok(self.outage(&id).await?.map(|found| ListedIncident::Outage(Box::new(found))));
        };
        let incident = match self.read_stored(&id, &text(json))? {
            StoredIncident::Here(incident, _) => Some(incident),
            StoredIncident::Elsewhere(prompt) => match self.incident_of(&prompt, &id).await? {
                None => self.incident(&id).await?.map(Box::new), // closed meanwhile
                Some(incident) => Some(Box::new(incident)),
            },
        };
        Ok(incident.map(ListedIncident::One))
    }

    pub async fn incident(&self, id: &IncidentId) -> Result<Option<Incident>, StoreError> {
        const ROUNDS: u32 = 5;
        let key = self.keys.incident(id);
        for _ in 0..ROUNDS {
            let json: Option<Vec<u8>> = self.link.read(&*redis::cmd("GET").arg(&key)).await?;
            let Some(json) = json else { return Ok(None) };
            match self.read_stored(id, &text(json))? {
                StoredIncident::Here(incident, _) => return Ok(Some(*incident)),
                StoredIncident::Elsewhere(prompt) => match self.incident_of(&prompt, id).await? {
                    None => {} // it was closed in between, and its key holds the record now
                    found => return Ok(found),
                },
            }
        }
        Err(StoreError::Broken { key, detail: "its prompt's state does not contain it".to_owned() })
    }

    pub(in crate::store) fn read_stored(&self, id: &IncidentId, json: &str) -> Result<StoredIncident, StoreError> {
        record::read_stored(json).map_err(|error| StoreError::unreadable(&self.keys.incident(id), error))
    }

    /// An incident that is stored in its prompt's state.
    async fn incident_of(&self, prompt: &PromptName, id: &IncidentId) -> Result<Option<Incident>, StoreError> {
        let key = self.keys.state(prompt);
        let (schema, json): (Option<Vec<u8>>, Option<Vec<u8>>) =
            self.link.read(&*redis::cmd("HMGET").arg(&key).arg("schema").arg("json")).await?;
        let state = self.read_state(&key, (schema.map(text), json.map(text)))?.0;
        Ok(state.incidents.into_iter().find(|incident| incident.id == *id))
    }
}
