//! Makes Slack match the incident records: one thread for each, its root the present state, each note one reply.
//!
//! Level-triggered: what is to be said is a pure function of the record, so an outage collapses into one update, and
//! whoever holds the lease can go on where another one died. Between Slack's answer and our record of it a message
//! may double; before posting, a marker says what is about to be posted, and after a crash it is looked for first.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use ulid::Ulid;

use crate::clicks::{Tell, is_group};
use crate::config::Decider;
use crate::decision::Incident;
use crate::decision::incident::Note;
use crate::engine::Engine;
use crate::slack::client::{Mark, Posted, Slack, SlackError};
use crate::slack::render::{self, LogLine, Message, View};
use crate::store::schedule::{Claim, End, Finished, LEASE, Work, slack_turn};
use crate::store::sync::Sync;
use crate::store::{LoggedChange, StoreError};

/// Incidents told at once. Few: they share channels, and a channel takes about one message a second.
const BATCH: usize = 4;
const IDLE: Duration = Duration::from_secs(1);
/// Slack's limit for messages to a channel.
const PACE: Duration = Duration::from_secs(1);
/// Longest wait for a channel's turn, well below a lease; then the incident goes back into the queue.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between attempts while Slack does not answer; doubles up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// User groups are asked for this often, and known for a little longer.
const GROUPS_EVERY: Duration = Duration::from_secs(60);
const GROUPS_KNOWN: Duration = Duration::from_secs(300);
/// Log entries shown to whoever investigates.
const LOG_LINES: usize = 5;

/// Why an incident is not told to the end now.
enum Halt {
    /// Another worker has the lease.
    Lost,
    /// The channel must wait.
    Later(Duration),
    /// Slack as a whole does not take anything.
    Down,
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
    pub slack: Slack,
    pub deciders: BTreeMap<String, Decider>,
    pub incident_channel: String,
}

/// The incidents of a batch that ask the same decider post their roots one after the other, the worst first. Holds
/// whether Slack was found to be down meanwhile.
type Queue = Mutex<bool>;

/// One message that is kept up to date.
struct Kept<'a> {
    /// `root` or `overview`: prefix of its fields in the sync record.
    what: &'a str,
    channel: &'a str,
}

impl Announcer {
    /// Tells what is due once. Returns how long to wait, `None` if Slack is down.
    pub async fn tick(&self, token: &str) -> Result<Option<Duration>, StoreError> {
        let claimed = self.engine.store.claim(Work::Slack, BATCH, LEASE, token).await?;
        let full = claimed.claims.len() == BATCH;
        let load = claimed.claims.iter().map(|claim| self.engine.store.incident(&claim.incident));
        let incidents = join_all(load).await;
        let deciders = incidents.iter().flatten().flatten().map(|incident| incident.decider.clone());
        let queues: BTreeMap<String, Queue> = deciders.map(|decider| (decider, Queue::default())).collect();
        let both = claimed.claims.iter().zip(incidents);
        let results = join_all(both.map(|(claim, incident)| self.announce_claim(claim, incident, &queues))).await;
        let mut wait = if full { Duration::ZERO } else { claimed.next.unwrap_or(IDLE) };
        for result in results {
            match result? {
                Some(later) => wait = wait.max(later),
                None => return Ok(None),
            }
        }
        Ok(Some(wait))
    }

    /// Tells one incident and gives the claim back.
    async fn announce_claim(
        &self,
        claim: &Claim,
        incident: Result<Option<Incident>, StoreError>,
        queues: &BTreeMap<String, Queue>,
    ) -> Result<Option<Duration>, StoreError> {
        let store = &self.engine.store;
        let told = match &incident {
            Ok(None) => Ok(()),
            Ok(Some(incident)) => self.announce(claim, incident, queues.get(&incident.decider)).await,
            Err(error) => Err(Halt::Store(error.clone())),
        };
        let again = incident.ok().flatten().map(|incident| slack_turn(&incident));
        let (end, wait) = match told {
            Ok(()) => (End::Done { rev: None, next: None }, Some(Duration::ZERO)),
            Err(Halt::Lost) => return Ok(Some(Duration::ZERO)),
            // due when the channel is free again, so that incidents of other channels go first
            Err(Halt::Later(wait)) => {
                let next = Some(store.now().await?.plus(wait));
                (End::Done { rev: None, next }, Some(Duration::ZERO))
            }
            // back to its place in the queue, however long this lasts: it is never parked for Slack's sake
            Err(Halt::Down) => (End::Done { rev: None, next: again }, None),
            Err(Halt::Store(StoreError::Unavailable { kind, message })) => {
                return Err(StoreError::Unavailable { kind, message });
            }
            Err(Halt::Store(error)) => {
                tracing::error!(incident = %claim.incident, %error, "an incident can't be told");
                (End::Failed, Some(Duration::ZERO))
            }
        };
        if store.finish(claim, None, end).await? == Finished::Parked {
            tracing::error!(incident = %claim.incident, "an incident could not be told too often and is parked");
        }
        Ok(wait)
    }

