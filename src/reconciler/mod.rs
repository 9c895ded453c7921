//! Makes what is due happen, and keeps an eye on what others do to Redis. Any replica may do any of it.

pub mod act;
pub mod archive;
mod drill;
pub mod health;
pub mod look;
pub mod mass;
pub mod page;
pub mod prove;
mod sample;
pub mod soak;
pub(crate) mod worker;
