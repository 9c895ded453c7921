//! The content archive: moves content that nothing needs to the archive, restores content that is needed again, and
//! deletes old content.
//!
//! [`retention`] decides what to do; this module does it. Content is deleted from Redis only by a commit that finds it
//! safe in the archive and still not needed.

pub mod files;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use ulid::Ulid;

use super::worker::{GONE, WorkResult, carry_out, rest};
use crate::decision::event::ArchiveReport;
use crate::decision::{Event, Incident, PhaseKind, PromptName, PromptState, Timestamp, VersionName, retention};
use crate::engine::{Engine, EngineError};
use crate::live::Current;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, LEASE, Work, WorkItem};
use files::ArchiveDirectory;

/// Prompts processed concurrently.
const BATCH: usize = 8;
/// Versions of a prompt processed under one claim, so that a prompt with many does not delay others.
const MOST: usize = 4;
/// More than any content may have; a longer file is not what was archived.
const MAX_TEXT: u64 = 16 << 20;
/// Longest time for one file: a directory on another machine may hang.
const PATIENCE: Duration = Duration::from_secs(3);
/// The wait after the first failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(600);
/// When to retry a move that something else than the archive prevents.
const AGAIN: Duration = Duration::from_secs(600);
/// How often all prompts are searched for work that nothing else schedules, and the delay after the start.
const SURVEY: Duration = Duration::from_secs(24 * 3_600);
const FIRST_SURVEY: Duration = Duration::from_secs(600);
const BREATH: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Archive {
    files: Arc<ArchiveDirectory>,
    trouble: Mutex<Option<Trouble>>,
}

/// The state of a failing archive.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    backoff: Duration,
    until: Timestamp,
}

impl Archive {
    pub fn new(files: ArchiveDirectory) -> Self {
        Self { files: Arc::new(files), trouble: Mutex::new(None) }
    }

    async fn io<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ArchiveDirectory) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let files = Arc::clone(&self.files);
        match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || work(&files))).await {
            Ok(done) => done.map_err(io::Error::other)?,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs())))
            }
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when not to try again: at most its back-off, even if Redis' clock went back.
    fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        let mut trouble = self.trouble();
        let trouble = trouble.as_mut()?;
        trouble.until = trouble.until.min(now.plus(trouble.backoff));
        Some(trouble.until).filter(|until| *until > now)
    }

    fn note(
        &self,
        engine: &Engine,
        what: &'static str,
        error: Option<&io::Error>,
        prompt: &PromptName,
        now: Timestamp,
    ) {
        let mut trouble = self.trouble();
        *trouble = error.map(|error| {
            let backoff = trouble.map_or(FIRST_BACKOFF, |before| (before.backoff * 2).min(MAX_BACKOFF));
            tracing::warn!(%prompt, %error, "the content archive fails ({what}); retrying in {} s", backoff.as_secs());
            Trouble { backoff, until: now.plus(backoff) }
        });
        engine.metrics.archive(what, error.is_none());
    }
}

/// Moves content between Redis and the archive.
#[derive(Debug)]
pub struct Archiver {
    pub engine: Arc<Engine>,
    /// The archive for content that nothing needs, if there is one.
    pub archive: Option<Arc<Archive>>,
}

