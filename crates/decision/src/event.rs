//! What can happen to a prompt.

use std::collections::BTreeSet;

use super::alert::Alert;
use super::analysis::Look;
use super::encoding::words;
use super::finding::Finding;
use super::ids::IncidentId;
use super::names::VersionName;
use super::operator::Operator;
use super::plan::Plan;
use super::soak::SoakMeasurement;
use super::state::MarkKind;
use super::time::Timestamp;
use super::verification::{Evidence, Traffic};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All alerts of one delivery that name this prompt.
    Alerts(Vec<Alert>),
    /// A person asks for a rollback through API or CLI.
    Rollback(Rollback),
    Register(Register),
    Activate(Activation),
    /// A person says of a version that it is trusted, or never to be gone back to.
    Mark(Marking),
    /// Someone asks for the figures of a version's gates.
    AskGates {
        version: VersionName,
    },
    /// A version was measured against the one that it replaces.
    Measured {
        version: VersionName,
        evidence: Evidence,
    },
    /// A person answers an incident's question.
    Decide(Decide),
    /// A wake-up of an incident came due.
    Timer {
        incident: IncidentId,
    },
    /// Alertmanager lists these alerts of the incident's prompt.
    Listed {
        incident: IncidentId,
        fingerprints: BTreeSet<String>,
    },
    /// Prometheus and the team's precheck have been asked about a rollback that waits.
    Confirmed(Confirmed),
    /// Prometheus was asked about the requests since the activation of an incident's version.
    Rechecked {
        incident: IncidentId,
        finding: Finding,
    },
    /// A rollback has been looked at.
    Checked(Checked),
    /// It was asked whether a gradual rollback may go on.
    Stepped(Stepped),
    /// The next stage of the prompt's canary is due.
    Promotion(Promotion),
    /// A person steers the prompt's canary.
    Steer(Steering),
    /// The incident's question is not taken by Slack, so that its people can't see it.
    Undeliverable {
        incident: IncidentId,
        why: String,
    },
    /// A person holds the incident back together with others, or (`None`) does so no more.
    Hold {
        incident: IncidentId,
        by: Option<Operator>,
    },
    /// The budget of automatic rollbacks may have room again for an incident that it held.
    Resume {
        incident: IncidentId,
    },
    /// `active` may have been SET by someone else.
    CheckDrift,
    /// A version that soaks was looked at.
    Soak(SoakLook),
    /// Something was done about a text.
    ArchiveReport(ArchiveReport),
    /// A person wants the text of a version back from the archive.
    Restore {
        version: VersionName,
    },
    /// What serves already is taken over as it is.
    Adopt(Adopt),
}

/// What a decision needs to know besides the state of its prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs<'e> {
    /// An incident that may be closed, and so gone from the state.
    pub incident: Option<&'e IncidentId>,
    /// A version whose content is compared with that of the event.
    pub content: Option<&'e VersionName>,
}

impl Event {
    pub fn needs(&self) -> Needs<'_> {
        match self {
            Event::Decide(click) => Needs { incident: Some(&click.incident), content: None },
            Event::Mark(marking) => Needs { incident: marking.incident.as_ref(), content: None },
            Event::Register(request) => Needs { incident: None, content: Some(&request.version) },
            Event::ArchiveReport(ArchiveReport::Archived { version, .. } | ArchiveReport::Gone { version }) => {
                Needs { incident: None, content: Some(version) }
            }
            _ => Needs::default(),
        }
    }

    /// How many incidents it opens at most. Two versions may get traffic on top, one from outside, on which alerts fire.
    pub fn may_open(&self) -> usize {
        let own = match self {
            Event::Alerts(alerts) => alerts.len(),
            Event::Rollback(_) | Event::Activate(_) | Event::Promotion(_) => 1,
            _ => 0,
        };
        own + 2
    }

    /// The sender relies on the answer even if nothing is written, so the replicas must have what the answer is based on. The
    /// other events come again by themselves.
    pub fn is_relied_on(&self) -> bool {
        !matches!(
            self,
            Event::CheckDrift
                | Event::Timer { .. }
                | Event::Listed { .. }
                | Event::Undeliverable { .. }
                | Event::ArchiveReport(_)
                | Event::Soak(_)
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    pub target: Option<VersionName>,
    pub from: Option<VersionName>,
    pub reason: String,
    pub operator: Operator,
    pub force: bool,
    /// Step by step; `None`: at once.
    pub gradual: Option<Plan>,
}

/// A person serves a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    pub version: VersionName,
    pub share: TrafficShare,
    pub operator: Operator,
    /// Although it is quarantined, or a gate is closed: then with a reason.
    pub force: bool,
    pub reason: Option<String>,
}

