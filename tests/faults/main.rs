//! Bad input and faults, end to end over HTTP: what is given, and what happens then.

#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod broken;
mod clients;
mod durability;
mod lost;
mod mixed;
mod outages;
mod races;
mod restarts;
mod startup;
