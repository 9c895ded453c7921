//! Prometheus: queries, and the meaning of their answers.

pub mod ab_test;
mod alone;
pub mod bound;
pub mod client;
pub mod comparison;
pub mod config;
mod counters;
pub mod durations;
pub mod exposure;
pub mod figures;
pub mod question;
mod quoting;
pub mod recheck;
pub mod server;
