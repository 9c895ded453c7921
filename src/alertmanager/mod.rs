//! Alertmanager: webhook payloads, the client of its API, and its config file.

pub mod client;
pub mod config;
mod json;
pub mod matchers;
pub mod payload;
