//! Makes Slack match the incident records: one thread for each, its root the present state, each note one reply.
//!
//! Level-triggered: what is to be said is a pure function of the record, so an outage collapses into one update, and
//! whoever holds the lease can go on where another one died.

mod drill;
mod mass;
mod posting;
mod weekly;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc};
use ulid::Ulid;

use crate::clicks::{Tell, is_group};
use crate::config::{Decider, Weekly};
use crate::decision::incident::Note;
use crate::decision::{Event, Incident, Phase, PromptName, Timestamp};
use crate::drafts;
use crate::engine::{Engine, EngineError};
use crate::live::Current;
use crate::postmortem::{Measured, chart};
use crate::slack::client::{Place, Posted, Slack, SlackError, Upload};
use crate::slack::render::{self, LogLine, View};
use crate::store::schedule::{Claim, End, Finished, LEASE, Work, slack_turn};
use crate::store::sync::Sync;
use crate::store::{LoggedChange, StoreError};
use posting::{Kept, Taken};

/// Incidents told at once. Few: they share channels, and a channel takes about one message a second.
const BATCH: usize = 4;
const IDLE: Duration = Duration::from_secs(1);
/// Replies told under one claim: a long backlog lets worse incidents go first.
const REPLIES: usize = 8;
/// Slack's limit for messages to a channel.
pub const PACE: Duration = Duration::from_secs(1);
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
    /// There is more to tell, after what is more urgent.
    GiveWay,
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
    pub slack: Arc<Slack>,
    pub deciders: BTreeMap<String, Decider>,
    pub incident_channel: String,
    /// When a dry run is reported.
    pub weekly: Option<Weekly>,
    /// Between two messages to a channel.
    pub pace: Duration,
}

