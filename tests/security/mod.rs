//! Who may do what, and who is kept out: certificates, Redis' users, privileges of the process.

#[path = "../common/mod.rs"]
mod common;

mod alertmanager;
mod attack;
mod compose;
mod container;
mod context;
mod dockerfile;
mod kit;
mod permissions;
mod secrets;
mod tls;
mod tokens;
