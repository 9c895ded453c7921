//! Writes a decision: `commit.lua` and its arguments.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::Cmd;
use serde::Serialize;

use super::events::EVENTS_KEPT;
use super::receipt::{HandledRequest, Receipt};
use super::record::{self, SCHEMA};
use super::reply::read_code;
use super::schedule::{Shows, Work, WorkItem, notify_priority};
use super::script::Call;
use super::{INCIDENT_RETENTION, Loaded, Store, StoreError, Waited, millis, query};
use crate::decision::decide::{IncidentWrite, LogEntry};
use crate::decision::{ChangeMessage, Commit, IncidentId, PhaseKind, Routing, Snapshot, Timestamp, VersionName};
use crate::trace;

/// Terminates a list of arguments.
const END: &str = "";
/// Capacity for the arguments of most commits, and for their bytes without the state.
const ARGS: usize = 64;
const BYTES: usize = 3 << 10;

/// The published message about a change.
#[derive(Serialize)]
struct PublishedChange<'a> {
    prompt: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
    routing: &'a Option<BTreeMap<&'a str, u8>>,
    at: &'a str,
    reason: &'a str,
}

impl PublishedChange<'_> {
    #[allow(clippy::expect_used, reason = "texts and numbers always serialize")]
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a message serializes")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it may not have been executed"]
pub enum Committed {
    /// Committed now, or earlier by this commit, whose reply was lost.
    Done { rev: i64 },
    /// Another commit came first: load and decide again.
    Moved,
    /// Other prompts have used up the budget of automatic rollbacks: load and decide again.
    BudgetSpent,
}

impl Store {
    /// Writes all of `commit`, or nothing. `id` identifies the commit: running it again is harmless.
    pub async fn commit(&self, id: &str, loaded: &Loaded, commit: &Commit) -> Result<Committed, StoreError> {
        self.commit_once(id, loaded, commit, None, &[]).await
    }

    /// Like [`Store::commit`], and also stores the outcome of a request that must be handled once, and events for
    /// [`Store::events`].
    pub async fn commit_once(
        &self,
        id: &str,
        loaded: &Loaded,
        commit: &Commit,
        receipt: Option<(&Receipt, &HandledRequest)>,
        events: &[String],
    ) -> Result<Committed, StoreError> {
        let call = self.commit_call(id, loaded, commit, receipt, events);
        let span = trace::redis("commit");
        let (Waited { reply, acked, to }, wanted) = match &self.replica_waits {
            None => {
                let reply = trace::call(span, self.link.run(&call), StoreError::fault).await?;
                (Waited { reply, acked: 0, to: Arc::default() }, 0)
            }
            Some(replica_waits) => {
                let written = self.on_waiter(replica_waits, &call, None);
                (trace::call(span, written, StoreError::fault).await?, replica_waits.replicas)
            }
        };
        let (code, mut detail) = read_code(reply)?;
        let rev = loaded.next_rev();
        if code > 0 && acked < wanted {
            return Err(StoreError::NotReplicated { acked, wanted });
        }
        if let (1, Some(active)) = (code, &commit.active) {
            self.written.insert(&loaded.snapshot.prompt, active);
        }
        match code {
            1 => Ok(Committed::Done { rev }),
            2 => {
                // another connection wrote it, so this connection's WAIT did not count it
                self.wait_for_replicas(&to).await?;
                Ok(Committed::Done { rev: detail.number().unwrap_or_default() })
            }
            -1 => Ok(Committed::Moved),
            -3 => Ok(Committed::BudgetSpent),
            -4 => Err(StoreError::Broken {
                key: detail.text().unwrap_or_default(),
                detail: "holds the wrong type".to_owned(),
            }),
            -5 => Err(StoreError::NewerRecord { found: detail.text().unwrap_or_default() }),
            _ => Err(StoreError::unexpected("commit")),
        }
    }

