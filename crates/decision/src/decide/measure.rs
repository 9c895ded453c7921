//! Measurements for the gates: requested by a person, delivered by the worker.

use super::answer::Answer;
use super::precondition::{must_be_known, unknown_version};
use super::transaction::Transaction;
use crate::{Evidence, OrRefusal, Policy, VersionName};

/// Requests measurements, unless they are already being made.
pub(super) fn asked(tx: &mut Transaction<'_>, version: &VersionName) -> OrRefusal<Answer> {
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
