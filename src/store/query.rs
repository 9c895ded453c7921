//! Reads for people and metrics, and the pause switch.

use std::time::Duration;

use futures_util::StreamExt;
use redis::{FromRedisValue, Pipeline, Value};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::outage::Coordinated;
use super::record::{self, StoredIncident};
use super::{Loaded, RedisFault, Store, StoreError};
use crate::decision::{Commit, Incident, IncidentId, Needs, Operator, PromptName, Served, Timestamp, VersionName};

/// Records of a list that are read at once, so that no alert waits for a whole page, in Redis or here.
const AT_ONCE: usize = 16;

/// Incidents that are read for a page of those that may be listed.
const MOST_READ: usize = 1_000;

/// A page of a list; `next` is the cursor of the following page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// A prompt in a list; `loaded` holds the error if it cannot be read.
#[derive(Debug)]
pub struct ListedPrompt {
    pub prompt: PromptName,
    pub loaded: Result<Loaded, StoreError>,
}

/// An entry of the deployment log, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedChange {
    pub id: String,
    /// Field and text, as in the stream.
    pub fields: Vec<(String, String)>,
}

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

/// The metric labels of one version with traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSeries {
    pub prompt: PromptName,
    pub version: String,
    pub previous: String,
    /// First activation.
    pub activated: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPause {
    #[serde(default)]
    operator: String,
    #[serde(default)]
    reason: String,
}

/// Describes an entry of the `paused` hash for people.
pub fn describe_pause(json: &str) -> String {
    let pause: StoredPause =
        serde_json::from_str(json).unwrap_or(StoredPause { operator: String::new(), reason: String::new() });
    let who = if pause.operator.is_empty() { "someone".to_owned() } else { pause.operator };
    if pause.reason.is_empty() { format!("by {who}") } else { format!("by {who}: {}", pause.reason) }
}

/// The `info` field of a state: one line for each version with traffic.
pub(super) fn info_line(commit: &Commit) -> String {
    let line = |served: &Served| {
        let previous = served.previous.as_ref().map_or("", VersionName::as_str);
        format!("{} {} {}", served.version, served.first_active.0, previous)
    };
    commit.served.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn read_info(prompt: &PromptName, info: &str) -> Vec<VersionSeries> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        Some(VersionSeries {
            prompt: prompt.clone(),
            version: words.next().filter(|v| !v.is_empty())?.to_owned(),
            activated: Timestamp(words.next()?.parse().ok()?),
            previous: words.next().unwrap_or_default().to_owned(),
        })
    };
    info.lines().filter_map(line).collect()
}

/// The id and the fields of an entry of a log.
type StreamEntry = (String, Vec<(String, String)>);

/// Which prompts may be listed.
pub type Visible<'a> = dyn Fn(&PromptName) -> bool + Send + Sync + 'a;

/// Where a page of all logs begins.
#[derive(Debug, Clone)]
pub struct LogCursor<'a> {
    prompt: PromptName,
    /// The entry before which it begins, or `+`; `None`: after this prompt.
    entry: Option<&'a str>,
}

impl<'a> LogCursor<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let (prompt, entry) = text.rsplit_once('@')?;
        let entry = (!entry.is_empty()).then_some(entry);
        let fits = entry.is_none_or(|entry| entry == "+" || is_entry(entry));
        Some(Self { prompt: PromptName::parse(prompt).ok().filter(|_| fits)?, entry })
    }
}

/// Whether `text` is the id of an entry of a log.
pub fn is_entry(text: &str) -> bool {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok();
    // no entry is 0-0, and Redis accepts no range that ends before it
    let is_first = |seq: &str| seq.bytes().all(|byte| byte == b'0');
    text.split_once('-').is_some_and(|(at, seq)| number(at) && number(seq) && !(is_first(at) && is_first(seq)))
}

