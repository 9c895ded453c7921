//! What to do, and why: pure, std only. No clock, no async, no serde, no Redis.
//!
//! [`decide`] takes what was loaded of one prompt ([`Snapshot`]) and what happened ([`Event`]) and answers with
//! what to commit ([`Commit`]) and what to say ([`Answer`]). Every rule of the decision tree stands in `decide/`.

pub mod decide;
pub mod event;
pub mod gates;
pub mod guards;
pub mod incident;
pub mod mass;
pub mod names;
pub mod policy;
pub mod rehearsal;
pub mod soak;
pub mod split;
pub mod state;
pub mod time;
pub mod trigger;
pub mod verification;

pub use decide::{
    Adoption, AlertOutcome, Answer, Automatic, Change, Commit, Decision, LogEntry, LogEvent, Outcome, Refusal,
    RefusalCode, Rollout, Routing, Served, Snapshot, Wake, decide, retention,
};
pub use event::{
    Activation, Adopt, Alert, AlertStatus, Checked, Choice, Confirmed, Decide, Event, Kept, Marking, Promotion,
    Register, Rollback, Share, SoakLook, Stepped,
};
pub use gates::{Evidence, Gate, Gates};
pub use guards::{Guard, Held};
pub use incident::{CommitId, Confirming, Flip, FlipMode, Incident, IncidentId, Phase, PhaseKind, Question, Recheck};
pub use names::{InvalidName, PromptName, VersionName};
pub use policy::Policy;
pub use rehearsal::{Rehearsed, rehearse};
pub use split::{Canary, Plan, Split};
pub use state::{ActivatedBy, Archived, Mark, MarkKind, PromptState, Serving, VersionRecord};
pub use time::Timestamp;
pub use trigger::{Action, Severity, Trigger, TriggerLabels};
