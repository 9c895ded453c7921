//! Changes of the traffic: all of it to one version, a share to each of two, or none.

use super::commit::{Automatic, LogEvent, Routing};
use super::transaction::{Cause, Transaction, inactive_alerts_of};
use super::{question, shipped};
use crate::soak::Fled;
use crate::split::CanaryEnd;
use crate::state::{Quarantine, Return};
use crate::{
    ActivatedBy, InactiveAlert, Incident, IncidentId, Lapsed, NoteKind, Operator, Phase, Policy, Question,
    RollbackFailure, Serving, Switch, SwitchMode, Timestamp, TrafficSplit, Verification, VersionName,
};

impl Transaction<'_> {
    /// Gives all traffic to `version`.
    pub(super) fn serve(&mut self, version: &VersionName, by: ActivatedBy, operator: &Operator) {
        // one that had a share of the traffic for a while is shipped when it gets all of it; whoever ends a canary here has
        // decided, whoever SETs a key has not told why
        let promoted = self.state.running_canary().is_some_and(|canary| canary.split.arriving == *version);
        // the end of its incident may have ended its split
        let shares = self.state.version(version).is_some_and(|record| record.traffic_since.is_some());
        let shipped = match by {
            ActivatedBy::Rollback => false,
            ActivatedBy::External => true,
            ActivatedBy::Person => promoted || !(shares || self.has_traffic(version)),
        };
        self.retire(version, Some(operator).filter(|_| shipped));
        self.gain_traffic(version, by, operator);
        self.hear_of(version);
        let now = self.now;
        self.state.serving = Some(Serving { version: version.clone(), since: now, by });
        self.state.lapsed = None;
        self.limit_versions(version);
    }

    /// Gives traffic to `version`, if it has none yet.
    fn gain_traffic(&mut self, version: &VersionName, by: ActivatedBy, operator: &Operator) {
        let now = self.now;
        let record = self.version_entry(version);
        record.first_active.get_or_insert(now);
        record.last_active = Some(now);
        if record.traffic_since.is_some() {
            return;
        }
        record.traffic_since = Some(now);
        if record.quarantine.is_some() {
            if by != ActivatedBy::Rollback {
                record.shipped_again = Some(now);
            }
            record.returns.retain(|earlier| now.since(earlier.at) < Policy::RETURN_WINDOW);
            record.returns.push(Return { at: now, operator: operator.clone() });
            let excess = record.returns.len().saturating_sub(Policy::MAX_RETURNS);
            record.returns.drain(..excess);
        }
        self.hear_of(version);
    }

    /// Handles remembered alerts on `version`, which now has traffic.
    pub(super) fn hear_of(&mut self, version: &VersionName) {
        let now = self.now;
        let alert_resolve_timeout = self.policy.alert_resolve_timeout;
        let (own, others) = self.state.inactive_alerts.drain(..).partition(|s| s.version == *version);
        self.state.inactive_alerts = others;
        let mut own: Vec<InactiveAlert> = own;
        // its last rollback may still be unverified
        let earlier = self.state.open_incidents().filter(|i| i.version == *version && i.subject() != version);
        own.extend(earlier.flat_map(inactive_alerts_of));
        self.returning.extend(own.into_iter().filter(|s| now.since(s.alert.last_seen) < alert_resolve_timeout));
    }

    /// Gives all traffic to `version`, and tells prompt servers.
    pub(super) fn put_in_service(&mut self, version: &VersionName, by: ActivatedBy, operator: &Operator) {
        self.serve(version, by, operator);
        self.set_active(version);
        self.routing = Routing::Drop;
    }

    /// Gives all traffic to `version` at a person's request, and tells prompt servers.
    pub(super) fn activate(&mut self, version: &VersionName, from: Option<String>, cause: Cause<'_>) {
        self.put_in_service(version, ActivatedBy::Person, cause.operator);
        self.record(LogEvent::Activate, from, Some(version.to_string()), cause);
    }

    fn set_active(&mut self, version: &VersionName) {
        self.active = (self.snapshot.active.version() != Some(version)).then(|| version.clone());
    }

    /// Takes all traffic from each served version but `kept`, which ends their soaks, their incidents and the split.
    /// `shipped`: who activated `kept`, if it had no traffic.
    fn retire(&mut self, kept: &VersionName, shipped: Option<&Operator>) {
        let kept = Some(kept);
        let mut losing = self.take_served();
        losing.extend(self.state.lapsed.take().into_iter().flat_map(|lapsed| lapsed.versions));
        losing.retain(|version| Some(version) != kept);
        let losing: Vec<_> = losing.into_iter().map(|version| (self.left_with(&version), version)).collect();
        self.end_split(kept);
        for (left_with, version) in losing {
            self.retire_one(&version, kept, shipped, left_with);
        }
    }

    /// Takes the list of versions with traffic; none of them serves afterwards.
    fn take_served(&mut self) -> Vec<VersionName> {
        self.settle_soaks(); // while the served versions are known
        let mut versions = self.state.served();
        versions.extend(self.state.serving.take().map(|serving| serving.version).filter(|v| !versions.contains(v)));
        versions
    }

    /// Takes all traffic from `version`; `successor` gets all of it, if given. `left_with`: the open incident at that
    /// moment.
    pub(super) fn retire_one(
        &mut self,
        version: &VersionName,
        successor: Option<&VersionName>,
        shipped: Option<&Operator>,
        left_with: Option<IncidentId>,
    ) {
        let now = self.now;
        if let Some(record) = self.state.version_mut(version) {
            record.soak = None;
            record.last_active = Some(now);
            record.traffic_since = None;
            if let Some(incident) = left_with {
                record.flee(Fled { at: now, incident });
            }
        }
        let is_about = |i: &Incident| i.phase.is_open() && i.subject() == version;
        let about = self.state.incidents.iter().enumerate().filter(|(_, incident)| is_about(incident));
        let about: Vec<usize> = about.map(|(place, _)| place).collect();
        let heir = successor.filter(|_| shipped.is_some());
        let mut taken = heir.map(|heir| shipped::taken(self, heir)).unwrap_or_default();
        let choices = heir.map(|heir| self.choices(heir, version)).unwrap_or_default();
        let mut inactive_alerts: Vec<InactiveAlert> = Vec::new();
        for place in about {
            if successor.is_some_and(|heir| self.follows_on(place, heir)) {
                continue;
            }
            let taken_back = successor.is_some_and(|heir| shipped::is_taken_back(&self.state.incidents, place, heir));
            let incident = &mut self.state.incidents[place];
            inactive_alerts.extend(inactive_alerts_of(incident));
            match (successor, shipped) {
                (Some(heir), Some(operator)) if shipped::is_unsettled(incident, heir, self.policy) => {
                    shipped::hand_on(self, place, heir, operator, &choices, &mut taken);
                }
                _ if taken_back => shipped::take_back(incident, now),
                _ => {
                    let phase = Phase::Superseded { by: successor.cloned() };
                    incident.close(phase, now, format!("{version} no longer has traffic"));
                }
            }
        }
        self.remember(inactive_alerts);
    }

    /// Whether the incident at `place` goes on with `heir`: prompt servers keep the version that it rolled back, whatever the
    /// others serve now.
    fn follows_on(&mut self, place: usize, heir: &VersionName) -> bool {
        let now = self.now;
        let incident = &self.state.incidents[place];
        let version = incident.version.clone();
        let is_other = |i: &Incident| i.version == version && i.subject() == heir;
        let ends = incident.failure() != Some(RollbackFailure::NotFollowed) || version == *heir;
        if ends || self.state.open_incidents().any(is_other) {
            return false;
        }
        let incident = &mut self.state.incidents[place];
        incident.note(
            now,
            NoteKind::Checked,
            format!("{heir} is active now, but some prompt servers still serve {version}"),
        );
        incident.target = Some(heir.clone());
        if let Some(switch) = &mut incident.switch {
            switch.to = heir.clone();
            if let Some(verification) = &mut switch.verification {
                verification.begin_anew();
            }
        }
        true
    }

    /// `active` holds no version any more, but `holds` or nothing. Prompt servers keep the version that they have, so no
    /// incident is over; people are asked.
    pub(super) fn lapse(&mut self, holds: Option<String>) {
        let now = self.now;
        let mut versions = self.take_served();
        for version in &versions {
            if let Some(record) = self.state.version_mut(version) {
                record.last_active = Some(now);
            }
        }
        let before = self.state.lapsed.take();
        versions.extend(before.into_iter().flat_map(|lapsed| lapsed.versions));
        let lapsed = Lapsed { since: now, holds, versions };
        let fault = lapsed.fault();
        self.state.lapsed = Some(lapsed);
        let arriving = self.state.open_incidents().find_map(Incident::gradual).map(|split| split.arriving.clone());
        self.end_split(None);
        if let Some(arriving) = arriving {
            self.hear_of(&arriving); // its alerts have only paused the gradual rollback, and it keeps traffic
        }
        let rest = self.rests_at();
        let open: Vec<IncidentId> = self.state.open_incidents().map(|incident| incident.id.clone()).collect();
        for id in open {
            question::report_lapse(self, &id, &fault, rest);
        }
    }

    /// When a failed rollback of a prompt without a valid key is checked again: the prompt may have been retired.
    pub(super) fn rests_at(&self) -> Option<Timestamp> {
        self.state.lapsed.as_ref().map(|_| self.now.plus(self.policy.alert_resolve_timeout))
    }

    /// Ends the split, because one version has all traffic, or none has any.
    fn end_split(&mut self, kept: Option<&VersionName>) {
        let now = self.now;
        if let Some(canary) = self.state.canary.as_mut().filter(|canary| canary.end.is_none()) {
            let promoted = kept == Some(&canary.split.arriving);
            let text = match kept {
                Some(kept) => format!("{kept} has all traffic"),
                None => "active no longer holds a version".to_owned(),
            };
            canary.end = Some(CanaryEnd { at: now, promoted, text });
        }
        question::close_about_canary(self, "the canary has ended");
        for incident in &mut self.state.incidents {
            let Some(split) = incident.gradual() else { continue };
            let text = match kept {
                Some(kept) if *kept == split.leaving => {
                    format!("the gradual rollback has ended: {kept} has all traffic again")
                }
                Some(_) => continue, // closed with its version's traffic, or by the switch to the target
                None => format!("the gradual rollback to {} has stopped", split.arriving),
            };
            incident.note(now, NoteKind::Asked, text);
            incident.ask_again(Question::until(now.plus(incident.time_limit)), now);
        }
    }

    /// Shares traffic as the current stage of `split` says.
    pub(super) fn share(
        &mut self,
        split: &TrafficSplit,
        by: ActivatedBy,
        event: LogEvent,
        incident: Option<&IncidentId>,
    ) {
        self.gain_traffic(&split.arriving, by, &split.operator);
        let now = self.now;
        let major = split.major();
        if self.serving() != Some(major) {
            self.state.serving = Some(Serving { version: major.clone(), since: now, by });
            self.set_active(major);
        }
        self.routing = Routing::Set(split.routing());
        let (from, to) = (Some(split.leaving.to_string()), Some(split.arriving.to_string()));
        let reason = format!("{} % on {}: {}", split.percent(), split.arriving, split.reason);
        self.record(event, from, to, Cause { operator: &split.operator, reason: &reason, incident });
    }

    /// Gives `to` all traffic, as a rollback of `bad` if that is a version with traffic. `incident` is the one on it.
    pub(super) fn switch(&mut self, bad: Option<&VersionName>, to: &VersionName, mode: SwitchMode, cause: Cause<'_>) {
        let Cause { operator, reason, incident } = cause;
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
        let failed = match (incident, &bad) {
            (Some(id), Some(bad)) => self.end_earlier_rollbacks(id, bad, to),
            _ => None,
        };
        // later, because a gradual rollback ends with the traffic that it shared
        if let Some(incident) = incident.filter(|_| bad.is_some()).and_then(|id| self.incident(id)) {
            // people are still paged about the target
            incident.escalations = if failed.is_some() { 1 } else { incident.escalations };
            incident.phase = failed.unwrap_or(Phase::Verifying { until: deadline });
        }
        if let Some(record) = bad.as_ref().and_then(|bad| self.state.version_mut(bad)) {
            let known_good = record.known_good.take();
            record.quarantine = Some(Quarantine { at: now, incident: incident.cloned(), known_good });
        }
        if let Some(record) = self.state.version_mut(to).filter(|_| !base) {
            record.quarantine = None; // only a forced rollback has a quarantined target, but for the base of a canary
        }
        self.state.last_rollback = Some(now);
        if mode == SwitchMode::Auto {
            self.automatic = Some(Automatic { max: self.policy.max_auto_rollbacks, window: self.policy.budget_window });
        }
        self.record(LogEvent::Rollback, from, Some(to.to_string()), cause);
    }

    /// Closes earlier rollbacks of `bad` after incident `id` rolled it back again: only that rollback is verified.
    /// Returns the phase of one that has failed: its page goes on.
    fn end_earlier_rollbacks(&mut self, id: &IncidentId, bad: &VersionName, to: &VersionName) -> Option<Phase> {
        let now = self.now;
        let mut failed = None;
        let earlier = |i: &&mut Incident| i.phase.is_open() && i.id != *id && i.version == *bad && i.subject() == to;
        for incident in self.state.incidents.iter_mut().filter(earlier) {
            let text = format!("{bad} was rolled back to {to} again: see incident {id}");
            failed = failed.or(Some(incident.phase.clone()).filter(|phase| matches!(phase, Phase::Escalated { .. })));
            incident.close(Phase::Superseded { by: Some(to.clone()) }, now, text);
        }
        failed
    }
}
