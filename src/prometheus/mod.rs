//! Prometheus: what is asked, and how its answers are read.

pub mod client;
pub mod question;
pub mod recheck;
