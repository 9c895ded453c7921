//! What changes who gets how much traffic: all to one version, a share to each of two, or none.

use super::super::incident::{IncidentId, NoteKind, Phase};
use super::super::names::VersionName;
use super::super::soak::Fled;
use super::super::split::{CanaryEnd, Split};
use super::super::state::{ActivatedBy, Serving};
use super::{Draft, LogEvent, Routing, strays_of};

impl Draft<'_> {
    /// `version` has all traffic from now on.
    pub(super) fn serve(&mut self, version: &VersionName, by: ActivatedBy) {
        self.retire(Some(version));
        let now = self.now;
        let record = self.state.version_entry(version, now);
        record.first_active.get_or_insert(now);
        record.last_active = Some(now);
        self.state.serving = Some(Serving { version: version.clone(), since: now, by });
        // its alerts are news again
        self.state.strays.retain(|s| s.version != *version);
        self.limit_versions(version);
    }

    /// The same, and prompt servers are told so.
    pub(super) fn put_in_service(&mut self, version: &VersionName, by: ActivatedBy) {
        self.serve(version, by);
        self.set_active(version);
        self.routing = Routing::Drop;
    }

    /// The same, because a person wants it so.
    pub(super) fn activate(
        &mut self,
        version: &VersionName,
        from: Option<String>,
        reason: &str,
        operator: &str,
        incident: Option<IncidentId>,
    ) {
        self.put_in_service(version, ActivatedBy::Person);
        self.record(LogEvent::Activate, from, Some(version.to_string()), reason, operator, incident);
    }

    fn set_active(&mut self, version: &VersionName) {
        self.active = (self.snapshot.active.version() != Some(version)).then(|| version.clone());
    }

    /// Each served version but `kept` loses all traffic; what hung on its traffic ends, and so does a split.
    pub(super) fn retire(&mut self, kept: Option<&VersionName>) {
        self.settle_soaks(); // while it is known what served
        let mut losing = self.state.served();
        losing.extend(self.state.serving.take().map(|serving| serving.version).filter(|v| !losing.contains(v)));
        losing.retain(|version| Some(version) != kept);
        let losing: Vec<_> = losing.into_iter().map(|version| (self.left_with(&version), version)).collect();
        self.end_split(kept);
        for (left_with, version) in losing {
            self.retire_one(&version, kept, left_with);
        }
    }

    /// `version` loses all traffic, to `successor` if that gets all of it. `left_with`: the incident that people leave it with.
    pub(super) fn retire_one(
        &mut self,
        version: &VersionName,
        successor: Option<&VersionName>,
        left_with: Option<IncidentId>,
    ) {
        let now = self.now;
        if let Some(record) = self.state.version_mut(version) {
            record.soak = None;
            record.last_active = Some(now);
            if let Some(incident) = left_with {
                record.flee(Fled { at: now, incident });
            }
        }
        let mut strays = Vec::new();
        for incident in self.state.incidents.iter_mut().filter(|i| i.phase.is_open()) {
            let subject = incident.flip.as_ref().map_or(&incident.version, |flip| &flip.to);
            if subject == version {
                strays.extend(strays_of(incident));
                incident.successor = successor.cloned();
                incident.close(Phase::Superseded, now, format!("{version} is not served any more"));
            }
        }
        for stray in strays {
            self.remember(stray);
        }
    }

    /// One version has all traffic, or none has any.
    fn end_split(&mut self, kept: Option<&VersionName>) {
        let now = self.now;
        if let Some(canary) = self.state.canary.as_mut().filter(|canary| canary.end.is_none()) {
            let promoted = kept == Some(&canary.split.arriving);
            let text = match kept {
                Some(kept) => format!("{kept} has all traffic"),
                None => "nothing is served any more".to_owned(),
            };
            canary.end = Some(CanaryEnd { at: now, promoted, text });
        }
        for incident in &mut self.state.incidents {
            let Some(split) = incident.gradual.take() else { continue };
            if incident.phase == Phase::RollingBack && kept == Some(&split.leaving) {
                incident.phase = Phase::AwaitingDecision;
                incident.ask += 1;
                incident.escalations = 0;
                incident.deadline = Some(now.plus(incident.time_limit));
                let text = format!("the gradual rollback is over: {} has all traffic again", split.leaving);
                incident.note(now, NoteKind::Asked, text);
            }
        }
    }

    /// Traffic is shared as the present stage of `split` says.
    pub(super) fn share(&mut self, split: &Split, by: ActivatedBy, event: LogEvent, incident: Option<&IncidentId>) {
        let now = self.now;
        let record = self.state.version_entry(&split.arriving, now);
        record.first_active.get_or_insert(now);
        record.last_active = Some(now);
        let major = split.major();
        if self.serving() != Some(major) {
            self.state.serving = Some(Serving { version: major.clone(), since: now, by });
            self.set_active(major);
        }
        self.routing = Routing::Set(split.routing());
        let (from, to) = (Some(split.leaving.to_string()), Some(split.arriving.to_string()));
        let reason = format!("{} % on {}: {}", split.percent(), split.arriving, split.reason);
        self.record(event, from, to, &reason, &split.operator, incident.cloned());
    }
}
