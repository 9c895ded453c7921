//! Everything that can happen to a prompt.

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
    /// A person requests a rollback through the API or the command line.
    Rollback(Rollback),
    Register(Register),
    Activate(Activation),
    /// A person marks a version as good or bad.
    Mark(Marking),
    /// Someone requests measurements for a version's gates.
    AskGates {
        version: VersionName,
    },
    /// A version was measured against the one that it would replace.
    Measured {
        version: VersionName,
        evidence: Evidence,
    },
    /// A person answers an incident's question.
    Decide(Decide),
    /// A wake-up of an incident is due.
    Timer {
        incident: IncidentId,
        /// Its deadline seems to have passed only because Redis' clock jumped.
        early: bool,
    },
    /// The alerts of the incident's prompt that Alertmanager lists.
    Listed {
        incident: IncidentId,
        fingerprints: BTreeSet<String>,
    },
    /// Prometheus, and the team's own test, answered about a rollback that waits.
    Confirmed(Confirmed),
    /// Prometheus answered about the requests since the activation of an incident's version.
    Rechecked {
        incident: IncidentId,
        /// [`super::Recheck::since`] of the question: the answer does not apply to a later activation.
        since: Timestamp,
        finding: Finding,
    },
    /// A rollback was checked.
    Checked(Checked),
    /// Prometheus answered whether a gradual rollback may continue.
    Stepped(Stepped),
    /// The next stage of the prompt's canary is due.
    Promotion(Promotion),
    /// A person steers the prompt's canary.
    Steer(Steering),
    /// Slack rejects the incident's question, so that its decider cannot see it.
    Undeliverable {
        incident: IncidentId,
        why: String,
    },
    /// A person puts the incident on hold together with others, or (`None`) ends the hold.
    Hold {
        incident: IncidentId,
        by: Option<Operator>,
    },
    /// The budget of automatic rollbacks may have room again for an incident that it held.
    Resume {
        incident: IncidentId,
    },
    /// `active` may have been SET externally.
    CheckDrift,
    /// A version that soaks was measured.
    Soak(SoakLook),
    /// A worker reports about content.
    ArchiveReport(ArchiveReport),
    /// A person requests a version's content back from the archive.
    Restore {
        version: VersionName,
    },
    /// A prompt that is already served is adopted.
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
    /// An alert, or what a person did; all else follows from such an event, or from time.
    pub fn is_request(&self) -> bool {
        match self {
            Event::Alerts(_)
            | Event::Rollback(_)
            | Event::Register(_)
            | Event::Activate(_)
            | Event::Mark(_)
            | Event::AskGates { .. }
            | Event::Decide(_)
            | Event::Steer(_)
            | Event::Hold { .. }
            | Event::Restore { .. }
            | Event::Adopt(_) => true,
            Event::Measured { .. }
            | Event::Timer { .. }
            | Event::Listed { .. }
            | Event::Confirmed(_)
            | Event::Rechecked { .. }
            | Event::Checked(_)
            | Event::Stepped(_)
            | Event::Promotion(_)
            | Event::Undeliverable { .. }
            | Event::Resume { .. }
            | Event::CheckDrift
            | Event::Soak(_)
            | Event::ArchiveReport(_) => false,
        }
    }

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

    /// The most incidents that it can open. Two versions may get traffic in addition, one of them externally, on which alerts
    /// fire.
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
    /// In stages; `None`: at once.
    pub gradual: Option<Plan>,
}

/// A person activates a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    pub version: VersionName,
    pub share: TrafficShare,
    pub operator: Operator,
    /// Overrides a quarantine, or a closed gate (then with a reason).
    pub force: bool,
    pub reason: Option<String>,
}

/// How much traffic an activation gives to its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrafficShare {
    All,
    /// A fixed percentage, until someone changes it; 0 ends the canary.
    Percent(u8),
    /// In stages.
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
    /// The incident in whose thread the mark was made.
    pub incident: Option<IncidentId>,
}

/// What was done about the content of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveReport {
    /// The content is safe in the archive.
    Archived { version: VersionName, text: String },
    /// Redis does not have the content, although it was not archived.
    Gone { version: VersionName },
    /// Its retention has expired.
    Expired { version: VersionName },
    /// The archive returned this content.
    Found { version: VersionName, text: String },
    /// The archive did not return the content. `lost`: trying again would not help.
    Missing { version: VersionName, why: String, lost: bool },
}

/// Adopts a prompt that is already served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopt {
    /// The version in a key of another layout, which becomes active only if no version is. `None`: whatever is active.
    pub version: Option<VersionName>,
    /// Trust the active version without a soak.
    pub known_good: bool,
    pub operator: Operator,
}

/// What was measured about a rollback that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    pub incident: IncidentId,
    /// [`super::phase::Pending::at`] of the question that this answers.
    pub at: Timestamp,
    /// About the version to be rolled back.
    pub finding: Finding,
    /// Why a rollback would not help.
    pub blame: Option<String>,
    /// Why the target fails the team's own test, if it does.
    pub precheck: Option<String>,
}

/// One check of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub incident: IncidentId,
    /// When the checked switch was made.
    pub switched_at: Timestamp,
    /// [`super::verification::Verification::checks`] when it was asked: each question is answered once.
    pub number: u32,
    /// About the version rolled back to.
    pub finding: Finding,
    pub traffic: Option<Traffic>,
    /// Why the prompt is not the cause.
    pub blame: Option<String>,
}

/// What was measured about the target of a gradual rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    pub incident: IncidentId,
    /// [`super::TrafficSplit::since`] of the stage that was asked about.
    pub since: Timestamp,
    pub finding: Finding,
}

/// A measurement of a version that soaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoakLook {
    pub version: VersionName,
    /// [`super::soak::Soak::from`] of the measured soak: the measurement does not apply to a later one.
    pub from: Timestamp,
    /// Prometheus' answer about the time since then, or why there is none; `None`: it was not asked.
    pub measured: Option<Result<SoakMeasurement, String>>,
}

/// The stage of a canary is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// [`super::TrafficSplit::since`] of the stage that was asked about.
    pub since: Timestamp,
    /// What was measured; `None`: nothing was asked.
    pub look: Option<Look>,
}

/// A person steers a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    pub steer: Steer,
    /// The canary and its stage, if known: a request about another stage is stale.
    pub about: Option<(IncidentId, u32)>,
    pub operator: Operator,
    /// Overrides a closed gate; requires a reason.
    pub force: bool,
    pub reason: Option<String>,
}

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Steer {
        /// Stay at the stage until someone resumes.
        Pause = "pause",
        Resume = "resume",
        /// Start the next stage now.
        Skip = "skip",
        /// Keep the share until someone changes it.
        Hold = "hold",
        /// Give all traffic to the new version now.
        Promote = "promote",
        /// Give all traffic back to the previous version, without a quarantine.
        Abort = "abort",
    }
}

/// A person's answer to an incident's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decide {
    pub incident: IncidentId,
    pub choice: Choice,
    /// The person, for the log and for people.
    pub operator: Operator,
    /// For an approval: the version to roll back to.
    pub target: Option<VersionName>,
    pub force: bool,
    /// The question that was answered, if known: an answer to an earlier question is stale.
    pub question_number: Option<u32>,
}

/// A person's choice for an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Approve,
    /// Approve a gradual rollback, or resume a paused one.
    ApproveGradual,
    Investigate,
    Dismiss,
    Undo,
}
