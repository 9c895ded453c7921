//! Makes what is due happen, and keeps an eye on what others do to Redis. Any replica may do any of it.

pub mod archive;
pub mod drift;
mod drill;
pub mod health;
pub mod incidents;
pub mod outage;
pub mod page;
pub mod precheck;
mod sample;
pub mod soak;
pub mod verifier;
pub(crate) mod worker;
