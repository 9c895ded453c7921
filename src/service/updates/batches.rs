//! When changes are told: the first at once, later ones together.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{ChangedPrompts, MOST_NAMED, Update, times};
use crate::decision::PromptName;

/// The pause between two batches of changes, and by how much each open page lengthens it: with 500 pages it is 60 ms, because
/// telling them takes half of that. The first change after a quiet time is told at once, and a later one waits for no longer than this.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_OF_PAGE: Duration = Duration::from_micros(70);
/// The pause between two requests to read everything again, because each costs a request of every open page.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);

/// Changes that were not told yet, and when they may be.
#[derive(Debug)]
pub(super) struct Batches {
    changed: BTreeSet<PromptName>,
    /// Anything may have changed.
    pub(super) everything: bool,
    next: Instant,
    next_resync: Instant,
}

impl Batches {
    /// Begins with a resync: what changed before is not known.
    pub(super) fn new(now: Instant) -> Self {
        Self { changed: BTreeSet::new(), everything: true, next: now, next_resync: now }
    }

    pub(super) fn add(&mut self, prompts: Vec<PromptName>) {
        self.changed.extend(prompts);
        if self.changed.len() > MOST_NAMED {
            self.everything = true;
            self.changed.clear();
        }
    }

    /// When there is something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        let changes = (!self.changed.is_empty()).then_some(self.next);
        let resync = self.everything.then_some(self.next_resync.max(self.next));
        changes.into_iter().chain(resync).min()
    }

    /// The update to send at `now` to so many pages.
    pub(super) fn next(&mut self, now: Instant, pages: usize) -> Option<Update> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.next = now + PAUSE + times(PAUSE_OF_PAGE, pages);
        let changed = std::mem::take(&mut self.changed);
        if self.everything && self.next_resync <= now {
            self.everything = false;
            self.next_resync = now + RESYNC_PAUSE;
            return Some(Update::Resync);
        }
        Some(Update::Changed(ChangedPrompts::new(changed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(name: &str) -> PromptName {
        PromptName::parse(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_the_next_together() {
        let start = Instant::now();
        let mut batches = Batches::new(start);
        assert!(matches!(batches.next(start, 500), Some(Update::Resync)), "first of all, everything");
        assert_eq!(batches.due(), None);
        let named = |update: Option<Update>| match update {
            Some(Update::Changed(changes)) => changes.prompts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let later = start + Duration::from_secs(10);
        batches.add(vec![prompt("p")]);
        assert_eq!(named(batches.next(later, 0)), ["p"]);
        for name in ["p", "q", "p"] {
            batches.add(vec![prompt(name)]);
        }
        assert_eq!(batches.due(), Some(later + PAUSE));
        assert!(batches.next(later + PAUSE / 2, 0).is_none());
        assert_eq!(named(batches.next(later + PAUSE, 500)), ["p", "q"], "each prompt once");
        batches.add(vec![prompt("p")]);
        assert_eq!(batches.due(), Some(later + PAUSE + Duration::from_millis(60)), "telling 500 pages takes longer");
    }

    #[tokio::test(start_paused = true)]
    async fn many_changes_at_once_are_a_resync_and_these_are_rare() {
        let start = Instant::now();
        let mut batches = Batches::new(start);
        batches.next(start, 0);
        batches.add((0..=MOST_NAMED).map(|n| prompt(&format!("p-{n}"))).collect());
        assert_eq!(batches.due(), Some(start + RESYNC_PAUSE), "each costs a request of every page");
        batches.add(vec![prompt("p")]);
        assert_eq!(batches.due(), Some(start + PAUSE), "a single change does not wait for it");
        assert!(matches!(batches.next(start + PAUSE, 0), Some(Update::Changed(_))));
        batches.add(vec![prompt("p")]);
        assert!(matches!(batches.next(start + RESYNC_PAUSE, 0), Some(Update::Resync)));
        assert_eq!(batches.due(), None, "which covers the change");
    }
}
