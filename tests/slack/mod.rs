//! People decide in Slack: a receiver on a real Redis, and the double of Slack.

mod kit;

mod approvers;
mod backlog;
mod browser;
mod bulk_incident;
mod calls;
mod channels;
mod decide;
mod drill;
mod faults;
mod figures;
mod files;
mod killed;
mod late;
mod lost;
mod marks;
mod office;
mod outage;
mod pages;
mod refused;
mod reload;
mod schedule;
mod sockets;
mod splits;
mod time;
mod transient;
mod weekly;