    async fn announce(&self, claim: &Claim, incident: &Incident, queue: Option<&Queue>) -> Result<(), Halt> {
        let mut down = match queue {
            Some(queue) => Some(queue.lock().await),
            None => None,
        };
        if down.as_deref() == Some(&true) {
            return Err(Halt::Down);
        }
        let mut sync = self.engine.store.sync(&incident.id).await?;
        let decider = self.deciders.get(&incident.decider);
        let view = View { incident, mention: decider.and_then(|d| d.mention.as_deref()) };
        let own = decider.and_then(|d| d.channel.as_deref()).filter(|channel| !self.is_incident_channel(channel));
        let own = own.filter(|_| sync.get("fallback").is_none());
        let home = own.map(|own| sync.get("root_channel").unwrap_or(own).to_owned());
        let home = home.unwrap_or_else(|| self.incident_channel.clone());
        let message = render::root(&view);
        let root = self.keep_root(claim, &mut sync, &home, own.is_some(), &message).await;
        if let (Err(Halt::Down), Some(down)) = (&root, &mut down) {
            **down = true;
        }
        drop(down); // the next one's turn
        let root = root?;
        let Some(root) = root else {
            return Ok(()); // no channel takes it; said in the log and counted
        };
        if own.is_some() && sync.get("fallback").is_none() && !self.is_incident_channel(&root.channel) {
            let link = self.permalink(claim, &mut sync, &root).await?;
            let overview = Kept { what: "overview", channel: &self.incident_channel };
            self.keep(claim, &mut sync, &overview, &render::overview(&view, link.as_deref())).await?;
        }
        let next: u32 = sync.get("replied").and_then(|n| n.parse().ok()).unwrap_or(1); // note 0 is the root itself
        for note in incident.notes.iter().filter(|note| note.seq >= next) {
            self.reply(claim, &mut sync, &view, &root, note).await?;
        }
        self.engine.metrics.slack_told();
        Ok(())
    }

    async fn keep_root(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        home: &str,
        may_fall_back: bool,
        message: &Message,
    ) -> Result<Option<Posted>, Halt> {
        let root = self.keep(claim, sync, &Kept { what: "root", channel: home }, message).await?;
        if root.is_some() || !may_fall_back {
            return Ok(root);
        }
        self.fall_back(claim, sync).await?;
        self.keep(claim, sync, &Kept { what: "root", channel: &self.incident_channel }, message).await
    }

    /// Posts `message`, or updates it if it was posted and reads differently. `None`: refused for good.
    async fn keep(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        kept: &Kept<'_>,
        message: &Message,
    ) -> Result<Option<Posted>, Halt> {
        let Kept { what, channel } = *kept;
        let [channel_field, ts_field, hash_field] = ["channel", "ts", "hash"].map(|part| format!("{what}_{part}"));
        let hash = digest(message);
        if let (Some(id), Some(ts)) = (sync.get(&channel_field), sync.get(&ts_field)) {
            let posted = Posted { channel: id.to_owned(), ts: ts.to_owned() };
            if sync.get(&hash_field) == Some(&hash) {
                return Ok(Some(posted));
            }
            match self.update(claim, &posted, message).await? {
                Ok(()) => {
                    self.note(claim, sync, &[(&hash_field, &hash)]).await?;
                    return Ok(Some(posted));
                }
                // someone deleted it: what is to be decided must be seen all the same
                Err(SlackError::Missing) => self.note(claim, sync, &[(&ts_field, "")]).await?,
                Err(error) => {
                    tracing::error!(incident = %claim.incident, what, %error, "slack refuses an update for good");
                    return Ok(None);
                }
            }
        }
        let Some((posted, is_new)) = self.post(claim, sync, what, channel, None, message).await? else {
            return Ok(None);
        };
        // one that is found may say what was so then: without a hash it is updated next
        let fields = [
            (channel_field.as_str(), posted.channel.as_str()),
            (&ts_field, &posted.ts),
            (&hash_field, if is_new { &hash } else { "" }),
            ("posting", ""),
        ];
        self.note(claim, sync, &fields).await?;
        if !is_new && self.update(claim, &posted, message).await?.is_ok() {
            self.note(claim, sync, &[(&hash_field, &hash)]).await?;
        }
        Ok(Some(posted))
    }

