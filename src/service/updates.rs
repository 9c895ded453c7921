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

/// The pause between two batches of changes, and by how much each open page lengthens it: with 500 pages it is 60 ms, because
/// telling them takes half of that. The first change after a quiet time is told at once, and a later one waits for no longer than this.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_OF_PAGE: Duration = Duration::from_micros(70);
/// Pages that may read what has changed at the same time, and over how long the reads of each further one are spread.
const READ_AT_ONCE: usize = 10;
const READ: Duration = Duration::from_millis(10);
/// The pause between two requests to read everything again, because each costs a request of every open page.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);
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

/// Whether changes are heard of.
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

    /// Tells all pages of prompts whose health has changed.
    pub async fn health_changed(&self, prompts: Vec<PromptName>) {
        match prompts.len() {
            0 => {}
            1..=MOST_NAMED => self.tell(&Update::Changed(ChangedPrompts::new(prompts))).await,
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
        let mut watch = store.watch_commits().await?;
        self.hears(Hearing::Yes);
        let generation = store.generation();
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

/// Changes that were not told yet, and when they may be.
#[derive(Debug)]
struct Batches {
    changed: BTreeSet<PromptName>,
    /// Anything may have changed.
    everything: bool,
    next: Instant,
    next_resync: Instant,
}

impl Batches {
    /// Begins with a resync: what changed before is not known.
    fn new(now: Instant) -> Self {
        Self { changed: BTreeSet::new(), everything: true, next: now, next_resync: now }
    }

    fn add(&mut self, prompts: Vec<PromptName>) {
        self.changed.extend(prompts);
        if self.changed.len() > MOST_NAMED {
            self.everything = true;
            self.changed.clear();
        }
    }

    /// When there is something to tell.
    fn due(&self) -> Option<Instant> {
        let changes = (!self.changed.is_empty()).then_some(self.next);
        let resync = self.everything.then_some(self.next_resync.max(self.next));
        changes.into_iter().chain(resync).min()
    }

    /// The update to send at `now` to so many pages.
    fn next(&mut self, now: Instant, pages: usize) -> Option<Update> {
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
mod tests {
    use std::task::Waker;

    use super::*;

    fn prompt(name: &str) -> PromptName {
        PromptName::parse(name).unwrap()
    }

    /// All that the page has not read yet.
    fn unread(page: &PageSubscription) -> Vec<String> {
        let polling = Context::from_waker(Waker::noop());
        let mut read = Vec::new();
        while let Poll::Ready(update) = page.poll_next(&polling) {
            let Some(update) = update else {
                read.push("end".to_owned());
                break;
            };
            read.push(match update {
                Update::Changed(changes) => {
                    changes.prompts.iter().map(PromptName::as_str).collect::<Vec<_>>().join(" ")
                }
                other => format!("{other:?}").to_lowercase(),
            });
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_reads_everything_first_and_then_changes_in_order() {
        let updates = Updates::default();
        updates.hears(Hearing::Yes);
        let page = updates.subscribe(1, None).expect("a page");
        assert_eq!(unread(&page), ["resync"]);
        for name in ["p", "q", "p"] {
            updates.change(&[name]).await;
        }
        assert_eq!(unread(&page), ["p", "q", "p"]);
        assert_eq!(unread(&page), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_does_not_read_keeps_little_and_reads_everything_again() {
        let updates = Updates::default();
        updates.hears(Hearing::Yes);
        let (slow, fast) = (updates.subscribe(2, None).expect("a page"), updates.subscribe(2, None).expect("a page"));
        assert_eq!((unread(&slow).len(), unread(&fast).len()), (1, 1));
        for n in 0..10_000 {
            updates.change(&[&format!("p-{n}")]).await;
            let inbox = locked(&slow.inbox);
            assert!(inbox.changes.len() <= MOST_UNREAD && inbox.changes.capacity() <= 2 * MOST_UNREAD, "{n}");
            drop(inbox);
            assert_eq!(unread(&fast), [format!("p-{n}")]);
        }
        assert_eq!(unread(&slow), ["resync"]);
        updates.change(&["p"]).await;
        assert_eq!(unread(&slow), ["p"], "afterwards it hears of changes again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_knows_while_redis_is_away() {
        let updates = Updates::default();
        let page = updates.subscribe(2, None).expect("a page");
        assert_eq!(unread(&page), [""; 0], "the connection is being opened");
        updates.hears(Hearing::Lost);
        updates.tell(&Update::Stale).await;
        let later = updates.subscribe(2, None).expect("a page");
        assert_eq!((unread(&page), unread(&later)), (vec!["stale".to_owned()], vec!["stale".to_owned()]));
        updates.tell(&Update::Stale).await;
        updates.tell(&Update::Resync).await;
        assert_eq!(unread(&page), ["stale", "resync"], "in this order, so that a page does not stay stale");
        updates.tell(&Update::Resync).await;
        updates.tell(&Update::Stale).await;
        assert_eq!(unread(&page), ["stale"], "and in no other");
    }

    #[test]
    fn nobody_opens_more_than_half_of_the_pages() {
        let updates = Updates::default();
        let open = |owner: &str| updates.subscribe(5, Some(owner.to_owned()));
        let mut pages: Vec<_> = (0..3).map(|_| open("wall").expect("a page")).collect();
        assert_eq!(open("wall").err(), Some(3));
        pages.push(open("ops").expect("room for others"));
        pages.push(open("ops").expect("room for others"));
        assert_eq!(open("ops").err(), Some(5));
        pages.truncate(2);
        assert!(open("wall").is_ok(), "a page that was closed makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn hundreds_of_pages_are_told_in_steps_and_soon() {
        let updates = Updates::default();
        let pages: Vec<_> = (0..500).map(|_| updates.subscribe(500, None).expect("a page")).collect();
        assert_eq!(updates.subscribe(500, None).err(), Some(500), "there is a limit");
        let began = Instant::now();
        let telling = updates.change(&["p"]);
        tokio::pin!(telling);
        assert!(futures_util::poll!(&mut telling).is_pending());
        let told = |pages: &[PageSubscription]| pages.iter().filter(|page| unread(page) == ["p"]).count();
        assert_eq!(told(&pages), 25);
        telling.await;
        assert_eq!(told(&pages), 475);
        assert!(began.elapsed() <= Duration::from_millis(40), "{:?}", began.elapsed());
        drop(pages);
        assert_eq!(updates.open(), 0);
    }

    #[tokio::test]
    async fn a_shutdown_ends_all_pages_at_once() {
        let updates = Updates::default();
        let page = updates.subscribe(2, None).expect("a page");
        let ended = tokio::spawn(std::future::poll_fn(move |polling| page.poll_next(polling)));
        tokio::task::yield_now().await;
        updates.close();
        assert!(ended.await.expect("no panic").is_none());
        assert_eq!(unread(&updates.subscribe(2, None).expect("a page")), ["end"], "and one that is opened later");
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
