//! The tests of the receiver, with real servers: one program, because each program links the whole crate.
//!
//! `cargo test NAME` runs the tests whose path contains `NAME`: `cargo test slack::`, `cargo test failover::sentinel`. Tests run in
//! the order of their paths, a few at a time, so the tests of one module are the usual neighbours of one another.
//!
//! Two programs stand apart: `chaos` starts some fifty servers at once, and `linear` measures CPU time.

mod api;
mod browser;
mod cli;
mod common;
mod config;
mod docs;
mod e2e;
mod failover;
mod faults;
mod fuzz;
mod layers;
mod proof;
mod reader;
mod security;
mod slack;
mod store;
