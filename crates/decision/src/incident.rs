//! One prompt version in trouble, from the first alert to the end.

use std::fmt;
use std::time::Duration;

use super::event::{Alert, plausible};
use super::guards::Held;
use super::mass::Shares;
use super::names::{PromptName, VersionName};
use super::policy::Policy;
use super::split::Split;
use super::time::Timestamp;
use super::trigger::{Action, Severity};
use super::verification::{Objection, Pending, Verification};

/// A ULID, made before the commit that creates the incident, so that creating one is fenced too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub String);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// A rollback waits until Prometheus has been asked.
    Confirming,
    Observing,
    AwaitingDecision,
    Investigating,
    /// Step by step.
    RollingBack,
    Verifying,
    /// The rollback failed: open until a person closes it.
    Escalated,
    Recovered,
    Unverified,
    Dismissed,
    Resolved,
    Superseded,
}

impl Phase {
    pub const ALL: [Phase; 12] = [
        Phase::Confirming,
        Phase::Observing,
        Phase::AwaitingDecision,
        Phase::Investigating,
        Phase::RollingBack,
        Phase::Verifying,
        Phase::Escalated,
        Phase::Recovered,
        Phase::Unverified,
        Phase::Dismissed,
        Phase::Resolved,
        Phase::Superseded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Confirming => "confirming",
            Phase::Observing => "observing",
            Phase::AwaitingDecision => "awaiting_decision",
            Phase::Investigating => "investigating",
            Phase::RollingBack => "rolling_back",
            Phase::Verifying => "verifying",
            Phase::Escalated => "escalated",
            Phase::Recovered => "recovered",
            Phase::Unverified => "unverified",
            Phase::Dismissed => "dismissed",
            Phase::Resolved => "resolved",
            Phase::Superseded => "superseded",
        }
    }

    pub fn is_open(self) -> bool {
        self <= Phase::Escalated
    }

    /// Nobody has decided yet.
    pub fn is_undecided(self) -> bool {
        self <= Phase::Investigating
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who started a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlipMode {
    Auto,
    Approved,
    Manual,
    /// Approved or manual, and finished step by step.
    Gradual,
}

impl FlipMode {
    pub const ALL: [FlipMode; 4] = [FlipMode::Auto, FlipMode::Approved, FlipMode::Manual, FlipMode::Gradual];

    pub fn as_str(self) -> &'static str {
        match self {
            FlipMode::Auto => "auto",
            FlipMode::Approved => "approved",
            FlipMode::Manual => "manual",
            FlipMode::Gradual => "gradual",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    pub at: Timestamp,
    /// When a person decided, if Prometheus was asked before it was done.
    pub decided_at: Option<Timestamp>,
    pub from: VersionName,
    pub to: VersionName,
    pub mode: FlipMode,
    pub operator: String,
}

/// The rollback that only `guards.mode = "dry-run"` has kept from happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldFlip {
    pub at: Timestamp,
    pub from: VersionName,
    pub to: VersionName,
    /// The alert's name.
    pub trigger: String,
}

/// One alert as the incident remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRecord {
    pub fingerprint: String,
    pub alertname: String,
    pub severity: Severity,
    pub action: Action,
    pub decider: String,
    pub time_limit: Duration,
    pub firing: bool,
    pub starts_at: Option<Timestamp>,
    pub first_seen: Timestamp,
    /// Refreshed only every [`Policy::refresh_after`].
    pub last_seen: Timestamp,
    /// Alertmanager's API has listed it.
    pub listed: bool,
    /// Since when the API does not list it any more.
    pub absent_since: Option<Timestamp>,
    pub summary: String,
    pub description: String,
    pub value: String,
    pub verify: String,
    pub runbook_url: String,
    pub dashboard_url: String,
    pub generator_url: String,
    /// Where the Alertmanager that sent it is reached by people.
    pub alertmanager_url: String,
    pub shares: Shares,
}

