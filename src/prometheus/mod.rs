//! Prometheus: what is asked, and how its answers are read.

pub mod ab_test;
pub mod bound;
pub mod client;
pub mod comparison;
pub mod exposure;
pub mod question;
pub mod recheck;
