//! What prompt servers embed: the choice of a version, and readers that follow a real Redis.

mod follow;
mod python;
mod servers;
mod split;
