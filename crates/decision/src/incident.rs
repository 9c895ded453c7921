//! Incidents: one problem with one version of a prompt, from the first alert to the end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{Alert, AlertRecord};
use super::guards::Held;
use super::ids::IncidentId;
use super::labels::GroupLabels;
use super::names::{PromptName, VersionName};
use super::note::{Note, NoteKind};
use super::operator::Operator;
use super::phase::{Confirming, Objection, Pending, Phase, Question, Recheck, RollbackFailure};
use super::policy::Policy;
use super::severity::{Action, Severity};
use super::split::TrafficSplit;
use super::switch::{DryRunRollback, Switch, SwitchMode};
use super::time::Timestamp;
use super::trace::Trace;
use super::verification::Verification;

mod record;

/// A version that a person marked as bad, as shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Never {
    pub version: VersionName,
    pub operator: Operator,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub id: IncidentId,
    pub prompt: PromptName,
    /// The version that misbehaves.
    pub version: VersionName,
    /// The rollback target, also after the rollback.
    pub target: Option<VersionName>,
    /// All versions that a rollback may go to without force, the target first.
    pub choices: Vec<VersionName>,
    /// Versions that are not offered because people marked them as bad: first those that the incident is about, then
    /// the latest marks. At most [`Policy::MAX_CHOICES`].
    pub never: Vec<Never>,
    pub phase: Phase,
    pub opened_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub severity: Severity,
    pub action: Action,
    pub decider: String,
    pub time_limit: Duration,
    /// Since when no alert fires.
    pub quiet_since: Option<Timestamp>,
    pub held: Option<Held>,
    /// When Prometheus reported that the requests since the version's activation fail by themselves.
    pub confirmed_at: Option<Timestamp>,
    pub switch: Option<Switch>,
    /// The first rollback that a dry run prevented; a report says whether it would have been right.
    pub dry_run: Option<DryRunRollback>,
    /// Who decided.
    pub decided_by: Option<Operator>,
    /// The number of the question: it changes only if the question does, so a duplicate alert invalidates no button.
    pub question_number: u32,
    pub escalations: u32,
    /// A page may have been raised, so it may have to be ended.
    pub paged: bool,
    /// Slack cannot show the question to its decider, who is therefore paged.
    pub undeliverable: bool,
    /// The budget held it: many prompts fail together, and the coordinating incident covers all of them.
    pub outage: bool,
    pub alerts: Vec<AlertRecord>,
    pub notes: Vec<Note>,
    /// The last request that changed it, where requests are traced.
    pub trace: Option<Box<Trace>>,
}

impl Incident {
    /// Creates an incident that is only observed: nothing has happened, and no one is asked.
    pub fn new(id: IncidentId, prompt: PromptName, version: VersionName, decider: String, now: Timestamp) -> Self {
        Self {
            id,
            prompt,
            version,
            target: None,
            choices: Vec::new(),
            never: Vec::new(),
            phase: Phase::Observing { until: None },
            opened_at: now,
            updated_at: now,
            closed_at: None,
            severity: Severity::Medium,
            action: Action::Observe,
            decider,
            time_limit: Action::Observe.default_time_limit(),
            quiet_since: None,
            held: None,
            confirmed_at: None,
            switch: None,
            dry_run: None,
            decided_by: None,
            question_number: 0,
            escalations: 0,
            paged: false,
            undeliverable: false,
            outage: false,
            alerts: Vec::new(),
            notes: Vec::new(),
            trace: None,
        }
    }

    /// The firing alert with the strongest action; of these the most severe, then the one with the shortest time limit.
    /// Ties always resolve to the same alert, whatever the order of arrival.
    pub fn strongest(&self) -> Option<&AlertRecord> {
        fn rest(alert: &AlertRecord) -> (Duration, &str, &str) {
            (alert.time_limit, &alert.decider, &alert.fingerprint)
        }
        let order = |a: &&AlertRecord, b: &&AlertRecord| a.rank().cmp(&b.rank()).then_with(|| rest(b).cmp(&rest(a)));
        self.alerts.iter().filter(|a| a.firing).max_by(order)
    }