impl Store {
    /// Pauses automation for `prompt`, or for all prompts. After this has returned, no automatic switch commits.
    /// Returns true if it was not paused before.
    pub async fn pause(
        &self,
        prompt: Option<&PromptName>,
        operator: &Operator,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let pause = StoredPause { operator: operator.to_string(), reason: reason.to_owned() };
        let json = serde_json::to_string(&pause).map_err(|_| StoreError::unexpected("pause"))?;
        let (key, field) = (self.keys.paused(), prompt.map_or(Keys::ALL, PromptName::as_str));
        let mut command = redis::cmd("HSET");
        command.arg(key).arg(field).arg(json);
        // not retried: a retry could pause again what was resumed since, or not recognize its own change
        let added: u32 = self.link.run(&command).await?;
        self.wait_for_replicas().await?;
        Ok(added == 1)
    }

    /// Resumes automation. Returns true if it was paused before.
    pub async fn resume(&self, prompt: Option<&PromptName>) -> Result<bool, StoreError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.paused()).arg(prompt.map_or(Keys::ALL, PromptName::as_str));
        let removed: u32 = self.link.run(&command).await?;
        self.wait_for_replicas().await?;
        Ok(removed == 1)
    }

    /// Who paused automation for `prompt` by name, or for all prompts, if anyone.
    pub async fn paused_by(&self, prompt: Option<&PromptName>) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.paused()).arg(prompt.map_or(Keys::ALL, PromptName::as_str));
        let json: Option<String> = self.link.read(&command).await?;
        Ok(json.map(|json| describe_pause(&json)))
    }

    /// Members of a set that is sorted by name, after `cursor`; `backwards`: in descending order.
    pub(super) async fn names(
        &self,
        key: String,
        cursor: Option<&str>,
        limit: usize,
        backwards: bool,
    ) -> Result<Page<String>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(key);
        match (cursor, backwards) {
            (None, false) => command.arg("-").arg("+"),
            (Some(cursor), false) => command.arg(format!("({cursor}")).arg("+"),
            (None, true) => command.arg("+").arg("-"),
            (Some(cursor), true) => command.arg(format!("({cursor}")).arg("-"),
        };
        command.arg("BYLEX");
        if backwards {
            command.arg("REV");
        }
        command.arg("LIMIT").arg(0).arg(limit + 1);
        let mut items: Vec<String> = self.link.read(&command).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().cloned() } else { None };
        Ok(Page { items, next })
    }

    /// Like [`names`](Self::names) of the prompts, without those that may not be listed, also as the next cursor.
    async fn visible_names(
        &self,
        cursor: Option<&str>,
        limit: usize,
        visible: &Visible<'_>,
    ) -> Result<Page<String>, StoreError> {
        let all = self.prompt_names().await?;
        let after = all.iter().filter(|name| cursor.is_none_or(|cursor| name.as_str() > cursor));
        let mut items: Vec<String> =
            after.filter(|name| visible(name)).take(limit + 1).map(ToString::to_string).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().cloned() } else { None };
        Ok(Page { items, next })
    }

    /// Prompts, by name. [`Store::rows`] reads them, a part at a time: a prompt's state may be large.
    pub async fn prompts(
        &self,
        cursor: Option<&str>,
        limit: usize,
        visible: Option<&Visible<'_>>,
    ) -> Result<Page<PromptName>, StoreError> {
        let page = match visible {
            None => self.names(self.keys.prompts(), cursor, limit, false).await?,
            Some(visible) => self.visible_names(cursor, limit, visible).await?,
        };
        let prompts = page.items.iter().filter_map(|name| PromptName::parse(name).ok()).collect();
        Ok(Page { items: prompts, next: page.next })
    }

    /// These prompts, in this order.
    pub async fn rows(&self, prompts: Vec<PromptName>, window: Duration) -> Result<Vec<ListedPrompt>, StoreError> {
        let rows: Vec<_> = prompts.into_iter().map(|prompt| self.row(prompt, window)).collect();
        let items: Vec<ListedPrompt> = futures_util::stream::iter(rows).buffered(AT_ONCE).collect().await;
        for row in &items {
            if let Err(error @ StoreError::Unavailable { .. }) = &row.loaded {
                return Err(error.clone());
            }
        }
        Ok(items)
    }

    async fn row(&self, prompt: PromptName, window: Duration) -> ListedPrompt {
        let loaded = self.load(&prompt, window, Needs::default()).await;
        ListedPrompt { prompt, loaded }
    }

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
        let limit = limit.max(items.len() + 1);
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
                next = items.last().map(|last| last.id().0.clone());
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
            let records = self.link.read_each::<Option<String>>(&pipeline).await?;
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
        json: Result<Option<String>, StoreError>,
        outages: bool,
    ) -> Result<Option<ListedIncident>, StoreError> {
        let Some(json) = json? else {
            if !outages {
                return Ok(None);
            }
            return Ok(self.outage(&id).await?.map(|found| ListedIncident::Outage(Box::new(found))));
        };
        let incident = match self.read_stored(&id, &json)? {
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
            let json: Option<String> = self.link.read(&*redis::cmd("GET").arg(&key)).await?;
            let Some(json) = json else { return Ok(None) };
            match self.read_stored(id, &json)? {
                StoredIncident::Here(incident, _) => return Ok(Some(*incident)),
                StoredIncident::Elsewhere(prompt) => match self.incident_of(&prompt, id).await? {
                    None => {} // it was closed in between, and its key holds the record now
                    found => return Ok(found),
                },
            }
        }
        Err(StoreError::Broken { key, detail: "its prompt's state does not contain it".to_owned() })
    }

    pub(super) fn read_stored(&self, id: &IncidentId, json: &str) -> Result<StoredIncident, StoreError> {
        record::read_stored(json).map_err(|error| StoreError::unreadable(&self.keys.incident(id), error))
    }

    /// An incident that is stored in its prompt's state.
    async fn incident_of(&self, prompt: &PromptName, id: &IncidentId) -> Result<Option<Incident>, StoreError> {
        let key = self.keys.state(prompt);
        let fields: (Option<String>, Option<String>) =
            self.link.read(&*redis::cmd("HMGET").arg(&key).arg("schema").arg("json")).await?;
        let state = self.read_state(&key, fields)?.0;
        Ok(state.incidents.into_iter().find(|incident| incident.id == *id))
    }

    /// The deployment log, the latest entry first; `cursor` is an entry's id.
    pub async fn log(
        &self,
        prompt: &PromptName,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<LoggedChange>, StoreError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.log(prompt));
        match cursor {
            None => command.arg("+"),
            Some(cursor) => command.arg(format!("({cursor}")),
        };
        command.arg("-").arg("COUNT").arg(limit + 1);
        let entries: Vec<StreamEntry> = self.link.read(&command).await?;
        let more = entries.len() > limit;
        let items: Vec<_> = entries.into_iter().take(limit).map(|(id, fields)| LoggedChange { id, fields }).collect();
        let next = if more { items.last().map(|entry| entry.id.clone()) } else { None };
        Ok(Page { items, next })
    }

    /// The logs of all prompts since then: prompts by name, the latest entry of each first; and the prompts whose log
    /// cannot be read. The cursor is `PROMPT@ENTRY` after an entry, or `PROMPT@` after all of a prompt. A page without
    /// entries can have a next one.
    pub async fn log_of_all(
        &self,
        cursor: Option<LogCursor<'_>>,
        since: Timestamp,
        limit: usize,
        visible: Option<&Visible<'_>>,
    ) -> Result<(Page<(PromptName, LoggedChange)>, Vec<PromptName>), StoreError> {
        /// Prompts of one page.
        const PROMPTS: usize = 1_000;
        /// Prompts that are read at once, and entries of each.
        const CHUNK: usize = 50;
        const ENTRIES: usize = 100;
        let (mut items, mut unreadable) = (Vec::new(), Vec::new());
        let mut read = async |prompts: &[PromptName], before: &str| -> Result<Option<String>, StoreError> {
            let most = (limit - items.len()).min(ENTRIES);
            let mut pipeline = Pipeline::new();
            for prompt in prompts {
                pipeline.cmd("XREVRANGE").arg(self.keys.log(prompt)).arg(before).arg(since.0.max(0));
                pipeline.arg("COUNT").arg(most + 1);
            }
            let logs = self.link.read_each::<Vec<StreamEntry>>(&pipeline).await?;
            for (prompt, entries) in prompts.iter().zip(logs) {
                let Ok(entries) = entries else {
                    unreadable.push(prompt.clone());
                    continue;
                };
                let room = (limit - items.len()).min(most);
                let more = entries.len() > room;
                let taken = entries.into_iter().take(room);
                items.extend(taken.map(|(id, fields)| (prompt.clone(), LoggedChange { id, fields })));
                if more {
                    let last = items.last().filter(|(of, _)| of == prompt).map_or("", |(_, entry)| &entry.id);
                    // an entry of this prompt was the last that fitted, or none of it fits
                    let next = if last.is_empty() { format!("{prompt}@+") } else { format!("{prompt}@{last}") };
                    return Ok(Some(next));
                }
            }
            Ok(None)
        };
        if let Some(LogCursor { prompt, entry: Some(entry) }) = &cursor
            && visible.is_none_or(|visible| visible(prompt))
        {
            let before = if *entry == "+" { "+".to_owned() } else { format!("({entry}") };
            if let next @ Some(_) = read(std::slice::from_ref(prompt), &before).await? {
                return Ok((Page { items, next }, unreadable));
            }
        }
        let after = cursor.as_ref().map(|cursor| cursor.prompt.as_str());
        let names = match visible {
            None => self.names(self.keys.prompts(), after, PROMPTS, false).await?,
            Some(visible) => self.visible_names(after, PROMPTS, visible).await?,
        };
        let prompts: Vec<PromptName> = names.items.iter().filter_map(|name| PromptName::parse(name).ok()).collect();
        for chunk in prompts.chunks(CHUNK) {
            if let next @ Some(_) = read(chunk, "+").await? {
                return Ok((Page { items, next }, unreadable));
            }
        }
        Ok((Page { items, next: names.next.map(|name| format!("{name}@")) }, unreadable))
    }

    /// The versions with traffic of the `most` prompts with the latest activity, and the number of prompts left out.
    pub async fn series(&self, most: usize) -> Result<(Vec<VersionSeries>, usize), StoreError> {
        const CHUNK: usize = 500;
        let key = self.keys.activity();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZCARD").arg(&key).cmd("ZRANGE").arg(&key).arg(0).arg(most.saturating_sub(1)).arg("REV");
        let (all, mut prompts): (usize, Vec<String>) = self.link.read(&pipeline).await?;
        prompts.truncate(most);
        let mut series = Vec::with_capacity(prompts.len());
        for chunk in prompts.chunks(CHUNK) {
            let names: Vec<PromptName> = chunk.iter().filter_map(|p| PromptName::parse(p).ok()).collect();
            let mut pipeline = Pipeline::new();
            for prompt in &names {
                pipeline.cmd("HGET").arg(self.keys.state(prompt)).arg("info");
            }
            let infos = self.link.read_each::<Option<String>>(&pipeline).await?;
            for (prompt, info) in names.iter().zip(infos) {
                series.extend(read_info(prompt, info.ok().flatten().as_deref().unwrap_or_default()));
            }
        }
        Ok((series, all.saturating_sub(most)))
    }

    /// The open incidents by phase, and the number of dead letters.
    pub async fn counts(&self) -> Result<(Vec<(String, i64)>, u64), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HGETALL").arg(self.keys.phases()).cmd("ZCARD").arg(self.keys.dead_letters());
        self.link.read(&pipeline).await
    }

    /// One round trip.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        let start = tokio::time::Instant::now();
        self.link.read::<Value>(&redis::cmd("PING")).await?;
        Ok(start.elapsed())
    }

    /// Tests whether Redis can be written to. A replica, a full and a loading Redis answer PING as well.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.wait_for_replicas()).arg(1);
        self.link.read::<Value>(&command).await.map(drop)
    }

    /// The text of these INFO sections, if permitted.
    pub(super) async fn info(&self, sections: &[&str]) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg(sections);
        if_permitted(self.link.run(&command).await)
    }

    /// The server version, from INFO if permitted.
    pub async fn server_version(&self) -> Result<Option<String>, StoreError> {
        let Some(info) = self.info(&["server"]).await? else { return Ok(None) };
        let field = |name: &str| info_field(&info, name);
        // Valkey reports the Redis version that it is compatible with here
        let valkey = field("valkey_version:").map(|valkey| format!(", Valkey {valkey}")).unwrap_or_default();
        Ok(field("redis_version:").map(|version| format!("{version}{valkey}")))
    }

    /// The prompts whose `active` differs from their state.
    pub async fn drifted(&self, prompts: &[PromptName]) -> Result<Vec<PromptName>, StoreError> {
        let keys: Vec<String> =
            prompts.iter().flat_map(|prompt| [self.keys.active(prompt), self.keys.state(prompt)]).collect();
        let call = self.scripts.outside.call(&keys);
        let indexes = Vec::<usize>::from_redis_value(self.read_script(&call).await?)
            .map_err(|_| StoreError::unexpected("outside"))?;
        Ok(indexes.into_iter().filter_map(|i| prompts.get(i).cloned()).collect())
    }

    /// Some prompts that have a state, by name, after `cursor`.
    pub async fn known(&self, cursor: Option<&str>) -> Result<Page<PromptName>, StoreError> {
        const PAGE: usize = 500;
        let Page { items, next } = self.names(self.keys.prompts(), cursor, PAGE, false).await?;
        Ok(Page { items: items.iter().filter_map(|name| PromptName::parse(name).ok()).collect(), next })
    }

    /// Some prompts that have an `active` key, from `cursor` on; a cursor of 0 ends the scan. `None`: this user may not
    /// list keys. ACLs cannot limit SCAN to some keys, so it is not required where [`Store::known`] is enough.
    pub async fn scan_active(&self, cursor: u64) -> Result<Option<(u64, Vec<PromptName>)>, StoreError> {
        let pattern = format!("{}*", super::import::literal(&self.keys.active_prefix()));
        let Some((next, keys)) = self.scan_keys(cursor, &pattern, 500).await? else { return Ok(None) };
        Ok(Some((next, keys.iter().filter_map(|key| self.prompt_of_active(key)).collect())))
    }

    /// One SCAN; `None` if it is not permitted, or not there.
    pub(super) async fn scan_keys(
        &self,
        cursor: u64,
        pattern: &str,
        count: usize,
    ) -> Result<Option<(u64, Vec<Vec<u8>>)>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
        if_permitted(self.link.read(&command).await)
    }

    /// The prompt of an `active` key; `None` if the key is of another kind, or the name is invalid.
    pub fn prompt_of_active(&self, key: &[u8]) -> Option<PromptName> {
        prompt_named(key.strip_prefix(self.keys.active_prefix().as_bytes())?)
    }
}

/// The prompt of this name; `None` if the name is invalid.
pub(super) fn prompt_named(name: &[u8]) -> Option<PromptName> {
    PromptName::parse(std::str::from_utf8(name).ok()?).ok()
}

/// The value of the INFO line that begins with `name`, which ends with a colon.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `None` if the user, or the provider of this Redis, does not permit the command.
pub(super) fn if_permitted<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Unavailable { kind: RedisFault::NoPerm | RedisFault::Other, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
