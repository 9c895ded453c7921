//! A Redis that moves: failovers by real sentinels, and the moves of a slot in a real cluster.

mod cluster;
mod drill;
mod reload;
mod sentinel;

use anyhow::Result;
use prompt_rollback_testkit::sentinels::{Sentinels, receiver_env};

use crate::common::Receiver;

/// A configured address of Redis that nothing may connect to: the sentinels know better.
const NOWHERE: &str = "redis://elsewhere.invalid";

/// A receiver that asks these sentinels.
async fn receiver(world: &Sentinels, more: &[(&str, &str)]) -> Result<Receiver> {
    Receiver::ready(NOWHERE, &receiver_env(&world.nodes(), more)).await
}
