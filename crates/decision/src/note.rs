//! Notes: the history of an incident, for people.

use serde::{Deserialize, Serialize};

use super::encoding::words;
use super::policy::Policy;
use super::time::Timestamp;

/// One line about what happened to an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub seq: u32,
    pub at: Timestamp,
    pub kind: NoteKind,
    pub text: String,
}

impl Note {
    /// Keeps the latest notes, and the first one, which says how the incident began.
    pub fn append(notes: &mut Vec<Self>, at: Timestamp, kind: NoteKind, text: String) {
        let seq = notes.last().map_or(0, |note| note.seq.saturating_add(1));
        notes.push(Self { seq, at, kind, text });
        if notes.len() > Policy::MAX_NOTES {
            notes.remove(1);
        }
    }
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum NoteKind {
        Opened = "opened",
        Alert = "alert",
        Held = "held",
        Switched = "flipped",
        Decided = "decided",
        /// A person marked a version that the incident is about.
        Marked = "marked",
        Asked = "asked",
        /// A question to Prometheus, or its answer.
        Checked = "checked",
        Escalated = "escalated",
        Reopened = "reopened",
        Closed = "closed",
    }
}
