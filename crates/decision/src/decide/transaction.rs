//! A commit in the making, and what every event reads and changes of a prompt.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::commit::{Automatic, ChangeMessage, LogEntry, LogEvent, Routing};
use super::snapshot::{Active, Snapshot};
use crate::targets::Targets;
use crate::{
    InactiveAlert, Incident, IncidentId, Lapsed, Operator, Phase, Policy, PromptState, Timestamp, VersionName,
    VersionRecord,
};

/// A commit that is being built.
pub(super) struct Transaction<'a> {
    pub(super) policy: &'a Policy,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
    pub(super) state: PromptState,
    pub(super) active: Option<VersionName>,
    pub(super) routing: Routing,
    pub(super) log: Vec<LogEntry>,
    pub(super) changes: Vec<ChangeMessage>,
    pub(super) automatic: Option<Automatic>,
    pub(super) content: Vec<(VersionName, Option<String>)>,
    /// Versions that were forgotten to make room.
    forgotten: Vec<VersionRecord>,
    /// Alerts on a version that has just got traffic.
    pub(super) returning: Vec<InactiveAlert>,
    /// Whether this commit handles remembered alerts. If not, people are asked first.
    pub(super) hears_inactive_alerts: bool,
    pub(super) ids_used: usize,
    /// The index of the incident that was last looked up.
    pub(super) looked_at: usize,
}

