//! Outages: when the budget of automatic rollbacks is spent, the prompts that it holds probably have a common cause.
//! One coordinating incident covers all of them.
//!
//! It belongs to no prompt: a prompt's commit only reports that something changed. This module holds what follows from
//! that, and what people may decide about all prompts; each prompt is then decided separately, by the usual rules.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::words;
use super::event::{Choice, Decide};
use super::guards::Guard;
use super::ids::IncidentId;
use super::incident::Incident;
use super::labels::GroupLabels;
use super::names::{PromptName, VersionName};
use super::note::{Note, NoteKind};
use super::operator::Operator;
use super::phase::PhaseKind;
use super::policy::Policy;
use super::refusal::{Refusal, RefusalCode};
use super::switch::SwitchMode;
use super::time::{Timestamp, spoken};
use super::trigger::Trigger;

/// Names in one sentence; the rest is counted.
const NAMED: usize = 10;

words! {
    /// A bulk decision: what a person may decide about all prompts at once.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum OutageAction {
        /// Roll back each waiting prompt.
        RollBack = "roll_back",
        /// Undo the rollbacks made before the guard tripped.
        Undo = "undo",
        /// No automatic rollbacks and no escalations until the hold ends.
        Hold = "hold",
        /// End the hold.
        Release = "release",
    }
}

/// A bulk decision that is being carried out, prompt by prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    pub what: OutageAction,
    pub by: Operator,
    pub at: Timestamp,
}

/// Who put all prompts on hold, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageHold {
    pub by: Operator,
    pub at: Timestamp,
}

/// The coordinating incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    pub id: IncidentId,
    /// The fallback decider when it was opened, or when a reload had removed that one.
    pub decider: String,
    pub opened_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(deserialize_with = "Option::deserialize")]
    pub closed_at: Option<Timestamp>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub hold: Option<OutageHold>,
    /// At most one at a time.
    #[serde(rename = "order", deserialize_with = "Option::deserialize")]
    pub execution: Option<Execution>,
    /// People were told that automation resumes.
    pub resumed: bool,
    /// The number of the question, as in [`Incident::ask`].
    #[serde(rename = "ask")]
    pub question_number: u32,
    pub notes: Vec<Note>,
}

/// What is known about one of the prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub incident: IncidentId,
    pub prompt: PromptName,
    pub version: VersionName,
    #[serde(deserialize_with = "Option::deserialize")]
    pub target: Option<VersionName>,
    pub phase: PhaseKind,
    /// [`Incident::ask`], for the button.
    #[serde(rename = "ask")]
    pub question_number: u32,
    /// When its first alert began.
    pub began: Timestamp,
    pub joined: Timestamp,
    /// Rolled back automatically before the guard tripped.
    pub before: bool,
    pub hold: bool,
    /// The objection to the requested rollback.
    pub objection: Option<String>,
    #[serde(rename = "shares")]
    pub group_labels: GroupLabels,
    /// The order that is carried out on it, and the question that this answers: written before it is done.
    #[serde(deserialize_with = "Option::deserialize")]
    pub asked: Option<(Timestamp, u32)>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub done: Option<Done>,
    /// When automation last tried and failed.
    #[serde(deserialize_with = "Option::deserialize")]
    pub tried: Option<Timestamp>,
}

/// The result of a bulk decision for one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// [`Execution::at`].
    #[serde(rename = "order")]
    pub execution: Timestamp,
    pub failed: bool,
    pub text: String,
}

impl Member {
    pub fn new(incident: &Incident, before: bool, now: Timestamp) -> Self {
        let began = incident.alerts.iter().filter_map(|alert| alert.starts_at).filter(|at| at.0 > 0).min();
        Self {
            incident: incident.id.clone(),
            prompt: incident.prompt.clone(),
            version: incident.version.clone(),
            target: incident.target.clone(),
            phase: incident.phase.kind(),
            question_number: incident.question_number,
            began: began.unwrap_or(incident.opened_at).min(incident.opened_at),
            joined: now,
            before,
            hold: incident.hold().is_some(),
            objection: incident.objection().map(|objection| objection.text.clone()),
            group_labels: incident.group_labels(),
            asked: None,
            done: None,
            tried: None,
        }
    }

    /// Copies what may have changed.
    pub fn follow(&mut self, incident: &Incident) {
        let Self { began, joined, before, asked, done, tried, .. } = self.clone();
        *self = Self { began, asked, done, tried, ..Self::new(incident, before, joined) };
    }

    /// Whether it is still undecided.
    pub fn waits(&self) -> bool {
        self.phase.is_undecided()
    }

    /// Whether automation may try again. A time in the future is from before the clock went back.
    pub fn has_rested(&self, every: Duration, now: Timestamp) -> bool {
        self.tried.is_none_or(|at| at > now || now.since(at) >= every)
    }

    /// Whether it keeps the coordinating incident open. A rollback that did not help is handled separately.
    pub fn is_open(&self) -> bool {
        self.waits() || matches!(self.phase, PhaseKind::RollingBack | PhaseKind::Verifying)
    }

