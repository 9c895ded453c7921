//! The state of one prompt: the aggregate that fences every commit.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::AlertRecord;
use super::encoding::{is_default, words};
use super::fnv::fnv1a;
use super::ids::{CommitId, IncidentId};
use super::incident::Incident;
use super::names::VersionName;
use super::operator::Operator;
use super::policy::Policy;
use super::serving::{Lapsed, Serving};
use super::severity::Severity;
use super::soak::{Earned, Fled, KnownGood, Soak};
use super::split::{Canary, TrafficSplit};
use super::switch::Switch;
use super::time::Timestamp;
use super::verification::Evidence;

mod record;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptState {
    /// What `active` held when it was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub versions: Vec<VersionRecord>,
    /// The commit that last changed the traffic. Empty: unknown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub moved_by: CommitId,
    /// Open incidents, and resolved ones that may be reopened.
    #[serde(default, skip_serializing_if = "is_default")]
    pub incidents: Vec<Incident>,
    /// Alerts that fire on versions without traffic: they show whether a rollback target is healthy.
    #[serde(rename = "strays", default, skip_serializing_if = "is_default")]
    pub inactive_alerts: Vec<InactiveAlert>,
    /// Fingerprints that a person dismissed: silenced until they resolve or get worse.
    #[serde(rename = "suppressed", default, skip_serializing_if = "is_default")]
    pub silences: Vec<Silence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rollback: Option<Timestamp>,
    /// The last canary, which is over if it has an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Set while `active` holds no version although it once did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lapsed: Option<Lapsed>,
    /// Alerts that ended recently.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ended: Vec<EndedAlert>,
}

/// An alert that has ended: clustered Alertmanagers, and retries, may deliver its `firing` after its `resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedAlert {
    pub version: VersionName,
    pub fingerprint: String,
    /// By the sender's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// By the sender's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// When the receiver learned of it.
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "record::StoredVersion")]
pub struct VersionRecord {
    pub version: VersionName,
    pub known_since: Timestamp,
    /// Whether someone registered it; otherwise it was only seen in `active`.
    #[serde(skip_serializing_if = "is_default")]
    pub registered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_active: Option<Timestamp>,
    /// When it was last shipped again after a rollback of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped_again: Option<Timestamp>,
    /// When it last became active, or stopped being active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Timestamp>,
    /// Since when it has had traffic without interruption. A change of its share is no interruption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_since: Option<Timestamp>,
    /// When, and by whom, it was reactivated after a rollback; the latest ones.
    #[serde(skip_serializing_if = "is_default")]
    pub returns: Vec<Return>,
    /// The soak in progress.
    #[serde(flatten)]
    pub soak: Option<Soak>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_good: Option<KnownGood>,
    /// It lost its traffic while something contradicted. Never set together with `known_good`: see
    /// [`VersionRecord::flee`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fled: Option<Fled>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// A person's last mark. Good: trusted since then. Bad: never a rollback target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_at: Option<Timestamp>,
    /// Whether it has content, in Redis or in the archive.
    #[serde(skip_serializing_if = "is_default")]
    pub has_content: bool,
    /// Its last measurement against the version that it would replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// When the measurement was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence_asked: Option<Timestamp>,
    /// Set while its content is in the archive, not in Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<Archived>,
    /// When its content was last restored from the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<Timestamp>,
}

/// Content in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    pub at: Timestamp,
    pub bytes: u64,
    /// Detects damage, not attacks: anyone who may write to the archive is trusted.
    pub checksum: u64,
    /// Someone requested it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Timestamp>,
    /// Why the last attempt to restore it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whether another attempt would not help.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lost: bool,
}

impl Archived {
    pub fn new(text: &str, at: Timestamp) -> Self {
        let bytes = text.len() as u64;
        Self { at, bytes, checksum: fnv1a(text.bytes()), wanted: None, fault: None, lost: false }
    }

    pub fn is_of(&self, text: &str) -> bool {
        self.bytes == text.len() as u64 && self.checksum == fnv1a(text.bytes())
    }
}

