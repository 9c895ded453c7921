//! Who may do what, and who is kept out: certificates, Redis' users, privileges of the process.

#[path = "../common/mod.rs"]
mod common;

mod kit;
mod tls;
