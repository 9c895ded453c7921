//! A Redis that moves: failovers by real sentinels, and the moves of a slot in a real cluster.

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod drill;
#[allow(dead_code, reason = "shared with the tests of readers")]
mod nodes;
mod reload;
mod sentinel;
mod world;