    /// The most severe firing alert, whatever it asks for. Of equals always the same one.
    pub fn worst(&self) -> Option<&AlertRecord> {
        fn order(alert: &AlertRecord) -> (Severity, Action, &str) {
            (alert.severity, alert.action, &alert.fingerprint)
        }
        self.alerts.iter().filter(|a| a.firing).max_by(|a, b| order(a).cmp(&order(b)))
    }

    /// Where the prompt runs, by the worst alert that says so.
    pub fn group_labels(&self) -> GroupLabels {
        let worst = self.alerts.iter().filter(|a| !a.group_labels.is_empty()).max_by_key(|a| (a.firing, a.rank()));
        worst.map(|alert| alert.group_labels.clone()).unwrap_or_default()
    }

    pub fn is_marked_bad(&self, version: &VersionName) -> bool {
        self.never.iter().any(|never| never.version == *version)
    }

    /// Whether so many alerts fire that `alert`, which is new and no stronger, is not stored.
    pub fn has_enough_without(&self, alert: &Alert) -> bool {
        let (action, severity) = (alert.trigger.action, alert.trigger.severity);
        self.alerts.len() >= Policy::MAX_ALERTS
            && self.alerts.iter().all(|r| r.firing && r.fingerprint != alert.fingerprint)
            && self.strongest().is_some_and(|strongest| strongest.rank() >= (action, severity))
            && self.worst().is_some_and(|worst| worst.severity >= severity)
    }

    /// Whether it is open and means that `version` is unhealthy: it is about this version, or a rollback to it did not
    /// help.
    pub fn speaks_against(&self, version: &VersionName) -> bool {
        self.phase.is_open() && (self.version == *version || self.is_left_by(version))
    }

    /// Whether the incident stays undecided if `version` loses its traffic now. A rollback decides it.
    pub fn is_left_by(&self, version: &VersionName) -> bool {
        match &self.switch {
            None => self.phase.is_open() && self.version == *version,
            Some(switch) => self.failure() == Some(RollbackFailure::NotRecovered) && switch.to == *version,
        }
    }

    /// The version whose traffic it is about: after a rollback, the one rolled back to.
    pub fn subject(&self) -> &VersionName {
        self.switch.as_ref().map_or(&self.version, |switch| &switch.to)
    }

    pub fn is_firing(&self) -> bool {
        self.alerts.iter().any(|a| a.firing)
    }

