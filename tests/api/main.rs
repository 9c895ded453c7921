//! The HTTP API as the contract has it, on a real Redis.

#[path = "../common/mod.rs"]
mod common;

mod import;
mod incidents;
mod marks;
mod metrics;
mod outage;
mod outside;
mod pages;
mod postmortem;
mod prompts;
mod reload;
mod report;
mod retention;
mod rollback;
mod shutdown;
mod signals;
mod sources;
mod splits;
mod timers;
mod traces;
mod webhooks;