/// A person's verdict on a version, whatever its measurements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub kind: MarkKind,
    pub at: Timestamp,
    pub operator: Operator,
    pub reason: String,
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum MarkKind {
        /// Never a rollback target: for example because it lacks a safety fix, or its output has another schema.
        Bad = "bad",
        /// Trusted: known-good at once.
        Good = "good",
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "marked as {} by {} ({})", self.kind.as_str(), self.operator, self.reason)
    }
}

/// A version that was rolled back, until someone activates it with force or it has soaked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    pub at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// Its known-good status before, for an undo; if it is activated with force, it must soak again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_good: Option<KnownGood>,
}

/// A version was reactivated after a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    pub at: Timestamp,
    pub operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "record::StoredInactiveAlert", into = "record::StoredInactiveAlert")]
pub struct InactiveAlert {
    pub version: VersionName,
    pub alert: AlertRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub version: VersionName,
    pub fingerprint: String,
    /// Unknown in older records.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alertname: String,
    /// Alerts of a higher severity are handled again.
    pub severity: Severity,
    /// When a person dismissed it: an alert that began later is another outbreak. Unknown in older records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dismissed_at: Option<Timestamp>,
    /// When it began, as the sender said: whatever its clock shows, that is the outbreak which was dismissed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// Moves on while the alert repeats: one that stopped without a word must not stay silent for good.
    pub since: Timestamp,
}

impl Silence {
    /// The alert's name, as far as it is known.
    fn spoken(&self) -> &str {
        if self.alertname.is_empty() { "an alert" } else { &self.alertname }
    }
}

impl VersionRecord {
    pub fn new(version: VersionName, now: Timestamp) -> Self {
        Self {
            version,
            known_since: now,
            registered: false,
            first_active: None,
            shipped_again: None,
            last_active: None,
            traffic_since: None,
            returns: Vec::new(),
            soak: None,
            known_good: None,
            fled: None,
            quarantine: None,
            mark: None,
            contact: None,
            staged_at: None,
            has_content: false,
            archived: None,
            restored_at: None,
            evidence: None,
            evidence_asked: None,
        }
    }

    /// Since when it is new to its users. A rollback to it makes no version new.
    pub fn new_since(&self) -> Option<Timestamp> {
        self.shipped_again.or(self.first_active)
    }

    /// Who keeps reactivating it after rollbacks, and how often within [`Policy::RETURN_WINDOW`].
    pub fn keeps_returning(&self, now: Timestamp) -> Option<(&Operator, usize)> {
        let recent = self.returns.iter().filter(|r| now.since(r.at) < Policy::RETURN_WINDOW);
        let operator = &recent.clone().next_back()?.operator;
        let times = recent.filter(|r| r.operator == *operator).count();
        (times >= Policy::RETURNS).then_some((operator, times))
    }

    /// When it was last used.
    pub fn last_use(&self) -> Timestamp {
        self.last_active.unwrap_or(self.known_since).max(self.restored_at.unwrap_or_default())
    }

    /// The mark that forbids rollbacks to this version.
    pub fn marked_bad(&self) -> Option<&Mark> {
        self.mark.as_ref().filter(|mark| mark.kind == MarkKind::Bad)
    }

    /// Since when, and why, it is known-good: by a mark, or earned, also meanwhile if time alone counts.
    pub fn known_good(&self, policy: &Policy, now: Timestamp) -> Option<KnownGood> {
        if self.marked_bad().is_some() {
            return None;
        }
        self.known_good.or_else(|| self.soaked(policy, now))
    }

    /// What the current soak has earned by time alone.
    pub fn soaked(&self, policy: &Policy, now: Timestamp) -> Option<KnownGood> {
        let at = self.soaks_at(policy)?;
        (at <= now).then_some(KnownGood { at, by: Earned::Time })
    }

    /// When time alone will have earned it.
    pub fn soaks_at(&self, policy: &Policy) -> Option<Timestamp> {
        let soak = self.soak.as_ref().filter(|soak| !soak.wants_evidence(policy) && self.marked_bad().is_none())?;
        Some(soak.from.plus(policy.soak))
    }

