//! Alertmanager's side of the wire.

pub mod payload;