/// The incidents of a batch that ask the same decider post their roots one after the other, the worst first. Holds
/// whether Slack was found to be down meanwhile.
type Queue = Mutex<bool>;

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
            Ok(None) => match (claim.prompt(), claim.drill()) {
                (Some(prompt), _) => self.announce_canary(claim, &prompt).await,
                (None, Some(drill)) => self.announce_drill(claim, &drill).await,
                (None, None) => self.announce_mass(claim).await, // or it is gone
            },
            Ok(Some(incident)) => self.announce(claim, incident, queues.get(&incident.decider)).await,
            Err(error) => Err(Halt::Store(error.clone())),
        };
        // one that coordinates goes before all others, a drill behind them
        let again = match claim.drill() {
            Some(_) => Some(store.now().await?),
            None => incident.ok().map(|incident| incident.map_or(Timestamp(0), |incident| slack_turn(&incident))),
        };
        if matches!(told, Ok(()) | Err(Halt::GiveWay)) {
            self.engine.metrics.slack_told();
        }
        let (end, wait) = match told {
            Ok(()) => (End::Done { rev: None, next: None }, Some(Duration::ZERO)),
            Err(Halt::Lost) => return Ok(Some(Duration::ZERO)),
            // due when the channel is free again, so that incidents of other channels go first
            Err(Halt::Later(wait)) => {
                let next = Some(store.now().await?.plus(wait));
                (End::Done { rev: None, next }, Some(Duration::ZERO))
            }
            Err(Halt::GiveWay) => (End::Done { rev: None, next: again }, Some(Duration::ZERO)),
            // back to its place in the queue, however long this lasts: it is never parked for Slack's sake
            Err(Halt::Down) => (End::Done { rev: None, next: again }, None),
            Err(Halt::Store(StoreError::Unavailable { kind, message })) => {
                return Err(StoreError::Unavailable { kind, message });
            }
            Err(Halt::Store(error)) => {
                tracing::error!(incident = %claim.incident, %error, "an incident can't be told");
                (End::after(&error), Some(Duration::ZERO))
            }
        };
        if store.finish(claim, None, end).await? == Finished::Parked {
            tracing::error!(incident = %claim.incident, "an incident could not be told too often and is parked");
        }
        Ok(wait)
    }

    /// The message of the prompt's last canary.
    async fn announce_canary(&self, claim: &Claim, prompt: &PromptName) -> Result<(), Halt> {
        let store = &self.engine.store;
        let loaded = self.engine.load(prompt).await?;
        let Some(canary) = &loaded.snapshot.state.canary else { return Ok(()) };
        let mut sync = store.sync(&claim.incident).await?;
        if sync.get("canary") != Some(&canary.id.0) {
            let fresh = ["root_channel", "root_ts", "root_hash", "posting"].map(|field| (field, ""));
            self.note(claim, &mut sync, &fresh).await?;
            self.note(claim, &mut sync, &[("canary", &canary.id.0)]).await?;
        }
        let kept = Kept { what: "root", channel: &self.incident_channel };
        // refused for good: said in the log and counted
        let _ = self.keep(claim, &mut sync, &kept, &render::canary(prompt, canary)).await?;
        Ok(())
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
        self.note(claim, &mut sync, &[]).await?; // still ours, however long the queue was
        if sync.get("root_ts").is_none() {
            self.wait_until_kept(incident).await?;
        }
        self.relate(incident).await?;
        if self.is_spoken_for(incident, &sync).await? {
            return Ok(());
        }
        let decider = self.deciders.get(&incident.decider);
        let view = View { incident, mention: decider.and_then(|d| d.mention.as_deref()) };
        let own = decider.and_then(|d| d.channel.as_deref()).filter(|channel| !self.is_incident_channel(channel));
        let root = self.keep_root(claim, &mut sync, &view, own).await;
        if let (Err(Halt::Down), Some(down)) = (&root, &mut down) {
            **down = true;
        }
        drop(down); // the next one's turn
        let Some(root) = root? else {
            return Ok(()); // no channel takes it: its people are paged
        };
        let at_home = own.filter(|_| sync.get("fallback").is_none() && !self.is_incident_channel(&root.channel));
        if at_home.is_some() {
            self.keep_overview(claim, &mut sync, &view, &root).await?;
        }
        let next: u32 = sync.get("replied").and_then(|n| n.parse().ok()).unwrap_or(1); // note 0 is the root itself
        for (sent, note) in incident.notes.iter().filter(|note| note.seq >= next).enumerate() {
            if sent == REPLIES {
                return Err(Halt::GiveWay);
            }
            let Err(error) = self.reply(claim, &mut sync, &view, &root, note).await? else { continue };
            if let (SlackError::Channel { .. }, Some(own)) = (&error, at_home) {
                self.unheard(incident, own, &error).await?;
                self.fall_back(claim, &mut sync).await?;
                return Err(Halt::GiveWay); // told anew, from the beginning
            }
            tracing::error!(incident = %claim.incident, note = note.seq, "a reply is given up; later ones go on");
        }
        self.keep_picture(claim, &mut sync, incident, &root).await
    }

    /// A commit that no replica has may be lost with its master, and what was told of it is left without an incident. So
    /// a failover is waited out; people are told all the same where it is the replica that stays away.
    async fn wait_until_kept(&self, incident: &Incident) -> Result<(), Halt> {
        match self.engine.store.fence().await {
            Err(StoreError::NotReplicated { .. }) => {
                let age = self.engine.store.now().await?.since(incident.opened_at);
                if age < LEASE { Err(Halt::Later(IDLE)) } else { Ok(()) }
            }
            fenced => Ok(fenced?),
        }
    }

    /// When the outcome of a rollback is known: its metric as a picture, and the draft of the post-mortem.
    async fn keep_picture(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        incident: &Incident,
        root: &Posted,
    ) -> Result<(), Halt> {
        let known = matches!(incident.phase, Phase::Recovered | Phase::Escalated | Phase::Unverified);
        let Some(flip) = incident.flip.as_ref().filter(|_| known) else { return Ok(()) };
        let of_this_flip = flip.at.0.to_string();
        if sync.get("picture") == Some(&of_this_flip) {
            return Ok(());
        }
        let measured = self.engine.store.samples(&incident.id).await?.filter(|measured| measured.is_of(flip.at));
        if measured.is_none() && drafts::is_awaited(incident) {
            return Ok(()); // Prometheus is asked again; then this is told
        }
        let draft = drafts::postmortem(&self.engine, incident.clone()).await?;
        let mut files = vec![Upload {
            name: format!("postmortem-{}.md", incident.id),
            title: "Draft of the post-mortem".to_owned(),
            content: draft.into_bytes(),
        }];
        if let Some(Measured::Samples(samples)) = measured {
            let (label, at) = (samples.label.clone(), flip.at);
            let drawn = tokio::task::spawn_blocking(move || chart::png(&samples, Some(at))).await;
            match drawn.map_err(|error| error.to_string()).and_then(|png| png.map_err(|error| error.to_string())) {
                Ok(content) => files.insert(0, Upload { name: format!("{}.png", incident.id), title: label, content }),
                Err(error) => tracing::error!(incident = %incident.id, error, "the picture can't be drawn"),
            }
        }
        self.turn(&root.channel).await?;
        self.note(claim, sync, &[]).await?;
        let text = "What was measured, and the draft of a post-mortem: please fill in its questions.";
        match self.count("files.completeUploadExternal", self.slack.upload(&root.channel, &root.ts, text, files).await)
        {
            Ok(()) => {}
            Err(error @ (SlackError::RateLimited { .. } | SlackError::Retry { .. })) => {
                return Err(self.halt(&root.channel, error).await?);
            }
            // a missing scope, say: the thread is complete without it
            Err(error) => tracing::error!(incident = %incident.id, %error, "the picture is given up"),
        }
        self.note(claim, sync, &[("picture", &of_this_flip)]).await
    }

    /// The root of the thread, in the decider's `own` channel as long as that takes it. `None`: no channel does.
    async fn keep_root(
        &self,
        claim: &Claim,
        sync: &mut Sync,
        view: &View<'_>,
        own: Option<&str>,
    ) -> Result<Option<Posted>, Halt> {
        let message = render::root(view);
        if let Some(own) = own.filter(|_| sync.get("fallback").is_none()) {
            let home = sync.get("root_channel").unwrap_or(own).to_owned();
            match self.keep(claim, sync, &Kept { what: "root", channel: &home }, &message).await? {
                Ok(root) => return Ok(Some(root)),
                Err(error) => self.unheard(view.incident, own, &error).await?,
            }
            self.fall_back(claim, sync).await?;
        }
        match self.keep(claim, sync, &Kept { what: "root", channel: &self.incident_channel }, &message).await? {
            Ok(root) => Ok(Some(root)),
            Err(error) => {
                self.unheard(view.incident, &self.incident_channel, &error).await?;
                Ok(None)
            }
        }
    }

    /// The people who decide can't see it where they look: they are paged, which goes through a decision as all does.
    async fn unheard(&self, incident: &Incident, channel: &str, error: &SlackError) -> Result<(), Halt> {
        let why = format!("Slack does not show this in {channel} ({error})");
        let event = Event::Unheard { incident: incident.id.clone(), why };
        match self.engine.handle(&incident.prompt, &event).await {
            Ok(_) => Ok(()),
            Err(EngineError::Store(error)) => Err(error.into()),
            Err(EngineError::Contended) => Err(Halt::GiveWay),
        }
    }

    /// The decider's channel takes no messages: the overview, if there is one, becomes the root.
    async fn fall_back(&self, claim: &Claim, sync: &mut Sync) -> Result<(), Halt> {
        let [channel, ts] =
            ["overview_channel", "overview_ts"].map(|field| sync.get(field).unwrap_or_default().to_owned());
        let fields = [
            ("fallback", "1"),
            ("root_channel", &channel),
            ("root_ts", &ts),
            ("root_hash", ""),
            ("replied", ""), // a new thread gets all replies: who comes to it knows none
            ("posting", ""),
        ];
        self.note(claim, sync, &fields).await
    }

    /// What the channel of all incidents shows: where the thread is and how it stands. An edit is noticed by nobody, so an
    /// escalation is a reply to it that the whole channel sees.
    async fn keep_overview(&self, claim: &Claim, sync: &mut Sync, view: &View<'_>, root: &Posted) -> Result<(), Halt> {
        let link = self.permalink(claim, sync, root).await?;
        let kept = Kept { what: "overview", channel: &self.incident_channel };
        let Ok(overview) = self.keep(claim, sync, &kept, &render::overview(view, link.as_deref())).await? else {
            return Ok(()); // said in the log and counted; the thread is where it should be
        };
        let called: u32 = sync.get("called").and_then(|n| n.parse().ok()).unwrap_or_default();
        let to_all = |note: &&Note| note.seq > called && render::calls_channel(view.incident, note);
        let Some(note) = view.incident.notes.iter().rfind(to_all) else { return Ok(()) };
        let message = render::call(view, note, link.as_deref());
        let place = Place { broadcast: true, ..Place::thread(&overview.channel, &overview.ts) };
        // refused for good: as above
        let _ = self.post(claim, sync, &format!("call-{}", note.seq), place, &message).await?;
        self.note(claim, sync, &[("called", &note.seq.to_string()), ("posting", "")]).await
    }

    /// One note as a reply; what Slack refuses for good is not tried again.
    async fn reply(&self, claim: &Claim, sync: &mut Sync, view: &View<'_>, root: &Posted, note: &Note) -> Taken<()> {
        let log = self.engine.store.log(&view.incident.prompt, None, LOG_LINES).await?.items;
        let lines: Vec<LogLine<'_>> = log.iter().map(log_line).collect();
        let message = self.with_related(view.incident, note, render::reply(view, note, &lines)).await?;
        let broadcast = render::calls_channel(view.incident, note);
        let place = Place { broadcast, ..Place::thread(&root.channel, &root.ts) };
        let sent = self.post(claim, sync, &format!("reply-{}", note.seq), place, &message).await?;
        self.note(claim, sync, &[("replied", &(note.seq + 1).to_string()), ("posting", "")]).await?;
        Ok(sent.map(drop))
    }

    /// By its name or, once it is known, by its id.
    fn is_incident_channel(&self, channel: &str) -> bool {
        self.slack.known_id(channel) == self.slack.known_id(&self.incident_channel)
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
}

