//! What the key `active` holds.

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, words};
use super::names::VersionName;
use super::time::Timestamp;

/// Somebody deleted `active`, or SET it to what is no version. Prompt servers then keep the version that they have, so
/// what is open stays open, and nothing is decided without a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapsed {
    pub since: Timestamp,
    /// What the key holds, shortened; `None`: it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// What had traffic before, and what alerts have named since.
    #[serde(default, skip_serializing_if = "is_default")]
    pub versions: Vec<VersionName>,
}

impl Lapsed {
    /// What is wrong with the key, in words.
    pub fn fault(&self) -> String {
        match &self.holds {
            None => "the key active was deleted".to_owned(),
            Some(text) => format!("the key active holds {text:?}, which is not a version"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    pub version: VersionName,
    pub since: Timestamp,
    pub by: ActivatedBy,
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum ActivatedBy {
        /// A rollback, automatic or by a person.
        Rollback = "rollback",
        Person = "person",
        /// Someone SET the key.
        External = "external",
    }
}
