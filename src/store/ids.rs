//! Names for what is new.

use ulid::Ulid;

use crate::decision::Timestamp;

/// Sorts by the time of Redis, whatever this machine's clock says.
pub fn fresh_ulid(now: Timestamp) -> String {
    let at = u64::try_from(now.0).unwrap_or_default();
    Ulid::from_parts(at, Ulid::generate().random()).to_string()
}
