//! Makes Slack match the incident records: one thread per incident, whose root shows the current state, with one reply
//! per note.
//!
//! Level-triggered: the messages are a pure function of the record, so an outage collapses into one update, and any
//! worker with the lease can continue where another one died.
//!
//! After any finite number of errors that are not final, at any calls, the root shows the current state, and each note
//! was posted once, in order. What Slack does not accept now is postponed, and delays only what depends on it: replies
//! wait for the root and for earlier replies, the post-mortem waits for all replies, and nothing waits for an edit.

mod catch_up;
mod drill;
mod on_call;
mod outage;
mod overview;
mod people;
mod posting;
mod thread;
mod weekly;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::poll_fn;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Mutex, mpsc};
use ulid::Ulid;

use super::notifier::{Acceptance, Notified, Notifier, NotifyTask, Reachable, Shown, backoff};
use crate::config::{Config, Decider, Weekly};
use crate::decision::{Incident, PromptName, Timestamp};
use crate::engine::Engine;
use crate::live::Current;
use crate::service::clicks::EphemeralReply;
use crate::slack::client::{LONGEST_WAIT, Slack, SlackError};
use crate::slack::render::{self, Message};
use crate::store::StoreError;
use crate::store::schedule::{Claim, IDLE, LONGEST_HOLD, Shows, Subscription, Target, WorkItem, notify_priority};
use crate::store::sync::Sync;
use crate::trace;
pub use on_call::Schedule;
use people::GROUPS_EVERY;
use posting::{Kept, ThreadProgress, posting, question};

/// The target that its keys are named after.
pub const TARGET: Target = Target::FIRST;

/// The progress field of a canary's message that says that the canary is running.
const SHOWN_RUNNING: &str = "shown_running";
/// Incidents processed at once. Few, because they share channels, and a channel accepts about one message a second.
const BATCH: usize = 4;
/// Replies under one claim: after these, more severe incidents go first.
const REPLIES: usize = 8;
/// Slack's limit for messages to a channel.
pub const MESSAGE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a channel's slot, well below a lease; then the incident returns to the queue.
const PATIENCE: Duration = Duration::from_secs(8);
/// Messages to people about refused clicks, sent at once.
const EPHEMERAL_REPLIES: usize = 8;

/// Redis can hold a pause as long as Slack may request.
const _: () = assert!(LONGEST_WAIT.as_secs() <= LONGEST_HOLD.as_secs());

/// Why an incident, or a part of it, is not shown now.
enum Halt {
    /// Another worker has the lease.
    Lost,
    /// The channel or the method must wait.
    Later(Duration),
    /// There is more, which comes after more urgent incidents.
    GiveWay,
    /// Slack did not accept it, perhaps temporarily.
    Untaken,
    Store(StoreError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Halt::Store(error)
    }
}

/// The Slack notifier.
#[derive(Debug)]
pub struct SlackNotifier {
    pub engine: Arc<Engine>,
    pub slack: Arc<Slack>,
    pub deciders: BTreeMap<String, Decider>,
    pub schedules: Vec<Schedule>,
    pub incident_channel: String,
    /// When the weekly report of a dry run is posted.
    pub weekly: Option<Weekly>,
    /// Between two messages to a channel.
    pub message_interval: Duration,
}

/// The subscription, if Slack is configured.
pub fn subscription(config: &Config) -> Option<Subscription> {
    config.slack.bot_token.as_ref().map(|_| Subscription { target: TARGET, shows: Shows::Records })
}

/// The incidents of a batch with the same decider post their roots one after another, the most severe first. Holds
/// whether Slack did not accept one.
type Queue = Mutex<bool>;

impl Notifier for SlackNotifier {
    fn target(&self) -> Target {
        TARGET
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn notify<'a>(&'a self, claims: &'a [Claim], now: Timestamp) -> BoxFuture<'a, Vec<NotifyTask<'a>>> {
        self.begin(claims, now).boxed()
    }

    fn reachable(&self) -> BoxFuture<'_, Reachable> {
        async {
            match self.count("auth.test", self.slack.ping().await) {
                Ok(_) | Err(SlackError::RateLimited { .. }) => Reachable::Yes,
                Err(error) => Reachable::No(error.to_string()),
            }
        }
        .boxed()
    }
}

