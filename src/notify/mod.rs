//! Showing people and programs what happens. Each way to do so is a [`Notifier`] with a folder, a queue in Redis and a worker of
//! its own, so that one that is down delays no other.
//!
//! A commit wakes the targets, by urgency; what is to be shown is read when a target is ready for it. How far each has come is
//! noted beside, under the claim, so that whoever holds it goes on where another one died.

pub mod slack;
pub mod webhook;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::config::Config;
use crate::decision::Timestamp;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::schedule::{Claim, Subscription, Target};

pub use worker::{Ticked, run, tick};

/// Longest wait between two tries of what a target did not take; the first is a second, and each doubles.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// After so many tries in vain.
fn backoff(tries: u32) -> Duration {
    LONGEST_BACKOFF.min(Duration::from_secs(1 << tries.clamp(1, 6).saturating_sub(1)))
}

/// Who commits wake. A further notifier is registered here and in [`all`].
pub fn subscriptions(config: &Config) -> Vec<Subscription> {
    slack::subscription(config).into_iter().chain(webhook::subscriptions(config)).collect()
}

/// What shows things to each of these targets; an error names the key of the config. `slack` is there already: clicks need it,
/// too.
pub fn all(
    config: &Config,
    engine: &Arc<Engine>,
    slack: Option<Arc<slack::SlackNotifier>>,
) -> Result<Notifiers, String> {
    let slack = slack.map(|slack| slack as Arc<dyn Notifier>);
    let webhooks = webhook::all(config, engine)?.into_iter().map(|webhook| Arc::new(webhook) as Arc<dyn Notifier>);
    Ok(slack.into_iter().chain(webhooks).collect())
}

pub type Notifiers = Arc<[Arc<dyn Notifier>]>;

/// One way to show what happens.
pub trait Notifier: fmt::Debug + Send + Sync {
    fn target(&self) -> Target;

    fn engine(&self) -> &Engine;

    /// How many claims are worked on at once.
    fn batch(&self) -> usize;

    /// What these claims, which were claimed at `now`, call for: one task for each, in the order in which they are to begin.
    fn notify<'a>(&'a self, claims: &'a [Claim], now: Timestamp) -> BoxFuture<'a, Vec<NotifyTask<'a>>>;

    /// Whether the target can be reached. Asked after it took nothing at all, until it can.
    fn reachable(&self) -> BoxFuture<'_, Reachable> {
        ready(Reachable::Unknown).boxed()
    }
}

/// Showing what one claim is about.
pub struct NotifyTask<'a> {
    pub claim: &'a Claim,
    pub notified: BoxFuture<'a, Notified>,
}

/// What came of it.
#[derive(Debug)]
pub struct Notified {
    /// How far it came. An error is one of Redis, or of what it holds; what the target does is none.
    pub shown: Result<Shown, StoreError>,
    pub acceptance: Acceptance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The target shows all that there was when it was claimed.
    All,
    /// The target is to be shown the rest at `next`. It shows all from before `since`, if that is known.
    Part { next: Timestamp, since: Option<Timestamp> },
    /// Another worker has the claim, and goes on.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The target took something, or refused it: it is there.
    Taken,
    /// It took nothing, which may pass. The claim has this place in the queue.
    Untaken { place: Timestamp },
    /// There was nothing to take.
    NotAsked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reachable {
    Yes,
    No(String),
    /// Only the next notification tells.
    Unknown,
}
