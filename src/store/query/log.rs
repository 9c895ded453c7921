//! The deployment log.

use redis::Pipeline;

use super::{Page, Visible};
use crate::decision::{PromptName, Timestamp};
use crate::deployed::DeploymentEntry;
use crate::store::{Store, StoreError};

/// An entry of the deployment log, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedChange {
    pub id: String,
    /// Field and text, as in the stream.
    pub fields: Vec<(String, String)>,
}

/// The id and the fields of an entry of a log.
type StreamEntry = (String, Vec<(String, String)>);

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
                // an entry of this prompt was the last that fitted, or none of it fits
                let last = entries.iter().take(room).next_back().map_or("+", |(id, _)| id.as_str());
                let next = more.then(|| format!("{prompt}@{last}"));
                // an id may be later than its entry, because ids only increase
                let is_recent = |fields: &[_]| DeploymentEntry::read(fields).is_none_or(|entry| entry.at >= since);
                let taken = entries.into_iter().take(room).filter(|(_, fields)| is_recent(fields));
                items.extend(taken.map(|(id, fields)| (prompt.clone(), LoggedChange { id, fields })));
                if next.is_some() {
                    return Ok(next);
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
}
