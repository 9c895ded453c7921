//! The request that caused something, for the task that continues the work.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// A position in a trace, in the format of W3C Trace Context. No rule reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The header `traceparent`.
    pub parent: String,
    /// The header `tracestate`; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// When the request was decided.
    pub at: Timestamp,
}
