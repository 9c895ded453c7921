//! The report of a dry run: what it would have done, and whether that would have been right. Pure: a function of the
//! incidents.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decision::switch::DryRunRollback;
use crate::decision::{Incident, IncidentId, Phase, PhaseKind, PromptName, SwitchMode, Timestamp, VersionName};

/// Whether the rollback would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DryRunVerdict {
    /// A person did the same later.
    Right,
    /// The alerts resolved by themselves, a person declined, or it did not help.
    Wrong,
    /// Unclear, perhaps only for now.
    Unclear,
}

impl DryRunVerdict {
    pub fn as_str(self) -> &'static str {
        match self {
            DryRunVerdict::Right => "right",
            DryRunVerdict::Wrong => "wrong",
            DryRunVerdict::Unclear => "unclear",
        }
    }
}

/// What happened instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instead {
    RolledBackByPerson,
    PutBackByHand,
    ResolvedByItself,
    Dismissed,
    Undone,
    DidNotHelp,
    RolledBackElsewhere,
    RolledBackAutomatically,
    OtherVersion,
    Undecided,
}

impl Instead {
    pub fn as_str(self) -> &'static str {
        match self {
            Instead::RolledBackByPerson => "rolled_back_by_person",
            Instead::PutBackByHand => "put_back_by_hand",
            Instead::ResolvedByItself => "resolved_by_itself",
            Instead::Dismissed => "dismissed",
            Instead::Undone => "undone",
            Instead::DidNotHelp => "did_not_help",
            Instead::RolledBackElsewhere => "rolled_back_elsewhere",
            Instead::RolledBackAutomatically => "rolled_back_automatically",
            Instead::OtherVersion => "other_version",
            Instead::Undecided => "undecided",
        }
    }

    /// As a sentence; the time since the prevented rollback is shown beside it.
    pub fn words(self) -> &'static str {
        match self {
            Instead::RolledBackByPerson => "a person rolled back the same way",
            Instead::PutBackByHand => "someone reactivated the same version",
            Instead::ResolvedByItself => "the alerts resolved by themselves",
            Instead::Dismissed => "a person dismissed it",
            Instead::Undone => "a person rolled back and undid it",
            Instead::DidNotHelp => "a person rolled back, and it did not help",
            Instead::RolledBackElsewhere => "a person rolled back to another version",
            Instead::RolledBackAutomatically => "it was rolled back once automation was on",
            Instead::OtherVersion => "another version was activated",
            Instead::Undecided => "no decision yet",
        }
    }

    pub fn verdict(self) -> DryRunVerdict {
        match self {
            Instead::RolledBackByPerson | Instead::PutBackByHand => DryRunVerdict::Right,
            Instead::ResolvedByItself | Instead::Dismissed | Instead::Undone | Instead::DidNotHelp => {
                DryRunVerdict::Wrong
            }
            Instead::RolledBackElsewhere
            | Instead::RolledBackAutomatically
            | Instead::OtherVersion
            | Instead::Undecided => DryRunVerdict::Unclear,
        }
    }
}

/// One rollback that a dry run prevented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub incident: IncidentId,
    pub prompt: PromptName,
    pub dry_run: DryRunRollback,
    pub instead: Instead,
    /// How much later it happened.
    pub after: Option<Duration>,
}

impl Case {
    /// `None`: no rollback was prevented.
    pub fn of(incident: &Incident) -> Option<Self> {
        let dry_run = incident.dry_run.clone()?;
        let (instead, at) = instead(incident, &dry_run.to);
        Some(Self {
            incident: incident.id.clone(),
            prompt: incident.prompt.clone(),
            after: at.map(|at| at.since(dry_run.at)),
            dry_run,
            instead,
        })
    }

    pub fn verdict(&self) -> DryRunVerdict {
        self.instead.verdict()
    }

    /// How much earlier the rollback would have happened.
    pub fn saved(&self) -> Duration {
        self.after.filter(|_| self.verdict() == DryRunVerdict::Right).unwrap_or_default()
    }
}

