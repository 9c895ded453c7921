//! Reloads the config: on request, and when a file that it names was replaced.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::{LongLived, Running};
use crate::config::{ConfigSources, Reread};
use crate::live::{Live, ReloadRequest, ReloadRequests, ReloadResult, Reloaded};

/// How soon a replaced file is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that has not changed for this long is complete.
const SETTLES: Duration = Duration::from_millis(100);
/// A file that keeps changing is read anyway after this many checks.
const SETTLES_WITHIN: usize = 10;

/// Why the last config that was read is not in force.
#[derive(Debug, Default)]
struct ReloadFaults {
    config: bool,
    files: bool,
}

struct Reloading {
    live: Live<Running>,
    shared: LongLived,
    /// The config file as it is in force, and its files as last read, even if they were not usable.
    seen: ConfigSources,
    faults: ReloadFaults,
}

/// Runs while the process does. Handles one request at a time: the settings in force are those of the last reload.
pub(super) async fn run(live: Live<Running>, shared: LongLived, mut asked: ReloadRequests) {
    let seen = live.get().settings.source();
    let mut reloading = Reloading { live, shared, seen, faults: ReloadFaults::default() };
    loop {
        let follows = reloading.seen.has_files();
        tokio::select! {
            Some(ReloadRequest { by, answer }) = asked.reloads.recv() => {
                let result = reloading.reload(by).await;
                if let Some(answer) = answer {
                    let _ = answer.send(result); // the requester may be gone
                }
            }
            Some(first) = asked.looks.recv() => {
                let mut waiting = vec![first];
                while let Ok(more) = asked.looks.try_recv() {
                    waiting.push(more);
                }
                reloading.look().await;
                for answer in waiting {
                    let _ = answer.send(());
                }
            }
            () = sleep(LOOK_EVERY), if follows => reloading.look().await,
            else => return,
        }
    }
}

impl Reloading {
    /// Reads everything again.
    async fn reload(&mut self, by: &'static str) -> ReloadResult {
        let mut found = self.found().await;
        if self.live.get().settings.was_written_within(SETTLES) {
            found = settled(found, || self.found()).await;
        }
        let with_same_text = Some(found.clone()).filter(|found| found.has_text_of(&self.seen));
        let result = self.take(found).await;
        match &result {
            Ok(done) => {
                self.faults = ReloadFaults::default();
                if done.changed.is_empty() {
                    tracing::info!(by, "config reloaded: nothing has changed");
                } else {
                    tracing::info!(by, changes = done.changed.len(), "config reloaded");
                }
                self.live.get().settings.log_warnings();
                for change in &done.needs_restart {
                    tracing::warn!(%change, "needs a restart: the old value stays in force");
                }
            }
            Err(problems) => {
                self.faults.config = with_same_text.is_none();
                if let Some(found) = with_same_text {
                    // one of its files is wrong: a later look takes it once it is fixed
                    (self.seen, self.faults.files) = (found, true);
                }
                for problem in problems.lines() {
                    tracing::error!(by, problem, "config not reloaded: the old one stays in force");
                }
            }
        }
        self.note();
        result
    }

    /// Reloads files that were replaced.
    async fn look(&mut self) {
        if !self.seen.has_files() {
            return;
        }
        let found = self.files().await;
        if found == self.seen {
            return;
        }
        let found = settled(found, || self.files()).await;
        self.seen = found.clone();
        let result = self.take(found).await;
        self.faults.files = result.is_err();
        match &result {
            Ok(_) => tracing::info!("a file named by the config was replaced"),
            // also briefly, between the two files of a pair
            Err(problems) => problems.lines().for_each(|problem| {
                tracing::warn!(problem, "a replaced file is not usable: the old content stays in force");
            }),
        }
        self.note();
    }

    /// Builds everything that the new settings need, and then replaces everything in one step.
    async fn take(&mut self, found: ConfigSources) -> ReloadResult {
        let (running, shared) = (self.live.get(), self.shared.clone());
        let made = tokio::task::spawn_blocking(move || {
            let Reread { settings, changed, needs_restart } =
                running.settings.reread(found).map_err(|error| error.to_string())?;
            let touched = |prefix: &str| changed.iter().any(|change| change.key.starts_with(prefix));
            let next = if changed.is_empty() {
                Running { settings, ..Running::clone(&running) }
            } else {
                running.reconfigured(settings, touched, &shared).map_err(|error| error.to_string())?
            };
            Ok::<_, String>((next, Reloaded { changed, needs_restart }))
        });
        let (next, done) = made.await.map_err(|error| format!("a bug, please report it: {error}"))??;
        self.seen = next.settings.source();
        let engine = Arc::clone(&next.engine);
        engine.store.in_force();
        self.live.replace(next);
        for change in &done.changed {
            tracing::info!(%change, "a setting has changed");
        }
        engine.metrics.config_loaded(SystemTime::now());
        Ok(done)
    }

    /// Everything on the disk.
    async fn found(&self) -> ConfigSources {
        let running = self.live.get();
        tokio::task::spawn_blocking(move || running.settings.look()).await.unwrap_or_else(|_| self.seen.clone())
    }

    /// Everything on the disk except the config file, which is read on request only.
    async fn files(&self) -> ConfigSources {
        let seen = self.seen.clone();
        tokio::task::spawn_blocking(move || seen.look_at_files()).await.unwrap_or_else(|_| self.seen.clone())
    }

    fn note(&self) {
        let metrics = &self.live.get().engine.metrics;
        metrics.config_in_force(!self.faults.config && !self.faults.files);
    }
}

/// The content, once it stays the same: a writer may not have finished.
async fn settled<T: PartialEq, F: Future<Output = T>>(mut found: T, mut look: impl FnMut() -> F) -> T {
    for _ in 0..SETTLES_WITHIN {
        sleep(SETTLES).await;
        let again = look().await;
        if again == found {
            break;
        }
        found = again;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_waited_for() {
        let mut written = ["", "ne", "new-to", "new-token", "new-token"].into_iter();
        let first = written.next().expect("one");
        let look = || std::future::ready(written.next().expect("not looked at again"));
        assert_eq!(settled(first, look).await, "new-token");
        let mut looks = 0;
        let restless = || {
            looks += 1;
            std::future::ready(looks)
        };
        assert_eq!(settled(0, restless).await, SETTLES_WITHIN);
    }
}
