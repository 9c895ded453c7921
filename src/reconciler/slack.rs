//! Makes Slack match the incident records: one thread for each, its root the present state, each note one reply.
//!
//! Level-triggered: what is to be said is a pure function of the record, so an outage collapses into one update, and
//! whoever holds the lease can go on where another one died.
//!
//! After any finite number of answers that are not final, at any calls, the root shows the present state and each note was
//! posted once, in order. What Slack does not take now is put off and holds back only what depends on it: replies wait for
//! the root to be there and for the replies before them, the post-mortem for all replies, and nothing for an edit.

mod drill;
mod mass;
mod people;
mod posting;
mod thread;
mod weekly;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::poll_fn;
use tokio::sync::{Mutex, mpsc};
use ulid::Ulid;

use super::worker::while_leased;
use crate::clicks::Tell;
use crate::config::{Decider, Weekly};
use crate::decision::{Incident, IncidentId, PromptName, Timestamp};
use crate::engine::Engine;
use crate::live::Current;
use crate::slack::client::{LONGEST_WAIT, Slack, SlackError};
use crate::slack::render;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, Finished, LEASE, LONGEST_HOLD, Work, slack_turn};
use crate::store::sync::Sync;
use people::GROUPS_EVERY;
use posting::{Kept, Telling, posting};

/// Incidents told at once. Few: they share channels, and a channel takes about one message a second.
const BATCH: usize = 4;
const IDLE: Duration = Duration::from_secs(1);
/// Replies told under one claim: a long backlog lets worse incidents go first.
const REPLIES: usize = 8;
/// Slack's limit for messages to a channel.
pub const PACE: Duration = Duration::from_secs(1);
/// Longest wait for a channel's turn, well below a lease; then the incident goes back into the queue.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longest wait between two tries of what Slack did not take; the first is a second, and each doubles.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// People told at once why their clicks did nothing.
const TELLS: usize = 8;

/// A hold in Redis lasts as long as Slack may ask for.
const _: () = assert!(LONGEST_WAIT.as_secs() <= LONGEST_HOLD.as_secs());

/// Why an incident, or a part of it, is not told now.
enum Halt {
    /// Another worker has the lease.
    Lost,
    /// The channel or the method must wait.
    Later(Duration),
    /// There is more to tell, after what is more urgent.
    GiveWay,
    /// Slack did not take it, which may pass.
    Untaken,
    Store(StoreError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Halt::Store(error)
    }
}

/// What telling takes.
#[derive(Debug)]
pub struct Announcer {
    pub engine: Arc<Engine>,
    pub slack: Arc<Slack>,
    pub deciders: BTreeMap<String, Decider>,
    pub incident_channel: String,
    /// When a dry run is reported.
    pub weekly: Option<Weekly>,
    /// Between two messages to a channel.
    pub pace: Duration,
}

/// The incidents of a batch that ask the same decider post their roots one after the other, the worst first. Holds
/// whether Slack did not take one.
type Queue = Mutex<bool>;

/// What came of telling what was due.
#[derive(Debug)]
pub struct Told {
    /// How long to wait before there may be more.
    pub wait: Duration,
    /// Slack took nothing at all, not even of these; with their places in the queue.
    pub untaken: Vec<(IncidentId, Timestamp)>,
}

/// What came of telling one incident.
enum Outcome {
    Taken,
    /// There was nothing that Slack had to take.
    Neither,
    Untaken(IncidentId, Timestamp),
}

