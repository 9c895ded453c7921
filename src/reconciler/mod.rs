//! Workers: they do what is due, and watch for changes that others make in Redis. Any replica may do any task.

pub mod archive;
pub mod canary;
pub mod drift;
mod drill;
pub mod figures;
pub mod health;
pub mod incidents;
pub mod outage;
pub mod page;
pub mod precheck;
pub mod rules;
pub mod soak;
mod split_query;
pub mod verifier;
pub(crate) mod worker;
