//! Rehearsals: what an alert would do, without doing it.

use super::alert::{Alert, AlertRecord};
use super::decide::{Answer, Outcome, Snapshot, decide_with_guards};
use super::guards::HoldingGuard;
use super::ids::IncidentId;
use super::incident::Incident;
use super::names::VersionName;
use super::phase::{Phase, PhaseKind};
use super::policy::Policy;
use super::reason::OutcomeReason;
use super::soak::KnownGood;
use super::state::{PromptState, Silence};
use super::time::{Timestamp, spoken};

/// What an alert would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    pub outcome: Outcome,
    /// As in the answer to a webhook, for example the guard that would have held it.
    pub reason: OutcomeReason,
    /// For people, to complete "a critical alert would …".
    pub text: String,
    /// Where the rollback would go: at once, or once people approve it.
    pub target: Option<RehearsedTarget>,
    /// All guards that would hold the rollback that the alert asks for, the deciding one first.
    pub guards: Vec<HoldingGuard>,
    /// The incident that it would join; `None` for a new one, or none.
    pub incident: Option<IncidentId>,
    /// The phase of its incident afterwards.
    pub phase: Option<PhaseKind>,
    /// The decider of its incident.
    pub decider: Option<String>,
    /// When its incident would next ask, escalate or end.
    pub deadline: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehearsedTarget {
    pub version: VersionName,
    /// Since when, and why, it is trusted, if it is.
    pub known_good: Option<KnownGood>,
}

impl Rehearsed {
    /// An alert that causes no action, whatever the state of its prompt.
    pub fn ignored(reason: OutcomeReason) -> Self {
        Self {
            outcome: Outcome::Ignored,
            reason,
            text: format!("be ignored ({reason})"),
            target: None,
            guards: Vec::new(),
            incident: None,
            phase: None,
            decider: None,
            deadline: None,
        }
    }
}

/// Decides about `alert` as [`decide`](super::decide()) does, and commits nothing.
pub fn rehearse(policy: &Policy, snapshot: &Snapshot, alert: &Alert, now: Timestamp) -> Rehearsed {
    let (decision, mut guards) = decide_with_guards(policy, snapshot, alert, now);
    let answer = match decision.answer {
        Answer::Alerts(outcomes) => outcomes.into_iter().next(),
        _ => None,
    };
    let (outcome, reason, id) = answer.map_or((Outcome::Ignored, OutcomeReason::NotActive, None), |answer| {
        (answer.outcome, answer.reason, answer.incident)
    });
    let written = decision.commit.iter().flat_map(|commit| &commit.incidents).map(|write| &write.incident);
    let known = &snapshot.state.incidents;
    let incident = written.chain(known).find(|incident| Some(&incident.id) == id.as_ref());
    let mut entries = decision.commit.iter().flat_map(|commit| &commit.log);
    let change = entries.rfind(|entry| entry.event.is_change()).filter(|_| outcome == Outcome::RolledBack);
    let (from, to) = (change.and_then(|entry| entry.from.as_deref()), change.and_then(|entry| entry.to.as_deref()));
    let target = match to {
        Some(to) => VersionName::parse(to).ok(),
        None => incident.and_then(|incident| incident.target.clone()),
    };
    let held = incident.and_then(|incident| incident.held.as_ref());
    let next = incident.map(|incident| asks(incident, now)).unwrap_or_default();
    let text = match outcome {
        Outcome::RolledBack => {
            let (from, to) = (from.unwrap_or(alert.version.as_str()), to.unwrap_or("the version before it"));
            format!("roll back {from} → {to}")
        }
        Outcome::Held if reason == OutcomeReason::Confirming => {
            "ask Prometheus first, and roll back unless the version is healthy again".to_owned()
        }
        Outcome::Held => {
            let detail = held.map(|held| format!(": {}", held.detail)).unwrap_or_default();
            format!("be held by the guard {reason}{detail}{next}")
        }
        Outcome::Ignored => format!("be ignored ({reason})"),
        Outcome::IncidentOpened => format!("open an incident{next}"),
        Outcome::IncidentUpdated => format!("join an open incident ({reason}){next}"),
        Outcome::Duplicate | Outcome::Resolved => {
            let phase = incident.map(|incident| format!(", which is {}", incident.phase)).unwrap_or_default();
            format!("join an open incident{phase} ({reason}), and change nothing")
        }
    };
    match (outcome, reason, held) {
        (Outcome::RolledBack, ..) => guards.clear(),
        // what holds it may be known to the incident alone: a person's hold, or the target of a gradual rollback
        (Outcome::Held, OutcomeReason::Guard(guard), Some(held))
            if held.guard == guard && guards.first().is_none_or(|first| first.held.guard != guard) =>
        {
            guards.retain(|holding| holding.held.guard != guard);
            guards.insert(0, HoldingGuard { held: held.clone(), left: None });
        }
        _ => {}
    }
    let known_good = |version: &VersionName| snapshot.state.version(version)?.known_good(policy, now);
    let open = incident.filter(|incident| incident.phase.is_open());
    Rehearsed {
        outcome,
        reason,
        text,
        target: target.map(|version| RehearsedTarget { known_good: known_good(&version), version }),
        guards,
        incident: id.filter(|id| known.iter().any(|incident| incident.id == *id)),
        phase: incident.map(|incident| incident.phase.kind()),
        decider: open.filter(|incident| incident.phase.is_undecided()).map(|incident| incident.decider.clone()),
        deadline: open.and_then(|incident| incident.phase.deadline()),
    }
}

