//! Bad input and faults, end to end over HTTP: what is given, and what happens then.

#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod broken;
mod clients;
mod durability;
mod encodings;
mod fair;
mod lost;
mod malformed;
mod mixed;
mod outages;
mod pages;
mod races;
mod refusals;
mod restarts;
mod startup;
