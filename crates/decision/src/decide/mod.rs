//! The decision tree. One file per source of events. This file dispatches each event and turns the result into a commit.
//!
//! The shared parts, from the bottom up: `transaction`, `facts` for the guards, `precondition` for people's requests,
//! `question` for asking people, and `traffic` for changing the active version.

mod adopt;
mod alerts;
mod answer;
mod canary;
mod choice;
mod commit;
mod confirm;
mod ended;
mod facts;
mod gradual;
mod listed;
mod mark;
mod measure;
mod outage;
mod outside;
mod person;
mod precondition;
mod question;
mod recheck;
mod response;
pub mod retention;
mod shipped;
mod snapshot;
mod soak;
mod timer;
mod traffic;
mod transaction;
mod verify;

#[cfg(test)]
#[allow(unused_must_use, reason = "the world of the tests writes each commit itself")]
mod tests;

pub use answer::{Adoption, AlertOutcome, Answer, Marked, Outcome};
pub use commit::{Automatic, ChangeMessage, Commit, IncidentWrite, LogEntry, LogEvent, Rollout, Routing, Served, Wake};
pub use snapshot::{Active, Snapshot};

use super::alert::AlertRecord;
use super::guards::HoldingGuard;
use super::{
    Alert, Event, Incident, OrRefusal, Phase, PhaseKind, Policy, PromptState, Timestamp, VersionName, VersionRecord,
};
use transaction::Transaction;

#[must_use = "nothing is done until its commit is written"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    /// `None` if there is nothing to write.
    pub commit: Option<Commit>,
}

/// Decides what to do about `event`. Pure: the same arguments always give the same decision.
pub fn decide(policy: &Policy, snapshot: &Snapshot, event: &Event, now: Timestamp) -> Decision {
    decide_and(policy, snapshot, event, now, |_| ()).0
}

/// Decides about `alert` alone as [`decide`] does, and also returns all guards that hold it, not only the first.
pub(crate) fn decide_with_guards(
    policy: &Policy,
    snapshot: &Snapshot,
    alert: &Alert,
    now: Timestamp,
) -> (Decision, Vec<HoldingGuard>) {
    decide_and(policy, snapshot, &Event::Alerts(vec![alert.clone()]), now, |tx| tx.all_held(alert))
}

/// The versions that have traffic, or may have it, each with its share in percent; also after a change that no commit has
/// noticed yet.
pub fn in_service(policy: &Policy, snapshot: &Snapshot, now: Timestamp) -> Vec<(VersionName, u8)> {
    let state = begin(policy, snapshot, now).state;
    let mut versions = state.served();
    for version in state.lapsed.iter().flat_map(|lapsed| &lapsed.versions) {
        if !versions.contains(version) {
            versions.push(version.clone());
        }
    }
    let shares: Vec<u8> = versions.iter().map(|version| state.percent(version)).collect();
    versions.into_iter().zip(shares).collect()
}

