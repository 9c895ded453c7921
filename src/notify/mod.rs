//! Notifications to people and programs. Each way to notify is a [`Notifier`] with a folder, a queue in Redis and a
//! worker of its own, so that one that is down delays no other.
//!
//! A commit wakes the targets, the most urgent notifications first. What to show is read when a target is ready for it.
//! The progress of a target is stored separately, under the claim, so that another worker can continue.

mod notifier;
pub mod slack;
pub mod webhook;
mod worker;

use std::sync::Arc;

use crate::config::Config;
use crate::engine::Engine;
use crate::store::schedule::Subscription;

pub use notifier::{Acceptance, Notified, Notifier, Notifiers, NotifyTask, Reachable, Shown};
pub use worker::{Ticked, run, tick};

/// The targets that commits wake. Register another notifier here and in [`all`].
pub fn subscriptions(config: &Config) -> Vec<Subscription> {
    slack::subscription(config).into_iter().chain(webhook::subscriptions(config)).collect()
}

/// The notifiers of all targets; an error names the config key. `slack` exists already, because clicks need it too.
pub fn all(
    config: &Config,
    engine: &Arc<Engine>,
    slack: Option<Arc<slack::SlackNotifier>>,
) -> Result<Notifiers, String> {
    let slack = slack.map(|slack| slack as Arc<dyn Notifier>);
    let webhooks = webhook::all(config, engine)?.into_iter().map(|webhook| Arc::new(webhook) as Arc<dyn Notifier>);
    Ok(slack.into_iter().chain(webhooks).collect())
}
