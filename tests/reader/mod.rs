//! The reader for prompt servers: the choice of a version, and readers that follow a real Redis.

mod cluster;
mod follow;
mod keys;
mod names;
mod python;
mod sentinel;
mod servers;
mod split;
mod standalone;
