//! Reads keys that already hold active versions: of this namespace, or of another layout.

use super::{RedisFault, Store, StoreError};
use crate::decision::names::trimmed;
use crate::decision::{PromptName, VersionName};
use crate::visible::is_hidden;

/// Keys returned by one SCAN.
const PAGE: usize = 100;

/// Where to look for active versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// The `active` keys of this namespace, of prompts whose names match this glob.
    Own(String),
    /// Keys of another layout: the parts before and after the prompt's name.
    Foreign { before: String, after: String },
}

impl Layout {
    const PROMPT: &str = "{prompt}";
    const MAX: usize = 200;

    /// Parses a pattern: a glob on prompt names, or a key that contains `{prompt}`.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() || pattern.len() > Self::MAX || pattern.chars().any(is_hidden) {
            return Err(format!("expected one line of 1 to {} bytes", Self::MAX));
        }
        match pattern.split_once(Self::PROMPT) {
            None => Ok(Self::Own(pattern.to_owned())),
            Some((_, after)) if after.contains(Self::PROMPT) => Err("expected {prompt} once".to_owned()),
            Some(("", "")) => Err("expected more than {prompt}: every key would match".to_owned()),
            Some((before, after)) => Ok(Self::Foreign { before: before.to_owned(), after: after.to_owned() }),
        }
    }

    /// The prompt whose version `key` holds; `None` if its name is invalid.
    fn prompt(&self, store: &Store, key: &[u8]) -> Option<PromptName> {
        match self {
            Self::Own(_) => store.prompt_of_active(key),
            Self::Foreign { before, after } => {
                let name = key.strip_prefix(before.as_bytes())?.strip_suffix(after.as_bytes())?;
                let name = std::str::from_utf8(name).ok()?;
                // beside a colon, it is rather a part of another key: prompt:greeting:draft:version
                let beside_colon = before.ends_with(':') || after.starts_with(':');
                if beside_colon && name.contains(':') { None } else { PromptName::of(name).ok() }
            }
        }
    }
}

/// The value of a key of another layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportedValue {
    Version(VersionName),
    /// Unusable, with the reason.
    Unusable(&'static str),
}

/// A key that was found, and its prompt if the name is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    pub key: Vec<u8>,
    pub prompt: Option<PromptName>,
}

impl Store {
    /// Returns some keys of `layout`, from `cursor` on; a cursor of 0 ends the scan. A key may be returned twice.
    /// `None`: this user may not list keys.
    pub async fn scan(&self, layout: &Layout, cursor: u64) -> Result<Option<(u64, Vec<FoundKey>)>, StoreError> {
        if let Layout::Own(name) = layout
            && !name.contains(['*', '?', '[', '\\'])
            && let Ok(prompt) = PromptName::written(name)
        {
            // not a glob: no need to scan
            let key = self.keys.active(&prompt).into_bytes();
            return Ok(Some((0, vec![FoundKey { key, prompt: Some(prompt) }])));
        }
        let pattern = match layout {
            Layout::Own(glob) => format!("{}{glob}", literal(&self.keys.active_prefix())),
            Layout::Foreign { before, after } => format!("{}*{}", literal(before), literal(after)),
        };
        let Some((next, keys)) = self.scan_keys(cursor, &pattern, PAGE).await? else { return Ok(None) };
        let found = keys.into_iter().map(|key| FoundKey { prompt: layout.prompt(self, &key), key });
        Ok(Some((next, found.collect())))
    }

    /// Whether keys of `layout` may be on nodes that are not scanned.
    pub fn may_miss(&self, layout: &Layout) -> bool {
        matches!(layout, Layout::Foreign { .. }) && self.link.connector().is_cluster()
    }

    /// Whether this user may read keys outside the namespace: tries to read one.
    pub async fn reads_everything(&self) -> Result<bool, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.elsewhere());
        match self.link.read::<redis::Value>(&command).await {
            Ok(_) | Err(StoreError::Broken { .. }) => Ok(true),
            Err(StoreError::Unavailable { kind: RedisFault::NoPerm, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a key of another layout.
    pub async fn read_foreign(&self, key: &[u8]) -> Result<ImportedValue, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(key);
        let value: Option<Vec<u8>> = match self.link.read(&command).await {
            Ok(value) => value,
            Err(StoreError::Broken { .. }) => {
                return Ok(ImportedValue::Unusable("holds the wrong type: expected a string"));
            }
            Err(error) => return Err(error),
        };
        let Some(value) = value else { return Ok(ImportedValue::Unusable("is gone")) };
        let version = std::str::from_utf8(trimmed(&value)).ok().and_then(|text| VersionName::parse(text).ok());
        Ok(version.map_or(
            ImportedValue::Unusable("holds no version: expected a name such as v1.9.0"),
            ImportedValue::Version,
        ))
    }
}

/// Escapes `text` to a glob that matches nothing else.
pub(super) fn literal(text: &str) -> String {
    text.chars().flat_map(|c| ['\\'].into_iter().filter(move |_| "*?[]\\".contains(c)).chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_globs_or_keys_with_a_place_for_the_prompt() {
        assert_eq!(Layout::parse("team/*"), Ok(Layout::Own("team/*".to_owned())));
        let foreign = Layout::Foreign { before: "app:".to_owned(), after: ":version".to_owned() };
        assert_eq!(Layout::parse("app:{prompt}:version"), Ok(foreign));
        for bad in ["", "{prompt}", "{prompt}:{prompt}", "a\n*", "a\u{202e}*", &"a".repeat(201)] {
            assert!(Layout::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_stands_around_the_prompt_is_taken_literally() {
        assert_eq!(literal(r"a*b?[c]\d:{e}"), r"a\*b\?\[c\]\\d:{e}");
    }
}