impl SlackNotifier {
    async fn begin<'a>(&'a self, claims: &'a [Claim], now: Timestamp) -> Vec<NotifyTask<'a>> {
        let load = claims.iter().map(|claim| async move {
            match claim.incident() {
                Some(id) => self.engine.store.incident(id).await,
                None => Ok(None),
            }
        });
        let incidents = join_all(load).await;
        let deciders = incidents.iter().flatten().flatten().map(|incident| incident.decider.clone());
        let queues: BTreeMap<String, Arc<Queue>> = deciders.map(|decider| (decider, Arc::default())).collect();
        let mut both: Vec<_> = claims.iter().zip(incidents).collect();
        // a postponed notification is due later than its place in the queue
        both.sort_by_key(|(_, incident)| {
            incident.as_ref().ok().and_then(|incident| incident.as_ref().map(notify_priority))
        });
        let task = |(claim, incident): (&'a Claim, Result<Option<Incident>, StoreError>)| {
            let decider = incident.as_ref().ok().and_then(|incident| incident.as_ref()).map(|found| &found.decider);
            let queue = decider.and_then(|decider| queues.get(decider)).map(Arc::clone);
            NotifyTask { claim, notified: self.notify_claim(claim, now, incident, queue).boxed() }
        };
        both.into_iter().map(task).collect()
    }

    /// Processes one claim.
    async fn notify_claim(
        &self,
        claim: &Claim,
        claimed: Timestamp,
        incident: Result<Option<Incident>, StoreError>,
        queue: Option<Arc<Queue>>,
    ) -> Notified {
        let store = &self.engine.store;
        let mut progress = ThreadProgress::new(claim, Sync::default());
        if let Ok(Some(incident)) = &incident {
            trace::follow(incident, claimed);
        }
        let notified = match (&incident, store.progress(claim).await) {
            (Err(error), _) => Err(Halt::Store(error.clone())),
            (_, Err(error)) => Err(Halt::Store(error)),
            (Ok(incident), Ok(sync)) => {
                progress.sync = sync;
                match (&claim.item, incident) {
                    (_, Some(incident)) => self.notify_incident(&mut progress, incident, queue.as_deref()).await,
                    (WorkItem::Incident(id), None) => self.notify_outage(&mut progress, id).await, // or the incident is gone
                    (WorkItem::Prompt(prompt), None) => self.notify_canary(&mut progress, prompt).await,
                    (WorkItem::Drill(drill), None) => self.notify_drill(&mut progress, drill).await,
                    (WorkItem::WeeklyReport | WorkItem::Unknown(_), None) => Ok(()),
                }
            }
        };
        let notified = progress.put_off(notified).map(|_| ());
        // a coordinating incident comes first, a drill last
        let place = match (&claim.item, &incident) {
            (WorkItem::Drill(_), _) => claimed,
            (_, Ok(Some(incident))) => notify_priority(incident),
            _ => Timestamp(0),
        };
        let shown = match notified {
            Ok(()) => match self.rest(&mut progress).await {
                Ok(None) => Ok(Shown::All),
                Ok(Some(wait)) => {
                    let since = progress.since;
                    store.now().await.map(|now| Shown::Part { next: now.plus(wait), since })
                }
                Err(Halt::Store(error)) => Err(error),
                Err(_) => Ok(Shown::Lost),
            },
            Err(Halt::GiveWay) => Ok(Shown::Part { next: place, since: progress.since }),
            Err(Halt::Store(error)) => Err(error),
            Err(_) => Ok(Shown::Lost),
        };
        let answer = match progress {
            _ if progress.has_taken() => Acceptance::Taken,
            _ if progress.is_untaken() => Acceptance::Untaken { place },
            _ => Acceptance::NotAsked,
        };
        Notified { shown, acceptance: answer }
    }

    /// When to continue a postponed notification. It never becomes a dead letter because of Slack, however long that
    /// takes.
    async fn rest(&self, progress: &mut ThreadProgress<'_>) -> Result<Option<Duration>, Halt> {
        let tries = if progress.is_untaken() { progress.tries() + 1 } else { 0 };
        if tries != progress.tries() {
            let noted = if tries == 0 { String::new() } else { tries.to_string() };
            self.note(progress, &[("tries", &noted)]).await?;
        }
        let backoff = progress.is_untaken().then(|| backoff(tries));
        Ok([backoff, progress.wait()].into_iter().flatten().min())
    }

