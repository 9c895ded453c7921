//! Slack: messages, clicks, the Web API and Socket Mode.

pub mod client;
pub mod payload;
pub mod render;
pub mod socket;
