//! New ids.

use ulid::Ulid;

use crate::decision::Timestamp;

/// A ULID that sorts by Redis TIME, whatever the local clock is.
pub fn fresh_ulid(now: Timestamp) -> String {
    let at = u64::try_from(now.0).unwrap_or_default();
    Ulid::from_parts(at, Ulid::generate().random()).to_string()
}
