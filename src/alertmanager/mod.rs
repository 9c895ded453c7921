//! Alertmanager's side of the wire.

pub mod client;
mod json;
pub mod payload;
