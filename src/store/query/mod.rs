//! Reads for people and metrics, and the pause switch.

mod incidents;
mod log;
mod pause;
mod series;
mod server;

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use redis::FromRedisValue;

use super::record::SCHEMA;
use super::script::Call;
use super::{Loaded, Store, StoreError};
use crate::decision::{Needs, PromptName};

pub use incidents::ListedIncident;
pub use log::{LogCursor, LoggedChange, is_entry};
pub use series::VersionSeries;
pub(super) use series::info_line;
pub(super) use server::{if_permitted, info_field, prompt_named};

/// Records of a list that are read at once, so that no alert waits for a whole page, in Redis or here.
const AT_ONCE: usize = 16;

/// Prompts that one script looks at, so that it blocks Redis for a fraction of a millisecond.
const BATCH: usize = 100;

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

/// Which prompts may be listed.
pub type Visible<'a> = dyn Fn(&PromptName) -> bool + Send + Sync + 'a;

impl Store {
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

    /// The prompts whose `active` differs from their state.
    pub async fn drifted(&self, prompts: &[PromptName]) -> Result<Vec<PromptName>, StoreError> {
        self.found_among(prompts, self.scripts.outside.call(&self.keys_and_states(prompts))).await
    }

    /// The prompts that may serve nothing, because their key was deleted or holds no version, or because their state cannot be read.
    /// [`rows`](Self::rows) tells.
    pub async fn broken(&self, prompts: &[PromptName]) -> Result<Vec<PromptName>, StoreError> {
        let batches = prompts.chunks(BATCH).map(|batch| {
            let mut call = self.scripts.broken.call(&self.keys_and_states(batch));
            call.cmd.arg(SCHEMA);
            self.found_among(batch, call)
        });
        let batches: Vec<_> = batches.collect();
        futures_util::stream::iter(batches).buffered(AT_ONCE).try_concat().await
    }

    fn keys_and_states(&self, prompts: &[PromptName]) -> Vec<String> {
        prompts.iter().flat_map(|prompt| [self.keys.active(prompt), self.keys.state(prompt)]).collect()
    }

    /// Runs a script that answers with indexes of `prompts`.
    async fn found_among(&self, prompts: &[PromptName], call: Call<'_>) -> Result<Vec<PromptName>, StoreError> {
        let indexes = Vec::<usize>::from_redis_value(self.read_script(&call).await?)
            .map_err(|_| StoreError::unexpected("a script about prompts"))?;
        Ok(indexes.into_iter().filter_map(|i| prompts.get(i).cloned()).collect())
    }

    /// Some prompts that have a state, by name, after `cursor`.
    pub async fn known(&self, cursor: Option<&str>) -> Result<Page<PromptName>, StoreError> {
        const PAGE: usize = 500;
        let Page { items, next } = self.names(self.keys.prompts(), cursor, PAGE, false).await?;
        Ok(Page { items: items.iter().filter_map(|name| PromptName::parse(name).ok()).collect(), next })
    }
}