impl AlertRecord {
    pub fn new(alert: &Alert, now: Timestamp) -> Self {
        Self {
            fingerprint: alert.fingerprint.clone(),
            alertname: alert.alertname.clone(),
            severity: alert.trigger.severity,
            action: alert.trigger.action,
            decider: alert.trigger.decider.clone(),
            time_limit: alert.trigger.time_limit,
            firing: true,
            starts_at: alert.starts_at,
            first_seen: now,
            last_seen: now,
            listed: false,
            absent_since: None,
            summary: alert.summary.clone(),
            description: alert.description.clone(),
            value: alert.value.clone(),
            verify: alert.verify.clone(),
            runbook_url: alert.runbook_url.clone(),
            dashboard_url: alert.dashboard_url.clone(),
            generator_url: alert.generator_url.clone(),
            alertmanager_url: alert.alertmanager_url.clone(),
            shares: alert.shares.clone(),
        }
    }

    /// The same alert again asks for nothing new.
    pub fn covers(&self, alert: &Alert) -> bool {
        self.firing
            && self.fingerprint == alert.fingerprint
            && self.severity >= alert.trigger.severity
            && self.action >= alert.trigger.action
    }

    pub fn rank(&self) -> (Action, Severity) {
        (self.action, self.severity)
    }

    /// See [`Alert::began`].
    pub fn began(&self, now: Timestamp) -> Option<Timestamp> {
        plausible(self.starts_at, now)
    }
}

/// Something that happened to the incident: one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub seq: u32,
    pub at: Timestamp,
    pub kind: NoteKind,
    pub text: String,
}