    /// Brings a message up to date, as plain text if Slack refuses its blocks. An error is one for good.
    async fn update(&self, claim: &Claim, posted: &Posted, message: &Message) -> Result<Result<(), SlackError>, Halt> {
        self.turn(&posted.channel).await?;
        let mut result = self.count("chat.update", self.slack.update(&posted.channel, &posted.ts, message).await);
        if let Err(SlackError::Message { code }) = &result {
            tracing::error!(incident = %claim.incident, code, "slack refuses the blocks for good: updated as plain text");
            self.turn(&posted.channel).await?;
            let plain = Message { text: render::plain(message), blocks: Vec::new() };
            result = self.count("chat.update", self.slack.update(&posted.channel, &posted.ts, &plain).await);
        }
        match result {
            Ok(()) => Ok(Ok(())),
            Err(error @ (SlackError::Channel { .. } | SlackError::Message { .. } | SlackError::Missing)) => {
                Ok(Err(error))
            }
            Err(error) => Err(self.halt(&posted.channel, error).await?),
        }
    }

    /// The decider's channel takes no messages: the overview, if there is one, becomes the root.
    async fn fall_back(&self, claim: &Claim, sync: &mut Sync) -> Result<(), Halt> {
        let [channel, ts] =
            ["overview_channel", "overview_ts"].map(|field| sync.get(field).unwrap_or_default().to_owned());
        let fields =
            [("fallback", "1"), ("root_channel", &channel), ("root_ts", &ts), ("root_hash", ""), ("posting", "")];
        self.note(claim, sync, &fields).await
    }

    /// By its name or, once it is known, by its id.
    fn is_incident_channel(&self, channel: &str) -> bool {
        self.slack.known_id(channel) == self.slack.known_id(&self.incident_channel)
    }

    /// Posts once, whatever happens in between; tells whether it was posted just now or found. `None`: refused for good.
    async fn post(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        what: &str,
        channel: &str,
        thread: Option<&str>,
        message: &Message,
    ) -> Result<Option<(Posted, bool)>, Halt> {
        let mark = Mark { incident: claim.incident.0.clone(), what: what.to_owned() };
        if let Some(oldest) = sync.get("posting").and_then(|p| p.strip_prefix(&format!("{what}@"))) {
            // a worker died around a post: it may have arrived
            let oldest = oldest.parse().unwrap_or_default();
            match self.count("conversations.history", self.slack.find(channel, thread, &mark, oldest).await) {
                Ok(Some(posted)) => return Ok(Some((posted, false))),
                Ok(None) => {}
                Err(error @ (SlackError::RateLimited { .. } | SlackError::Retry { .. })) => {
                    return Err(self.halt(channel, error).await?);
                }
                // can't look (a missing scope, say): a doubled message is better than none
                Err(error) => tracing::warn!(incident = %claim.incident, %error, "can't look for an earlier message"),
            }
        }
        self.turn(channel).await?;
        let now = self.engine.store.now().await?;
        self.note(claim, sync, &[("posting", &format!("{what}@{}", now.0))]).await?;
        let result = self.count("chat.postMessage", self.slack.post(channel, thread, message, &mark).await);
        let result = match result {
            Err(SlackError::Message { code }) => {
                tracing::error!(incident = %claim.incident, what, code, "slack refuses the blocks for good: sent as plain text");
                self.turn(channel).await?;
                let text = render::plain(message);
                self.count("chat.postMessage", self.slack.post_plain(channel, thread, &text, &mark).await)
            }
            other => other,
        };
        match result {
            Ok(posted) => Ok(Some((posted, true))),
            Err(error @ (SlackError::Channel { .. } | SlackError::Message { .. } | SlackError::Missing)) => {
                tracing::error!(incident = %claim.incident, what, channel, %error, "slack refuses a message for good");
                Ok(None)
            }
            Err(error) => Err(self.halt(channel, error).await?),
        }
    }

    async fn reply(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        view: &View<'_>,
        root: &Posted,
        note: &Note,
    ) -> Result<(), Halt> {
        let log = self.engine.store.log(&view.incident.prompt, None, LOG_LINES).await?.items;
        let lines: Vec<LogLine<'_>> = log.iter().map(log_line).collect();
        let message = render::reply(view, note, &lines);
        let what = format!("reply-{}", note.seq);
        let sent = self.post(claim, sync, &what, &root.channel, Some(&root.ts), &message).await?;
        if sent.is_none() {
            tracing::error!(incident = %claim.incident, note = note.seq, "a reply is given up; later ones go on");
        }
        self.note(claim, sync, &[("replied", &(note.seq + 1).to_string()), ("posting", "")]).await
    }

