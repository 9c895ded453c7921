//! Tells open pages which prompts have changed, by whichever receiver.
//!
//! One connection to Redis hears of commits, for all pages of this receiver, and only while one is open. Each page has an
//! inbox of fixed size: a page that does not keep up is told to read everything again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::decision::PromptName;
use crate::engine::Engine;
use crate::live::Current;
use crate::store::watch::WatchEvent;
use crate::store::{Store, StoreError};
use batches::Batches;

mod batches;

/// Pages that may read what has changed at the same time, and over how long the reads of each further one are spread.
const READ_AT_ONCE: usize = 10;
const READ: Duration = Duration::from_millis(10);
/// Most prompts named in one batch: beyond that, reading everything again is cheaper.
const MOST_NAMED: usize = 100;
/// Unread batches of one page.
const MOST_UNREAD: usize = 16;
/// Pages are told in this many steps, at least some at once. Between steps other requests go first: writing to hundreds
/// of connections takes milliseconds.
const STEPS: usize = 20;
const AT_ONCE: usize = 8;
const BREATH: Duration = Duration::from_millis(1);
const RECONNECT: Duration = Duration::from_millis(500);
/// A half-open connection is noticed after this time, and a connection that no page needs is closed.
const ASK_ALIVE: Duration = Duration::from_secs(5);

/// The prompts of one batch, shared by all pages.
#[derive(Debug)]
pub struct ChangedPrompts {
    pub prompts: Vec<PromptName>,
    rendered: OnceLock<Bytes>,
}

impl ChangedPrompts {
    fn new(prompts: impl IntoIterator<Item = PromptName>) -> Arc<Self> {
        Arc::new(Self { prompts: prompts.into_iter().collect(), rendered: OnceLock::new() })
    }

    /// All of them as `render` writes them, which is done once for all pages.
    pub fn rendered(&self, render: impl FnOnce(&[PromptName]) -> Bytes) -> Bytes {
        self.rendered.get_or_init(|| render(&self.prompts)).clone()
    }
}

/// An update for one page.
#[derive(Debug, Clone)]
pub enum Update {
    /// Redis cannot be reached: changes are not heard of until a `Resync`.
    Stale,
    /// Anything may have changed.
    Resync,
    /// These prompts have changed.
    Changed(Arc<ChangedPrompts>),
    /// The config was replaced: a page that was admitted may be refused now.
    Reloaded,
}

/// What a page has not read yet.
#[derive(Debug, Default)]
struct Inbox {
    stale: bool,
    resync: bool,
    reloaded: bool,
    changes: VecDeque<Arc<ChangedPrompts>>,
    /// The receiver shuts down.
    closed: bool,
    waker: Option<Waker>,
}

impl Inbox {
    fn put(&mut self, update: Update) {
        match update {
            Update::Reloaded => self.reloaded = true,
            Update::Stale => (self.stale, self.resync) = (true, false),
            Update::Resync => self.resync = true,
            // an unread resync covers it
            Update::Changed(_) if self.resync => {}
            Update::Changed(_) if self.changes.len() == MOST_UNREAD => self.resync = true,
            Update::Changed(changes) => self.changes.push_back(changes),
        }
        if self.stale || self.resync {
            self.changes = VecDeque::new();
        }
        self.wake();
    }

    fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn take(&mut self) -> Option<Update> {
        if std::mem::take(&mut self.reloaded) {
            return Some(Update::Reloaded);
        }
        if std::mem::take(&mut self.stale) {
            return Some(Update::Stale);
        }
        if std::mem::take(&mut self.resync) {
            return Some(Update::Resync);
        }
        self.changes.pop_front().map(Update::Changed)
    }
}

/// Whether the receiver is subscribed to changes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// The connection is not needed, or is being opened for the first page.
    #[default]
    NotYet,
    Yes,
    Lost,
}

#[derive(Debug)]
struct OpenPage {
    inbox: Arc<Mutex<Inbox>>,
    /// Who opened it.
    owner: Option<String>,
}

#[derive(Debug, Default)]
struct Pages {
    open: BTreeMap<u64, OpenPage>,
    opened: u64,
    hearing: Hearing,
    /// The receiver shuts down.
    closed: bool,
}

#[derive(Debug, Default)]
struct OpenPages {
    pages: Mutex<Pages>,
    /// The first page was opened.
    wanted: Notify,
}

/// The open pages of this receiver.
#[derive(Debug, Clone, Default)]
pub struct Updates(Arc<OpenPages>);

fn locked<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The updates for one page. Dropping it closes the page.
#[derive(Debug)]
pub struct PageSubscription {
    updates: Updates,
    /// Counts the pages since the receiver started.
    pub number: u64,
    inbox: Arc<Mutex<Inbox>>,
}

impl PageSubscription {
    /// The next update; `None` if the receiver shuts down.
    pub fn poll_next(&self, polling: &Context<'_>) -> Poll<Option<Update>> {
        let mut inbox = locked(&self.inbox);
        if inbox.closed {
            return Poll::Ready(None);
        }
        if let Some(update) = inbox.take() {
            return Poll::Ready(Some(update));
        }
        inbox.waker = Some(polling.waker().clone());
        Poll::Pending
    }
}

impl PageSubscription {
    /// Over how long pages should spread their reads after an event, so that those of hundreds do not come at once.
    pub fn spread(&self) -> Duration {
        times(READ, self.updates.open().saturating_sub(READ_AT_ONCE))
    }
}

fn times(each: Duration, pages: usize) -> Duration {
    each * u32::try_from(pages).unwrap_or(u32::MAX)
}

impl Drop for PageSubscription {
    fn drop(&mut self) {
        self.updates.pages().open.remove(&self.number);
    }
}