    /// Whether a rollback may go to it without force.
    pub fn is_target(&self, policy: &Policy, now: Timestamp) -> bool {
        let proved = (self.quarantine.is_none() && self.known_good.is_some()) || self.soaked(policy, now).is_some();
        proved && self.marked_bad().is_none()
    }

    /// Whether a soak would change its status.
    pub fn must_soak(&self) -> bool {
        (self.known_good.is_none() || self.quarantine.is_some()) && self.marked_bad().is_none()
    }

    /// Makes it known-good, which ends a quarantine and everything else against it. A person's mark stays.
    pub fn earn(&mut self, good: KnownGood) {
        self.known_good.get_or_insert(good);
        self.fled = None;
        self.quarantine = None;
        self.soak = None;
    }

    /// Trusts it at a person's request. A quarantine ends only by force or by a soak.
    pub fn trust(&mut self, now: Timestamp) {
        self.known_good = Some(KnownGood { at: now, by: Earned::Mark });
        self.fled = None;
        self.soak = None;
    }

    /// It lost its traffic while something contradicted: it is no longer an automatic target.
    pub fn flee(&mut self, fled: Fled) {
        self.fled = Some(fled);
        self.known_good = None;
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.known_good = None; // an undo does not restore it
        }
    }
}

impl PromptState {
    pub fn version(&self, name: &VersionName) -> Option<&VersionRecord> {
        self.versions.iter().find(|v| v.version == *name)
    }

    /// The mark that forbids rollbacks to `name`.
    pub fn marked_bad(&self, name: &VersionName) -> Option<&Mark> {
        self.version(name)?.marked_bad()
    }

    pub fn version_mut(&mut self, name: &VersionName) -> Option<&mut VersionRecord> {
        self.versions.iter_mut().find(|v| v.version == *name)
    }

    /// The record of `name`, created if it is new.
    pub fn version_entry(&mut self, name: &VersionName, now: Timestamp) -> &mut VersionRecord {
        let index = self.versions.iter().position(|v| v.version == *name).unwrap_or_else(|| {
            self.versions.push(VersionRecord::new(name.clone(), now));
            self.versions.len() - 1
        });
        &mut self.versions[index]
    }

    /// Moments that were the present when they were written. One in the future was written before Redis' clock went back.
    /// Incidents, soaks and the canary have more than these, and move their plans along with them.
    pub(crate) fn written(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        let Self { serving, versions, inactive_alerts, silences, ended, last_rollback, canary, .. } = self;
        let versions = versions.iter_mut().flat_map(|record| {
            let VersionRecord { known_since, first_active, shipped_again, traffic_since, returns, .. } = record;
            let VersionRecord { evidence, evidence_asked, .. } = record;
            let asked = evidence.iter_mut().map(|evidence| &mut evidence.at).chain(evidence_asked);
            let active = first_active.iter_mut().chain(shipped_again).chain(traffic_since);
            active.chain([known_since]).chain(asked).chain(returns.iter_mut().map(|earlier| &mut earlier.at))
        });
        let alerts = inactive_alerts.iter_mut().map(|inactive| &mut inactive.alert);
        let alerts = alerts.flat_map(|alert| [&mut alert.last_seen].into_iter().chain(&mut alert.absent_since));
        let silences = silences.iter_mut().flat_map(|s| [&mut s.since].into_iter().chain(&mut s.dismissed_at));
        let ended = ended.iter_mut().map(|ended| &mut ended.at);
        let serving = serving.iter_mut().map(|serving| &mut serving.since);
        let started = canary.iter_mut().map(|canary| &mut canary.started);
        serving.chain(started).chain(versions).chain(alerts).chain(silences).chain(ended).chain(last_rollback)
    }

    /// Corrects when each version was last active after Redis' clock went back. Their order, which chooses the rollback
    /// target, stays.
    pub(crate) fn rewind_activity(&mut self, now: Timestamp) {
        let ahead =
            |record: &&mut VersionRecord| record.last_active.is_some_and(|at| at.since(now) >= Policy::CLOCK_STEP);
        let mut ahead: Vec<&mut VersionRecord> = self.versions.iter_mut().filter(ahead).collect();
        ahead.sort_by_key(|record| std::cmp::Reverse((record.last_active, record.known_since)));
        let mut at = now;
        for record in ahead {
            record.last_active = Some(at);
            at = at.minus(Duration::from_millis(1));
        }
    }

