//! Figures for the gates, asked for by a person and brought by the worker.

use super::super::gates::{Gate, closed};
use super::super::names::VersionName;
use super::super::policy::Policy;
use super::super::verification::Evidence;
use super::person::{must_be_known, unknown_version};
use super::{Answer, Draft, Refusal, RefusalCode};

/// Figures that are being brought already are not asked for again.
pub(super) fn asked(draft: &mut Draft<'_>, version: &VersionName) -> Result<Answer, Refusal> {
    must_be_known(draft)?;
    let now = draft.now;
    let Some(record) = draft.state.version_mut(version) else {
        return Err(unknown_version(draft, version));
    };
    let on_its_way = record.evidence_asked.is_some_and(|at| {
        record.evidence.as_ref().is_none_or(|evidence| evidence.at < at) && now.since(at) < Policy::CONFIRM
    });
    if !on_its_way {
        record.evidence_asked = Some(now);
    }
    Ok(Answer::Noted)
}

pub(super) fn measured(draft: &mut Draft<'_>, version: &VersionName, evidence: &Evidence) -> Answer {
    if let Some(record) = draft.state.version_mut(version) {
        record.evidence = Some(evidence.clone());
    }
    Answer::Noted
}

/// Whether the gates let `version` have a share, or `all`. A closed one opens with force and a reason: what to log of that.
pub(super) fn must_be_open(
    draft: &Draft<'_>,
    version: &VersionName,
    all: bool,
    force: bool,
    reason: Option<&str>,
) -> Result<Option<String>, Refusal> {
    let Some(Gate { name, text, .. }) = closed(draft.policy, &draft.state, version, all, draft.now) else {
        return Ok(None);
    };
    let refuse = |hint: &str| {
        Err(Refusal::new(RefusalCode::GateClosed, format!("{version} has not passed the gate {name}: {text}. {hint}")))
    };
    match (force, reason) {
        (true, Some(reason)) => Ok(Some(format!("gate {name} overridden: {reason} ({text})"))),
        (true, None) => refuse("Say why with reason, for the log"),
        (false, _) => refuse("Say force and a reason to serve it all the same"),
    }
}
