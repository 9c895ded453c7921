//! The thread of one incident.

use super::overview::has_overview;
use super::posting::{Kept, Left, Method, Taken, ThreadProgress, posting, question};
use super::{Halt, Queue, REPLIES, SlackNotifier};
use crate::decision::note::Note;
use crate::decision::{Event, Incident, PhaseKind};
use crate::deployed::{Deployed, group_of};
use crate::elsewhere;
use crate::engine::EngineError;
use crate::postmortem::{IncidentMetric, chart};
use crate::service::drafts;
use crate::slack::client::{Place, Posted, SlackError, Upload, is_id, search_method};
use crate::slack::render::{self, LogLine, Message, View};
use crate::store::schedule::{IDLE, LEASE};
use crate::store::{LoggedChange, StoreError};

/// Log entries shown with an investigation.
const LOG_LINES: usize = 5;

impl SlackNotifier {
    /// Makes the thread match the record.
    pub(super) async fn notify_incident(
        &self,
        progress: &mut ThreadProgress<'_>,
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
        self.note(progress, &[]).await?; // renews the lease, however long the queue was
        if progress.get("root_ts").is_none() {
            self.wait_until_kept(incident).await?;
        }
        self.relate(incident).await?;
        if self.is_spoken_for(incident, &progress.sync).await? {
            return Ok(());
        }
        let deployed = self.deployed(progress, incident).await?;
        let mention = self.mention(&incident.decider).await?;
        let view = View { incident, mention: mention.as_deref(), deployed: deployed.as_ref() };
        let own = self.own_channel(&incident.decider).await;
        let root = self.keep_root(progress, &view, own).await;
        // if Slack rejects only this incident, the others need not wait for it again
        let untaken = progress.is_untaken() || matches!(root, Err(Halt::Untaken));
        if let Some(stuck) = stuck.as_mut().filter(|_| untaken && progress.tries() == 0) {
            **stuck = true;
        }
        drop(stuck); // the next one's turn
        let Some(root) = root? else {
            return Ok(()); // no channel accepts it: its decider is paged
        };
        let at_home = self.at_home(progress, own, &root);
        let behind = progress.is_behind();
        self.say_frozen(progress, &root).await?;
        let called = self.call_deciders(progress, &view, &root).await;
        progress.put_off(called)?;
        let left = self.keep_replies(progress, &view, &root, at_home).await?;
        if at_home.is_some() || has_overview(progress, &root) {
            let overview = self.keep_overview(progress, &view, &root, own).await;
            progress.put_off(overview)?;
        }
        if left == Left::Nothing {
            let asked = self.ask_again(progress, &root, &render::root(&view)).await;
            progress.put_off(asked)?;
            return self.keep_picture(progress, incident, &root).await;
        }
        progress.give_way(left, behind)
    }

    /// What was deployed until the incident was opened: read once, and stored with the thread's progress.
    async fn deployed(&self, progress: &mut ThreadProgress<'_>, incident: &Incident) -> Result<Option<Deployed>, Halt> {
        if let Some(kept) = progress.get("deployed") {
            return Ok(serde_json::from_str(kept).ok()); // perhaps written by a later receiver
        }
        let group = group_of(incident);
        let Incident { id, prompt, opened_at, .. } = incident;
        let deployed = self.engine.store.deployed(prompt, group.as_ref(), *opened_at, Some(id), &|_| true).await?;
        let kept = serde_json::to_string(&deployed).unwrap_or_default();
        self.note(progress, &[("deployed", &kept)]).await?;
        Ok(Some(deployed))
    }

