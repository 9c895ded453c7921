//! What happened, line by line, for people.

use super::policy::Policy;
use super::time::Timestamp;

/// Something that happened to the incident: one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKind {
    Opened,
    Alert,
    Held,
    Flipped,
    Decided,
    /// A person marked a version that this is about.
    Marked,
    Asked,
    /// What Prometheus was asked, or said.
    Checked,
    Escalated,
    Reopened,
    Closed,
}

impl NoteKind {
    pub const ALL: [NoteKind; 11] = [
        NoteKind::Opened,
        NoteKind::Alert,
        NoteKind::Held,
        NoteKind::Flipped,
        NoteKind::Decided,
        NoteKind::Marked,
        NoteKind::Asked,
        NoteKind::Checked,
        NoteKind::Escalated,
        NoteKind::Reopened,
        NoteKind::Closed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            NoteKind::Opened => "opened",
            NoteKind::Alert => "alert",
            NoteKind::Held => "held",
            NoteKind::Flipped => "flipped",
            NoteKind::Decided => "decided",
            NoteKind::Marked => "marked",
            NoteKind::Asked => "asked",
            NoteKind::Checked => "checked",
            NoteKind::Escalated => "escalated",
            NoteKind::Reopened => "reopened",
            NoteKind::Closed => "closed",
        }
    }
}