/// Who changes what is served, why, and for which incident.
#[derive(Clone, Copy)]
pub(super) struct Cause<'c> {
    pub(super) operator: &'c Operator,
    pub(super) reason: &'c str,
    pub(super) incident: Option<&'c IncidentId>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(policy: &'a Policy, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let mut state = snapshot.state.clone();
        state
            .incidents
            .iter_mut()
            .filter(|incident| incident.phase.is_open())
            .for_each(|incident| incident.rewind(now));
        Self {
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
            forgotten: Vec::new(),
            returning: Vec::new(),
            hears_inactive_alerts: false,
            ids_used: 0,
            looked_at: 0,
        }
    }

    pub(super) fn serving(&self) -> Option<&VersionName> {
        self.state.serving.as_ref().map(|s| &s.version)
    }

    /// Whether `version` has traffic, or may have it: without a version in `active`, prompt servers keep their version.
    pub(super) fn has_traffic(&self, version: &VersionName) -> bool {
        let kept = |lapsed: &Lapsed| lapsed.versions.contains(version);
        self.serving() == Some(version)
            || self.state.split().is_some_and(|split| split.has(version))
            || self.state.lapsed.as_ref().is_some_and(kept)
    }

    /// The content of `active`, as text for people.
    pub(super) fn served_text(&self) -> Option<String> {
        match (&self.snapshot.active, self.serving()) {
            (_, Some(version)) => Some(version.to_string()),
            (Active::Foreign(text), None) => Some(text.clone()),
            (_, None) => None,
        }
    }

    /// Makes room for `new`: forgets the versions that were unused for longest and that nothing needs.
    pub(super) fn limit_versions(&mut self, new: &VersionName) {
        let excess = self.state.versions.len().saturating_sub(Policy::MAX_VERSIONS);
        if excess == 0 {
            return;
        }
        let serving = self.serving();
        let mut needed: BTreeSet<&VersionName> = self.targets().from(serving).take(10).collect();
        needed.extend(self.state.open_incidents().map(|incident| &incident.version));
        needed.extend(self.state.open_incidents().filter_map(Incident::pending).map(|pending| &pending.to));
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
        let spare: BTreeSet<VersionName> = spare.iter().map(|v| v.version.clone()).collect();
        let forgotten = self.state.versions.extract_if(.., |v| spare.contains(&v.version));
        let forgotten: Vec<VersionRecord> = forgotten.collect();
        self.content.extend(forgotten.iter().filter(|v| v.has_content).map(|v| (v.version.clone(), None)));
        self.forgotten.extend(forgotten);
    }

    /// The record of `name`, created if it is new. One that has just been forgotten comes back: the same delivery may be about
    /// both versions.
    pub(super) fn version_entry(&mut self, name: &VersionName) -> &mut VersionRecord {
        if let Some(place) = self.forgotten.iter().position(|v| v.version == *name) {
            self.state.versions.push(self.forgotten.swap_remove(place));
            self.content.retain(|(version, text)| version != name || text.is_some());
        }
        self.state.version_entry(name, self.now)
    }

    pub(super) fn record(&mut self, event: LogEvent, from: Option<String>, to: Option<String>, cause: Cause<'_>) {
        let Cause { operator, reason, incident } = cause;
        self.changes.push(ChangeMessage { from: from.clone(), to: to.clone(), reason: reason.to_owned() });
        self.log.push(LogEntry {
            event,
            from,
            to,
            reason: reason.to_owned(),
            operator: operator.clone(),
            incident: incident.cloned(),
        });
    }

    /// Closes an incident whose version no longer has traffic. Its alerts keep firing for the length of their windows.
    pub(super) fn close_without_traffic(&mut self, id: &IncidentId, phase: Phase, text: String) {
        let now = self.now;
        let Some(incident) = self.incident(id) else { return };
        incident.close(phase, now, text);
        let inactive_alerts: Vec<InactiveAlert> = inactive_alerts_of(incident).collect();
        self.remember(inactive_alerts);
    }

    pub(super) fn remember(&mut self, new: impl IntoIterator<Item = InactiveAlert>) {
        let mut served = self.state.served();
        served.extend(self.serving().into_iter().chain(self.state.lapsed.iter().flat_map(|l| &l.versions)).cloned());
        // an alert on the target of a gradual rollback only pauses that rollback
        served.retain(|version| self.state.gradual_to(version).is_none());
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

    pub(super) fn next_id(&mut self) -> IncidentId {
        let id = self.snapshot.fresh_ids[self.ids_used].clone();
        self.ids_used += 1;
        id
    }

    pub(super) fn incident(&mut self, id: &IncidentId) -> Option<&mut Incident> {
        self.looked_at = place_of(id, &self.state.incidents, self.looked_at)?;
        self.state.incidents.get_mut(self.looked_at)
    }

    /// The last note of an incident before this event; `None` if the event opens it.
    pub(super) fn heard_of(&self, id: &IncidentId) -> Option<u32> {
        let before = &self.snapshot.state.incidents;
        let before = &before[place_of(id, before, self.looked_at)?];
        before.notes.last().map(|note| note.seq)
    }

    /// Describes the alert that fires on a possible rollback target.
    pub(super) fn trouble_on(&self, target: &VersionName) -> Option<String> {
        let alertname = self.state.trouble_on(target, self.policy, self.now)?;
        Some(format!("{alertname} fires on {target} too"))
    }

    /// Describes why the version that people last moved away from is not a target.
    pub(super) fn fled_text(&self, from: Option<&VersionName>) -> Option<String> {
        let (version, fled) = self.state.last_fled(from)?;
        Some(format!("{version} {}", fled.spoken(self.now)))
    }

    /// The versions that people may choose instead of `from` without force, the first choice first; never `bad`, which
    /// misbehaves.
    pub(super) fn choices(&self, from: &VersionName, bad: &VersionName) -> Vec<VersionName> {
        choices(&self.targets(), from, bad)
    }

    /// The possible rollback targets, from any version.
    pub(super) fn targets(&self) -> Targets<'_> {
        self.state.targets(self.policy, self.now)
    }

    /// Describes why newer versions are not the target of a rollback from `from`.
    pub(super) fn passed_over(&self, from: &VersionName) -> Option<String> {
        passed_over(&self.targets(), from)
    }
}

/// The versions that people may choose instead of `from` without force, the first choice first; never `bad`, which
/// misbehaves.
pub(super) fn choices(targets: &Targets<'_>, from: &VersionName, bad: &VersionName) -> Vec<VersionName> {
    targets.from(Some(from)).filter(|target| *target != bad).take(Policy::MAX_CHOICES).cloned().collect()
}

/// Describes why newer versions are not the target of a rollback from `from`.
pub(super) fn passed_over(targets: &Targets<'_>, from: &VersionName) -> Option<String> {
    let over = targets.passed_over(Some(from));
    let target = targets.from(Some(from)).next()?;
    let words: Vec<_> = over.iter().map(|(version, alertname)| format!("{alertname} fires on {version}")).collect();
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
pub(super) fn inactive_alerts_of(incident: &Incident) -> impl Iterator<Item = InactiveAlert> {
    let firing = incident.alerts.iter().filter(|alert| alert.firing);
    firing.map(|alert| InactiveAlert { version: incident.version.clone(), alert: alert.clone() })
}