    /// Posts the notes as replies, in order.
    async fn keep_replies(
        &self,
        progress: &mut ThreadProgress<'_>,
        view: &View<'_>,
        root: &Posted,
        at_home: Option<&str>,
    ) -> Result<Left, Halt> {
        let next: u32 = progress.get("replied").and_then(|n| n.parse().ok()).unwrap_or(1); // note 0 is the root itself
        for (sent, note) in view.incident.notes.iter().filter(|note| note.seq >= next).enumerate() {
            if sent == REPLIES {
                return Ok(Left::More(note.at));
            }
            let replied = self.reply(progress, view, root, note).await;
            let Some(replied) = progress.put_off(replied)? else { return Ok(Left::PutOff(note.at)) };
            match (replied, at_home) {
                (Ok(()), _) => self.replied(progress, note, &[("orphaned", "")]).await?,
                (Err(error @ SlackError::Channel { .. }), Some(own)) => {
                    self.undeliverable(view.incident, own, &error).await?;
                    self.fall_back(progress).await?;
                    return Err(Halt::GiveWay); // start again from the beginning
                }
                (Err(SlackError::Missing), _) if progress.get("orphaned").is_none() => {
                    self.note(progress, &[("root_ts", ""), ("orphaned", "1")]).await?;
                    return Err(Halt::GiveWay); // someone deleted the root: start again
                }
                (Err(error), _) => {
                    if let SlackError::Channel { .. } = error {
                        // its decider does not see this thread any more
                        self.undeliverable(view.incident, &root.channel, &error).await?;
                    }
                    let incident = &progress.claim.item;
                    tracing::error!(%incident, note = note.seq, "gave up on a reply: later replies continue");
                    self.replied(progress, note, &[]).await?;
                }
            }
        }
        Ok(Left::Nothing)
    }

    /// Says once in the thread that its root cannot be edited.
    pub(super) async fn say_frozen(&self, progress: &mut ThreadProgress<'_>, root: &Posted) -> Result<(), Halt> {
        let Some(code) = progress.get("root_frozen").filter(|_| progress.get("said_frozen").is_none()) else {
            return Ok(());
        };
        let message = render::frozen(code);
        let posted = self.post(progress, "frozen", Place::thread(&root.channel, &root.ts), &message).await;
        match progress.put_off(posted)? {
            Some(_) => self.note(progress, &[("said_frozen", "1"), (&posting("frozen"), "")]).await,
            None => Ok(()),
        }
    }

    /// Repeats the current buttons in a reply, because a root that cannot be edited shows those of an earlier question.
    pub(super) async fn ask_again(
        &self,
        progress: &mut ThreadProgress<'_>,
        root: &Posted,
        message: &Message,
    ) -> Result<(), Halt> {
        match question(message) {
            Some(asked) => self.repeat(progress, root, &asked, message).await,
            None => Ok(()),
        }
    }

    /// Repeats `message` in a reply, once for each `state`, if the root cannot be edited.
    pub(super) async fn repeat(
        &self,
        progress: &mut ThreadProgress<'_>,
        root: &Posted,
        state: &str,
        message: &Message,
    ) -> Result<(), Halt> {
        if progress.get("root_frozen").is_none() || progress.get("asked") == Some(state) {
            return Ok(());
        }
        let what = format!("question-{state}");
        // permanently rejected: logged
        let _ = self.post(progress, &what, Place::thread(&root.channel, &root.ts), message).await?;
        self.note(progress, &[("asked", state), (&posting(&what), "")]).await
    }

    /// Waits for a replica: a commit without one may be lost with its master, and its messages would have no incident.
    /// This outlasts a failover; if only the replica is down, people are notified anyway.
    async fn wait_until_kept(&self, incident: &Incident) -> Result<(), Halt> {
        let store = &self.engine.store;
        let master = store.master().await?;
        if store.incident(&incident.id).await?.is_none() {
            return Err(Halt::Later(IDLE)); // lost in a failover since it was read
        }
        match store.wait_for_replicas(&master).await {
            Err(StoreError::NotReplicated { .. }) => {
                let age = store.now().await?.since(incident.opened_at);
                if age < LEASE { Err(Halt::Later(IDLE)) } else { Ok(()) }
            }
            fenced => Ok(fenced?),
        }
    }