impl Updates {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        locked(&self.0.pages)
    }

    /// The number of open pages.
    pub fn open(&self) -> usize {
        self.pages().open.len()
    }

    /// Opens a page, of at most `max`, half of them by one `owner`; `Err`: the limit that is reached. The page is first told to
    /// read everything, because it may have missed changes.
    pub fn subscribe(&self, max: usize, owner: Option<String>) -> Result<PageSubscription, usize> {
        let mut pages = self.pages();
        if pages.open.len() >= max {
            return Err(max);
        }
        let own = || pages.open.values().filter(|page| page.owner == owner).count();
        let most = max.div_ceil(2);
        if owner.is_some() && own() >= most {
            return Err(most);
        }
        let mut inbox = Inbox { closed: pages.closed, ..Inbox::default() };
        match pages.hearing {
            Hearing::NotYet => {} // told once the connection is there
            Hearing::Yes => inbox.resync = true,
            Hearing::Lost => inbox.stale = true,
        }
        let inbox = Arc::new(Mutex::new(inbox));
        pages.opened += 1;
        let number = pages.opened;
        pages.open.insert(number, OpenPage { inbox: Arc::clone(&inbox), owner });
        drop(pages);
        self.0.wanted.notify_one();
        Ok(PageSubscription { updates: self.clone(), number, inbox })
    }

    /// Ends all pages at once, also those that are opened later.
    pub fn close(&self) {
        let mut pages = self.pages();
        pages.closed = true;
        let inboxes: Vec<_> = pages.open.values().map(|page| Arc::clone(&page.inbox)).collect();
        drop(pages);
        for inbox in inboxes {
            locked(&inbox).close();
        }
    }

    /// Tells all pages of prompts whose health has changed; `None`: of all.
    pub async fn health_changed(&self, prompts: Option<BTreeSet<PromptName>>) {
        match prompts {
            Some(none) if none.is_empty() => {}
            Some(some) if some.len() <= MOST_NAMED => self.tell(&Update::Changed(ChangedPrompts::new(some))).await,
            _ => self.tell(&Update::Resync).await,
        }
    }

    #[cfg(test)]
    pub async fn change(&self, prompts: &[&str]) {
        let prompts = prompts.iter().map(|name| PromptName::parse(name).expect("a prompt name"));
        self.tell(&Update::Changed(ChangedPrompts::new(prompts))).await;
    }

    #[cfg(test)]
    pub async fn reloaded(&self) {
        self.tell(&Update::Reloaded).await;
    }

    /// Tells all pages, a few at a time.
    async fn tell(&self, update: &Update) {
        let mut behind = Bound::Unbounded;
        loop {
            let step: Vec<(u64, Arc<Mutex<Inbox>>)> = {
                let pages = self.pages();
                let at_once = pages.open.len().div_ceil(STEPS).max(AT_ONCE);
                let next = pages.open.range((behind, Bound::Unbounded)).take(at_once);
                next.map(|(number, page)| (*number, Arc::clone(&page.inbox))).collect()
            };
            let Some((last, _)) = step.last() else { return };
            behind = Bound::Excluded(*last);
            for (_, inbox) in &step {
                locked(inbox).put(update.clone());
            }
            if self.pages().open.range((behind, Bound::Unbounded)).next().is_none() {
                return;
            }
            sleep(BREATH).await;
        }
    }

    /// Notes whether changes are heard of, for pages that are opened from now on.
    fn hears(&self, hearing: Hearing) -> bool {
        std::mem::replace(&mut self.pages().hearing, hearing) != hearing
    }

    /// Completes when a page is open.
    async fn wanted(&self) {
        while self.open() == 0 {
            self.hears(Hearing::NotYet);
            self.0.wanted.notified().await;
        }
    }

    /// Hears of commits until no page is open any more; an error, or `false`, if the connection is lost.
    async fn follow(&self, store: &Store) -> Result<bool, StoreError> {
        let generation = store.generation().max(1); // before: a connection since then may lead elsewhere
        let mut watch = store.watch_commits().await?;
        self.hears(Hearing::Yes);
        let (mut batches, mut unneeded) = (Batches::new(Instant::now()), false);
        let mut ask_alive = tokio::time::interval(ASK_ALIVE);
        loop {
            let due = batches.due();
            tokio::select! {
                heard = watch.hear() => match heard {
                    WatchEvent::Prompts(prompts) => batches.add(prompts),
                    WatchEvent::Everything => batches.everything = true,
                    WatchEvent::Lost => return Ok(false),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some(update) = batches.next(Instant::now(), self.open()) {
                        self.tell(&update).await;
                    }
                }
                _ = ask_alive.tick() => {
                    let empty = self.open() == 0;
                    if empty && unneeded {
                        return Ok(true);
                    }
                    unneeded = empty;
                    // other connections were lost: this one may lead to a master that was replaced
                    if store.generation() != generation || !watch.is_alive().await {
                        return Ok(false);
                    }
                }
            }
        }
    }
}

/// Runs while the process does.
pub async fn run(updates: Updates, engines: Current<Arc<Engine>>) {
    let reloads = async {
        let mut engines = engines.clone();
        loop {
            engines.replaced().await;
            updates.tell(&Update::Reloaded).await;
        }
    };
    let follow = async {
        loop {
            updates.wanted().await;
            let store = engines.get().store.clone();
            match updates.follow(&store).await {
                Ok(true) => continue,
                Ok(false) => tracing::debug!("open pages are not told of changes: the connection to Redis was lost"),
                Err(error) => tracing::debug!(%error, "open pages are not told of changes"),
            }
            if updates.hears(Hearing::Lost) {
                updates.tell(&Update::Stale).await;
            }
            sleep(RECONNECT).await;
        }
    };
    tokio::join!(reloads, follow);
}

#[cfg(test)]
mod tests;