    fn can_be_undone(&self) -> bool {
        self.before && !matches!(self.phase, PhaseKind::Dismissed | PhaseKind::Superseded)
    }

    /// Whether `execution` must still be carried out for it. Prompts that joined after the click are not included.
    pub fn is_due(&self, execution: &Execution) -> bool {
        let meant = match execution.what {
            OutageAction::RollBack => self.waits(),
            OutageAction::Undo => self.can_be_undone(),
            OutageAction::Hold | OutageAction::Release => false, // not per prompt: each member follows the state
        };
        let begun = self.asked.is_some_and(|(at, _)| at == execution.at);
        let done = self.done.as_ref().is_some_and(|done| done.execution == execution.at);
        self.joined <= execution.at && !done && (meant || begun)
    }

    /// `execution` as a person's decision about this prompt. `question_number`: the question that it answers.
    pub fn decision(&self, execution: &Execution, question_number: Option<u32>) -> Decide {
        let undo = execution.what == OutageAction::Undo;
        Decide {
            incident: self.incident.clone(),
            choice: if undo { Choice::Undo } else { Choice::Approve },
            operator: execution.by.clone(),
            // an undo is about the first rollback only: a person may have gone back further since
            target: undo.then(|| self.version.clone()),
            force: false,
            question_number: question_number.filter(|_| !undo),
        }
    }
}

/// Whether `incident` requires a coordinating incident.
pub fn needs_outage(incident: &Incident) -> bool {
    let by_budget = incident.held.as_ref().is_some_and(|held| held.guard == Guard::Budget);
    incident.outage && incident.phase.is_undecided() && by_budget
}

/// Whether `incident` was rolled back automatically, recently enough before `tripped` to count against the budget. A time
/// in the future is from before the clock went back.
pub fn rolled_back_before(incident: &Incident, tripped: Timestamp, policy: &Policy) -> bool {
    incident
        .switch
        .as_ref()
        .is_some_and(|switch| switch.mode == SwitchMode::Auto && tripped.since(switch.at) < policy.budget_window)
}

impl Outage {
    pub fn open(id: IncidentId, policy: &Policy, now: Timestamp) -> Self {
        let mut outage = Self {
            id,
            decider: policy.fallback_decider.clone(),
            opened_at: now,
            updated_at: now,
            closed_at: None,
            hold: None,
            execution: None,
            resumed: false,
            question_number: 0,
            notes: Vec::new(),
        };
        let text = format!(
            "more than {} prompts within {}: this looks like a provider outage",
            policy.max_auto_rollbacks,
            spoken(policy.budget_window)
        );
        outage.note(now, NoteKind::Opened, text);
        outage
    }

    /// Lets the fallback decider decide if the one who was asked is no longer configured.
    pub fn reassign(&mut self, policy: &Policy, now: Timestamp) {
        if !self.is_open() || Trigger::knows(&self.decider, policy) {
            return;
        }
        let before = std::mem::replace(&mut self.decider, policy.fallback_decider.clone());
        self.question_number += 1;
        let text = format!("{before} is no longer configured: {} decides", self.decider);
        self.note(now, NoteKind::Asked, text);
    }

    pub fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    pub fn note(&mut self, at: Timestamp, kind: NoteKind, text: impl Into<String>) {
        Note::append(&mut self.notes, at, kind, text.into());
        self.updated_at = at;
    }

    /// Its state as the phase of an incident.
    pub fn phase(&self, members: &[Member]) -> PhaseKind {
        match (self.is_open(), members.iter().any(Member::waits)) {
            (false, _) => PhaseKind::Resolved,
            (true, true) => PhaseKind::AwaitingDecision,
            (true, false) => PhaseKind::Verifying,
        }
    }

    /// What people may decide now.
    pub fn choices(&self, members: &[Member]) -> Vec<OutageAction> {
        if !self.is_open() || self.execution.is_some() {
            return Vec::new();
        }
        let waits = members.iter().any(Member::waits);
        OutageAction::ALL
            .into_iter()
            .filter(|action| match action {
                OutageAction::RollBack => waits,
                OutageAction::Undo => members.iter().any(Member::can_be_undone),
                OutageAction::Hold => waits && self.hold.is_none(),
                OutageAction::Release => self.hold.is_some(),
            })
            .collect()
    }

