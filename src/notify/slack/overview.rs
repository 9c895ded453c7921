//! The messages about a thread in channels that it is not in: its state, and a link to it. Edits notify no one, so a call
//! is a reply that the whole channel sees.

use std::collections::BTreeSet;

use super::posting::{Kept, Method, Taken, ThreadProgress, posting};
use super::{Halt, SlackNotifier};
use crate::decision::Incident;
use crate::decision::note::Note;
use crate::slack::client::{Place, Posted};
use crate::slack::render::{self, Message, View};

/// The progress field for the overview's last call.
const CALLED: &str = "called";
/// The progress field for the decider that the root was posted for.
const ROOT_DECIDER: &str = "root_decider";

impl SlackNotifier {
    /// The message in the channel for all incidents. `own`: the decider's own channel.
    pub(super) async fn keep_overview(
        &self,
        progress: &mut ThreadProgress<'_>,
        view: &View<'_>,
        root: &Posted,
        own: Option<&str>,
    ) -> Result<(), Halt> {
        let link = self.link(progress, root).await?;
        let message = render::overview(view, link.as_deref());
        let kept = Kept { what: "overview", channel: &self.incident_channel };
        // a decider to whom the question has passed, without a channel of their own, reads this one
        let calls =
            if own.is_none() && has_passed(progress, view.incident) { render::calls } else { render::calls_channel };
        // permanently rejected: logged and counted; the thread itself is in the right place
        let _ = self.keep_notice(progress, view, &kept, &message, link.as_deref(), calls).await?;
        Ok(())
    }

    /// Calls, in their own channels, deciders to whom the question has passed: the thread stays where it is. Each
    /// message is kept up to date, also if another decider is asked by now.
    pub(super) async fn call_deciders(
        &self,
        progress: &mut ThreadProgress<'_>,
        view: &View<'_>,
        root: &Posted,
    ) -> Result<(), Halt> {
        let incident = view.incident;
        if progress.get(ROOT_DECIDER).is_none() {
            self.note(progress, &[(ROOT_DECIDER, &incident.decider)]).await?;
        }
        // also of deciders that have lost their channel, or are no longer configured
        let noticed = progress.sync.0.keys().filter_map(|field| field.strip_prefix("decider ")?.strip_suffix("_ts"));
        let names: BTreeSet<String> = noticed.map(str::to_owned).chain(self.deciders.keys().cloned()).collect();
        for name in &names {
            let what = format!("decider {name}");
            let is_asked = *name == incident.decider;
            let has_notice = progress.get(&format!("{what}_ts")).is_some();
            let is_called = is_asked && has_passed(progress, incident) && render::waits(incident);
            if !is_called && !has_notice {
                continue;
            }
            let own = self.own_channel(name).await;
            let kept = progress.get(&format!("{what}_channel")).filter(|_| has_notice).map(str::to_owned);
            let Some(channel) = own.or(kept.as_deref()) else { continue };
            // the thread calls them there itself
            let is_home = self.is_in(channel, root).await;
            if is_home && !has_notice {
                continue;
            }
            let is_theirs = is_asked && !is_home && own.is_some();
            let link = self.link(progress, root).await?;
            let view = View { mention: view.mention.filter(|_| is_asked), ..*view };
            let message = render::notice(&view, link.as_deref());
            let calls = if is_theirs { render::calls_channel } else { |_: &Incident, _: &Note| false };
            let kept = Kept { what: &what, channel };
            let noticed = self.keep_notice(progress, &view, &kept, &message, link.as_deref(), calls).await?;
            if let Err(error) = noticed
                && is_called
                && own.is_some()
            {
                self.undeliverable(incident, channel, &error).await?;
            }
        }
        Ok(())
    }

    /// Keeps one message. `calls`: whether a note is repeated in a reply below it.
    async fn keep_notice(
        &self,
        progress: &mut ThreadProgress<'_>,
        view: &View<'_>,
        kept: &Kept<'_>,
        message: &Message,
        link: Option<&str>,
        calls: fn(&Incident, &Note) -> bool,
    ) -> Taken<()> {
        let posted = match self.keep(progress, kept, message).await? {
            Ok(posted) => posted,
            Err(error) => return Ok(Err(error)),
        };
        let (field, prefix) = match kept.what {
            "overview" => (CALLED.to_owned(), String::new()),
            what => (format!("{what}_{CALLED}"), format!("{what} ")),
        };
        let called: u32 = progress.get(&field).and_then(|n| n.parse().ok()).unwrap_or_default();
        let is_owed = |note: &&Note| note.seq > called && calls(view.incident, note);
        let Some(note) = view.incident.notes.iter().rfind(is_owed) else { return Ok(Ok(())) };
        let message = render::call(view, note, link);
        let place = Place { broadcast: true, ..Place::thread(&posted.channel, &posted.ts) };
        let what = format!("{prefix}call-{}", note.seq);
        // permanently rejected: logged
        let _ = self.post(progress, &what, place, &message).await?;
        self.note(progress, &[(&field, &note.seq.to_string()), (&posting(&what), "")]).await?;
        Ok(Ok(()))
    }

    /// The link to the thread. A message goes without it until there is one.
    async fn link(&self, progress: &mut ThreadProgress<'_>, root: &Posted) -> Result<Option<String>, Halt> {
        let link = self.permalink(progress, root).await;
        Ok(progress.put_off(link)?.flatten())
    }

    /// The link to the thread, requested once.
    pub(super) async fn permalink(
        &self,
        progress: &mut ThreadProgress<'_>,
        root: &Posted,
    ) -> Result<Option<String>, Halt> {
        let key = format!("{}/{}", root.channel, root.ts);
        if let Some(link) = progress.get("link").and_then(|link| link.strip_prefix(&format!("{key} "))) {
            return Ok(Some(link.to_owned()));
        }
        let method = Method::Other("chat.getPermalink");
        match self.call(progress, method, &[], self.slack.permalink(&root.channel, &root.ts)).await? {
            Ok(link) => {
                self.note(progress, &[("link", &format!("{key} {link}"))]).await?;
                Ok(Some(link))
            }
            Err(_) => Ok(None), // the overview goes without a link
        }
    }
}

/// Whether an overview was posted besides the root: it is kept up to date, even if the config has changed since.
pub(super) fn has_overview(progress: &ThreadProgress<'_>, root: &Posted) -> bool {
    progress
        .get("overview_ts")
        .is_some_and(|ts| ts != root.ts || progress.get("overview_channel") != Some(&root.channel))
}

/// Whether another decider is asked than the one whose thread it is. A thread that has moved to the channel for all
/// incidents is no one's: its decider is paged.
fn has_passed(progress: &ThreadProgress<'_>, incident: &Incident) -> bool {
    let other = progress.get(ROOT_DECIDER).is_some_and(|first| first != incident.decider);
    other && progress.get("fallback").is_none()
}
