//! Prompts that others have served until now, taken over as they are. Doing it again changes nothing.

use super::super::event::Adopt;
use super::{Active, Adoption, Draft};

pub(super) fn adopt(draft: &mut Draft<'_>, request: &Adopt) -> Adoption {
    let before = draft.snapshot.state.serving.as_ref().map(|serving| serving.version.clone());
    match (&draft.snapshot.active, &request.version) {
        (Active::Foreign(_), _) => return skipped("active holds something that is no version"),
        (Active::Absent, None) => return skipped("nothing is active"),
        (Active::Absent, Some(version)) => {
            if draft.state.version(version).is_some_and(|record| record.quarantine.is_some()) {
                return Adoption::Skipped(format!("{version} was rolled back and is quarantined"));
            }
            if let Some(mark) = draft.state.marked_bad(version) {
                return Adoption::Skipped(format!("{version} is {mark}"));
            }
            if let Err(refusal) = draft.must_have_text(version, false) {
                return Adoption::Skipped(refusal.message);
            }
            draft.activate(version, None, "imported", &request.operator, None);
        }
        // never overwritten: whoever set it knows better
        (Active::Version(_), _) => {}
    }
    let Some(version) = draft.serving().cloned() else { return skipped("nothing is active") };
    let (policy, now) = (draft.policy, draft.now);
    let mut adopted = before.as_ref() != Some(&version);
    let trusted = draft.state.version(&version).is_some_and(|record| record.known_good(policy, now).is_some());
    // what the other layout does not name is not what was vouched for
    let vouched = request.version.as_ref().is_none_or(|named| *named == version);
    if request.known_good && vouched && !trusted {
        if let Some(why) = doubtful(draft) {
            return Adoption::Skipped(format!("{version} is not marked as known-good: {why}"));
        }
        if let Some(record) = draft.state.version_mut(&version) {
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

/// Why what serves can't be trusted without a closer look, if it can't.
fn doubtful(draft: &Draft<'_>) -> Option<String> {
    let version = draft.serving()?;
    if let Some(mark) = draft.state.marked_bad(version) {
        return Some(format!("it is {mark}"));
    }
    if draft.state.split().is_some() {
        return Some("it shares its traffic".to_owned());
    }
    if draft.state.version(version).is_some_and(|record| record.quarantine.is_some()) {
        return Some("it was rolled back and is quarantined".to_owned());
    }
    let troubled = draft.state.open_incidents().any(|incident| incident.version == *version);
    troubled.then(|| "an incident is open on it".to_owned())
}