    /// An alert that fires on `version`, a possible rollback target.
    pub fn trouble_on(&self, version: &VersionName, policy: &Policy, now: Timestamp) -> Option<&str> {
        self.trouble(policy, now).find(|(of, _)| *of == version).map(|(_, alertname)| alertname)
    }

    /// Names of alerts, dismissed or not, on possible rollback targets: on versions without traffic, and on those with
    /// traffic that a rollback may go to, which have incidents of their own: a canary, and while `active` holds no version,
    /// each that may have any.
    pub fn trouble(&self, policy: &Policy, now: Timestamp) -> impl Iterator<Item = (&VersionName, &str)> {
        let alert_resolve_timeout = policy.alert_resolve_timeout;
        let canary = self.running_canary().map(|canary| &canary.split.arriving);
        let targets: Vec<&VersionName> = self.lapsed.iter().flat_map(|lapsed| &lapsed.versions).chain(canary).collect();
        let incidents = targets
            .clone()
            .into_iter()
            .flat_map(|version| self.open_incidents().filter(move |i| i.subject() == version));
        // what was rolled back, or replaced, while its alerts fire on
        let moved = self.open_incidents().filter(|incident| incident.subject() != &incident.version);
        let own = incidents.chain(moved);
        let own = own.flat_map(|incident| incident.alerts.iter().map(move |alert| (&incident.version, alert)));
        let inactive_alerts = self.inactive_alerts.iter().map(|inactive| (&inactive.version, &inactive.alert));
        let all = inactive_alerts.chain(own.filter(|(_, alert)| alert.firing));
        let all = all.map(|(version, alert)| (version, alert.alertname.as_str(), alert.last_seen));
        let served = self.served();
        let may_be_target = move |version: &VersionName| targets.contains(&version) || !served.contains(version);
        let dismissed = self.silences.iter().filter(move |silence| may_be_target(&silence.version));
        let all = all.chain(dismissed.map(|silence| (&silence.version, silence.spoken(), silence.since)));
        all.filter(move |(_, _, last_seen)| now.since(*last_seen) < alert_resolve_timeout)
            .map(|(version, alertname, _)| (version, alertname))
    }

    /// The latest version that people moved away from and that could otherwise be a target, so that people can be told
    /// why it is not.
    pub fn last_fled(&self, from: Option<&VersionName>) -> Option<(&VersionName, &Fled)> {
        let fled = self.versions.iter().filter(|v| Some(&v.version) != from && v.quarantine.is_none());
        fled.filter_map(|v| Some((&v.version, v.fled.as_ref()?))).max_by_key(|(_, fled)| fled.at)
    }

    /// When a soak is checked next, or may begin because an alert is forgotten, which causes no event.
    pub fn soak_wake(&self, policy: &Policy) -> Option<Timestamp> {
        let looks = self.versions.iter().filter_map(|v| v.soak.as_ref()?.watch.as_ref()).map(|watch| watch.next);
        looks.chain(self.may_soak_from(policy)).min()
    }

    /// When the served version may begin to soak, if it does not yet.
    fn may_soak_from(&self, policy: &Policy) -> Option<Timestamp> {
        let record = self.version(&self.serving.as_ref()?.version)?;
        (record.must_soak() && record.soak.is_none()).then(|| self.lapses(&record.version, policy))?
    }

    /// When the last alert that fires on `version` is forgotten. `None`: none fires, or an incident is open, whose end
    /// is an event.
    pub fn lapses(&self, version: &VersionName, policy: &Policy) -> Option<Timestamp> {
        if self.is_in_trouble(version) {
            return None;
        }
        let dismissed = self.silences.iter().filter(|s| s.version == *version).map(|s| s.since);
        let inactive_alerts = self.inactive_alerts.iter().filter(|s| s.version == *version).map(|s| s.alert.last_seen);
        dismissed.chain(inactive_alerts).max().map(|seen| seen.plus(policy.alert_resolve_timeout))
    }