    /// One line about the problem.
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
        self.note(now, NoteKind::Closed, text);
    }

    /// Asks people a new question.
    pub fn ask(&mut self, question: Question, now: Timestamp) {
        self.question_number += 1;
        self.escalations = 0;
        self.phase = Phase::AwaitingDecision(question);
        if !self.is_firing() && !self.asks_about_canary() {
            // no alert will end it, and an obsolete question must close
            self.quiet_since = Some(now);
        }
    }

    /// Asks people again, because nothing has been decided: a page goes on.
    pub fn ask_again(&mut self, question: Question, now: Timestamp) {
        let paged = self.pages();
        self.ask(question, now);
        self.escalations = u32::from(paged);
    }

    /// Whether the deadline of its question has passed. Someone may be paged before that, because a page goes on with a new question.
    pub fn is_overdue(&self) -> bool {
        matches!(&self.phase, Phase::AwaitingDecision(question) if question.overdue)
    }

    /// Whether neither an alert nor a person opened it, but a canary that waits. It closes with the canary, or after
    /// [`Policy::CANARY_QUESTION`].
    pub fn asks_about_canary(&self) -> bool {
        self.alerts.is_empty() && self.action == Action::Recommend
    }

    /// Postpones `pending` until it is answered.
    pub fn confirm(&mut self, pending: Pending, until: Timestamp) {
        let before = match std::mem::replace(&mut self.phase, Phase::Unverified) {
            Phase::Confirming(earlier) => earlier.before,
            other => other,
        };
        self.phase = Phase::Confirming(Box::new(Confirming { pending, until, before }));
    }

    /// Takes the rollback that has waited for an answer since `at`, and returns the incident to its previous phase.
    pub fn answered(&mut self, at: Timestamp) -> Option<Pending> {
        if self.pending()?.at != at {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Unverified) {
            Phase::Confirming(confirming) => {
                self.phase = confirming.before;
                Some(confirming.pending)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    pub fn deadline(&self) -> Option<Timestamp> {
        self.phase.deadline()
    }

    /// When the wait for people began that its deadline ends. Exact for the time limit of a trigger and for escalations.
    pub fn waits_since(&self) -> Option<Timestamp> {
        let wait = match &self.phase {
            Phase::AwaitingDecision(_) if self.escalations > 0 => self.time_limit.max(Policy::ESCALATE_EVERY),
            Phase::AwaitingDecision(_) | Phase::Observing { .. } | Phase::Investigating { .. } => self.time_limit,
            _ => return None,
        };
        Some(self.deadline()?.minus(wait).max(self.opened_at))
    }

    /// The rollback that waits for an answer.
    pub fn pending(&self) -> Option<&Pending> {
        match &self.phase {
            Phase::Confirming(confirming) => Some(&confirming.pending),
            _ => None,
        }
    }

    pub fn question(&self) -> Option<&Question> {
        match &self.phase {
            Phase::AwaitingDecision(question) => Some(question),
            _ => None,
        }
    }

    pub fn recheck(&self) -> Option<&Recheck> {
        self.question()?.recheck.as_ref()
    }

    pub fn objection(&self) -> Option<&Objection> {
        self.question()?.objection.as_ref()
    }

    /// Who put it on hold together with other prompts.
    pub fn hold(&self) -> Option<&Operator> {
        self.question()?.hold.as_ref()
    }

    /// The gradual rollback that is in progress.
    pub fn gradual(&self) -> Option<&TrafficSplit> {
        match &self.phase {
            Phase::RollingBack(split) => Some(split),
            _ => None,
        }
    }

    pub fn gradual_mut(&mut self) -> Option<&mut TrafficSplit> {
        match &mut self.phase {
            Phase::RollingBack(split) => Some(split),
            _ => None,
        }
    }

    pub fn verification(&self) -> Option<&Verification> {
        self.switch.as_ref()?.verification.as_ref()
    }

    /// When the rollback was decided. Prometheus' answer, or the stages of a gradual rollback, came later.
    pub fn rollback_decided_at(&self) -> Option<Timestamp> {
        match (&self.phase, &self.switch) {
            (Phase::RollingBack(split), _) => Some(split.began),
            (_, switch) => switch.as_ref().map(|switch| switch.decided_at.unwrap_or(switch.at)),
        }
    }

    /// Whether someone must be paged: a deadline was missed, the question cannot be shown, or the rollback failed.
    pub fn pages(&self) -> bool {
        let phase = match &self.phase {
            Phase::Confirming(confirming) => &confirming.before, // no one has been answered yet
            phase => phase,
        };
        match phase {
            Phase::AwaitingDecision(question) => {
                question.hold.is_none() && (self.escalations > 0 || self.undeliverable)
            }
            Phase::Escalated { .. } => true,
            // the person who activated another version has not confirmed that it is better
            Phase::Verifying { .. } => self.is_shipped() && (self.escalations > 0 || self.undeliverable),
            _ => self.is_stuck(),
        }
    }

    /// Whether a person may decide: it asks them, or it pages them about a rollback, or about a version that was activated
    /// instead of one.
    pub fn awaits_decision(&self) -> bool {
        let checked = matches!(self.phase, Phase::Verifying { .. }) && self.pages();
        self.phase.is_undecided() || self.failure().is_some() || checked
    }

    /// Why people are paged about the rollback.
    pub fn failure(&self) -> Option<RollbackFailure> {
        match self.phase {
            Phase::Escalated { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Whether nothing is known against the version rolled back to: prompt servers only do not follow the rollback.
    pub fn waits_for_servers(&self) -> bool {
        self.failure() == Some(RollbackFailure::NotFollowed) && self.subject() != &self.version
    }

    /// Whether its rollback is checked regularly.
    pub fn is_checked(&self) -> bool {
        matches!(self.phase, Phase::Verifying { .. }) || self.failure() == Some(RollbackFailure::NotFollowed)
    }

    /// Whether the version that serves instead was measured as unhealthy.
    pub fn is_measured_bad(&self) -> bool {
        self.verification().is_some_and(|verification| verification.found_bad.is_some())
    }

    /// Whether another version was activated instead of a rollback.
    pub fn is_shipped(&self) -> bool {
        self.switch.as_ref().is_some_and(|switch| switch.mode == SwitchMode::Shipped)
    }

    /// Whether its gradual rollback waits for a person.
    pub fn is_stuck(&self) -> bool {
        self.gradual().is_some_and(|split| split.paused.is_some())
    }

    /// Whether a person put it on hold together with other prompts: it neither acts nor escalates automatically.
    pub fn is_held_back(&self) -> bool {
        self.hold().is_some()
    }

    /// Moves deadlines and checks forward by as much as Redis' clock went back since this was written, so that no wait
    /// gets longer.
    pub fn rewind(&mut self, now: Timestamp) {
        // moments that were the present when they were written
        let split = match &mut self.phase {
            Phase::RollingBack(split) => split.last.as_mut(),
            _ => None,
        };
        let mut verification = self.switch.as_mut().and_then(|switch| switch.verification.as_mut());
        let checks = [split, verification.as_mut().and_then(|v| v.last.as_mut())];
        let checks = checks.into_iter().flatten().map(|check| &mut check.at);
        let alerts = self.alerts.iter_mut();
        let alerts = alerts.flat_map(|alert| [Some(&mut alert.last_seen), alert.absent_since.as_mut()]).flatten();
        let mut written: Vec<_> =
            checks.chain(alerts).chain(&mut self.quiet_since).chain([&mut self.updated_at]).collect();
        let back = written.iter().map(|at| at.since(now)).max().unwrap_or_default();
        if back < Policy::CLOCK_STEP {
            return;
        }
        written.iter_mut().for_each(|at| **at = (**at).min(now));
        if let Some(verification) = verification {
            verification.next = verification.next.minus(back);
        }
        self.phase.rewind(back);
    }

    /// When something happens automatically, if no event comes first.
    pub fn next_wake(&self, policy: &Policy) -> Option<Timestamp> {
        match &self.phase {
            // asked at once; if the clock went back, that moment is in the future
            Phase::Confirming(confirming) => return Some(confirming.pending.at.min(confirming.until)),
            Phase::RollingBack(split) => return split.wake(),
            phase if !phase.is_open() => return None,
            _ => {}
        }
        let undecided = self.phase.is_undecided();
        let quiet = self.quiet_since.filter(|_| undecided).map(|since| since.plus(Policy::QUIET));
        let forget = (undecided && self.is_firing())
            .then(|| {
                self.alerts.iter().filter(|a| a.firing).map(|a| a.last_seen.plus(policy.alert_resolve_timeout)).min()
            })
            .flatten();
        let check = self.verification().filter(|_| self.is_checked()).map(|v| v.next);
        let recheck = self.recheck().map(|recheck| recheck.next);
        [self.deadline(), quiet, forget, check, recheck].into_iter().flatten().min()
    }
}
