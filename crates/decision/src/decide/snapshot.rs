//! One prompt as a decision finds it.

use crate::names::trimmed;
use crate::{CommitId, Incident, IncidentId, PromptName, PromptState, VersionName};

/// One prompt as it was loaded, in one round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub prompt: PromptName,
    pub active: Active,
    /// Fields and values of `routing`, as they are.
    pub routing: Vec<(String, String)>,
    pub state: PromptState,
    /// Who paused automation for this prompt or for all, and why.
    pub paused: Option<String>,
    /// How many other prompts were rolled back automatically within the budget's window.
    pub recent_auto: u32,
    /// For [`Event::Decide`] and [`Event::Mark`]: the incident, which may be closed and so gone from the state.
    pub incident: Option<Incident>,
    /// For [`Event::Register`] and some of [`Event::ArchiveReport`]: the content that this version has in Redis.
    pub content: Option<String>,
    /// What this decision's commit will be called.
    pub commit: CommitId,
    /// Ids for the incidents that this decision may open: one for each version that the event names.
    pub fresh_ids: Vec<IncidentId>,
}

/// The raw value of `active`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Active {
    Absent,
    Version(VersionName),
    /// Someone SET what is no version; the text is shortened for the log.
    Foreign(String),
}

impl Active {
    /// What a value of the key says. Whitespace and NUL around a version are not part of it.
    pub fn read(value: Option<&[u8]>) -> Self {
        /// As long as the longest version.
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