    /// Posts the metric's picture and the post-mortem draft, once the outcome of a rollback is known, and again if that
    /// changes: servers may follow a failed one late, and then it helps or does not.
    async fn keep_picture(
        &self,
        progress: &mut ThreadProgress<'_>,
        incident: &Incident,
        root: &Posted,
    ) -> Result<(), Halt> {
        let known =
            matches!(incident.phase.kind(), PhaseKind::Recovered | PhaseKind::Escalated | PhaseKind::Unverified);
        let Some(switch) = incident.switch.as_ref().filter(|_| known) else { return Ok(()) };
        let of_this_switch = switch.at.0.to_string();
        let of_this_outcome = match incident.failure() {
            Some(failure) => format!("{of_this_switch}-{}", failure.as_str()),
            None => of_this_switch.clone(),
        };
        // earlier receivers wrote the first for any outcome
        if progress.get("picture").is_some_and(|posted| posted == of_this_switch || posted == of_this_outcome) {
            return Ok(());
        }
        let measured = self.engine.store.samples(&incident.id).await?.filter(|measured| measured.is_of(switch.at));
        if measured.is_none() && drafts::is_awaited(incident) {
            return Ok(()); // Prometheus is asked again; this follows afterwards
        }
        let marker = posting("picture");
        // of this switch: the same incident may have been rolled back before
        let name = format!("postmortem-{}-{of_this_outcome}.md", incident.id);
        let found = match progress.get(&marker) {
            Some(oldest) => {
                let search = self.slack.find_file(root, &name, oldest.parse().unwrap_or_default());
                let method = Method::Other(search_method(Some(&root.ts)));
                matches!(self.call(progress, method, &[], search).await?, Ok(Some(_)))
            }
            None => false,
        };
        if !found {
            let draft = drafts::postmortem(&self.engine, incident.clone()).await?;
            let title = "Draft of the post-mortem".to_owned();
            let mut files = vec![Upload { name, title, content: draft.into_bytes() }];
            if let Some(IncidentMetric::Samples(samples)) = measured {
                let (label, at) = (samples.label.clone(), switch.at);
                let drawn =
                    elsewhere::try_run(move || chart::png(&samples, Some(at)).map_err(|error| error.to_string()));
                match drawn.await.unwrap_or_else(|| Err("drawing it has panicked".to_owned())) {
                    Ok(content) => {
                        files.insert(0, Upload { name: format!("{}.png", incident.id), title: label, content });
                    }
                    Err(error) => tracing::error!(incident = %incident.id, error, "cannot draw the picture"),
                }
            }
            let text = "The measurements, and the draft of a post-mortem: please answer its questions.";
            let now = self.engine.store.now().await?.0.to_string();
            let method = Method::Other("files.completeUploadExternal");
            let upload = self.slack.upload(root, text, files);
            // for example a missing scope: the thread is complete without it
            if let Err(error) = self.call(progress, method, &[(&marker, &now)], upload).await? {
                tracing::error!(incident = %incident.id, %error, "gave up on the picture");
            }
        }
        self.note(progress, &[("picture", &of_this_outcome), (&marker, "")]).await
    }

    /// The root of the thread, in the decider's `own` channel as long as that accepts it. `None`: no channel does.
    async fn keep_root(
        &self,
        progress: &mut ThreadProgress<'_>,
        view: &View<'_>,
        own: Option<&str>,
    ) -> Result<Option<Posted>, Halt> {
        let message = render::root(view);
        if let Some(own) = own.filter(|_| progress.get("fallback").is_none()) {
            match self.keep(progress, &Kept { what: "root", channel: own }, &message).await? {
                Ok(root) => return Ok(Some(root)),
                Err(error) => self.undeliverable(view.incident, own, &error).await?,
            }
            self.fall_back(progress).await?;
        }
        match self.keep(progress, &Kept { what: "root", channel: &self.incident_channel }, &message).await? {
            Ok(root) => Ok(Some(root)),
            Err(error) => {
                self.undeliverable(view.incident, &self.incident_channel, &error).await?;
                Ok(None)
            }
        }
    }

    /// The decider cannot see the question, so an event makes the incident page.
    pub(super) async fn undeliverable(
        &self,
        incident: &Incident,
        channel: &str,
        error: &SlackError,
    ) -> Result<(), Halt> {
        let why = format!("Slack cannot show this in {channel} ({error})");
        let event = Event::Undeliverable { incident: incident.id.clone(), why };
        match self.engine.handle(&incident.prompt, &event).await {
            Ok(_) => Ok(()),
            Err(EngineError::Store(error)) => Err(error.into()),
            Err(EngineError::Contended) => Err(Halt::GiveWay),
        }
    }

