//! New ids.

use ulid::Ulid;

use crate::decision::Timestamp;

/// A ULID that sorts by Redis TIME, whatever the local clock is.
pub fn fresh_ulid(now: Timestamp) -> String {
    let at = u64::try_from(now.0).unwrap_or_default();
    Ulid::from_parts(at, Ulid::generate().random()).to_string()
}

/// The id of a drill, in its alert and in keys; always a ULID, also if another program wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillId(String);

impl DrillId {
    pub fn fresh(now: Timestamp) -> Self {
        Self(fresh_ulid(now))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let id = Ulid::from_string(text).ok()?.to_string();
        (id == text).then_some(Self(id))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