    /// Whether an open incident means that `version` is unhealthy.
    pub fn is_in_trouble(&self, version: &VersionName) -> bool {
        self.open_incidents().any(|incident| incident.speaks_against(version))
    }

    pub fn running_canary(&self) -> Option<&Canary> {
        self.canary.as_ref().filter(|canary| canary.end.is_none())
    }

    /// The split in progress: of a canary, or of a gradual rollback.
    pub fn split(&self) -> Option<&TrafficSplit> {
        let gradual = || self.incidents.iter().find_map(Incident::gradual);
        self.running_canary().map(|canary| &canary.split).or_else(gradual)
    }

    /// The gradual rollback to `version` that is in progress.
    pub fn gradual_to(&self, version: &VersionName) -> Option<&TrafficSplit> {
        self.open_incidents().filter_map(Incident::gradual).find(|split| split.arriving == *version)
    }

    /// Whether `version` is a canary with a base to fall back to. If the base is marked as bad, an alert is handled as on
    /// any version that serves alone.
    pub fn is_trial(&self, version: &VersionName) -> bool {
        let split = self.running_canary().map(|canary| &canary.split);
        split.is_some_and(|split| split.arriving == *version && self.marked_bad(&split.leaving).is_none())
    }

    /// Versions whose measurements someone requested.
    pub fn to_measure(&self) -> impl Iterator<Item = &VersionRecord> {
        let waits =
            |v: &&VersionRecord| v.evidence_asked.is_some_and(|at| v.evidence.as_ref().is_none_or(|e| e.at < at));
        self.versions.iter().filter(waits)
    }

    /// When work for the prompt itself is due.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let canary = self.running_canary().and_then(|canary| canary.split.wake());
        let asked = self.to_measure().filter_map(|v| v.evidence_asked).min();
        [canary, asked].into_iter().flatten().min()
    }

    /// The version that `version` would replace: the other side of its canary, or the served version.
    pub fn replaced_by(&self, version: &VersionName) -> Option<&VersionName> {
        let split = self.split().filter(|split| split.has(version)).map(|split| split.other(version));
        split.or(self.serving.as_ref().map(|s| &s.version)).filter(|other| *other != version)
    }

    /// The traffic share of `version`.
    pub fn percent(&self, version: &VersionName) -> u8 {
        match (self.split(), &self.serving) {
            (Some(split), _) if split.arriving == *version => split.percent(),
            (Some(split), _) if split.leaving == *version => 100 - split.percent(),
            (None, Some(serving)) if serving.version == *version => 100,
            _ => 0,
        }
    }

    /// All versions with traffic.
    pub fn served(&self) -> Vec<VersionName> {
        match (self.split(), &self.serving) {
            (Some(split), _) => vec![split.leaving.clone(), split.arriving.clone()],
            (None, Some(serving)) => vec![serving.version.clone()],
            (None, None) => Vec::new(),
        }
    }

    pub fn open_incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|i| i.phase.is_open())
    }

    /// The open incident about `version`. An incident that rolled it back is not about its next traffic.
    pub fn open_incident_on(&mut self, version: &VersionName) -> Option<&mut Incident> {
        let may_serve = |lapsed: &Lapsed| lapsed.versions.contains(version);
        let served = self.served().contains(version) || self.lapsed.as_ref().is_some_and(may_serve);
        let is_about = |i: &&mut Incident| i.version == *version && (!served || i.subject() == version);
        self.incidents.iter_mut().filter(|i| i.phase.is_open()).filter(is_about).last()
    }

    /// Whether no commit after `switch` has changed the traffic.
    pub fn is_last_move(&self, switch: &Switch) -> bool {
        match &self.serving {
            // records of the previous release name no commit
            Some(serving) if switch.commit.0.is_empty() => serving.version == switch.to && serving.since <= switch.at,
            _ => self.moved_by == switch.commit,
        }
    }
}