    /// The message about the prompt's last canary.
    async fn notify_canary(&self, progress: &mut ThreadProgress<'_>, prompt: &PromptName) -> Result<(), Halt> {
        let loaded = self.engine.load(prompt).await?;
        let Some(canary) = &loaded.snapshot.state.canary else { return Ok(()) };
        let kept = Kept { what: "root", channel: &self.incident_channel };
        if progress.get("canary") != Some(&canary.id.0) {
            if progress.get("root_ts").is_some() && progress.get(SHOWN_RUNNING).is_some() {
                self.keep_canary(progress, &kept, &render::canary_over(prompt)).await?;
                if progress.is_behind() {
                    return Ok(()); // first the end of the one before
                }
            }
            let marker = posting("root");
            let fields = ["root_channel", "root_ts", "root_hash", "root_frozen", SHOWN_RUNNING, &marker];
            self.note(progress, &fields.map(|field| (field, ""))).await?;
            self.note(progress, &[("canary", &canary.id.0)]).await?;
        }
        self.keep_canary(progress, &kept, &render::canary(prompt, canary)).await?;
        let running = if canary.end.is_none() { "1" } else { "" };
        if !progress.is_behind() && progress.get(SHOWN_RUNNING).unwrap_or_default() != running {
            self.note(progress, &[(SHOWN_RUNNING, running)]).await?;
        }
        Ok(())
    }

    /// Makes a canary's message match. If it cannot be edited, replies show the current buttons, and its end.
    async fn keep_canary(
        &self,
        progress: &mut ThreadProgress<'_>,
        kept: &Kept<'_>,
        message: &Message,
    ) -> Result<(), Halt> {
        let Ok(root) = self.keep(progress, kept, message).await? else {
            return Ok(()); // permanently rejected: logged and counted
        };
        self.say_frozen(progress, &root).await?;
        let state = question(message).unwrap_or_else(|| "end".to_owned());
        let repeated = self.repeat(progress, &root, &state, message).await;
        progress.put_off(repeated).map(drop)
    }
}

type SlackNotifiers = Current<Option<Arc<SlackNotifier>>>;

/// Runs what Slack needs besides notifications, while the process runs; idle while Slack is not configured.
pub async fn run(notifiers: SlackNotifiers, mut replies: mpsc::Receiver<EphemeralReply>) {
    let repliers = notifiers.clone();
    let progress = poll_fn(|context| replies.poll_recv(context)).for_each_concurrent(EPHEMERAL_REPLIES, move |reply| {
        let notifier = repliers.get();
        async move {
            if let Some(notifier) = notifier {
                notifier.reply_to_click(&reply).await;
            }
        }
    });
    let mut renewed = notifiers.clone();
    let resolving = async {
        let mut failures = 0;
        loop {
            let wait = match renewed.get() {
                Some(notifier) => notifier.refresh_groups(&mut failures).await,
                None => GROUPS_EVERY,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = renewed.replaced() => {} // the approvers may have changed
            }
        }
    };
    let mut scheduled = notifiers.clone();
    let calling = async {
        loop {
            if let Some(notifier) = scheduled.get() {
                notifier.refresh_schedules().await;
            }
            tokio::select! {
                () = tokio::time::sleep(on_call::EVERY) => {}
                () = scheduled.replaced() => {} // the schedules may have changed
            }
        }
    };
    let mut configured = notifiers.clone();
    let catching_up = async {
        let mut is_current = false;
        loop {
            let notifier = configured.get();
            if let Some(notifier) = notifier.as_ref().filter(|_| !is_current) {
                is_current = notifier.catch_up().await.is_ok();
            }
            is_current &= notifier.is_some();
            match (&notifier, is_current) {
                (Some(_), false) => tokio::time::sleep(IDLE).await, // the health check reports Redis
                _ => configured.replaced().await,
            }
        }
    };
    let reporting = async {
        let token = Ulid::generate().to_string();
        loop {
            if let Some(notifier) = notifiers.get() {
                let _ = notifier.notify_weekly(&token).await; // the health check reports Redis; wait there
            }
            tokio::time::sleep(weekly::EVERY).await;
        }
    };
    tokio::join!(progress, resolving, calling, catching_up, reporting);
}
