//! What the key `active` holds.

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, words};
use super::names::VersionName;
use super::time::Timestamp;

/// Someone deleted `active`, or SET it to a value that is not a version. Prompt servers keep their version, so open
/// incidents stay open, and nothing is decided without a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapsed {
    pub since: Timestamp,
    /// The value of the key, shortened; `None`: the key was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// The versions that had traffic before, and those that alerts have named since.
    #[serde(default, skip_serializing_if = "is_default")]
    pub versions: Vec<VersionName>,
}

impl Lapsed {
    /// Describes what is wrong with the key.
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
        /// An automatic rollback, or one by a person.
        Rollback = "rollback",
        Person = "person",
        /// Someone SET the key.
        External = "external",
    }
}