/// Completes "it opens an incident" with what then happens.
fn asks(incident: &Incident, now: Timestamp) -> String {
    let within = incident.phase.deadline().map(|at| spoken(at.since(now)));
    let decider = &incident.decider;
    match (&incident.phase, within) {
        (Phase::AwaitingDecision(_), Some(within)) => format!(", and ask {decider} to decide within {within}"),
        (Phase::AwaitingDecision(_), None) => format!(", and wait for {decider} to decide"),
        (Phase::Observing { .. }, Some(within)) => {
            format!(", observe for {within}, and ask {decider} if it still fires then")
        }
        (phase, _) => format!(", which is then {phase}"),
    }
}

/// An alert that was delivered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAlert<'s> {
    pub fingerprint: &'s str,
    pub firing: bool,
    /// When it began, as its sender said.
    pub starts_at: Option<Timestamp>,
    last_seen: Timestamp,
}

impl<'s> KnownAlert<'s> {
    fn of(alert: &'s AlertRecord) -> Self {
        let AlertRecord { fingerprint, firing, starts_at, last_seen, .. } = alert;
        Self { fingerprint, firing: *firing, starts_at: *starts_at, last_seen: *last_seen }
    }

    fn dismissed(silence: &'s Silence) -> Self {
        let Silence { fingerprint, starts_at, since, .. } = silence;
        Self { fingerprint, firing: true, starts_at: *starts_at, last_seen: *since }
    }
}

/// What the receiver knows of the alert `name` on `version`. If it fires already, the next delivery repeats it; otherwise
/// the same alert would begin anew.
pub fn known_alert<'s>(
    policy: &Policy,
    state: &'s PromptState,
    version: &VersionName,
    name: &str,
    now: Timestamp,
) -> Option<KnownAlert<'s>> {
    let incidents = state.incidents.iter().filter(|incident| incident.version == *version);
    let inactive = state.inactive_alerts.iter().filter(|inactive| inactive.version == *version);
    let alerts = incidents.flat_map(|incident| &incident.alerts).chain(inactive.map(|inactive| &inactive.alert));
    let lasts = |silence: &&Silence| now.since(silence.since) < policy.alert_resolve_timeout;
    let silences = state.silences.iter().filter(|silence| silence.version == *version).filter(lasts);
    let alerts = alerts.filter(|alert| alert.alertname == name).map(KnownAlert::of);
    let silences = silences.filter(|silence| silence.alertname == name).map(KnownAlert::dismissed);
    alerts.chain(silences).max_by_key(|alert| (alert.firing, alert.last_seen))
}
