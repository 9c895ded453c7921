//! What happened, line by line, for people.

use serde::{Deserialize, Serialize};

use super::encoding::words;
use super::policy::Policy;
use super::time::Timestamp;

/// Something that happened to the incident: one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub seq: u32,
    pub at: Timestamp,
    pub kind: NoteKind,
    pub text: String,
}

impl Note {
    /// Keeps the latest, and the first, which says how it began.
    pub fn append(notes: &mut Vec<Self>, at: Timestamp, kind: NoteKind, text: String) {
        let seq = notes.last().map_or(0, |note| note.seq + 1);
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
        /// A person marked a version that this is about.
        Marked = "marked",
        Asked = "asked",
        /// What Prometheus was asked, or said.
        Checked = "checked",
        Escalated = "escalated",
        Reopened = "reopened",
        Closed = "closed",
    }
}