impl Note {
    /// Keeps the latest, and the first, which says how it began.
    pub fn append(notes: &mut Vec<Self>, at: Timestamp, kind: NoteKind, text: String) {
        let seq = notes.last().map_or(0, |note| note.seq + 1);
        notes.push(Self { seq, at, kind, text });
        if notes.len() > Policy::MAX_NOTES {
            notes.remove(1);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKind {
    Opened,
    Alert,
    Held,
    Flipped,
    Decided,
    Asked,
    /// What Prometheus was asked, or said.
    Checked,
    Escalated,
    Reopened,
    Closed,
}

impl NoteKind {
    pub const ALL: [NoteKind; 10] = [
        NoteKind::Opened,
        NoteKind::Alert,
        NoteKind::Held,
        NoteKind::Flipped,
        NoteKind::Decided,
        NoteKind::Asked,
        NoteKind::Checked,
        NoteKind::Escalated,
        NoteKind::Reopened,
        NoteKind::Closed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            NoteKind::Opened => "opened",
            NoteKind::Alert => "alert",
            NoteKind::Held => "held",
            NoteKind::Flipped => "flipped",
            NoteKind::Decided => "decided",
            NoteKind::Asked => "asked",
            NoteKind::Checked => "checked",
            NoteKind::Escalated => "escalated",
            NoteKind::Reopened => "reopened",
            NoteKind::Closed => "closed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub id: IncidentId,
    pub prompt: PromptName,
    /// The version that misbehaves.
    pub version: VersionName,
    /// Where a rollback would go, or went.
    pub target: Option<VersionName>,
    /// All versions that a rollback could go to without force, the target first.
    pub choices: Vec<VersionName>,
    pub phase: Phase,
    pub opened_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub severity: Severity,
    pub action: Action,
    pub decider: String,
    pub time_limit: Duration,
    /// When the present phase must end: observed, decided, asked again or verified by then.
    pub deadline: Option<Timestamp>,
    /// Since when no alert fires.
    pub quiet_since: Option<Timestamp>,
    pub held: Option<Held>,
    pub flip: Option<Flip>,
    /// The first one, of which a report tells whether it would have been right.
    pub would: Option<WouldFlip>,
    /// In [`Phase::Superseded`]: what serves instead.
    pub successor: Option<VersionName>,
    /// In [`Phase::RollingBack`]: how far it is.
    pub gradual: Option<Split>,
    /// In [`Phase::Confirming`]: what will be done.
    pub pending: Option<Pending>,
    /// What speaks against the rollback that a person asked for; a second approval overrules it.
    pub objection: Option<Objection>,
    pub verification: Option<Verification>,
    /// Who ended the question, and how.
    pub decided_by: Option<String>,
    /// Counts questions: changes only when what is asked changes, so a duplicate alert makes no click stale.
    pub ask: u32,
    pub escalations: u32,
    /// Slack can't show the question to the people who decide, so they are paged.
    pub unheard: bool,
    /// The budget has held it: many prompts fail together, and one coordinating incident speaks for all of them.
    pub mass: bool,
    /// Who holds it back together with the others: nothing automatic, no escalation.
    pub hold: Option<String>,
    pub alerts: Vec<AlertRecord>,
    pub notes: Vec<Note>,
}

impl Incident {
    /// Nothing has happened yet: it is observed, and nobody is asked.
    pub fn new(id: IncidentId, prompt: PromptName, version: VersionName, decider: String, now: Timestamp) -> Self {
        Self {
            id,
            prompt,
            version,
            target: None,
            choices: Vec::new(),
            phase: Phase::Observing,
            opened_at: now,
            updated_at: now,
            closed_at: None,
            severity: Severity::Medium,
            action: Action::Observe,
            decider,
            time_limit: Action::Observe.default_time_limit(),
            deadline: None,
            quiet_since: None,
            held: None,
            flip: None,
            would: None,
            successor: None,
            gradual: None,
            pending: None,
            objection: None,
            verification: None,
            decided_by: None,
            ask: 0,
            escalations: 0,
            unheard: false,
            mass: false,
            hold: None,
            alerts: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The firing alert with the strongest action, the most severe of these.
    pub fn strongest(&self) -> Option<&AlertRecord> {
        self.alerts.iter().filter(|a| a.firing).max_by_key(|a| a.rank())
    }

    /// So many alerts fire that `alert`, no stronger than these and new, is not even remembered.
    pub fn has_enough_without(&self, alert: &Alert) -> bool {
        let rank = (alert.trigger.action, alert.trigger.severity);
        self.alerts.len() >= Policy::MAX_ALERTS
            && self.alerts.iter().all(|r| r.firing && r.fingerprint != alert.fingerprint)
            && self.strongest().is_some_and(|strongest| strongest.rank() >= rank)
    }

    /// It is open, and `version` does not serve well by it: the one that it is about, or one whose rollback did not help.
    pub fn speaks_against(&self, version: &VersionName) -> bool {
        self.phase.is_open() && (self.version == *version || self.is_left_by(version))
    }

    /// Whoever takes the traffic from `version` now leaves it with this incident undecided. A rollback decides it.
    pub fn is_left_by(&self, version: &VersionName) -> bool {
        match &self.flip {
            None => self.phase.is_open() && self.version == *version,
            Some(flip) => self.phase == Phase::Escalated && flip.to == *version,
        }
    }

    pub fn is_firing(&self) -> bool {
        self.alerts.iter().any(|a| a.firing)
    }

    /// One line on what is wrong.
    pub fn summary(&self) -> &str {
        let worst = self.strongest().or_else(|| self.alerts.iter().max_by_key(|a| a.rank()));
        match worst {
            Some(alert) if !alert.summary.is_empty() => &alert.summary,
            Some(alert) => &alert.alertname,
            None => self.notes.first().map_or("", |note| &note.text),
        }
    }

    pub fn note(&mut self, at: Timestamp, kind: NoteKind, text: impl Into<String>) {
        Note::append(&mut self.notes, at, kind, text.into());
        self.updated_at = at;
    }

    pub fn close(&mut self, phase: Phase, now: Timestamp, text: impl Into<String>) {
        debug_assert!(!phase.is_open());
        self.phase = phase;
        self.closed_at = Some(now);
        self.deadline = None;
        self.pending = None;
        self.gradual = None;
        self.note(now, NoteKind::Closed, text);
    }

    /// When it was decided to roll back, which Prometheus' answer or the stages of a gradual rollback came after.
    pub fn rollback_decided_at(&self) -> Option<Timestamp> {
        let gradual = self.phase == Phase::RollingBack;
        let by = self.flip.as_ref().map(|flip| flip.at);
        if gradual || self.flip.as_ref().is_some_and(|flip| flip.mode == FlipMode::Gradual) {
            let decided = |note: &&Note| note.kind == NoteKind::Decided && by.is_none_or(|by| gradual || note.at <= by);
            if let Some(note) = self.notes.iter().rfind(decided) {
                return Some(note.at);
            }
        }
        self.flip.as_ref().map(|flip| flip.decided_at.unwrap_or(flip.at))
    }

    /// Someone must be paged: nobody decided in time or can see the question, or the rollback failed.
    pub fn pages(&self) -> bool {
        let waits = matches!(self.phase, Phase::AwaitingDecision | Phase::Confirming);
        (waits && self.hold.is_none() && (self.escalations > 0 || self.unheard))
            || self.phase == Phase::Escalated
            || self.is_stuck()
    }

    /// Its gradual rollback waits for a person.
    pub fn is_stuck(&self) -> bool {
        self.phase == Phase::RollingBack && self.gradual.as_ref().is_some_and(|split| split.paused.is_some())
    }

    /// Waits, but neither acts nor escalates by itself: a person holds it back together with others.
    pub fn is_held_back(&self) -> bool {
        self.hold.is_some() && self.phase == Phase::AwaitingDecision
    }

    /// A page may have been raised, and so may have to be ended.
    pub fn may_have_paged(&self) -> bool {
        self.notes.iter().any(|note| note.kind == NoteKind::Escalated)
    }

    /// Redis' clock went back since this was written: what waits comes earlier by as much, so that no wait gets longer.
    pub fn rewind(&mut self, now: Timestamp) {
        let mut split = self.gradual.as_mut();
        let mut verification = self.verification.as_mut();
        // moments that were "now" when they were written
        let checks = [split.as_mut().map(|s| &mut s.last), verification.as_mut().map(|v| &mut v.last)];
        let checks = checks.into_iter().flatten().flatten().map(|check| &mut check.at);
        let alerts = self.alerts.iter_mut();
        let alerts = alerts.flat_map(|alert| [Some(&mut alert.last_seen), alert.absent_since.as_mut()]).flatten();
        let mut written: Vec<_> =
            checks.chain(alerts).chain(&mut self.quiet_since).chain([&mut self.updated_at]).collect();
        let back = written.iter().map(|at| at.since(now)).max().unwrap_or_default();
        if back < Policy::CLOCK_STEP {
            return;
        }
        written.iter_mut().for_each(|at| **at = (**at).min(now));
        let split = split.map(|split| [&mut split.next, &mut split.check]);
        for at in split.into_iter().flatten().chain([&mut self.deadline]) {
            *at = at.map(|at| at.minus(back));
        }
        if let Some(verification) = verification {
            verification.next = verification.next.minus(back);
        }
    }

    /// When something must happen by itself, if nothing happens before.
    pub fn next_wake(&self, policy: &Policy) -> Option<Timestamp> {
        if !self.phase.is_open() {
            return None;
        }
        if let Some(pending) = self.pending.as_ref().filter(|_| self.phase == Phase::Confirming) {
            return Some(pending.at); // asked at once
        }
        if let Some(split) = self.gradual.as_ref().filter(|_| self.phase == Phase::RollingBack) {
            return split.wake();
        }
        let undecided = self.phase.is_undecided();
        let quiet = self.quiet_since.filter(|_| undecided).map(|since| since.plus(Policy::QUIET));
        let forget = (undecided && self.is_firing())
            .then(|| self.alerts.iter().filter(|a| a.firing).map(|a| a.last_seen.plus(policy.forget_after)).min())
            .flatten();
        let check = self.verification.as_ref().filter(|_| self.phase == Phase::Verifying).map(|v| v.next);
        [self.deadline, quiet, forget, check].into_iter().flatten().min()
    }
}
