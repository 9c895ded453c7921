//! Alertmanager's side of the wire.

pub mod client;
pub mod payload;
