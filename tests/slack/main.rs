//! People decide in Slack: a receiver on a real Redis, and the double of Slack.

#[path = "../common/mod.rs"]
mod common;
mod kit;

mod approvers;
mod decide;
mod faults;
mod late;
mod outage;
mod refused;
mod sockets;
mod time;
