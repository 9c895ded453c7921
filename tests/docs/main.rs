//! What people read while something is wrong: the runbooks and the dashboard, tried on the real parts.

mod dashboard;
mod deploy;
mod guides;
mod runbooks;
#[path = "../e2e/server.rs"]
#[allow(dead_code, reason = "the end-to-end tests use all of it")]
mod server;
mod world;
