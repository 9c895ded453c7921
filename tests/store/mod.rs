//! The store on a real Redis: every return code of every script, and every way to connect.

mod backup;
mod broken;
mod commit;
mod connections;
mod events;
mod kit;
mod load;
mod mixed;
mod outage;
mod outside;
mod records;
mod replay;
mod replication;
mod schedule;
mod selftest;
mod waits;
mod written;
