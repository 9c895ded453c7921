//! Content: which versions' content stays in Redis, which moves to the archive, and when it may be deleted.

use std::collections::HashSet;

use super::answer::Answer;
use super::precondition::{must_be_known, unknown_version};
use super::question;
use super::transaction::Transaction;
use crate::phase::ObjectionKind;
use crate::{
    ArchiveReport, Archived, Guard, Held, IncidentId, OrRefusal, Pending, Policy, PromptState, Refusal, RefusalCode,
    SwitchMode, Timestamp, VersionName, VersionRecord,
};

/// What is to be done about a prompt's content now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chores {
    pub archive: Vec<VersionName>,
    pub restore: Vec<VersionName>,
    pub forget: Vec<VersionName>,
}

impl Chores {
    pub fn is_empty(&self) -> bool {
        self.archive.is_empty() && self.restore.is_empty() && self.forget.is_empty()
    }
}

pub fn chores(state: &PromptState, policy: &Policy, now: Timestamp) -> Chores {
    let mut chores = Chores::default();
    if !state.versions.iter().any(|record| record.has_content) {
        return chores;
    }
    let needed: HashSet<&VersionName> = needed(state, policy, now).into_iter().collect();
    for record in state.versions.iter().filter(|record| record.has_content) {
        let needed = needed.contains(&record.version);
        let old = !needed && now.since(record.last_use()) >= policy.keep;
        let list = match &record.archived {
            Some(_) if !policy.archive => continue, // without an archive it is out of reach
            Some(archived) if archived.wanted.is_some() || (needed && !archived.lost) => &mut chores.restore,
            _ if old => &mut chores.forget,
            None if policy.archive && !needed => &mut chores.archive,
            _ => continue,
        };
        list.push(record.version.clone());
    }
    chores
}

/// When there is work next, if nothing else happens.
pub fn next(state: &PromptState, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    if !chores(state, policy, now).is_empty() {
        return Some(now);
    }
    let moments = |record: &VersionRecord| {
        let used = record.last_use();
        let restored = record.restored_at.map(|at| at.plus(Policy::RESTORED_TEXT));
        // a version that becomes known-good may take the place of an older one
        [restored, Some(used.plus(Policy::UNPROVED_TEXT)), Some(used.plus(policy.keep)), record.soaks_at(policy)]
    };
    let contents = state.versions.iter().filter(|record| record.has_content);
    contents.flat_map(moments).flatten().filter(|at| *at > now).min()
}

/// The versions whose content must be in Redis.
pub fn needed<'s>(state: &'s PromptState, policy: &Policy, now: Timestamp) -> Vec<&'s VersionName> {
    let versions = || state.versions.iter();
    let named = |name: &VersionName| state.version(name).map(|record| &record.version);
    let mut needed: Vec<&VersionName> = Vec::new();
    let mut good: Vec<_> = versions().filter(|record| record.is_target(policy, now)).collect();
    good.sort_by_key(|record| std::cmp::Reverse((record.last_active, record.known_since)));
    needed.extend(good.iter().take(policy.hot_versions).map(|record| &record.version));
    let served = state.served();
    needed.extend(served.iter().filter_map(named));
    needed.extend(state.lapsed.iter().flat_map(|lapsed| &lapsed.versions).filter_map(named));
    needed.extend(state.serving.iter().map(|serving| &serving.version));
    needed.extend(served.iter().filter_map(|version| state.target(Some(version), policy, now)));
    needed.extend(state.target(None, policy, now));
    for incident in &state.incidents {
        let switch = incident.switch.iter().flat_map(|switch| [&switch.from, &switch.to]);
        let pending = incident.pending().into_iter().flat_map(|pending| [&pending.from, &pending.to]);
        needed.extend([&incident.version].into_iter().chain(&incident.target).chain(switch).chain(pending));
    }
    let recent = |record: &&VersionRecord| {
        // a version that has never served may be about to be activated, also if it is trusted already
        let unproved = record.known_good(policy, now).is_none() || record.last_active.is_none();
        let restored = record.restored_at.is_some_and(|at| now.since(at) < Policy::RESTORED_TEXT);
        restored || (unproved && now.since(record.last_use()) < Policy::UNPROVED_TEXT)
    };
    needed.extend(versions().filter(recent).map(|record| &record.version));
    needed
}