fn instead(incident: &Incident, target: &VersionName) -> (Instead, Option<Timestamp>) {
    if let Some(switch) = &incident.switch {
        let what = match (switch.mode, incident.phase.kind()) {
            (SwitchMode::Shipped, _) if switch.to == *target => Instead::PutBackByHand,
            (SwitchMode::Shipped, _) => Instead::OtherVersion,
            (SwitchMode::Auto, _) => Instead::RolledBackAutomatically,
            _ if switch.from != incident.version || switch.to != *target => Instead::RolledBackElsewhere,
            (_, PhaseKind::Escalated) => Instead::DidNotHelp,
            // nor did an escalated rollback help that a person closed
            (_, PhaseKind::Dismissed) if incident.escalations > 0 && incident.paged && failed(incident) => {
                Instead::DidNotHelp
            }
            (_, PhaseKind::Dismissed) => Instead::Undone,
            _ => Instead::RolledBackByPerson,
        };
        return (what, incident.rollback_decided_at());
    }
    match &incident.phase {
        Phase::RollingBack(_) if incident.target.as_ref() == Some(target) => {
            (Instead::RolledBackByPerson, incident.rollback_decided_at())
        }
        Phase::Resolved => (Instead::ResolvedByItself, incident.quiet_since.or(incident.closed_at)),
        Phase::Dismissed => (Instead::Dismissed, incident.closed_at),
        Phase::Superseded { by } if by.as_ref() == Some(target) => (Instead::PutBackByHand, incident.closed_at),
        Phase::Superseded { .. } => (Instead::OtherVersion, incident.closed_at),
        _ => (Instead::Undecided, None),
    }
}

/// Whether the checks of its rollback ended without a healthy one.
fn failed(incident: &Incident) -> bool {
    incident.verification().is_some_and(|verification| verification.unhealthy > 0)
}

/// The results of one alert.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub right: u32,
    pub wrong: u32,
    pub unclear: u32,
    pub saved: Duration,
}

impl Tally {
    fn count(&mut self, case: &Case) {
        match case.verdict() {
            DryRunVerdict::Right => self.right += 1,
            DryRunVerdict::Wrong => self.wrong += 1,
            DryRunVerdict::Unclear => self.unclear += 1,
        }
        self.saved += case.saved();
    }

    pub fn minutes_saved(&self) -> u64 {
        self.saved.as_secs() / 60
    }
}

/// The results for a span of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRunReport {
    pub since: Timestamp,
    pub until: Timestamp,
    /// By alertname.
    pub triggers: BTreeMap<String, Tally>,
    /// In the order in which they were added; at most [`Report::MAX_CASES`].
    pub cases: Vec<Case>,
    /// Counted, but not in `cases`.
    pub left_out: usize,
    /// Whether there were too many incidents to read.
    pub partial: bool,
}

impl DryRunReport {
    pub const MAX_CASES: usize = 500;
    /// The number of alert names; further ones are counted as [`Report::OTHERS`].
    pub const MAX_TRIGGERS: usize = 100;
    /// Not a valid alert name, because of its parentheses.
    pub const OTHERS: &'static str = "(others)";

    pub fn new(since: Timestamp, until: Timestamp) -> Self {
        Self { since, until, triggers: BTreeMap::new(), cases: Vec::new(), left_out: 0, partial: false }
    }

    /// Adds an incident, if a rollback was prevented in this time.
    pub fn add(&mut self, incident: &Incident) {
        let Some(case) = Case::of(incident) else { return };
        if case.dry_run.at < self.since || case.dry_run.at > self.until {
            return;
        }
        let known = self.triggers.len() < Self::MAX_TRIGGERS || self.triggers.contains_key(&case.dry_run.trigger);
        let trigger = if known { case.dry_run.trigger.as_str() } else { Self::OTHERS };
        self.triggers.entry(trigger.to_owned()).or_default().count(&case);
        if self.cases.len() < Self::MAX_CASES {
            self.cases.push(case);
        } else {
            self.left_out += 1;
        }
    }

    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for Tally { right, wrong, unclear, saved } in self.triggers.values() {
            total.right += right;
            total.wrong += wrong;
            total.unclear += unclear;
            total.saved += *saved;
        }
        total
    }
}
