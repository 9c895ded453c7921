//! The decision tree. One file per source of events. This file holds the shared parts: the transaction that becomes a
//! commit, and the moves that change the active version.

mod adopt;
mod alerts;
mod answer;
mod canary;
mod commit;
mod confirm;
mod ended;
mod gradual;
mod listed;
mod mark;
mod measure;
mod outage;
mod person;
mod recheck;
pub mod retention;
mod shares;
mod shipped;
mod soak;
mod timer;
mod undeliverable;
mod verify;

#[cfg(test)]
mod tests;

pub use answer::{Adoption, AlertOutcome, Answer, Marked, Outcome, Refusal, RefusalCode};
pub use commit::{Automatic, ChangeMessage, Commit, IncidentWrite, LogEntry, LogEvent, Rollout, Routing, Served, Wake};

use std::collections::{BTreeSet, HashMap, HashSet};

use super::event::Event;
use super::guards::{Facts, Guard, Held};
use super::incident::Incident;
use super::names::{CommitId, IncidentId, PromptName, VersionName, trimmed};
use super::note::NoteKind;
use super::operator::Operator;
use super::phase::{Phase, PhaseKind};
use super::policy::Policy;
use super::serving::{ActivatedBy, Lapsed};
use super::state::{InactiveAlert, PromptState, Quarantine, VersionRecord};
use super::switch::{Switch, SwitchMode};
use super::targets::Targets;
use super::time::Timestamp;
use super::verification::Verification;

/// The state of one prompt, loaded in one round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub prompt: PromptName,
    pub active: Active,
    /// Fields and values of `routing`, unparsed.
    pub routing: Vec<(String, String)>,
    pub state: PromptState,
    /// Who paused automation for this prompt or for all prompts, and why.
    pub paused: Option<String>,
    /// How many other prompts were rolled back automatically within the budget's window.
    pub recent_auto: u32,
    /// For [`Event::Decide`] and [`Event::Mark`]: the incident. A closed incident is no longer in the state.
    pub incident: Option<Incident>,
    /// For [`Event::Register`] and some of [`Event::ArchiveReport`]: this version's content in Redis.
    pub content: Option<String>,
    /// The id of this decision's commit.
    pub commit: CommitId,
    /// Ids for the incidents that this decision may open: one for each version that the event names.
    pub fresh_ids: Vec<IncidentId>,
}

/// The raw value of `active`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Active {
    Absent,
    Version(VersionName),
    /// Someone SET a value that is not a version. The text is shortened for the log.
    Foreign(String),
}

impl Active {
    /// Reads a value of the key. Whitespace and NUL around a version are ignored.
    pub fn read(value: Option<&[u8]>) -> Self {
        /// The longest version fits.
        const SHOWN: usize = VersionName::MAX;
        let Some(value) = value else { return Active::Absent };
        let text = std::str::from_utf8(trimmed(value)).ok();
        match text.and_then(|text| VersionName::parse(text).ok()) {
            Some(version) => Active::Version(version),
            None => Active::Foreign(String::from_utf8_lossy(value).chars().take(SHOWN).collect()),
        }
    }