/// Restores content at a person's request.
pub(super) fn restore(tx: &mut Transaction<'_>, version: &VersionName) -> OrRefusal<Answer> {
    let (now, archive) = (tx.now, tx.policy.archive);
    must_be_known(tx)?;
    if tx.state.version(version).is_none() {
        return Err(unknown_version(tx, version));
    }
    let record = tx.state.version_mut(version).filter(|record| record.has_content);
    let Some(record) = record else {
        let message =
            format!("{version} has no content: it was registered without content, or its retention has expired");
        return Err(Refusal::new(RefusalCode::NoText, message));
    };
    let Some(archived) = record.archived.as_mut() else { return Ok(Answer::Restoring { ready: true }) };
    if !archive {
        let message = format!("the content of {version} is in an archive, and retention.archive is not set");
        return Err(Refusal::new(RefusalCode::Archived, message));
    }
    archived.wanted = Some(now);
    archived.fault = None;
    archived.lost = false;
    Ok(Answer::Restoring { ready: false })
}

/// Handles a report about content. The state may have changed meanwhile.
pub(super) fn kept(tx: &mut Transaction<'_>, kept: &ArchiveReport) -> Answer {
    let now = tx.now;
    let chores = chores(&tx.state, tx.policy, now);
    let in_redis = tx.snapshot.content.as_ref();
    match kept {
        // delete from Redis only what was archived, and only if nothing needs it by now
        ArchiveReport::Archived { version, text } if chores.archive.contains(version) && in_redis == Some(text) => {
            if let Some(record) = tx.state.version_mut(version) {
                record.archived = Some(Archived::new(text, now));
                tx.content.push((version.clone(), None));
            }
        }
        ArchiveReport::Gone { version } if in_redis.is_none() => {
            if let Some(record) = tx.state.version_mut(version).filter(|record| record.archived.is_none()) {
                record.has_content = false;
            }
        }
        ArchiveReport::Expired { version } if chores.forget.contains(version) => {
            if let Some(record) = tx.state.version_mut(version) {
                record.has_content = false;
                record.archived = None;
                tx.content.push((version.clone(), None));
            }
        }
        ArchiveReport::Found { version, text } => found(tx, version, text),
        ArchiveReport::Missing { version, why, lost } => missing(tx, version, why, *lost),
        ArchiveReport::Archived { .. } | ArchiveReport::Gone { .. } | ArchiveReport::Expired { .. } => {}
    }
    Answer::Noted
}

fn found(tx: &mut Transaction<'_>, version: &VersionName, text: &str) {
    let now = tx.now;
    let Some(record) = tx.state.version_mut(version) else { return };
    let Some(archived) = &record.archived else { return };
    if !archived.is_of(text) {
        missing(tx, version, "its file is damaged: the checksum does not match", true);
        return;
    }
    record.archived = None;
    record.restored_at = Some(now);
    tx.content.push((version.clone(), Some(text.to_owned())));
}

fn missing(tx: &mut Transaction<'_>, version: &VersionName, why: &str, lost: bool) {
    let Some(archived) = tx.state.version_mut(version).and_then(|record| record.archived.as_mut()) else { return };
    archived.fault = Some(why.to_owned());
    archived.lost = lost;
    if lost {
        archived.wanted = None;
    }
    let waits = |pending: &&Pending| pending.to == *version;
    let waiting: Vec<(IncidentId, Timestamp)> = tx
        .state
        .open_incidents()
        .filter_map(|incident| Some((incident.id.clone(), incident.pending().filter(waits)?.at)))
        .collect();
    for (id, at) in waiting {
        if let Some(pending) = tx.incident(&id).and_then(|incident| incident.answered(at)) {
            object(tx, &id, &pending);
        }
    }
}

/// Objects to the waiting rollback, because its target's content is not in Redis.
pub(super) fn object(tx: &mut Transaction<'_>, id: &IncidentId, pending: &Pending) {
    let text = format!("the content of {} is in the archive: {}", pending.to, tx.fault_of(&pending.to));
    match pending.by {
        SwitchMode::Auto => question::hold(tx, id, Held { guard: Guard::Unconfirmed, detail: text }),
        _ => question::object(tx, id, pending, ObjectionKind::ContentMissing, text),
    }
}

impl Transaction<'_> {
    pub(super) fn lacks_content(&self, version: &VersionName) -> bool {
        self.state.version(version).is_some_and(|record| record.has_content && record.archived.is_some())
    }

    fn fault_of(&self, version: &VersionName) -> &str {
        let archived = self.state.version(version).and_then(|record| record.archived.as_ref());
        archived.and_then(|archived| archived.fault.as_deref()).unwrap_or("it was not restored in time")
    }
}
