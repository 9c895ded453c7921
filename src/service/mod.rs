//! Carries out what people and alerts ask for: each file loads what it needs, lets the engine decide, and reports the result.
//! It talks to Redis only.

pub mod clicks;
pub mod coordinate;
pub mod drafts;
pub mod drills;
pub mod explain;
pub mod reports;
pub mod updates;