    pub fn version(&self) -> Option<&VersionName> {
        match self {
            Active::Version(version) => Some(version),
            Active::Absent | Active::Foreign(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    /// `None` if there is nothing to write.
    pub commit: Option<Commit>,
}

/// Decides what to do about `event`. Pure: the same arguments always give the same decision.
#[must_use = "nothing is done until its commit is written"]
pub fn decide(policy: &Policy, snapshot: &Snapshot, event: &Event, now: Timestamp) -> Decision {
    let mut tx = Transaction::new(policy, snapshot, now);
    tx.notice_outside_change();
    let answer = match event {
        Event::Alerts(alerts) => Answer::Alerts(alerts::alerts(&mut tx, alerts)),
        Event::Rollback(request) => tx.refused_or(person::rollback, request),
        Event::Register(request) => tx.refused_or(person::register, request),
        Event::Activate(request) => tx.refused_or(person::activate, request),
        Event::Mark(request) => tx.refused_or(mark::mark, request),
        Event::AskGates { version } => tx.refused_or(measure::asked, version),
        Event::Measured { version, evidence } => measure::measured(&mut tx, version, evidence),
        Event::Decide(click) => tx.refused_or(person::choose, click),
        Event::Timer { incident } => timer::due(&mut tx, incident),
        Event::Listed { incident, fingerprints } => listed::compare(&mut tx, incident, fingerprints),
        Event::Confirmed(confirmed) => confirm::confirmed(&mut tx, confirmed),
        Event::Rechecked { incident, finding } => recheck::rechecked(&mut tx, incident, finding),
        Event::Checked(check) => verify::checked(&mut tx, check),
        Event::Stepped(step) => gradual::stepped(&mut tx, step),
        Event::Promotion(promotion) => canary::due(&mut tx, promotion),
        Event::Steer(steering) => tx.refused_or(canary::steer, steering),
        Event::Undeliverable { incident, why } => undeliverable::page_instead(&mut tx, incident, why),
        Event::Hold { incident, by } => outage::hold(&mut tx, incident, by.as_ref()),
        Event::Resume { incident } => outage::resume(&mut tx, incident),
        Event::CheckDrift => Answer::Noted,
        Event::Soak(look) => soak::looked(&mut tx, look),
        Event::ArchiveReport(kept) => retention::kept(&mut tx, kept),
        Event::Restore { version } => tx.refused_or(retention::restore, version),
        Event::Adopt(adopt) => Answer::Adopted(adopt::adopt(&mut tx, adopt)),
    };
    alerts::hear_inactive_alerts(&mut tx);
    tx.finish(answer)
}

/// A commit that is being built.
struct Transaction<'a> {
    policy: &'a Policy,
    snapshot: &'a Snapshot,
    now: Timestamp,
    state: PromptState,
    active: Option<VersionName>,
    routing: Routing,
    log: Vec<LogEntry>,
    changes: Vec<ChangeMessage>,
    automatic: Option<Automatic>,
    content: Vec<(VersionName, Option<String>)>,
    /// Alerts on a version that has just got traffic.
    returning: Vec<InactiveAlert>,
    /// Whether this commit handles remembered alerts. If not, people are asked first.
    hears_inactive_alerts: bool,
    ids_used: usize,
    /// The index of the incident that was last looked up.
    looked_at: usize,
}

impl<'a> Transaction<'a> {
    fn new(policy: &'a Policy, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let mut state = snapshot.state.clone();
        state
            .incidents
            .iter_mut()
            .filter(|incident| incident.phase.is_open())
            .for_each(|incident| incident.rewind(now));
        let mut tx = Self {
            policy,
            snapshot,
            now,
            state,
            active: None,
            routing: Routing::Keep,
            log: Vec::new(),
            changes: Vec::new(),
            automatic: None,
            content: Vec::new(),
            returning: Vec::new(),
            hears_inactive_alerts: false,
            ids_used: 0,
            looked_at: 0,
        };
        tx.pass_time();
        tx
    }

    /// Runs a person's request. A refused request leaves no change.
    fn refused_or<T>(&mut self, request: fn(&mut Self, &T) -> Result<Answer, Refusal>, argument: &T) -> Answer {
        request(self, argument).unwrap_or_else(|refusal| {
            *self = Self::new(self.policy, self.snapshot, self.now);
            self.notice_outside_change();
            Answer::Refused(refusal)
        })
    }

    /// Handles an `active` that someone SET by hand or from CI: it is followed, never overwritten.
    fn notice_outside_change(&mut self) {
        let snapshot = self.snapshot;
        let actual = snapshot.active.version();
        let left = self.state.serving.as_ref().map(|s| s.version.clone());
        let shares = self.state.split().map(|split| split.routing()).unwrap_or_default();
        let as_left = |(at, (version, percent)): (usize, &(VersionName, u8))| {
            let found = snapshot.routing.get(at);
            found.is_some_and(|(field, text)| field == version.as_str() && text.parse() == Ok(*percent))
        };
        let tampered =
            !shares.is_empty() && (shares.len() != snapshot.routing.len() || !shares.iter().enumerate().all(as_left));
        if left.as_ref() == actual && tampered {
            // whoever removed the split wants all traffic on the version in `active`
            let text = actual.map(VersionName::to_string);
            self.record(
                LogEvent::External,
                text.clone(),
                text,
                "routing was changed outside of prompt-rollback",
                &Operator::EXTERNAL,
                None,
            );
            if let Some(version) = actual.cloned() {
                self.serve(&version, ActivatedBy::External, &Operator::EXTERNAL);
            }
            if !snapshot.routing.is_empty() {
                self.routing = Routing::Drop;
            }
        }
        let lapsed = || self.state.lapsed.as_ref().map(|lapsed| lapsed.holds.clone());
        let changed = match &snapshot.active {
            Active::Version(_) => left.as_ref() != actual,
            Active::Absent => left.is_some() || lapsed().is_some_and(|held| held.is_some()),
            Active::Foreign(text) => lapsed().flatten().as_ref() != Some(text),
        };
        if changed {
            let (to, reason) = match &snapshot.active {
                Active::Absent => (None, "active was deleted outside of prompt-rollback"),
                Active::Version(version) => (Some(version.to_string()), "active was set outside of prompt-rollback"),
                Active::Foreign(text) => (Some(text.clone()), "active was set to a value that is not a version"),
            };
            let from = left.as_ref().map(VersionName::to_string).or_else(|| lapsed().flatten());
            self.record(LogEvent::External, from, to.clone(), reason, &Operator::EXTERNAL, None);
            match actual {
                Some(version) => self.serve(&version.clone(), ActivatedBy::External, &Operator::EXTERNAL),
                None => self.lapse(to),
            }
        }
        // a split continues only while `active` is one of its fields and the split is the recorded one
        let stale = !snapshot.routing.is_empty()
            && !snapshot.routing.iter().any(|(field, _)| actual.is_some_and(|v| v.as_str() == field));
        if stale || (left.as_ref() != actual && !shares.is_empty() && !snapshot.routing.is_empty()) {
            self.routing = Routing::Drop;
        }
        alerts::hear_inactive_alerts(self);
    }

    fn serving(&self) -> Option<&VersionName> {
        self.state.serving.as_ref().map(|s| &s.version)
    }

    /// Whether `version` has traffic, or may have it: without a version in `active`, prompt servers keep their version.
    fn has_traffic(&self, version: &VersionName) -> bool {
        let kept = |lapsed: &Lapsed| lapsed.versions.contains(version);
        self.serving() == Some(version)
            || self.state.split().is_some_and(|split| split.has(version))
            || self.state.lapsed.as_ref().is_some_and(kept)
    }

    /// The content of `active`, as text for people.
    fn served_text(&self) -> Option<String> {
        match (&self.snapshot.active, self.serving()) {
            (_, Some(version)) => Some(version.to_string()),
            (Active::Foreign(text), None) => Some(text.clone()),
            (_, None) => None,
        }
    }

    /// Makes room for `new`: forgets the versions that were unused for longest and that nothing needs.
    fn limit_versions(&mut self, new: &VersionName) {
        let excess = self.state.versions.len().saturating_sub(Policy::MAX_VERSIONS);
        if excess == 0 {
            return;
        }
        let serving = self.serving();
        let mut needed: BTreeSet<&VersionName> = self.targets().from(serving).take(10).collect();
        needed.extend(self.state.open_incidents().map(|incident| &incident.version));
        let served = self.state.served();
        let spare = |v: &&VersionRecord| {
            v.version != *new
                && !served.contains(&v.version)
                && !self.has_traffic(&v.version)
                && !needed.contains(&v.version)
        };
        let mut spare: Vec<&VersionRecord> = self.state.versions.iter().filter(spare).collect();
        // marked versions are forgotten last
        spare.sort_by_key(|v| (v.mark.is_some(), v.last_active.unwrap_or(v.known_since), v.known_since));
        spare.truncate(excess);
        let with_text: Vec<_> = spare.iter().filter(|v| v.has_content).map(|v| (v.version.clone(), None)).collect();
        let forgotten: BTreeSet<VersionName> = spare.iter().map(|v| v.version.clone()).collect();
        self.state.versions.retain(|v| !forgotten.contains(&v.version));
        self.content.extend(with_text);
    }

    fn record(
        &mut self,
        event: LogEvent,
        from: Option<String>,
        to: Option<String>,
        reason: &str,
        operator: &Operator,
        incident: Option<IncidentId>,
    ) {
        self.changes.push(ChangeMessage { from: from.clone(), to: to.clone(), reason: reason.to_owned() });
        self.log.push(LogEntry { event, from, to, reason: reason.to_owned(), operator: operator.clone(), incident });
    }

    /// Closes an incident whose version no longer has traffic. Its alerts keep firing for the length of their windows.
    fn close_without_traffic(&mut self, id: &IncidentId, phase: Phase, text: String) {
        let now = self.now;
        let Some(incident) = self.incident(id) else { return };
        incident.close(phase, now, text);
        let inactive_alerts: Vec<InactiveAlert> = inactive_alerts_of(incident).collect();
        self.remember(inactive_alerts);
    }

    fn remember(&mut self, new: impl IntoIterator<Item = InactiveAlert>) {
        let mut served = self.state.served();
        served.extend(self.serving().into_iter().chain(self.state.lapsed.iter().flat_map(|l| &l.versions)).cloned());
        // an alert on the target of a gradual rollback only pauses that rollback
        served.retain(|version| gradual::split_to(self, version).is_none());
        let Self { state: PromptState { inactive_alerts, versions, .. }, returning, .. } = self;
        let known: HashSet<&VersionName> = versions.iter().map(|record| &record.version).collect();
        let mut full = None;
        for inactive in new {
            if served.contains(&inactive.version) {
                returning.push(inactive);
                continue;
            }
            let is_same = |s: &&mut InactiveAlert| {
                s.version == inactive.version && s.alert.fingerprint == inactive.alert.fingerprint
            };
            if let Some(same) = inactive_alerts.iter_mut().find(is_same) {
                // a closing incident hands over its alerts, which may be older
                let latest = |inactive: &InactiveAlert| (inactive.alert.last_seen, inactive.alert.rank());
                if latest(&inactive) >= latest(same) {
                    *same = inactive;
                }
                continue;
            }
            let unknown = |s: &&InactiveAlert| !known.contains(&s.version);
            if unknown(&&inactive)
                && inactive_alerts.iter().filter(unknown).count() >= Policy::MAX_UNKNOWN_INACTIVE_ALERTS
            {
                continue;
            }
            if inactive_alerts.len() >= Policy::MAX_INACTIVE_ALERTS {
                // one alert is enough to call a version unhealthy: of several alerts, one makes room
                let (counts, unknowns) = full.get_or_insert_with(|| {
                    let mut counts: HashMap<VersionName, usize> = HashMap::new();
                    inactive_alerts.iter().for_each(|s| *counts.entry(s.version.clone()).or_default() += 1);
                    (counts, inactive_alerts.iter().filter(unknown).count())
                });
                if counts.contains_key(&inactive.version) {
                    continue;
                }
                let spare = match (*unknowns, counts.len() < inactive_alerts.len()) {
                    (0, false) => None,
                    (0, true) => {
                        inactive_alerts.iter().position(|s| counts.get(&s.version).is_some_and(|count| *count > 1))
                    }
                    _ => inactive_alerts.iter().position(|s| unknown(&s)),
                };
                let gone = inactive_alerts.remove(spare.unwrap_or(0));
                *unknowns = *unknowns + usize::from(unknown(&&inactive)) - usize::from(unknown(&&gone));
                if counts.get(&gone.version) == Some(&1) {
                    counts.remove(&gone.version);
                } else {
                    counts.entry(gone.version).and_modify(|count| *count -= 1);
                }
                counts.insert(inactive.version.clone(), 1);
            }
            inactive_alerts.push(inactive);
        }
    }

    fn next_id(&mut self) -> IncidentId {
        let id = self.snapshot.fresh_ids[self.ids_used].clone();
        self.ids_used += 1;
        id
    }

    fn incident(&mut self, id: &IncidentId) -> Option<&mut Incident> {
        self.looked_at = place_of(id, &self.state.incidents, self.looked_at)?;
        self.state.incidents.get_mut(self.looked_at)
    }

    /// The last note of an incident before this event; `None` if the event opens it.
    fn heard_of(&self, id: &IncidentId) -> Option<u32> {
        let before = &self.snapshot.state.incidents;
        let before = &before[place_of(id, before, self.looked_at)?];
        before.notes.last().map(|note| note.seq)
    }

    /// The guard that holds an automatic rollback of `from`. The end of a canary needs no target and no budget.
    fn guard(&self, from: &VersionName) -> Option<Held> {
        match canary::is_trial(self, from) {
            true => self.held(from, |guard| guard.is_off() || guard == Guard::PredatesActivation),
            false => self.held(from, |_| true),
        }
    }

    /// The guard that would hold if automation were on.
    fn guard_if_armed(&self, from: &VersionName) -> Option<Held> {
        self.held(from, |guard| !guard.is_off())
    }

    /// The guard that applies because automation is off, for this prompt or for all prompts.
    fn switched_off(&self, from: &VersionName) -> Option<Held> {
        self.held(from, Guard::is_off)
    }

    fn held(&self, from: &VersionName, asked: fn(Guard) -> bool) -> Option<Held> {
        let target = self.state.target(Some(from), self.policy, self.now);
        let trouble = |target| match gradual::split_to(self, target) {
            Some(split) => gradual::target_risk(self, split),
            None => self.trouble_on(target),
        };
        let serving = self.state.serving.as_ref().filter(|serving| serving.version == *from);
        let by_rollback = serving.filter(|serving| serving.by == ActivatedBy::Rollback);
        let traffic_since = self.state.version(from).and_then(|record| record.traffic_since);
        let facts = Facts {
            from,
            paused: self.snapshot.paused.as_deref(),
            lapsed: self.state.lapsed.as_ref(),
            target,
            target_trouble: target.and_then(trouble),
            fled: self.fled_text(Some(from)),
            put_there: by_rollback.map(|serving| self.now.since(serving.since)),
            recent_auto: self.snapshot.recent_auto,
            returns: self.state.version(from).and_then(|record| record.keeps_returning(self.now)),
            predates: recheck::predates(self, from),
            served_for: serving.map(|serving| self.now.since(traffic_since.unwrap_or(serving.since))),
            beside: self.state.split().filter(|split| split.has(from)).map(|split| split.other(from)),
        };
        facts.held(self.policy, asked)
    }

    /// Describes the alert that fires on a possible rollback target.
    fn trouble_on(&self, target: &VersionName) -> Option<String> {
        let alert = self.state.trouble_on(target, self.policy, self.now)?;
        Some(format!("{} fires on {target} too", alert.alertname))
    }

    /// Describes why the version that people last moved away from is not a target.
    fn fled_text(&self, from: Option<&VersionName>) -> Option<String> {
        let (version, fled) = self.state.last_fled(from)?;
        Some(format!("{version} {}", fled.spoken(self.now)))
    }

    /// The versions that people may choose instead of `from` without force, the first choice first; never `bad`, which
    /// misbehaves.
    fn choices(&self, from: &VersionName, bad: &VersionName) -> Vec<VersionName> {
        choices(&self.targets(), from, bad)
    }

    /// The possible rollback targets, from any version.
    fn targets(&self) -> Targets<'_> {
        self.state.targets(self.policy, self.now)
    }

    /// Describes why newer versions are not the target of a rollback from `from`.
    fn passed_over(&self, from: &VersionName) -> Option<String> {
        passed_over(&self.targets(), from)
    }

    /// Gives `to` all traffic, as a rollback of `bad` if that is a version with traffic. `incident` is the one on it.
    fn switch(
        &mut self,
        bad: Option<&VersionName>,
        to: &VersionName,
        mode: SwitchMode,
        operator: &Operator,
        reason: &str,
        incident: Option<&IncidentId>,
    ) {
        let now = self.now;
        let from = bad.map(VersionName::to_string).or_else(|| self.served_text());
        let bad = bad.cloned();
        let commit = self.snapshot.commit.clone();
        let deadline = now.plus(self.policy.verification_deadline);
        let verification = self.policy.verify.then(|| Verification::starting(now, self.policy.verify_every));
        if let (Some(id), Some(bad)) = (incident, &bad)
            && let Some(incident) = self.incident(id)
        {
            incident.target = Some(to.clone());
            incident.switch = Some(Switch {
                commit,
                at: now,
                decided_at: None,
                from: bad.clone(),
                to: to.clone(),
                mode,
                operator: operator.clone(),
                verification,
            });
            incident.held = None;
            incident.note(now, NoteKind::Switched, format!("{operator} rolled {bad} back to {to}: {reason}"));
        }
        // the base of a canary kept its traffic, so the end of the canary starts no cooldown for it
        let base = self.state.running_canary().is_some_and(|canary| canary.split.leaving == *to);
        let before = self.state.serving.clone().filter(|serving| base && serving.version == *to);
        let by = if base { ActivatedBy::Person } else { ActivatedBy::Rollback };
        self.put_in_service(to, by, operator);
        self.state.serving = before.or(self.state.serving.take());
        if let (Some(id), Some(bad)) = (incident, &bad) {
            self.end_earlier_rollbacks(id, bad, to);
        }
        // later, because a gradual rollback ends with the traffic that it shared
        if let Some(incident) = incident.filter(|_| bad.is_some()).and_then(|id| self.incident(id)) {
            incident.phase = Phase::Verifying { until: deadline };
        }
        if let Some(record) = bad.as_ref().and_then(|bad| self.state.version_mut(bad)) {
            let known_good = record.known_good.take();
            record.quarantine = Some(Quarantine { at: now, incident: incident.cloned(), known_good });
        }
        if let Some(record) = self.state.version_mut(to) {
            record.quarantine = None; // only a forced rollback has a quarantined target
        }
        self.state.last_rollback = Some(now);
        if mode == SwitchMode::Auto {
            self.automatic = Some(Automatic { max: self.policy.max_auto_rollbacks, window: self.policy.budget_window });
        }
        self.record(LogEvent::Rollback, from, Some(to.to_string()), reason, operator, incident.cloned());
    }

    /// Closes earlier rollbacks of `bad` after incident `id` rolled it back again: only that rollback is verified.
    fn end_earlier_rollbacks(&mut self, id: &IncidentId, bad: &VersionName, to: &VersionName) {
        let now = self.now;
        let earlier = |i: &&mut Incident| i.phase.is_open() && i.id != *id && i.version == *bad && i.subject() == to;
        for incident in self.state.incidents.iter_mut().filter(earlier) {
            let text = format!("{bad} was rolled back to {to} again: see incident {id}");
            incident.close(Phase::Superseded { by: Some(to.clone()) }, now, text);
        }
    }

    fn finish(mut self, answer: Answer) -> Decision {
        outage::mark(&mut self);
        self.settle_soaks();
        alerts::follow_targets(&mut self);
        mark::follow(&mut self);
        for incident in &mut self.state.incidents {
            incident.paged |= incident.pages() || incident.phase == Phase::Unverified;
        }
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
        if self.log.iter().any(|entry| entry.event.is_change()) && self.state.lapsed.is_none() {
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
            first_active: self.state.version(&version).and_then(|v| v.first_active).unwrap_or(self.now),
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

/// The versions that people may choose instead of `from` without force, the first choice first; never `bad`, which
/// misbehaves.
fn choices(targets: &Targets<'_>, from: &VersionName, bad: &VersionName) -> Vec<VersionName> {
    targets.from(Some(from)).filter(|target| *target != bad).take(Policy::MAX_CHOICES).cloned().collect()
}

/// Describes why newer versions are not the target of a rollback from `from`.
fn passed_over(targets: &Targets<'_>, from: &VersionName) -> Option<String> {
    let over = targets.passed_over(Some(from));
    let target = targets.from(Some(from)).next()?;
    let words: Vec<_> = over.iter().map(|(version, alert)| format!("{} fires on {version}", alert.alertname)).collect();
    (!words.is_empty()).then(|| format!("{}: {target} is the rollback target instead", words.join(", ")))
}

/// The index of the incident, searched from `near` on, so that a loop over all incidents finds each at once.
fn place_of(id: &IncidentId, incidents: &[Incident], near: usize) -> Option<usize> {
    let near = near.min(incidents.len());
    let is_it = |incident: &Incident| incident.id == *id;
    let behind = incidents[near..].iter().position(is_it).map(|place| near + place);
    behind.or_else(|| incidents[..near].iter().position(is_it))
}

/// The alerts that still fire on the incident's version.
fn inactive_alerts_of(incident: &Incident) -> impl Iterator<Item = InactiveAlert> {
    let firing = incident.alerts.iter().filter(|alert| alert.firing);
    firing.map(|alert| InactiveAlert { version: incident.version.clone(), alert: alert.clone() })
}
