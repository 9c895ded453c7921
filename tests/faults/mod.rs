//! Invalid input and faults, end to end over HTTP.

mod bodies;
mod clients;
mod durability;
mod encodings;
mod fair;
mod lost;
mod malformed;
mod outages;
mod pages;
mod races;
mod refusals;
mod restarts;
mod startup;
