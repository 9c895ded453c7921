//! What the key `active` holds.

use super::names::VersionName;
use super::time::Timestamp;

/// Somebody deleted `active`, or SET it to what is no version. Prompt servers then keep the version that they have, so
/// what is open stays open, and nothing is decided without a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    pub since: Timestamp,
    /// What the key holds, shortened; `None`: it was deleted.
    pub holds: Option<String>,
    /// What had traffic before, and what alerts have named since.
    pub versions: Vec<VersionName>,
}

impl Lapsed {
    /// What is wrong with the key, in words.
    pub fn fault(&self) -> String {
        match &self.holds {
            None => "the key active was deleted".to_owned(),
            Some(text) => format!("the key active holds {text:?}, which is no version"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    pub version: VersionName,
    pub since: Timestamp,
    pub by: ActivatedBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivatedBy {
    /// A rollback, automatic or by a person.
    Rollback,
    Person,
    /// Someone SET the key.
    External,
}

impl ActivatedBy {
    pub const ALL: [ActivatedBy; 3] = [ActivatedBy::Rollback, ActivatedBy::Person, ActivatedBy::External];

    pub fn as_str(self) -> &'static str {
        match self {
            ActivatedBy::Rollback => "rollback",
            ActivatedBy::Person => "person",
            ActivatedBy::External => "external",
        }
    }
}
