//! One prompt as a decision finds it.

use crate::names::trimmed;
use crate::{CommitId, Incident, IncidentId, PromptName, PromptState, VersionName};

/// The state of one prompt, loaded in one round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub prompt: PromptName,
    pub active: Active,
    /// Fields and values of `routing`, unparsed.
    pub routing: Vec<(String, String)>,
    pub state: PromptState,
    /// Who paused automation for this prompt or for all prompts, and why.
    pub paused: Option<String>,
    /// How many other prompts were rolled back automatically within the budget's window.
    pub recent_auto: u32,
    /// Who put all prompts on hold because of an outage.
    pub outage_hold: Option<String>,
    /// For [`Event::Decide`] and [`Event::Mark`]: the incident. A closed incident is no longer in the state.
    pub incident: Option<Incident>,
    /// For [`Event::Register`] and some of [`Event::ArchiveReport`]: this version's content in Redis.
    pub content: Option<String>,
    /// The id of this decision's commit.
    pub commit: CommitId,
    /// Ids for the incidents that this decision may open: one for each version that the event names.
    pub fresh_ids: Vec<IncidentId>,
}

/// The raw value of `active`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Active {
    Absent,
    Version(VersionName),
    /// Someone SET a value that is not a version. The text is shortened for the log.
    Foreign(String),
}

impl Active {
    /// Reads a value of the key. Whitespace and NUL around a version are ignored.
    pub fn read(value: Option<&[u8]>) -> Self {
        /// The longest version fits.
        const SHOWN: usize = VersionName::MAX;
        let Some(value) = value else { return Active::Absent };
        let text = std::str::from_utf8(trimmed(value)).ok();
        match text.and_then(|text| VersionName::parse(text).ok()) {
            Some(version) => Active::Version(version),
            None => Active::Foreign(String::from_utf8_lossy(value).chars().take(SHOWN).collect()),
        }
    }

    pub fn version(&self) -> Option<&VersionName> {
        match self {
            Active::Version(version) => Some(version),
            Active::Absent | Active::Foreign(_) => None,
        }
    }
}
