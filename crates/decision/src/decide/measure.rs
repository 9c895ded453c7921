//! Measurements for the gates: requested by a person, delivered by the worker.

use super::super::gates::{Gate, closed};
use super::super::names::VersionName;
use super::super::policy::Policy;
use super::super::verification::Evidence;
use super::person::{must_be_known, unknown_version};
use super::{Answer, Refusal, RefusalCode, Transaction};

/// Requests measurements, unless they are already being made.
pub(super) fn asked(tx: &mut Transaction<'_>, version: &VersionName) -> Result<Answer, Refusal> {
    must_be_known(tx)?;
    let now = tx.now;
    let Some(record) = tx.state.version_mut(version) else {
        return Err(unknown_version(tx, version));
    };
    let on_its_way = record.evidence_asked.is_some_and(|at| {
        record.evidence.as_ref().is_none_or(|evidence| evidence.at < at) && now.since(at) < Policy::CONFIRM
    });
    if !on_its_way {
        record.evidence_asked = Some(now);
    }
    Ok(Answer::Noted)
}

pub(super) fn measured(tx: &mut Transaction<'_>, version: &VersionName, evidence: &Evidence) -> Answer {
    if let Some(record) = tx.state.version_mut(version) {
        record.evidence = Some(evidence.clone());
    }
    Answer::Noted
}

/// Checks that the gates let `version` have a share of the traffic, or all of it (`all`). Force with a reason overrides
/// a closed gate; returns what to log of that.
pub(super) fn must_be_open(
    tx: &Transaction<'_>,
    version: &VersionName,
    all: bool,
    force: bool,
    reason: Option<&str>,
) -> Result<Option<String>, Refusal> {
    let Some(Gate { name, text, .. }) = closed(tx.policy, &tx.state, version, all, tx.now) else {
        return Ok(None);
    };
    let refuse = |hint: &str| {
        Err(Refusal::new(RefusalCode::GateClosed, format!("{version} has not passed the gate {name}: {text}. {hint}")))
    };
    match (force, reason) {
        (true, Some(reason)) => Ok(Some(format!("gate {name} overridden: {reason} ({text})"))),
        (true, None) => refuse("Give a reason, for the deployment log"),
        (false, _) => refuse("Use force with a reason to activate it anyway"),
    }
}