/// Decides, and returns what `look` sees in the state that the decision leads to.
fn decide_and<T>(
    policy: &Policy,
    snapshot: &Snapshot,
    event: &Event,
    now: Timestamp,
    look: impl FnOnce(&Transaction<'_>) -> T,
) -> (Decision, T) {
    let mut tx = begin(policy, snapshot, now);
    let answer = match event {
        Event::Alerts(alerts) => Answer::Alerts(alerts::alerts(&mut tx, alerts)),
        Event::Rollback(request) => tx.refused_or(person::rollback, request),
        Event::Register(request) => tx.refused_or(person::register, request),
        Event::Activate(request) => tx.refused_or(person::activate, request),
        Event::Mark(request) => tx.refused_or(mark::mark, request),
        Event::AskGates { version } => tx.refused_or(measure::asked, version),
        Event::Measured { version, evidence } => measure::measured(&mut tx, version, evidence),
        Event::Decide(click) => tx.refused_or(choice::choose, click),
        Event::Timer { incident, early } => timer::due(&mut tx, incident, *early),
        Event::Listed { incident, fingerprints } => listed::compare(&mut tx, incident, fingerprints),
        Event::Confirmed(confirmed) => confirm::confirmed(&mut tx, confirmed),
        Event::Rechecked { incident, since, finding } => recheck::rechecked(&mut tx, incident, *since, finding),
        Event::Checked(check) => verify::checked(&mut tx, check),
        Event::Stepped(step) => gradual::stepped(&mut tx, step),
        Event::Promotion(promotion) => canary::due(&mut tx, promotion),
        Event::Steer(steering) => tx.refused_or(canary::steer, steering),
        Event::Undeliverable { incident, why } => question::page_instead(&mut tx, incident, why),
        Event::Hold { incident, by } => outage::hold(&mut tx, incident, by.as_ref()),
        Event::Resume { incident } => outage::resume(&mut tx, incident),
        Event::CheckDrift => Answer::Noted,
        Event::Soak(look) => soak::looked(&mut tx, look),
        Event::ArchiveReport(kept) => {
            // as time has passed, another version may be a target, whose content is needed
            tx.settle_soaks();
            alerts::follow_targets(&mut tx);
            retention::kept(&mut tx, kept)
        }
        Event::Restore { version } => tx.refused_or(retention::restore, version),
        Event::Adopt(adopt) => Answer::Adopted(adopt::adopt(&mut tx, adopt)),
    };
    alerts::hear_inactive_alerts(&mut tx);
    let seen = look(&tx);
    (tx.finish(answer), seen)
}

/// Applies what has happened since the last commit, before the event itself: time has passed, and others may have SET `active`.
fn begin<'a>(policy: &'a Policy, snapshot: &'a Snapshot, now: Timestamp) -> Transaction<'a> {
    let mut tx = Transaction::new(policy, snapshot, now);
    tx.pass_time();
    question::reassign(&mut tx);
    tx.notice_outside_change();
    alerts::hear_inactive_alerts(&mut tx);
    tx
}

impl Transaction<'_> {
    /// Runs a person's request. A refused request leaves no change.
    fn refused_or<T>(&mut self, request: fn(&mut Self, &T) -> OrRefusal<Answer>, argument: &T) -> Answer {
        request(self, argument).unwrap_or_else(|refusal| {
            *self = begin(self.policy, self.snapshot, self.now);
            Answer::Refused(refusal)
        })
    }

    fn finish(mut self, answer: Answer) -> Decision {
        outage::mark(&mut self);
        self.settle_soaks();
        alerts::follow_targets(&mut self);
        mark::follow(&mut self);
        for incident in &mut self.state.incidents {
            incident.paged |= incident.pages() || incident.phase == Phase::Unverified;
            AlertRecord::limit_details(incident.alerts.iter_mut());
        }
        AlertRecord::limit_details(self.state.inactive_alerts.iter_mut().map(|inactive| &mut inactive.alert));
        let snapshot = self.snapshot;
        let before = |(place, incident): (usize, &Incident)| {
            let known = &snapshot.state.incidents;
            let is_it = |before: &&Incident| before.id == incident.id;
            // incidents keep their places in the state
            known.get(place).filter(is_it).or_else(|| known.iter().chain(&snapshot.incident).find(is_it))
        };
        let now_and_before = self.state.incidents.iter().enumerate().map(|at| (at.1, before(at)));
        let changed: Vec<(&Incident, Option<&Incident>)> =
            now_and_before.filter(|(incident, before)| *before != Some(*incident)).collect();
        let incidents: Vec<IncidentWrite> = changed
            .iter()
            .map(|(incident, before)| IncidentWrite {
                incident: Incident::clone(incident),
                was: before.map(|before| before.phase.kind()),
                coordinate: outage::affects_outage(*before, incident),
            })
            .collect();
        let wakes: Vec<Wake> = changed
            .iter()
            .filter_map(|(incident, before)| {
                // a page must begin and end at once instead of at the next wake-up, and the page of an unverified
                // rollback must survive the worker that closes the incident
                let turned = before.is_some_and(Incident::pages) != incident.pages();
                let unverified = incident.phase == Phase::Unverified
                    && before.is_none_or(|before| before.phase.kind() != PhaseKind::Unverified);
                let at = if turned || unverified { Some(self.now) } else { incident.next_wake(self.policy) }?;
                Some(Wake { incident: incident.id.clone(), at })
            })
            .collect();
        let unchanged = incidents.is_empty()
            && self.log.is_empty()
            && self.content.is_empty()
            && self.routing == Routing::Keep
            && self.state == self.snapshot.state;
        if unchanged {
            return Decision { answer, commit: None };
        }
        // prompt servers keep their version while the key holds none: the traffic has not moved
        let back = self.snapshot.state.lapsed.as_ref().is_some_and(|lapsed| lapsed.versions == self.state.served());
        if self.log.iter().any(|entry| entry.event.is_change()) && self.state.lapsed.is_none() && !back {
            self.state.moved_by = self.snapshot.commit.clone();
        }
        self.forget_the_past();
        let canary = Rollout {
            wake: self.state.next_wake().filter(|at| self.snapshot.state.next_wake() != Some(*at)),
            changed: self.state.canary != self.snapshot.state.canary,
        };
        let chores = |state: &PromptState| retention::next(state, self.policy, self.now);
        let chores = chores(&self.state).filter(|at| *at <= self.now || chores(&self.snapshot.state) != Some(*at));
        let soak = self.state.soak_wake(self.policy);
        let soak = soak.filter(|at| *at <= self.now || self.snapshot.state.soak_wake(self.policy) != Some(*at));
        let commit = Commit {
            served: self.served(),
            soak,
            canary,
            chores,
            state: self.state,
            active: self.active,
            routing: self.routing,
            incidents,
            log: self.log,
            changes: self.changes,
            wakes,
            automatic: self.automatic,
            content: self.content,
        };
        Decision { answer, commit: Some(commit) }
    }

    fn served(&self) -> Vec<Served> {
        let served = |version: VersionName| Served {
            previous: self.state.target(Some(&version), self.policy, self.now).cloned(),
            new_since: self.state.version(&version).and_then(VersionRecord::new_since).unwrap_or(self.now),
            version,
        };
        self.state.served().into_iter().map(served).collect()
    }

    /// Drops records that no longer matter; only when something is written anyway.
    fn forget_the_past(&mut self) {
        let (policy, now) = (self.policy, self.now);
        self.state.incidents.retain(|i| {
            i.phase.is_open()
                || (i.phase == Phase::Resolved && i.closed_at.is_some_and(|at| now.since(at) < policy.reopen_within))
        });
        self.state.inactive_alerts.retain(|s| now.since(s.alert.last_seen) < policy.alert_resolve_timeout);
        self.state.silences.retain(|s| now.since(s.since) < policy.alert_resolve_timeout);
        let excess = self.state.silences.len().saturating_sub(Policy::MAX_SILENCES);
        self.state.silences.drain(..excess);
        self.state.ended.retain(|ended| now.since(ended.at) < Policy::LATE_COPY);
    }
}