    /// The link to the thread, asked for once.
    async fn permalink(&self, claim: &Claim, sync: &mut Sync, root: &Posted) -> Result<Option<String>, Halt> {
        let key = format!("{}/{}", root.channel, root.ts);
        if let Some(link) = sync.get("link").and_then(|link| link.strip_prefix(&format!("{key} "))) {
            return Ok(Some(link.to_owned()));
        }
        match self.count("chat.getPermalink", self.slack.permalink(&root.channel, &root.ts).await) {
            Ok(link) => {
                self.note(claim, sync, &[("link", &format!("{key} {link}"))]).await?;
                Ok(Some(link))
            }
            Err(error @ (SlackError::RateLimited { .. } | SlackError::Retry { .. })) => {
                Err(self.halt(&root.channel, error).await?)
            }
            Err(_) => Ok(None), // the overview does without
        }
    }

    /// Waits for the channel's turn.
    async fn turn(&self, channel: &str) -> Result<(), Halt> {
        let start = Instant::now();
        while let Some(wait) = self.engine.store.pace(&self.slack.known_id(channel), PACE).await? {
            if start.elapsed() + wait > PATIENCE {
                return Err(Halt::Later(wait));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// What an error that may pass means for the rest.
    async fn halt(&self, channel: &str, error: SlackError) -> Result<Halt, StoreError> {
        match error {
            SlackError::RateLimited { retry_after } => {
                self.engine.store.hold_channel(&self.slack.known_id(channel), retry_after).await?;
                Ok(Halt::Later(retry_after))
            }
            error => {
                tracing::warn!(%error, "slack does not take messages; they wait");
                Ok(Halt::Down)
            }
        }
    }

    async fn note(&self, claim: &Claim, sync: &mut Sync, fields: &[(&str, &str)]) -> Result<(), Halt> {
        if !self.engine.store.note(claim, fields).await? {
            return Err(Halt::Lost);
        }
        for (field, value) in fields {
            sync.0.insert((*field).to_owned(), (*value).to_owned());
            if value.is_empty() {
                sync.0.remove(*field);
            }
        }
        Ok(())
    }

    fn count<T>(&self, method: &'static str, result: Result<T, SlackError>) -> Result<T, SlackError> {
        self.engine.metrics.slack_request(method, result.as_ref().err().map_or("ok", SlackError::kind));
        result
    }

    /// Resolves the user groups that may decide, so that a click need not wait for Slack.
    async fn refresh_groups(&self) -> Result<(), StoreError> {
        let groups = self.deciders.values().flat_map(|d| &d.approvers).filter(|approver| is_group(approver));
        for group in groups {
            if !self.engine.store.once(&format!("group:{group}"), GROUPS_EVERY / 2).await? {
                continue; // another replica has just done it
            }
            match self.count("usergroups.users.list", self.slack.group_members(group).await) {
                Ok(members) => self.engine.store.set_group(group, &members, GROUPS_KNOWN).await?,
                Err(error) => {
                    tracing::warn!(group, %error, "a user group can't be resolved: its members may not decide")
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, tell: &Tell) {
        let told = self.slack.tell(&tell.channel, tell.thread.as_deref(), &tell.user, &render::told(&tell.text)).await;
        if let Err(error) = self.count("chat.postEphemeral", told) {
            tracing::warn!(%error, "a clicker could not be told why nothing was done");
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(self: Arc<Self>, mut tells: mpsc::Receiver<Tell>) {
        let teller = Arc::clone(&self);
        let groups = Arc::clone(&self);
        let telling = async {
            while let Some(tell) = tells.recv().await {
                teller.tell(&tell).await;
            }
        };
        let resolving = async {
            loop {
                let _ = groups.refresh_groups().await; // health reports Redis; who is not resolved may not decide
                tokio::time::sleep(GROUPS_EVERY).await;
            }
        };
        tokio::join!(self.announce_for_ever(), telling, resolving);
    }

    async fn announce_for_ever(&self) {
        let token = Ulid::generate().to_string();
        let mut backoff = BACKOFF.0;
        loop {
            let wait = match self.tick(&token).await {
                Ok(Some(wait)) => {
                    backoff = BACKOFF.0;
                    wait.min(IDLE)
                }
                Ok(None) => {
                    self.engine.metrics.slack_down();
                    let wait = backoff;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    tokio::time::sleep(wait).await; // news do not make Slack answer sooner
                    continue;
                }
                Err(_) => IDLE,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.engine.announced.notified() => {}
            }
        }
    }
}

/// Tells whether a message reads differently from what was sent.
fn digest(message: &Message) -> String {
    let mut hasher = DefaultHasher::new();
    message.text.hash(&mut hasher);
    serde_json::to_string(&message.blocks).unwrap_or_default().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn log_line(entry: &LoggedChange) -> LogLine<'_> {
    let field = |name: &str| entry.fields.iter().find(|(field, _)| field == name).map_or("", |(_, text)| text.as_str());
    LogLine {
        at: field("at"),
        event: field("event"),
        from: field("from"),
        to: field("to"),
        operator: field("operator"),
        reason: field("reason"),
    }
}
