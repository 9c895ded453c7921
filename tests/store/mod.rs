//! The store on a real Redis: every return code of every script, and every way to connect.

mod commit;
mod connections;
mod events;
mod kit;
mod load;
mod outage;
mod outside;
mod records;
mod replay;
mod replication;
mod schedule;
mod selftest;
mod waits;
mod written;