    /// The script call of a commit; see `commit.lua` for its arguments.
    fn commit_call(
        &self,
        id: &str,
        loaded: &Loaded,
        commit: &Commit,
        receipt: Option<(&Receipt, &HandledRequest)>,
        events: &[String],
    ) -> Call<'_> {
        let keys = &self.keys;
        let prompt = &loaded.snapshot.prompt;
        let now = loaded.now;
        let receipts = receipt.map(|(receipt, before)| receipt.written(before, now));
        let receipts = receipts.iter().flatten();
        let state = record::write(&commit.state, &loaded.unknown);
        let own = [keys.active(prompt), keys.routing(prompt), keys.state(prompt), keys.log(prompt)];
        let of_targets = 1 + 2 * self.targets.len();
        let further = of_targets + commit.incidents.len() + commit.content.len() + receipts.clone().count();
        let bytes = state.len() + BYTES + events.iter().map(String::len).sum::<usize>();
        let mut call = self.scripts.commit.sized(own.len() + keys.of_commits().len() + further, ARGS, bytes);
        let cmd = &mut call.cmd;
        cmd.arg(&own).arg(keys.of_commits()).arg(keys.events(prompt));
        for subscription in self.targets.iter() {
            cmd.arg(keys.due(subscription.work())).arg(keys.unsent(subscription.target));
        }
        for write in &commit.incidents {
            cmd.arg(keys.incident(&write.incident.id));
        }
        for (version, _) in &commit.content {
            cmd.arg(keys.content(prompt, version));
        }
        for (key, ..) in receipts.clone() {
            cmd.arg(key);
        }
        cmd.arg(id).arg(now.0).arg(prompt.as_str()).arg(&loaded.stamp);
        match &loaded.raw_active {
            None => cmd.arg("-"),
            Some(active) => cmd.arg([b"=", active.as_slice()].concat()),
        };
        let Snapshot { paused, outage_hold, .. } = &loaded.snapshot;
        cmd.arg(match (paused, outage_hold) {
            (None, None) => "00",
            (None, Some(_)) => "01",
            (Some(_), None) => "10",
            (Some(_), Some(_)) => "11",
        });
        match commit.automatic {
            None => cmd.arg("").arg(0),
            Some(automatic) => cmd.arg(automatic.max).arg(now.minus(automatic.window).0),
        };
        // what `outside` compares with the key: no version is a line break
        let holds_other = commit.state.lapsed.as_ref().is_some_and(|lapsed| lapsed.holds.is_some());
        let no_version = if holds_other { "\n" } else { "" };
        let serving = commit.state.serving.as_ref().map_or(no_version, |s| s.version.as_str());
        cmd.arg(commit.active.as_ref().map_or("", VersionName::as_str))
            .arg(match commit.routing {
                Routing::Keep => "keep",
                Routing::Drop => "drop",
                Routing::Set(_) => "set",
            })
            .arg(state)
            .arg(SCHEMA)
            .arg(serving)
            .arg(query::info_line(commit))
            .arg(keys.changes())
            .arg(millis(INCIDENT_RETENTION))
            .arg(loaded.next_rev())
            .arg(loaded.raw_routing.len())
            .arg(self.targets.len())
            .arg(events.len())
            .arg(EVENTS_KEPT);
        for (field, percent) in &loaded.raw_routing {
            cmd.arg(field).arg(percent);
        }
        for IncidentWrite { incident, was, .. } in &commit.incidents {
            let open = |phase: PhaseKind| if phase.is_open() { phase.as_str() } else { "" };
            let phase = incident.phase.kind();
            cmd.arg(&incident.id.0);
            // an open incident is stored only in its prompt's state
            match phase.is_open() && !self.readable_by_previous {
                true => cmd.arg(record::write_elsewhere(prompt)),
                false => cmd.arg(record::write_incident(incident, &loaded.unknown.of_incident(&incident.id))),
            };
            cmd.arg(was.map_or("-", open)).arg(open(phase));
        }
        cmd.arg(END);
        self.add_wakes(cmd, loaded, commit);
        self.add_notifications(cmd, loaded, commit, !events.is_empty());
        let at = super::rfc3339(now);
        let routing = match &commit.routing {
            Routing::Set(shares) => shares.as_slice(),
            Routing::Keep | Routing::Drop => &[],
        };
        let split = matches!(commit.routing, Routing::Set(_))
            .then(|| routing.iter().map(|(version, percent)| (version.as_str(), *percent)).collect());
        for ChangeMessage { from, to, reason } in &commit.changes {
            let message = PublishedChange {
                prompt: prompt.as_str(),
                from: from.as_deref(),
                to: to.as_deref(),
                routing: &split,
                at: &at,
                reason,
            };
            cmd.arg(message.to_json());
        }
        cmd.arg(END);
        for (version, percent) in routing {
            cmd.arg(version.as_str()).arg(*percent);
        }
        cmd.arg(END);
        for LogEntry { event, from, to, reason, operator, incident } in &commit.log {
            cmd.arg(event.as_str())
                .arg(from.as_deref().unwrap_or_default())
                .arg(to.as_deref().unwrap_or_default())
                .arg(reason)
                .arg(operator.as_str())
                .arg(&at)
                .arg(incident.as_ref().map_or("", |id| &id.0));
        }
        cmd.arg(END);
        for (_, content) in &commit.content {
            match content {
                Some(text) => cmd.arg("keep").arg(text),
                None => cmd.arg("drop").arg(""),
            };
        }
        cmd.arg(END);
        for (_, value, ttl) in receipts {
            cmd.arg(value).arg(*ttl);
        }
        cmd.arg(END).arg(events).arg(END);
        call
    }

    /// Wake-ups for incidents, for the prompt's canary, content and soaks, and for pages.
    fn add_wakes(&self, cmd: &mut Cmd, loaded: &Loaded, commit: &Commit) {
        let (prompt, now) = (&loaded.snapshot.prompt, loaded.now);
        let incident = |work: Work, id: &IncidentId, at| (work, WorkItem::Incident(id.clone()), at);
        let own = |work: Work, at: Option<Timestamp>| at.map(|at| (work, WorkItem::Prompt(prompt.clone()), at));
        let writes = || commit.incidents.iter().map(|write| (write, &write.incident));
        let mut wakes: Vec<(Work, WorkItem, Timestamp)> =
            commit.wakes.iter().map(|wake| incident(Work::Incident, &wake.incident, wake.at)).collect();
        wakes.extend(own(Work::Incident, commit.canary.wake));
        wakes.extend(own(Work::Archive, commit.chores));
        wakes.extend(own(Work::Soak, commit.soak));
        let coordinated = writes().filter(|(write, _)| write.coordinate);
        wakes.extend(coordinated.map(|(_, about)| incident(Work::Outage, &about.id, now)));
        // also to end a page
        let paged = writes().filter(|(_, about)| about.paged);
        wakes.extend(paged.map(|(_, about)| incident(Work::Page, &about.id, now)));
        for (work, item, at) in wakes {
            let set = Work::OF_COMMITS.iter().position(|of| *of == work);
            cmd.arg(set.map_or(1, |at| at + 1)).arg(work.member(&item)).arg(at.0);
        }
        cmd.arg(END);
    }

    /// Tasks for notification targets, the most urgent first.
    fn add_notifications(&self, cmd: &mut Cmd, loaded: &Loaded, commit: &Commit, has_events: bool) {
        let (prompt, now) = (&loaded.snapshot.prompt, loaded.now);
        let priorities = || commit.incidents.iter().map(|write| notify_priority(&write.incident));
        for (index, subscription) in self.targets.iter().enumerate() {
            let work = subscription.work();
            let mut wake = |item: WorkItem, at: Timestamp| {
                cmd.arg(index + 1).arg(work.member(&item)).arg(at.0);
            };
            let own = || WorkItem::Prompt(prompt.clone());
            match subscription.shows {
                Shows::Records => {
                    if commit.canary.changed {
                        wake(own(), now);
                    }
                    for (write, at) in commit.incidents.iter().zip(priorities()) {
                        wake(WorkItem::Incident(write.incident.id.clone()), at);
                    }
                }
                Shows::Events if has_events => wake(own(), priorities().min().unwrap_or(now)),
                Shows::Events => {}
            }
        }
        cmd.arg(END);
    }
}