impl Announcer {
    /// Tells what is due once.
    pub async fn tick(&self, token: &str) -> Result<Told, StoreError> {
        let claimed = self.engine.store.claim(Work::Slack, BATCH, LEASE, token).await?;
        let load = claimed.claims.iter().map(|claim| self.engine.store.incident(&claim.incident));
        let incidents = join_all(load).await;
        let deciders = incidents.iter().flatten().flatten().map(|incident| incident.decider.clone());
        let queues: BTreeMap<String, Queue> = deciders.map(|decider| (decider, Queue::default())).collect();
        let mut both: Vec<_> = claimed.claims.iter().zip(incidents).collect();
        // what was put off is due later than its turn
        both.sort_by_key(|(_, incident)| incident.as_ref().ok().and_then(|incident| incident.as_ref().map(slack_turn)));
        let now = claimed.now;
        let told = both.into_iter().map(|(claim, incident)| self.announce_claim(claim, now, incident, &queues));
        let (mut taken, mut untaken) = (false, Vec::new());
        for outcome in while_leased(&self.engine.store, &claimed.claims, join_all(told)).await {
            match outcome? {
                Outcome::Taken => taken = true,
                Outcome::Neither => {}
                Outcome::Untaken(id, place) => untaken.push((id, place)),
            }
        }
        if taken {
            untaken.clear();
        }
        Ok(Told { wait: if claimed.full { Duration::ZERO } else { claimed.next.unwrap_or(IDLE) }, untaken })
    }

    /// Tells one incident and gives the claim back.
    async fn announce_claim(
        &self,
        claim: &Claim,
        claimed: Timestamp,
        incident: Result<Option<Incident>, StoreError>,
        queues: &BTreeMap<String, Queue>,
    ) -> Result<Outcome, StoreError> {
        let store = &self.engine.store;
        let mut telling = Telling::new(claim, Sync::default());
        let told = match (&incident, store.sync(&claim.incident).await) {
            (Err(error), _) => Err(Halt::Store(error.clone())),
            (_, Err(error)) => Err(Halt::Store(error)),
            (Ok(incident), Ok(sync)) => {
                telling.sync = sync;
                match incident {
                    Some(incident) => self.announce(&mut telling, incident, queues.get(&incident.decider)).await,
                    None => match (claim.prompt(), claim.drill()) {
                        (Some(prompt), _) => self.announce_canary(&mut telling, &prompt).await,
                        (None, Some(drill)) => self.announce_drill(&mut telling, &drill).await,
                        (None, None) => self.announce_mass(&mut telling).await, // or it is gone
                    },
                }
            }
        };
        let told = telling.put_off(told).map(|_| ());
        // one that coordinates goes before all others, a drill behind them
        let place = match (&incident, claim.drill()) {
            (_, Some(_)) => claimed,
            (Ok(Some(incident)), None) => slack_turn(incident),
            _ => Timestamp(0),
        };
        let end = match told {
            Ok(()) => match self.rest(&mut telling).await {
                Ok(None) => End::Sent(claimed),
                Ok(Some(wait)) => End::Unsent { next: store.now().await?.plus(wait), since: telling.since },
                Err(Halt::Store(error)) => return Err(error),
                Err(_) => return Ok(Outcome::Neither), // the lease was lost
            },
            Err(Halt::GiveWay) => End::Unsent { next: place, since: telling.since },
            Err(Halt::Store(error @ StoreError::Unavailable { .. })) => return Err(error),
            Err(Halt::Store(error)) => {
                tracing::error!(incident = %claim.incident, %error, "an incident can't be told");
                End::after(&error)
            }
            Err(_) => return Ok(Outcome::Neither), // the lease was lost
        };
        if store.finish(claim, None, end).await? == Finished::Parked {
            tracing::error!(incident = %claim.incident, "an incident could not be told too often and is parked");
        }
        Ok(match telling {
            _ if telling.has_taken() => Outcome::Taken,
            _ if telling.is_untaken() => Outcome::Untaken(claim.incident.clone(), place),
            _ => Outcome::Neither,
        })
    }

    /// When what was put off is to be told. It is never parked for Slack's sake, however long this lasts.
    async fn rest(&self, telling: &mut Telling<'_>) -> Result<Option<Duration>, Halt> {
        let tries = if telling.is_untaken() { telling.tries() + 1 } else { 0 };
        if tries != telling.tries() {
            let noted = if tries == 0 { String::new() } else { tries.to_string() };
            self.note(telling, &[("tries", &noted)]).await?;
        }
        let backoff = telling.is_untaken().then(|| backoff(tries));
        Ok([backoff, telling.wait()].into_iter().flatten().min())
    }