/// What was done, and when to continue.
#[derive(Debug, Default)]
struct Processed {
    rev: Option<i64>,
    next: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
enum Chore {
    Restore,
    Forget,
    Archive,
}

impl Archiver {
    /// Does what is due for a prompt's content, some at a time.
    async fn process(
        &self,
        prompt: &PromptName,
        state: &PromptState,
        now: Timestamp,
    ) -> Result<Processed, EngineError> {
        let engine = &self.engine;
        let chores = retention::chores(state, &engine.policy, now);
        let list = |chore, versions: Vec<VersionName>| versions.into_iter().map(move |version| (chore, version));
        let chores = list(Chore::Restore, chores.restore)
            .chain(list(Chore::Forget, chores.forget))
            .chain(list(Chore::Archive, chores.archive));
        let (mut rev, mut stuck, mut sweeps) = (None, false, false);
        for (chore, version) in chores.take(MOST) {
            let resting = self.archive.as_ref().is_some_and(|archive| archive.rests_until(now).is_some());
            let done = match chore {
                Chore::Forget => self.forget(prompt, version, now).await?,
                _ if resting => None,
                Chore::Restore => self.bring_back(prompt, version, now).await?,
                Chore::Archive => self.put_away(prompt, version, now).await?,
            };
            // a busy prompt forgets no content by age: its oldest versions lose their records, and leave their files
            sweeps |= match chore {
                Chore::Forget => true,
                Chore::Archive => done.is_some(),
                Chore::Restore => false,
            };
            stuck |= done.is_none();
            rev = done.or(rev);
        }
        let loaded = engine.load(prompt).await?;
        let state = &loaded.snapshot.state;
        if let Some(archive) = self.archive.as_ref().filter(|_| sweeps) {
            let archived = state.versions.iter().filter(|record| record.archived.is_some());
            let archived: Vec<_> = archived.map(|record| record.version.clone()).collect();
            let (swept, keep) = (prompt.clone(), engine.policy.keep);
            let swept = archive.io(move |files| files.sweep(&swept, &archived, keep)).await;
            archive.note(engine, "forget", swept.err().as_ref(), prompt, now);
        }
        let next = retention::next(state, &engine.policy, loaded.now);
        let earliest = match self.archive.as_ref().and_then(|archive| archive.rests_until(now)) {
            Some(until) if stuck => until,
            _ if stuck => now.plus(AGAIN),
            _ => loaded.now,
        };
        Ok(Processed { rev, next: next.map(|next| next.max(earliest)) })
    }

    /// Moves content from Redis to the archive.
    async fn put_away(
        &self,
        prompt: &PromptName,
        version: VersionName,
        now: Timestamp,
    ) -> Result<Option<i64>, EngineError> {
        let (engine, Some(archive)) = (&self.engine, &self.archive) else { return Ok(None) };
        let Some(text) = engine.store.content(prompt, &version).await? else {
            return self.commit(prompt, ArchiveReport::Gone { version }).await;
        };
        let Ok(text) = String::from_utf8(text) else {
            tracing::warn!(%prompt, %version, "its content is not UTF-8: it stays in Redis");
            return Ok(None);
        };
        let written = {
            let (prompt, version, text) = (prompt.clone(), version.clone(), text.clone());
            archive.io(move |files| files.write(&prompt, &version, &text)).await
        };
        archive.note(engine, "archive", written.as_ref().err(), prompt, now);
        match written {
            Ok(()) => self.commit(prompt, ArchiveReport::Archived { version, text }).await,
            Err(_) => Ok(None),
        }
    }

    /// Restores content from the archive to Redis, if it is there.
    async fn bring_back(
        &self,
        prompt: &PromptName,
        version: VersionName,
        now: Timestamp,
    ) -> Result<Option<i64>, EngineError> {
        let missing = |version, why: String, lost| ArchiveReport::Missing { version, why, lost };
        let kept = match &self.archive {
            None => missing(version, "retention.archive is not set".to_owned(), false),
            Some(archive) => {
                let name = archive.files.path(prompt, &version);
                let read = {
                    let (prompt, version) = (prompt.clone(), version.clone());
                    archive.io(move |files| files.read(&prompt, &version, MAX_TEXT)).await
                };
                archive.note(&self.engine, "restore", read.as_ref().err(), prompt, now);
                match read {
                    Err(error) => missing(version, format!("it can't be read: {error}"), false),
                    Ok(None) => missing(version, format!("its file is missing: {}", name.display()), true),
                    Ok(Some(bytes)) => match String::from_utf8(bytes) {
                        Ok(text) => ArchiveReport::Found { version, text },
                        Err(_) => missing(version, format!("its file is damaged: {}", name.display()), true),
                    },
                }
            }
        };
        if let ArchiveReport::Missing { version, why, lost } = &kept {
            let lost = *lost;
            tracing::error!(%prompt, %version, why, lost, "content could not be restored from the archive");
            let rev = self.commit(prompt, kept).await?;
            return Ok(rev.filter(|_| lost)); // content that is not lost is retried later
        }
        self.commit(prompt, kept).await
    }

