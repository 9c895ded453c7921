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
mod posting;
mod weekly;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::poll_fn;
use tokio::sync::{Mutex, mpsc};
use ulid::Ulid;

use crate::clicks::{Tell, is_group};
use crate::config::{Decider, Weekly};
use crate::decision::incident::Note;
use crate::decision::{Event, Incident, IncidentId, Phase, PromptName, Timestamp};
use crate::drafts;
use crate::engine::{Engine, EngineError};
use crate::postmortem::{Measured, chart};
use crate::slack::client::{LONGEST_WAIT, Place, Posted, Slack, SlackError, Upload, search_method};
use crate::slack::render::{self, LogLine, Message, View};
use crate::store::schedule::{Claim, End, Finished, LEASE, LONGEST_HOLD, Work, slack_turn};
use crate::store::sync::Sync;
use crate::store::{LoggedChange, StoreError};
use posting::{Kept, Left, Method, Taken, Telling, posting, question};

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
/// Tries to tell one person why a click did nothing, and people told at once.
const TELL_TRIES: u32 = 4;
const TELLS: usize = 8;
/// User groups are asked for this often, and known for a little longer.
const GROUPS_EVERY: Duration = Duration::from_secs(60);
const GROUPS_KNOWN: Duration = Duration::from_secs(300);
/// Log entries shown to whoever investigates.
const LOG_LINES: usize = 5;

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
    pub slack: Slack,
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
        let full = claimed.claims.len() == BATCH;
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
        for outcome in join_all(told).await {
            match outcome? {
                Outcome::Taken => taken = true,
                Outcome::Neither => {}
                Outcome::Untaken(id, place) => untaken.push((id, place)),
            }
        }
        if taken {
            untaken.clear();
        }
        Ok(Told { wait: if full { Duration::ZERO } else { claimed.next.unwrap_or(IDLE) }, untaken })
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

    async fn announce(
        &self,
        telling: &mut Telling<'_>,
        incident: &Incident,
        queue: Option<&Queue>,
    ) -> Result<(), Halt> {
        let mut stuck = match queue {
            Some(queue) => Some(queue.lock().await),
            None => None,
        };
        if stuck.as_deref() == Some(&true) {
            return Err(Halt::GiveWay);
        }
        self.note(telling, &[]).await?; // still ours, however long the queue was
        if telling.get("root_ts").is_none() {
            self.wait_until_kept(incident).await?;
        }
        self.relate(incident).await?;
        if self.is_spoken_for(incident, &telling.sync).await? {
            return Ok(());
        }
        let decider = self.deciders.get(&incident.decider);
        let view = View { incident, mention: decider.and_then(|d| d.mention.as_deref()) };
        let own = decider.and_then(|d| d.channel.as_deref()).filter(|channel| !self.is_incident_channel(channel));
        let root = self.keep_root(telling, &view, own).await;
        // if it is only this one that Slack does not take, the others do not wait for it again
        let untaken = telling.is_untaken() || matches!(root, Err(Halt::Untaken));
        if let Some(stuck) = stuck.as_mut().filter(|_| untaken && telling.tries() == 0) {
            **stuck = true;
        }
        drop(stuck); // the next one's turn
        let Some(root) = root? else {
            return Ok(()); // no channel takes it: its people are paged
        };
        let at_home = own.filter(|_| telling.get("fallback").is_none() && !self.is_incident_channel(&root.channel));
        let behind = telling.is_behind();
        self.say_frozen(telling, &root).await?;
        let left = self.keep_replies(telling, &view, &root, at_home).await?;
        if at_home.is_some() {
            let overview = self.keep_overview(telling, &view, &root).await;
            telling.put_off(overview)?;
        }
        if left == Left::Nothing {
            let asked = self.ask_again(telling, &root, &render::root(&view)).await;
            telling.put_off(asked)?;
            return self.keep_picture(telling, incident, &root).await;
        }
        telling.give_way(left, behind)
    }

    /// The notes as replies, in order.
    async fn keep_replies(
        &self,
        telling: &mut Telling<'_>,
        view: &View<'_>,
        root: &Posted,
        at_home: Option<&str>,
    ) -> Result<Left, Halt> {
        let next: u32 = telling.get("replied").and_then(|n| n.parse().ok()).unwrap_or(1); // note 0 is the root itself
        for (sent, note) in view.incident.notes.iter().filter(|note| note.seq >= next).enumerate() {
            if sent == REPLIES {
                return Ok(Left::More(note.at));
            }
            let replied = self.reply(telling, view, root, note).await;
            let Some(replied) = telling.put_off(replied)? else { return Ok(Left::PutOff(note.at)) };
            match (replied, at_home) {
                (Ok(()), _) => {}
                (Err(error @ SlackError::Channel { .. }), Some(own)) => {
                    self.unheard(view.incident, own, &error).await?;
                    self.fall_back(telling).await?;
                    return Err(Halt::GiveWay); // told anew, from the beginning
                }
                (Err(SlackError::Missing), _) if telling.get("orphaned").is_none() => {
                    self.note(telling, &[("root_ts", ""), ("orphaned", "1")]).await?;
                    return Err(Halt::GiveWay); // someone deleted the root: likewise
                }
                (Err(_), _) => {
                    let incident = &telling.claim.incident;
                    tracing::error!(%incident, note = note.seq, "a reply is given up; later ones go on");
                }
            }
        }
        Ok(Left::Nothing)
    }

    /// Says once in the thread that its root can't be edited.
    async fn say_frozen(&self, telling: &mut Telling<'_>, root: &Posted) -> Result<(), Halt> {
        let Some(code) = telling.get("root_frozen").filter(|_| telling.get("said_frozen").is_none()) else {
            return Ok(());
        };
        let message = render::frozen(code);
        let posted = self.post(telling, "frozen", Place::thread(&root.channel, &root.ts), &message).await;
        match telling.put_off(posted)? {
            Some(_) => self.note(telling, &[("said_frozen", "1"), (&posting("frozen"), "")]).await,
            None => Ok(()),
        }
    }

    /// Where the root can't be edited its buttons are those of an earlier question: a reply carries the present ones.
    async fn ask_again(&self, telling: &mut Telling<'_>, root: &Posted, message: &Message) -> Result<(), Halt> {
        let Some(asked) = question(message).filter(|_| telling.get("root_frozen").is_some()) else { return Ok(()) };
        if telling.get("asked") == Some(&asked) {
            return Ok(());
        }
        let what = format!("question-{asked}");
        // refused for good: said in the log
        let _ = self.post(telling, &what, Place::thread(&root.channel, &root.ts), message).await?;
        self.note(telling, &[("asked", &asked), (&posting(&what), "")]).await
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
    async fn keep_picture(&self, telling: &mut Telling<'_>, incident: &Incident, root: &Posted) -> Result<(), Halt> {
        let known = matches!(incident.phase, Phase::Recovered | Phase::Escalated | Phase::Unverified);
        let Some(flip) = incident.flip.as_ref().filter(|_| known) else { return Ok(()) };
        let of_this_flip = flip.at.0.to_string();
        if telling.get("picture") == Some(&of_this_flip) {
            return Ok(());
        }
        let measured = self.engine.store.samples(&incident.id).await?.filter(|measured| measured.is_of(flip.at));
        if measured.is_none() && drafts::is_awaited(incident) {
            return Ok(()); // Prometheus is asked again; then this is told
        }
        let marker = posting("picture");
        let name = format!("postmortem-{}.md", incident.id);
        let found = match telling.get(&marker) {
            Some(oldest) => {
                let search = self.slack.find_file(root, &name, oldest.parse().unwrap_or_default());
                let method = Method::Other(search_method(Some(&root.ts)));
                matches!(self.call(telling, method, &[], search).await?, Ok(Some(_)))
            }
            None => false,
        };
        if !found {
            let draft = drafts::postmortem(&self.engine, incident.clone()).await?;
            let title = "Draft of the post-mortem".to_owned();
            let mut files = vec![Upload { name, title, content: draft.into_bytes() }];
            if let Some(Measured::Samples(samples)) = measured {
                let (label, at) = (samples.label.clone(), flip.at);
                let drawn = tokio::task::spawn_blocking(move || chart::png(&samples, Some(at))).await;
                match drawn.map_err(|error| error.to_string()).and_then(|png| png.map_err(|error| error.to_string())) {
                    Ok(content) => {
                        files.insert(0, Upload { name: format!("{}.png", incident.id), title: label, content });
                    }
                    Err(error) => tracing::error!(incident = %incident.id, error, "the picture can't be drawn"),
                }
            }
            let text = "What was measured, and the draft of a post-mortem: please fill in its questions.";
            let now = self.engine.store.now().await?.0.to_string();
            let method = Method::Other("files.completeUploadExternal");
            let upload = self.slack.upload(root, text, files);
            // a missing scope, say: the thread is complete without it
            if let Err(error) = self.call(telling, method, &[(&marker, &now)], upload).await? {
                tracing::error!(incident = %incident.id, %error, "the picture is given up");
            }
        }
        self.note(telling, &[("picture", &of_this_flip), (&marker, "")]).await
    }

    /// The root of the thread, in the decider's `own` channel as long as that takes it. `None`: no channel does.
    async fn keep_root(
        &self,
        telling: &mut Telling<'_>,
        view: &View<'_>,
        own: Option<&str>,
    ) -> Result<Option<Posted>, Halt> {
        let message = render::root(view);
        if let Some(own) = own.filter(|_| telling.get("fallback").is_none()) {
            let home = telling.get("root_channel").unwrap_or(own).to_owned();
            match self.keep(telling, &Kept { what: "root", channel: &home }, &message).await? {
                Ok(root) => return Ok(Some(root)),
                Err(error) => self.unheard(view.incident, own, &error).await?,
            }
            self.fall_back(telling).await?;
        }
        match self.keep(telling, &Kept { what: "root", channel: &self.incident_channel }, &message).await? {
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
    async fn fall_back(&self, telling: &mut Telling<'_>) -> Result<(), Halt> {
        let [channel, ts, frozen] = ["overview_channel", "overview_ts", "overview_frozen"]
            .map(|field| telling.get(field).unwrap_or_default().to_owned());
        let fields = [
            ("fallback", "1"),
            ("root_channel", &channel),
            ("root_ts", &ts),
            ("root_frozen", &frozen),
            ("root_hash", ""),
            // a new thread gets all replies: who comes to it knows none
            ("replied", ""),
            ("said_frozen", ""),
            ("asked", ""),
            (&posting("root"), ""),
        ];
        self.note(telling, &fields).await
    }

    /// What the channel of all incidents shows: where the thread is and how it stands. An edit is noticed by nobody, so an
    /// escalation is a reply to it that the whole channel sees.
    async fn keep_overview(&self, telling: &mut Telling<'_>, view: &View<'_>, root: &Posted) -> Result<(), Halt> {
        let link = self.permalink(telling, root).await;
        let link = telling.put_off(link)?.flatten(); // the overview does without, until there is one
        let kept = Kept { what: "overview", channel: &self.incident_channel };
        let Ok(overview) = self.keep(telling, &kept, &render::overview(view, link.as_deref())).await? else {
            return Ok(()); // said in the log and counted; the thread is where it should be
        };
        let called: u32 = telling.get("called").and_then(|n| n.parse().ok()).unwrap_or_default();
        let to_all = |note: &&Note| note.seq > called && render::calls_channel(view.incident, note);
        let Some(note) = view.incident.notes.iter().rfind(to_all) else { return Ok(()) };
        let message = render::call(view, note, link.as_deref());
        let place = Place { broadcast: true, ..Place::thread(&overview.channel, &overview.ts) };
        let what = format!("call-{}", note.seq);
        // refused for good: as above
        let _ = self.post(telling, &what, place, &message).await?;
        self.note(telling, &[("called", &note.seq.to_string()), (&posting(&what), "")]).await
    }

    /// One note as a reply; what Slack refuses for good is not tried again.
    async fn reply(&self, telling: &mut Telling<'_>, view: &View<'_>, root: &Posted, note: &Note) -> Taken<()> {
        let log = self.engine.store.log(&view.incident.prompt, None, LOG_LINES).await?.items;
        let lines: Vec<LogLine<'_>> = log.iter().map(log_line).collect();
        let message = self.with_related(view.incident, note, render::reply(view, note, &lines)).await?;
        let broadcast = render::calls_channel(view.incident, note);
        let place = Place { broadcast, ..Place::thread(&root.channel, &root.ts) };
        let what = format!("reply-{}", note.seq);
        let sent = self.post(telling, &what, place, &message).await?;
        let (next, marker) = ((note.seq + 1).to_string(), posting(&what));
        let mut fields = vec![("replied", next.as_str()), (&marker, "")];
        if sent.is_ok() {
            fields.push(("orphaned", ""));
        }
        self.note(telling, &fields).await?;
        Ok(sent.map(drop))
    }

    /// By its name or, once it is known, by its id.
    fn is_incident_channel(&self, channel: &str) -> bool {
        self.slack.known_id(channel) == self.slack.known_id(&self.incident_channel)
    }

    /// The link to the thread, asked for once.
    async fn permalink(&self, telling: &mut Telling<'_>, root: &Posted) -> Result<Option<String>, Halt> {
        let key = format!("{}/{}", root.channel, root.ts);
        if let Some(link) = telling.get("link").and_then(|link| link.strip_prefix(&format!("{key} "))) {
            return Ok(Some(link.to_owned()));
        }
        let method = Method::Other("chat.getPermalink");
        match self.call(telling, method, &[], self.slack.permalink(&root.channel, &root.ts)).await? {
            Ok(link) => {
                self.note(telling, &[("link", &format!("{key} {link}"))]).await?;
                Ok(Some(link))
            }
            Err(_) => Ok(None), // the overview does without
        }
    }

    /// Resolves the user groups that may decide, so that a click need not wait for Slack. Tells when to do so again after
    /// `failures` in a row.
    async fn refresh_groups(&self, failures: &mut u32) -> Duration {
        let groups = self.deciders.values().flat_map(|d| &d.approvers).filter(|approver| is_group(approver));
        let mut wait = GROUPS_EVERY;
        for group in groups {
            let refreshed = self.refresh_group(group).await;
            // health reports Redis; who is not resolved may not decide
            wait = wait.min(refreshed.unwrap_or(Some(Duration::ZERO)).unwrap_or(GROUPS_EVERY));
        }
        *failures = if wait == GROUPS_EVERY { 0 } else { *failures + 1 };
        if *failures == 0 { wait } else { wait.max(backoff(*failures)) }
    }

    /// `Some`: Slack did not say who is in it, and may after so long.
    async fn refresh_group(&self, group: &str) -> Result<Option<Duration>, StoreError> {
        let store = &self.engine.store;
        let once = format!("group:{group}");
        if !store.once(&once, GROUPS_EVERY / 2).await? {
            return Ok(None); // another replica has just done it
        }
        let error = match self.count("usergroups.users.list", self.slack.group_members(group).await) {
            Ok(members) => return store.set_group(group, &members, GROUPS_KNOWN).await.map(|()| None),
            Err(error) => error,
        };
        tracing::warn!(group, %error, "a user group can't be resolved: its members may not decide unless it was before");
        if error.is_final() {
            return Ok(None);
        }
        store.forget_once(&once).await?;
        Ok(Some(match error {
            SlackError::RateLimited { retry_after } => retry_after,
            _ => Duration::ZERO,
        }))
    }

    /// Tells one person, for as long as they may still wait for it.
    async fn tell(&self, tell: &Tell) {
        let text = render::told(&tell.text);
        for tries in 1..=TELL_TRIES {
            let told = self.slack.tell(&tell.channel, tell.thread.as_deref(), &tell.user, &text).await;
            let Err(error) = self.count("chat.postEphemeral", told) else { return };
            if tries == TELL_TRIES || error.is_final() {
                return tracing::warn!(%error, "a clicker could not be told why nothing was done");
            }
            tokio::time::sleep(match error {
                SlackError::RateLimited { retry_after } => retry_after,
                _ => backoff(tries),
            })
            .await;
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(self: Arc<Self>, mut tells: mpsc::Receiver<Tell>) {
        let teller = Arc::clone(&self);
        let telling = poll_fn(|context| tells.poll_recv(context)).for_each_concurrent(TELLS, move |tell| {
            let teller = Arc::clone(&teller);
            async move { teller.tell(&tell).await }
        });
        let resolving = async {
            let mut failures = 0;
            loop {
                let wait = self.refresh_groups(&mut failures).await;
                tokio::time::sleep(wait).await;
            }
        };
        let reporting = async {
            let token = Ulid::generate().to_string();
            loop {
                let _ = self.tell_weekly(&token).await; // health reports Redis; it waits there
                tokio::time::sleep(weekly::EVERY).await;
            }
        };
        tokio::join!(self.announce_for_ever(), telling, resolving, reporting);
    }

    async fn announce_for_ever(&self) {
        let token = Ulid::generate().to_string();
        loop {
            let wait = match self.tick(&token).await {
                Ok(told) if told.untaken.is_empty() => told.wait.min(IDLE),
                Ok(told) => {
                    self.wait_for_slack(&told.untaken).await;
                    IDLE
                }
                Err(_) => IDLE,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.engine.announced.notified() => {}
            }
        }
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

/// After so many tries in vain.
fn backoff(tries: u32) -> Duration {
    LONGEST_BACKOFF.min(Duration::from_secs(1 << tries.clamp(1, 6).saturating_sub(1)))
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
