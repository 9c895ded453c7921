//! The HTTP API as documented, on a real Redis.

mod events;
mod explain;
mod import;
mod incidents;
mod logs;
mod marks;
mod metrics;
mod names;
mod openapi;
mod outage;
mod outside;
mod page;
mod pages;
mod postmortem;
mod prompts;
mod reload;
mod report;
mod retention;
mod rollback;
mod shutdown;
mod signals;
mod sources;
mod splits;
mod timers;
mod traces;
mod webhooks;
