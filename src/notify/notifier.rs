//! What every notifier is, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::decision::Timestamp;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::schedule::{Claim, Target};

/// Longest wait between two attempts. The first wait is a second, and each doubles.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The wait after this many failed attempts.
pub(super) fn backoff(tries: u32) -> Duration {
    LONGEST_BACKOFF.min(Duration::from_secs(1 << tries.clamp(1, 6).saturating_sub(1)))
}

pub type Notifiers = Arc<[Arc<dyn Notifier>]>;

/// A way to notify people or programs.
pub trait Notifier: fmt::Debug + Send + Sync {
    fn target(&self) -> Target;

    fn engine(&self) -> &Engine;

    /// How many claims are processed at once.
    fn batch(&self) -> usize;

    /// Notifies about these claims, which were claimed at `now`: one task for each, in the order in which they should
    /// begin.
    fn notify<'a>(&'a self, claims: &'a [Claim], now: Timestamp) -> BoxFuture<'a, Vec<NotifyTask<'a>>>;

    /// Whether the target can be reached. Called after it accepted nothing, until it can.
    fn reachable(&self) -> BoxFuture<'_, Reachable> {
        ready(Reachable::Unknown).boxed()
    }
}

/// The notification for one claim.
pub struct NotifyTask<'a> {
    pub claim: &'a Claim,
    pub notified: BoxFuture<'a, Notified>,
}

/// Its result.
#[derive(Debug)]
pub struct Notified {
    /// The progress. An error is one of Redis, or of its data; an answer of the target is not.
    pub shown: Result<Shown, StoreError>,
    pub acceptance: Acceptance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The target shows everything that existed at the time of the claim.
    All,
    /// The rest is to be shown at `next`. The target shows everything from before `since`, if that is known.
    Part { next: Timestamp, since: Option<Timestamp> },
    /// Another worker has the claim, and continues.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The target accepted or rejected something, so it is reachable.
    Taken,
    /// It accepted nothing, perhaps temporarily. The claim has this place in the queue.
    Untaken { place: Timestamp },
    /// There was nothing to send.
    NotAsked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reachable {
    Yes,
    No(String),
    /// Unknown until the next notification.
    Unknown,
}
