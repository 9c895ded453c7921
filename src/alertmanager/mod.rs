//! Alertmanager: webhook payloads, and the client of its API.

pub mod client;
mod json;
pub mod payload;
