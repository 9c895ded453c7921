//! Permissions: certificates, Redis' users, privileges of the process.

mod alertmanager;
mod attack;
mod compose;
mod container;
mod context;
mod dockerfile;
mod kit;
mod named_tokens;
mod outgoing;
mod permissions;
mod secrets;
mod sessions;
mod tls;
mod tokens;