    /// Records a person's decision. `ask`: the question that was answered, if known.
    pub fn decide(
        &mut self,
        members: &[Member],
        action: OutageAction,
        by: &Operator,
        question_number: Option<u32>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let decided = |message: String| Err(Refusal { code: RefusalCode::AlreadyDecided, message });
        if !self.is_open() {
            return decided("this incident is already closed: decide about each prompt in its own incident".to_owned());
        }
        if let Some(Execution { what, by, .. }) = &self.execution {
            let what = if *what == OutageAction::Undo { "is undoing" } else { "is rolling back" };
            return decided(format!("{by} {what} all prompts: wait until that is done"));
        }
        if question_number.is_some_and(|question_number| question_number != self.question_number) {
            let message = "the question has changed: check the message again".to_owned();
            return Err(Refusal { code: RefusalCode::Stale, message });
        }
        if !self.choices(members).contains(&action) {
            return decided(match (action, &self.hold) {
                (OutageAction::Hold, Some(hold)) => format!("{} already has all prompts on hold", hold.by),
                (OutageAction::Release, _) => "the prompts are not on hold".to_owned(),
                (OutageAction::Undo, _) => "there is no earlier rollback to undo".to_owned(),
                (OutageAction::RollBack | OutageAction::Hold, _) => "no prompt is waiting for a decision".to_owned(),
            });
        }
        self.question_number += 1;
        let by = by.clone();
        let text = match action {
            OutageAction::RollBack => format!("{by} started rolling back all waiting prompts"),
            OutageAction::Undo => format!("{by} started undoing the earlier rollbacks"),
            OutageAction::Hold => format!("{by} put all prompts on hold: no automatic rollbacks and no escalations"),
            OutageAction::Release => format!("{by} ended the hold: automation resumes"),
        };
        match action {
            OutageAction::RollBack | OutageAction::Undo => {
                self.execution = Some(Execution { what: action, by, at: now })
            }
            OutageAction::Hold => self.hold = Some(OutageHold { by, at: now }),
            OutageAction::Release => self.hold = None,
        }
        self.note(now, NoteKind::Decided, text);
        Ok(())
    }

    /// Completes a bulk decision, and names the prompts that failed.
    pub fn finish_execution(&mut self, members: &[Member], now: Timestamp) {
        let Some(execution) = self.execution.as_ref().filter(|execution| !members.iter().any(|m| m.is_due(execution)))
        else {
            return;
        };
        let results =
            || members.iter().filter_map(|m| Some((m, m.done.as_ref().filter(|d| d.execution == execution.at)?)));
        let failed: Vec<String> = results()
            .filter(|(_, done)| done.failed)
            .map(|(member, done)| format!("{} ({})", member.prompt.name(), done.text))
            .collect();
        let well = results().count() - failed.len();
        let what = if execution.what == OutageAction::Undo { "undone" } else { "rolled back or being confirmed" };
        let mut text = format!("done for {}: {well} {what}", execution.by);
        if !failed.is_empty() {
            text.push_str(&format!("; {} not: {}", failed.len(), named(&failed, "; ")));
        }
        self.execution = None;
        self.question_number += 1;
        self.note(now, if failed.is_empty() { NoteKind::Checked } else { NoteKind::Asked }, text);
    }

    /// Records that automation resumes, and what it has done so far.
    pub fn resume(&mut self, switched: &[String], policy: &Policy, now: Timestamp) {
        if !self.resumed {
            self.resumed = true;
            let (most, within) = (policy.max_auto_rollbacks, spoken(policy.budget_window));
            let text = format!("{within} have passed: automation resumes, at most {most} prompts in {within}");
            self.note(now, NoteKind::Checked, text);
        }
        if !switched.is_empty() {
            self.note(now, NoteKind::Switched, format!("rolled back automatically: {}", named(switched, ", ")));
        }
    }

    /// Closes it when no prompt is waiting or being verified.
    pub fn close_if_over(&mut self, members: &[Member], now: Timestamp) {
        if !self.is_open() || self.execution.is_some() || members.iter().any(Member::is_open) {
            return;
        }
        let mut counts: BTreeMap<PhaseKind, usize> = BTreeMap::new();
        for member in members {
            *counts.entry(member.phase).or_default() += 1;
        }
        let counts: Vec<_> = counts.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        self.closed_at = Some(now);
        self.hold = None;
        self.note(now, NoteKind::Closed, format!("no prompt is waiting: {}", counts.join(", ")));
    }
}

/// Labels that members share: name, value and count, the most frequent first. A value that only one member has does not
/// count.
pub fn shared(members: &[Member]) -> Vec<(&'static str, &str, usize)> {
    let mut counts: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
    for pair in members.iter().flat_map(|member| member.group_labels.pairs()) {
        *counts.entry(pair).or_default() += 1;
    }
    let mut shared: Vec<_> =
        counts.into_iter().filter(|(_, n)| *n > 1).map(|((label, value), n)| (label, value, n)).collect();
    shared.sort_by_key(|(_, _, n)| std::cmp::Reverse(*n));
    shared
}

/// When automation may resume: at once, or after enough of the `automatic` rollbacks (sorted) have left the window.
pub fn room_at(automatic: &[Timestamp], policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    let most = policy.max_auto_rollbacks as usize;
    if most == 0 {
        return None;
    }
    let window: Duration = policy.budget_window;
    // one in the future was made before the clock went back
    let recent: Vec<_> = automatic.iter().map(|at| now.min(*at)).filter(|at| at.plus(window) > now).collect();
    Some(if recent.len() < most { now } else { recent[recent.len() - most].plus(window) })
}

fn named(names: &[String], between: &str) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(between);
    if names.len() > NAMED {
        text.push_str(&format!("{between}and {} more", names.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests;
