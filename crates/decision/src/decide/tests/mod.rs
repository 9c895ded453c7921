//! Tests about one prompt: each drives a [`World`], and checks the results.

mod activation;
mod adopt;
mod alerts;
mod analysis;
mod answerable;
mod attack_people;
mod attack_traffic;
mod calls;
mod canary;
mod clocks;
mod confirm;
mod deciders;
mod ended;
mod fled;
mod folded;
mod forward;
mod gates;
mod gradual;
mod guards;
mod identity;
mod invariants;
mod known_good;
mod lapsed;
mod ledger;
mod listed;
mod marks;
mod offered;
mod outage;
mod outside;
mod people;
mod promises;
mod properties;
mod requests;
mod retention;
mod returning;
mod soak;
mod steering;
mod table;
mod timer;
mod verify;
mod world;

use std::time::Duration;

use super::super::alert::{Alert, AlertStatus};
use super::super::analysis::{Compared, Heartbeat, Look};
use super::super::event::{
    Activation, Adopt, ArchiveReport, Checked, Choice, Confirmed, Decide, Event, Marking, Promotion, Register,
    Rollback, SoakLook, Steer, Steering, Stepped, TrafficShare,
};
use super::super::finding::{Finding, Verdict};
use super::super::guards::Guard;
use super::super::ids::{CommitId, IncidentId};
use super::super::incident::Incident;
use super::super::names::{PromptName, VersionName};
use super::super::note::NoteKind;
use super::super::operator::Operator;
use super::super::phase::{Objection, ObjectionKind, PhaseKind, RollbackFailure};
use super::super::plan::Plan;
use super::super::policy::Policy;
use super::super::reason::OutcomeReason;
use super::super::refusal::RefusalCode;
use super::super::serving::{ActivatedBy, Lapsed};
use super::super::severity::{Action, Severity};
use super::super::soak::{Earned, SoakMeasurement};
use super::super::state::{MarkKind, PromptState, Return, VersionRecord};
use super::super::switch::SwitchMode;
use super::super::time::Timestamp;
use super::super::trigger::{Trigger, TriggerLabels};
use super::super::verification::{Instances, Traffic, Verification};
use super::{
    Active, Adoption, Answer, Commit, Decision, LogEntry, LogEvent, Marked, Outcome, Routing, Snapshot, decide,
    retention as rules,
};
use world::{World, critical, high, medium, recommend};

fn v(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version name")
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

fn hours(n: u64) -> Duration {
    Duration::from_secs(3_600 * n)
}
