//! What prompt servers embed: the choice of a version, and readers that follow a real Redis.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the tests of failovers")]
#[path = "../failover/nodes.rs"]
mod nodes;
#[allow(dead_code, reason = "shared with the tests of failovers")]
#[path = "../failover/world.rs"]
mod world;

mod both;
mod cluster;
mod follow;
mod names;
mod python;
mod sentinel;
mod servers;
mod split;
mod standalone;