    /// Deletes content. The record goes first: a file without a record does no harm, and a later sweep deletes it.
    async fn forget(
        &self,
        prompt: &PromptName,
        version: VersionName,
        now: Timestamp,
    ) -> Result<Option<i64>, EngineError> {
        let engine = &self.engine;
        let rev = self.commit(prompt, ArchiveReport::Expired { version: version.clone() }).await?;
        let (Some(_), Some(archive)) = (rev, &self.archive) else { return Ok(rev) };
        // the commit may only have handled an external SET, after which this version is needed
        let state = engine.load(prompt).await?.snapshot.state;
        if state.version(&version).is_none_or(|record| record.archived.is_none()) {
            let removed = {
                let prompt = prompt.clone();
                archive.io(move |files| files.remove(&prompt, &version)).await
            };
            archive.note(engine, "forget", removed.err().as_ref(), prompt, now);
        }
        Ok(rev)
    }

    async fn commit(&self, prompt: &PromptName, kept: ArchiveReport) -> Result<Option<i64>, EngineError> {
        Ok(self.engine.handle(prompt, &Event::ArchiveReport(kept)).await?.rev)
    }

    /// A rollback may wait for its target's content.
    pub(super) async fn bring_back_for(&self, incident: &Incident, now: Timestamp) -> Result<(), EngineError> {
        let pending = incident.pending().filter(|_| incident.phase.kind() == PhaseKind::Confirming);
        let Some(pending) = pending else { return Ok(()) };
        let (engine, prompt) = (&self.engine, &incident.prompt);
        let state = engine.load(prompt).await?.snapshot.state;
        if state.version(&pending.to).is_some_and(|record| record.archived.is_some()) {
            self.bring_back(prompt, pending.to.clone(), now).await?;
        }
        Ok(())
    }
}

/// Wakes the prompts whose content needs work: after a change of the config nothing else does.
pub async fn survey(engine: &Engine) -> Result<(), StoreError> {
    let mut cursor: Option<String> = None;
    loop {
        let page = engine.store.prompts(cursor.as_deref(), 20, None).await?;
        for row in engine.store.rows(page.items, engine.policy.budget_window).await? {
            let Ok(loaded) = &row.loaded else { continue };
            if !retention::chores(&loaded.snapshot.state, &engine.policy, loaded.now).is_empty() {
                engine.store.wake_by(Work::Archive, &WorkItem::Prompt(row.prompt.clone()), loaded.now).await?;
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// Does what is due for content, while the process runs.
pub async fn run_processing(archivers: Current<Arc<Archiver>>) {
    let token = Ulid::generate().to_string();
    loop {
        let archiver = archivers.get();
        tokio::time::sleep(rest(tick(&archiver, &token).await)).await;
    }
}

/// Does what is due once. Returns how long until there may be more.
async fn tick(archiver: &Archiver, token: &str) -> Result<Option<Duration>, StoreError> {
    let store = &archiver.engine.store;
    let claimed = store.claim(Work::Archive, BATCH, LEASE, token).await?;
    carry_out(store, &claimed, claimed.claims.iter().map(|claim| process_claim(archiver, claim))).await
}

async fn process_claim(archiver: &Archiver, claim: &Claim) -> WorkResult {
    let Some(prompt) = claim.prompt().cloned() else { return Ok(GONE) };
    let loaded = archiver.engine.load(&prompt).await?;
    let Processed { rev, next } = archiver.process(&prompt, &loaded.snapshot.state, loaded.now).await?;
    Ok((Some(prompt), End::Done { rev, next }))
}

/// Runs while the process does.
pub async fn run(mut engines: Current<Arc<Engine>>) {
    let mut next = Instant::now() + FIRST_SURVEY;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = engines.replaced() => {
                next = next.min(Instant::now() + FIRST_SURVEY);
                continue;
            }
        }
        next = Instant::now()
            + match survey(&engines.get()).await {
                Ok(()) => SURVEY,
                Err(_) => FIRST_SURVEY,
            };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_for_its_back_off_at_most_whatever_the_clock_does() {
        let folder = std::env::temp_dir();
        let archive = Archive::new(ArchiveDirectory::new(&folder));
        let (now, backoff) = (Timestamp(7_200_000), Duration::from_secs(10));
        *archive.trouble() = Some(Trouble { backoff, until: now.plus(backoff) });
        assert_eq!(archive.rests_until(now), Some(now.plus(backoff)));
        let before = now.minus(Duration::from_secs(3_600));
        assert_eq!(archive.rests_until(before), Some(before.plus(backoff)));
        assert_eq!(archive.rests_until(before.plus(backoff)), None, "not from then on anew");
    }
}
