//! Threads of coordinating incidents, and prompts that belong together.

use std::time::Duration;

use super::overview::has_overview;
use super::posting::{Kept, Left, ThreadProgress, posting};
use super::{Halt, SlackNotifier};
use crate::decision::note::{Note, NoteKind};
use crate::decision::{Incident, IncidentId, PhaseKind};
use crate::deployed::group_of;
use crate::slack::client::Place;
use crate::slack::render::{self, Message, OutageMessage, Related};
use crate::store::StoreError;
use crate::store::outage::Speaks;
use crate::store::sync::Sync;
use crate::visible::shown;

/// Prompts of a group that are shown.
const RELATED: usize = 10;
/// When it is known whether a coordinating incident covers an incident.
const SOON: Duration = Duration::from_secs(2);

impl SlackNotifier {
    /// Whether a coordinating incident covers `incident`, so that it needs no thread of its own. An existing thread is
    /// kept; a rollback that did not help gets one.
    pub(super) async fn is_spoken_for(&self, incident: &Incident, sync: &Sync) -> Result<bool, Halt> {
        let begun = sync.get("root_ts").is_some() || sync.get(&posting("root")).is_some();
        if !incident.outage || begun || incident.phase.kind() == PhaseKind::Escalated || incident.is_stuck() {
            return Ok(false);
        }
        if !incident.phase.is_open() {
            return Ok(true);
        }
        match self.engine.store.speaks_for(&incident.id).await? {
            Speaks::Yes => Ok(true),
            Speaks::No => Ok(false),
            Speaks::Soon => Err(Halt::Later(SOON)),
        }
    }

    /// Makes Slack match a coordinating incident: a root for all prompts, and its notes as replies.
    pub(super) async fn notify_outage(&self, progress: &mut ThreadProgress<'_>, id: &IncidentId) -> Result<(), Halt> {
        let Some(found) = self.engine.store.outage(id).await? else { return Ok(()) };
        let mention = self.mention(&found.outage.decider).await?;
        let view = OutageMessage { outage: &found.outage, members: &found.members, mention: mention.as_deref() };
        let own = self.own_channel(&found.outage.decider).await;
        let message = render::outage_root(&view);
        let mut root = None;
        let own = own.filter(|_| progress.get("fallback").is_none());
        for channel in own.into_iter().chain([self.incident_channel.as_str()]) {
            match self.keep(progress, &Kept { what: "root", channel }, &message).await? {
                Ok(posted) => {
                    root = Some(posted);
                    break;
                }
                // the decider's channel is unusable: continue in the incident channel
                Err(_) if own == Some(channel) => self.fall_back(progress).await?,
                Err(_) => self.note(progress, &[("root_channel", ""), ("root_ts", "")]).await?,
            }
        }
        let Some(root) = root else {
            return Ok(()); // logged; each prompt pages if its deadline is missed
        };
        let behind = progress.is_behind();
        self.say_frozen(progress, &root).await?;
        let next: u32 = progress.get("replied").and_then(|n| n.parse().ok()).unwrap_or(1); // note 0 is in the root
        let mut left = Left::Nothing;
        for (sent, note) in found.outage.notes.iter().filter(|note| note.seq >= next).enumerate() {
            if sent == super::REPLIES {
                left = Left::More(note.at);
                break;
            }
            let place = Place::thread(&root.channel, &root.ts);
            let what = format!("reply-{}", note.seq);
            let posted = self.post(progress, &what, place, &render::outage_reply(&view, note)).await;
            // a permanently rejected reply is given up; later ones continue
            if progress.put_off(posted)?.is_none() {
                left = Left::PutOff(note.at);
                break;
            }
            self.note(progress, &[("replied", &note.seq.saturating_add(1).to_string()), (&posting(&what), "")]).await?;
        }
        if self.at_home(progress, own, &root).is_some() || has_overview(progress, &root) {
            let link = self.permalink(progress, &root).await;
            let link = progress.put_off(link)?.flatten();
            let kept = Kept { what: "overview", channel: &self.incident_channel };
            let overview = self.keep(progress, &kept, &render::outage_overview(&view, link.as_deref())).await;
            let _ = progress.put_off(overview)?; // permanently rejected: logged
        }
        match left {
            Left::Nothing => self.ask_again(progress, &root, &message).await,
            left => progress.give_way(left, behind),
        }
    }

    /// Stores the group that the prompt's alerts name.
    pub(super) async fn relate(&self, incident: &Incident) -> Result<(), StoreError> {
        let Some(group) = group_of(incident) else { return Ok(()) };
        let store = &self.engine.store;
        store.relate(&group, &incident.prompt, store.now().await?).await
    }

    /// Adds to a rollback's reply how the prompts of the same group are doing.
    pub(super) async fn with_related(
        &self,
        incident: &Incident,
        note: &Note,
        message: Message,
    ) -> Result<Message, StoreError> {
        let Some(group) = group_of(incident) else { return Ok(message) };
        if note.kind != NoteKind::Switched {
            return Ok(message);
        }
        let SlackNotifier { engine, .. } = self;
        let (prompts, all) = engine.store.related(&group, RELATED + 1).await?;
        let mut related = Vec::new();
        for prompt in prompts.iter().filter(|prompt| **prompt != incident.prompt).take(RELATED) {
            // an unreadable prompt must not hide the others
            match engine.load(prompt).await {
                Ok(loaded) => related.push(health(&loaded.snapshot)),
                Err(StoreError::Unavailable { kind, message }) => {
                    return Err(StoreError::Unavailable { kind, message });
                }
                Err(_) => {}
            }
        }
        Ok(render::with_related(message, &shown(&group), &related, all.saturating_sub(1)))
    }
}

fn health(snapshot: &crate::decision::Snapshot) -> Related {
    let worst = snapshot.state.open_incidents().map(|incident| incident.phase.kind()).max();
    let health = match worst {
        None => "no open incident",
        Some(PhaseKind::Verifying) => "rolled back, being verified",
        Some(PhaseKind::Escalated) => "its rollback did not help",
        Some(_) => "an incident is open",
    };
    let version = snapshot.active.version().map(ToString::to_string);
    Related { prompt: snapshot.prompt.to_string(), version, health }
}
