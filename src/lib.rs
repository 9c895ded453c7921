//! Rolls a misbehaving LLM prompt back to its last known-good version.
//!
//! ```text
//! Alertmanager ─► POST /webhooks/alertmanager ─┐
//! HTTP API, CLI ─► POST /api/… ────────────────┼─► Event ─► engine: load ─► decide ─► commit.lua ─► active, log, state, incident
//! Timer, someone's SET (reconciler) ───────────┘                (pure)     (atomic)   └─► due ─► reconciler
//! ```
//!
//! Imports only go down the layers. A test reads the `use` lines and fails on a violation:
//!
//! | layer | what |
//! |---|---|
//! | [`cli`] | commands and exit codes |
//! | [`app`] | wires, binds, spawns, shuts down |
//! | [`http`] | what comes in |
//! | [`notify`], [`reconciler`] | who is shown what happens; what is due |
//! | [`service`] | clicks, drills, reports, drafts of post-mortems, decisions about many prompts |
//! | [`engine`] | load → decide → commit |
//! | [`live`] | what is in force, and its replacement |
//! | [`store`], [`metrics`] | Redis; our own figures |
//! | [`alertmanager`], [`page`], [`prometheus`], [`slack`], [`postmortem`], [`mod@report`], [`deployed`], [`config`], [`http_client`] | bytes ↔ types, pure; HTTP that we send |
//! | [`figures`], [`wording`] | what is measured of all versions; words and choices that Slack and the page share |
//! | [`api`] | the JSON that the API is asked and answers |
//! | [`events`] | what happened, for programs |
//! | [`elsewhere`] | long computing, off the serving thread |
//! | [`rules`] | alert rules: what their labels say |
//! | [`re2`], [`yaml`] | expressions and config files of Alertmanager and Prometheus |
//! | [`tls`] | certificates |
//! | [`trace`] | spans, and the trace that a request belongs to |
//! | [`visible`] | what of a text from elsewhere people may see |
//! | [`decision`] | every rule, of std and serde only |
//! | [`reader`] | the crate for prompt servers: which version to serve. The receiver does not use it |

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

pub mod alertmanager;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod deployed;
pub mod elsewhere;
pub mod engine;
pub mod events;
pub mod figures;
pub mod http;
pub mod http_client;
pub mod live;
pub mod metrics;
pub mod notify;
pub mod page;
pub mod postmortem;
pub mod prometheus;
pub mod re2;
pub mod reconciler;
pub mod report;
pub mod rules;
pub mod service;
pub mod slack;
pub mod store;
pub mod tls;
pub mod trace;
pub mod visible;
pub mod wording;
pub mod yaml;

pub use prompt_rollback_decision as decision;
pub use prompt_rollback_reader as reader;
