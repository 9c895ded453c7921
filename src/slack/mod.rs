//! Slack's side of the wire.

pub mod client;
pub mod payload;
pub mod render;
pub mod socket;
