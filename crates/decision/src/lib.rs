//! The rules: what to do about an event, and why. Pure code that depends on std and serde only: no clock, no async, no
//! Redis.
//!
//! [`decide`] takes the loaded state of one prompt ([`Snapshot`]) and an [`Event`], and returns what to commit
//! ([`Commit`]) and what to answer ([`Answer`]). `decide/` holds every rule of the decision tree.

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

pub mod alert;
pub mod analysis;
pub mod decide;
#[doc(hidden)]
pub mod encoding;
pub mod event;
pub mod finding;
pub mod fnv;
pub mod gates;
pub mod guards;
pub mod ids;
pub mod incident;
pub mod labels;
pub mod names;
pub mod note;
pub mod operator;
pub mod outage;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod refusal;
pub mod rehearsal;
pub mod serving;
pub mod severity;
pub mod soak;
pub mod split;
pub mod state;
pub mod switch;
pub mod targets;
pub mod time;
pub mod trace;
pub mod trigger;
pub mod verification;

pub use alert::{Alert, AlertRecord, AlertStatus, Measure};
pub use analysis::{Compared, Heartbeat, Look};
pub use decide::{
    Adoption, AlertOutcome, Answer, Automatic, ChangeMessage, Commit, Decision, LogEntry, LogEvent, Outcome, Rollout,
    Routing, Served, Snapshot, Wake, decide, in_service, retention,
};
pub use event::{
    Activation, Adopt, ArchiveReport, Checked, Choice, Confirmed, Decide, Event, Marking, Needs, Promotion, Register,
    Rollback, SoakLook, Steer, Steering, Stepped, TrafficShare,
};
pub use finding::{Check, Finding, Verdict};
pub use fnv::fnv1a;
pub use gates::{Gate, GateName};
pub use guards::{Guard, Held, HoldingGuard};
pub use ids::{CommitId, IncidentId};
pub use incident::Incident;
pub use names::{InvalidName, PromptName, VersionName};
pub use note::NoteKind;
pub use operator::Operator;
pub use phase::{Confirming, Objection, ObjectionKind, Pending, Phase, PhaseKind, Question, Recheck, RollbackFailure};
pub use plan::Plan;
pub use policy::{CanaryPolicies, CanaryPolicy, GatePolicy, Policy};
pub use reason::OutcomeReason;
pub use refusal::{OrRefusal, Refusal, RefusalCode};
pub use rehearsal::{Rehearsed, RehearsedTarget, known_alert, rehearse};
pub use serving::{ActivatedBy, Lapsed, Serving};
pub use severity::{Action, Severity};
pub use split::{Canary, CanaryPause, CanaryWait, TrafficSplit};
pub use state::{Archived, InactiveAlert, Mark, MarkKind, PromptState, VersionRecord};
pub use switch::{Switch, SwitchMode};
pub use time::Timestamp;
pub use trace::Trace;
pub use trigger::{Trigger, TriggerLabels};
pub use verification::{Evidence, Verification};