/// How much traffic an activation gives to its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrafficShare {
    All,
    /// So many percent, until someone changes it; 0 ends its canary.
    Percent(u8),
    /// Step by step.
    Canary(Plan),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    pub version: VersionName,
    pub content: Option<String>,
    pub contact: Option<String>,
    pub staged_at: Option<Timestamp>,
    pub known_good: bool,
}

/// A person marks a version. Moves no traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marking {
    pub version: VersionName,
    pub kind: MarkKind,
    pub reason: String,
    pub operator: Operator,
    /// The incident in whose thread they did.
    pub incident: Option<IncidentId>,
}

/// What was done about the text of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveReport {
    /// This text is safe in the archive.
    Archived { version: VersionName, text: String },
    /// Redis does not have it, although nothing was archived.
    Gone { version: VersionName },
    /// Its time is over.
    Expired { version: VersionName },
    /// The archive has this under its name.
    Found { version: VersionName, text: String },
    /// It could not be had from the archive. `lost`: trying again would not help.
    Missing { version: VersionName, why: String, lost: bool },
}

/// Takes over a prompt that others have served until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopt {
    /// What a key of another layout says; becomes active only where nothing is. `None`: whatever is active.
    pub version: Option<VersionName>,
    /// Trust what serves, without waiting for it to soak.
    pub known_good: bool,
    pub operator: Operator,
}

/// What was found out about a rollback that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    pub incident: IncidentId,
    /// [`super::phase::Pending::at`] of what was asked about.
    pub at: Timestamp,
    /// About the version to be left.
    pub finding: Finding,
    /// Why rolling back would not help.
    pub blame: Option<String>,
    /// Why the target fails the team's own test, if it does.
    pub precheck: Option<String>,
}

/// One look at a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub incident: IncidentId,
    /// When the switch was made that is checked.
    pub switched_at: Timestamp,
    /// [`super::verification::Verification::checks`] when it was asked: each question is answered once.
    pub number: u32,
    /// About the version rolled back to.
    pub finding: Finding,
    pub traffic: Option<Traffic>,
    /// Why the prompt is not to blame.
    pub blame: Option<String>,
}

/// What was found about the target of a gradual rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    pub incident: IncidentId,
    /// [`super::TrafficSplit::since`] of the stage that was asked about.
    pub since: Timestamp,
    pub finding: Finding,
}

/// A look at a version that soaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoakLook {
    pub version: VersionName,
    /// [`super::soak::Soak::from`] of the soak that was looked at: of a later one it says nothing.
    pub from: Timestamp,
    /// What Prometheus said since then, or why it said nothing; `None`: it was not asked.
    pub measured: Option<Result<SoakMeasurement, String>>,
}

/// A canary's stage is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// [`super::TrafficSplit::since`] of the stage that was asked about.
    pub since: Timestamp,
    /// What was found out; `None`: nothing was asked.
    pub look: Option<Look>,
}

/// A person steers a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    pub steer: Steer,
    /// The canary and its stage, where they are known: what is said about others is stale.
    pub about: Option<(IncidentId, u32)>,
    pub operator: Operator,
    /// Although a gate is closed: then with a reason.
    pub force: bool,
    pub reason: Option<String>,
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Steer {
        /// It stays at its stage until someone resumes it.
        Pause = "pause",
        Resume = "resume",
        /// The next stage begins now.
        Skip = "skip",
        /// Its share stays for good, until someone changes it.
        Hold = "hold",
        /// The new version gets all traffic now.
        Promote = "promote",
        /// The version before gets all traffic again; nothing is said against the new one.
        Abort = "abort",
    }
}

/// A person's answer to an incident's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decide {
    pub incident: IncidentId,
    pub choice: Choice,
    /// Their name, for the log and for people.
    pub operator: Operator,
    /// Approve: the version to go back to.
    pub target: Option<VersionName>,
    pub force: bool,
    /// The question that was answered, where it is known: an answer to an earlier one is stale.
    pub question_number: Option<u32>,
}

/// What a person may answer to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Approve,
    /// Approve, step by step; go on with a gradual rollback that is paused.
    ApproveGradual,
    Investigate,
    Dismiss,
    Undo,
}