    /// The message of the prompt's last canary.
    async fn announce_canary(&self, telling: &mut Telling<'_>, prompt: &PromptName) -> Result<(), Halt> {
        let loaded = self.engine.load(prompt).await?;
        let Some(canary) = &loaded.snapshot.state.canary else { return Ok(()) };
        if telling.get("canary") != Some(&canary.id.0) {
            let marker = posting("root");
            let fresh = ["root_channel", "root_ts", "root_hash", "root_frozen", &marker].map(|field| (field, ""));
            self.note(telling, &fresh).await?;
            self.note(telling, &[("canary", &canary.id.0)]).await?;
        }
        let kept = Kept { what: "root", channel: &self.incident_channel };
        // refused for good: said in the log and counted
        let _ = self.keep(telling, &kept, &render::canary(prompt, canary)).await?;
        Ok(())
    }

    /// Slack took nothing: if that is so for everyone, the others are not tried until it is there again. Those that were
    /// then go back to their places in the queue.
    async fn wait_for_slack(&self, untaken: &[(IncidentId, Timestamp)]) {
        let mut tries = 0;
        while let Err(error) = self.count("auth.test", self.slack.ping().await) {
            if matches!(error, SlackError::RateLimited { .. }) {
                return; // it is there
            }
            tries += 1;
            if tries == 1 {
                tracing::warn!(%error, "slack does not take messages; they wait");
            }
            tokio::time::sleep(backoff(tries)).await; // news do not make Slack answer sooner
        }
        for (id, place) in untaken.iter().filter(|_| tries > 0) {
            let _ = self.engine.store.wake_by(Work::Slack, id, *place).await; // or it is told a little later
        }
    }
}

type Announcers = Current<Option<Arc<Announcer>>>;

/// Runs for as long as the process does; there is nothing to do while Slack is not configured.
pub async fn run(announcers: Announcers, mut tells: mpsc::Receiver<Tell>) {
    let tellers = announcers.clone();
    let telling = poll_fn(|context| tells.poll_recv(context)).for_each_concurrent(TELLS, move |tell| {
        let teller = tellers.get();
        async move {
            if let Some(teller) = teller {
                teller.tell(&tell).await;
            }
        }
    });
    let mut renewed = announcers.clone();
    let resolving = async {
        let mut failures = 0;
        loop {
            let wait = match renewed.get() {
                Some(announcer) => announcer.refresh_groups(&mut failures).await,
                None => GROUPS_EVERY,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = renewed.replaced() => {} // with other approvers, perhaps
            }
        }
    };
    let reporting = async {
        let token = Ulid::generate().to_string();
        loop {
            if let Some(announcer) = announcers.get() {
                let _ = announcer.tell_weekly(&token).await; // health reports Redis; it waits there
            }
            tokio::time::sleep(weekly::EVERY).await;
        }
    };
    tokio::join!(announce_for_ever(announcers.clone()), telling, resolving, reporting);
}

async fn announce_for_ever(mut announcers: Announcers) {
    let token = Ulid::generate().to_string();
    loop {
        let Some(announcer) = announcers.get() else {
            announcers.replaced().await;
            continue;
        };
        let wait = match announcer.tick(&token).await {
            Ok(told) if told.untaken.is_empty() => told.wait.min(IDLE),
            Ok(told) => {
                tokio::select! {
                    () = announcer.wait_for_slack(&told.untaken) => {}
                    () = announcers.replaced() => {} // other settings may be taken
                }
                IDLE
            }
            Err(_) => IDLE,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = announcer.engine.announced.notified() => {}
        }
    }
}

/// After so many tries in vain.
fn backoff(tries: u32) -> Duration {
    LONGEST_BACKOFF.min(Duration::from_secs(1 << tries.clamp(1, 6).saturating_sub(1)))
}