    /// The decider's channel accepts no messages: the overview, if there is one, becomes the root.
    pub(super) async fn fall_back(&self, progress: &mut ThreadProgress<'_>) -> Result<(), Halt> {
        let [channel, ts, frozen] = ["overview_channel", "overview_ts", "overview_frozen"]
            .map(|field| progress.get(field).unwrap_or_default().to_owned());
        let fields = [
            ("fallback", "1"),
            ("root_channel", &channel),
            ("root_ts", &ts),
            ("root_frozen", &frozen),
            ("root_hash", ""),
            // a new thread gets all replies, because its readers have seen none
            ("replied", ""),
            ("said_frozen", ""),
            ("asked", ""),
            (&posting("root"), ""),
            // there is no other message in this channel
            ("overview_channel", ""),
            ("overview_ts", ""),
            ("overview_hash", ""),
            ("overview_frozen", ""),
            ("overview_reposted", ""),
            (&posting("overview"), ""),
        ];
        self.note(progress, &fields).await
    }

    /// Posts one note as a reply.
    async fn reply(&self, progress: &mut ThreadProgress<'_>, view: &View<'_>, root: &Posted, note: &Note) -> Taken<()> {
        let log = self.engine.store.log(&view.incident.prompt, None, LOG_LINES).await?.items;
        let lines: Vec<LogLine<'_>> = log.iter().map(log_line).collect();
        let message = self.with_related(view.incident, note, render::reply(view, note, &lines)).await?;
        let broadcast = render::calls_channel(view.incident, note);
        let place = Place { broadcast, ..Place::thread(&root.channel, &root.ts) };
        let what = format!("reply-{}", note.seq);
        let sent = self.post(progress, &what, place, &message).await?;
        Ok(sent.map(drop))
    }

    /// Continues with the note after this one.
    async fn replied(&self, progress: &mut ThreadProgress<'_>, note: &Note, more: &[(&str, &str)]) -> Result<(), Halt> {
        let (next, marker) = (note.seq.saturating_add(1).to_string(), posting(&format!("reply-{}", note.seq)));
        let own = [("replied", next.as_str()), (&marker, "")];
        self.note(progress, &[&own[..], more].concat()).await
    }

    /// The decider's own channel, if the root is there: the incident channel then gets an overview.
    pub(super) fn at_home<'a>(
        &self,
        progress: &ThreadProgress<'_>,
        own: Option<&'a str>,
        root: &Posted,
    ) -> Option<&'a str> {
        own.filter(|_| progress.get("fallback").is_none() && !self.is_incident_channel(&root.channel))
    }

    /// The channel of this decider, unless it is the incident channel.
    pub(super) async fn own_channel(&self, decider: &str) -> Option<&str> {
        let own = self.deciders.get(decider)?.channel.as_deref()?;
        let both = [own, self.incident_channel.as_str()];
        if both.iter().any(|channel| is_id(channel)) {
            self.learn_id(own).await;
            self.learn_id(&self.incident_channel).await;
        }
        (!self.is_incident_channel(own)).then_some(own)
    }

    /// Whether the message is in this channel, which may be given by name.
    pub(super) async fn is_in(&self, channel: &str, message: &Posted) -> bool {
        self.learn_id(channel).await;
        self.slack.known_id(channel) == message.channel
    }

    /// Requests the id of a channel that is given by name, once. No message waits until Slack answers.
    async fn learn_id(&self, channel: &str) {
        if !self.slack.has_asked_for_id(channel)
            && let Err(error) = self.count("conversations.list", self.slack.learn_id(channel).await)
        {
            tracing::warn!(channel, %error, "cannot read the id of a channel: it may get two messages for one");
        }
    }

    /// Whether this is the incident channel, by name or by id.
    pub(super) fn is_incident_channel(&self, channel: &str) -> bool {
        self.slack.known_id(channel) == self.slack.known_id(&self.incident_channel)
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
