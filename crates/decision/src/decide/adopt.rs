//! Adopts prompts that were served without prompt-rollback. Adopting a prompt again changes nothing.

use super::answer::Adoption;
use super::snapshot::Active;
use super::transaction::{Cause, Transaction};
use crate::Adopt;

pub(super) fn adopt(tx: &mut Transaction<'_>, request: &Adopt) -> Adoption {
    let before = tx.snapshot.state.serving.as_ref().map(|serving| serving.version.clone());
    match (&tx.snapshot.active, &request.version) {
        (Active::Foreign(_), _) => return skipped("active holds a value that is not a version"),
        (Active::Absent, None) => return skipped("nothing is active"),
        (Active::Absent, Some(version)) => {
            if tx.state.version(version).is_some_and(|record| record.quarantine.is_some()) {
                return Adoption::Skipped(format!("{version} was rolled back and is quarantined"));
            }
            if let Some(mark) = tx.state.marked_bad(version) {
                return Adoption::Skipped(format!("{version} is {mark}"));
            }
            if let Err(refusal) = tx.must_have_content(version, false) {
                return Adoption::Skipped(refusal.message);
            }
            tx.activate(version, None, Cause { operator: &request.operator, reason: "imported", incident: None });
        }
        // an active version is never overwritten
        (Active::Version(_), _) => {}
    }
    let Some(version) = tx.serving().cloned() else { return skipped("nothing is active") };
    let (policy, now) = (tx.policy, tx.now);
    let mut adopted = before.as_ref() != Some(&version);
    let trusted = tx.state.version(&version).is_some_and(|record| record.known_good(policy, now).is_some());
    // the operator vouches only for a version that the other layout names
    let vouched = request.version.as_ref().is_none_or(|named| *named == version);
    if request.known_good && vouched && !trusted {
        if let Some(why) = doubtful(tx) {
            return Adoption::Skipped(format!("{version} is not marked as known-good: {why}"));
        }
        if let Some(record) = tx.state.version_mut(&version) {
            record.trust(now);
            adopted = true;
        }
    }
    let known_good = trusted || (request.known_good && vouched);
    match adopted {
        true => Adoption::Adopted { version, known_good },
        false => Adoption::Known { version, known_good },
    }
}

fn skipped(why: &str) -> Adoption {
    Adoption::Skipped(why.to_owned())
}

/// Returns why the served version must not be trusted without evidence, if there is a reason.
fn doubtful(tx: &Transaction<'_>) -> Option<String> {
    let version = tx.serving()?;
    if let Some(mark) = tx.state.marked_bad(version) {
        return Some(format!("it is {mark}"));
    }
    if tx.state.split().is_some() {
        return Some("its traffic is split".to_owned());
    }
    if tx.state.version(version).is_some_and(|record| record.quarantine.is_some()) {
        return Some("it was rolled back and is quarantined".to_owned());
    }
    tx.state.is_in_trouble(version).then(|| "an incident is open on it".to_owned())
}
