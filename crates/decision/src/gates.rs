//! Promotion gates: requirements for a new version before it gets traffic. Each gate is off unless the config enables
//! it.

use super::encoding::words;
use super::names::VersionName;
use super::policy::{GatePolicy, Policy};
use super::state::PromptState;
use super::time::{Timestamp, spoken};
use super::verification::Evidence;

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum GateName {
        /// It was long enough in staging.
        Staging = "staging",
        /// It was measured against the version that it replaces.
        AbTest = "ab_test",
        /// It has had some of the traffic for long enough.
        FirstHour = "first_hour",
    }
}

/// A gate, and why it is open or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub name: GateName,
    pub on: bool,
    pub passed: bool,
    pub text: String,
}

/// All gates of a version, enabled or not, with their figures.
pub fn gates(policy: &Policy, state: &PromptState, version: &VersionName, now: Timestamp) -> [Gate; 3] {
    let GatePolicy { staging, ab_test, first_hour } = &policy.gates;
    let record = state.version(version);
    let age = |since: Option<Timestamp>| since.map(|at| now.since(at));
    let staged = age(record.and_then(|record| record.staged_at));
    let wanted = staging.unwrap_or(Policy::STAGED);
    let staging = Gate {
        name: GateName::Staging,
        on: staging.is_some(),
        passed: staged.is_some_and(|age| age >= wanted),
        text: match staged {
            Some(age) => format!("{} in staging, {} required", spoken(age), spoken(wanted)),
            None => format!("staged_at is not set, {} required", spoken(wanted)),
        },
    };
    let evidence = record.and_then(|record| record.evidence.as_ref());
    let fresh = evidence.filter(|evidence| now.since(evidence.at) < Evidence::FRESH);
    let replaced = state.replaced_by(version);
    let of_another = fresh.and_then(|evidence| evidence.against.as_ref()).filter(|against| Some(*against) != replaced);
    let ab_test = Gate {
        name: GateName::AbTest,
        on: *ab_test,
        passed: fresh.is_some_and(|evidence| evidence.passed) && of_another.is_none(),
        text: match (fresh, of_another, evidence) {
            (Some(evidence), Some(other), _) => {
                format!("measured against {other}, which it would not replace: {}", evidence.text)
            }
            (Some(evidence), None, _) => evidence.text.clone(),
            (None, _, Some(old)) => {
                format!("measured {} ago, which is too old: {}", spoken(now.since(old.at)), old.text)
            }
            (None, _, None) => "not measured".to_owned(),
        },
    };
    let served = age(record.and_then(|record| record.traffic_since));
    let wanted = first_hour.unwrap_or(Policy::FIRST_HOUR);
    let trouble = state.open_incidents().find(|incident| incident.version == *version);
    let first_hour = Gate {
        name: GateName::FirstHour,
        on: first_hour.is_some(),
        passed: served.is_some_and(|age| age >= wanted) && trouble.is_none(),
        text: match (served, trouble) {
            (_, Some(incident)) => format!("incident {} is open on it", incident.id),
            (Some(age), None) => format!("{} with traffic, {} required", spoken(age), spoken(wanted)),
            (None, None) => format!("no traffic, {} required: begin with a canary", spoken(wanted)),
        },
    };
    [staging, ab_test, first_hour]
}

/// The first gate that keeps `version` from a share of the traffic, or from `all` of it. A known-good version has
/// already met the requirements.
pub fn closed(policy: &Policy, state: &PromptState, version: &VersionName, all: bool, now: Timestamp) -> Option<Gate> {
    if state.version(version).is_some_and(|record| record.known_good(policy, now).is_some()) {
        return None;
    }
    let counts = |gate: &Gate| gate.on && !gate.passed && (all || gate.name == GateName::Staging);
    gates(policy, state, version, now).into_iter().find(counts)
}