type Announcers = Current<Option<Arc<Announcer>>>;

/// Runs for as long as the process does; there is nothing to do while Slack is not configured.
pub async fn run(announcers: Announcers, mut tells: mpsc::Receiver<Tell>) {
    let telling = async {
        while let Some(tell) = tells.recv().await {
            if let Some(announcer) = announcers.get() {
                announcer.tell(&tell).await;
            }
        }
    };
    let mut renewed = announcers.clone();
    let resolving = async {
        loop {
            if let Some(announcer) = announcers.get() {
                let _ = announcer.refresh_groups().await; // health reports Redis; who is not resolved may not decide
            }
            tokio::select! {
                () = tokio::time::sleep(GROUPS_EVERY) => {}
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
    let mut backoff = BACKOFF.0;
    loop {
        let Some(announcer) = announcers.get() else {
            announcers.replaced().await;
            continue;
        };
        let wait = match announcer.tick(&token).await {
            Ok(Some(wait)) => {
                backoff = BACKOFF.0;
                wait.min(IDLE)
            }
            Ok(None) => {
                announcer.engine.metrics.slack_down();
                let wait = backoff;
                backoff = (backoff * 2).min(BACKOFF.1);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {} // news do not make Slack answer sooner
                    () = announcers.replaced() => backoff = BACKOFF.0, // but other settings may
                }
                continue;
            }
            Err(_) => IDLE,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = announcer.engine.announced.notified() => {}
        }
    }
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
