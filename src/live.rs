//! The parts in force, which a reload replaces as a whole, and requests for a reload.
//!
//! Each request, tick or decision takes them once, so that none uses a mixture of old and new parts.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::config::ConfigChange;

/// Longest wait for a check of the files, because a request waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The parts built from one config.
#[derive(Debug)]
pub struct Live<W> {
    whole: Arc<RwLock<Arc<W>>>,
    replaced: watch::Sender<()>,
}

impl<W: Send + Sync + 'static> Live<W> {
    pub fn new(whole: W) -> Self {
        Self { whole: Arc::new(RwLock::new(Arc::new(whole))), replaced: watch::Sender::new(()) }
    }

    pub fn get(&self) -> Arc<W> {
        Arc::clone(&self.whole.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, whole: W) {
        *self.whole.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(whole);
        self.replaced.send_replace(());
    }

    /// A handle to the result of `part`, applied to the parts in use at each call.
    pub fn part<T>(&self, part: impl Fn(&W) -> T + Send + Sync + 'static) -> Current<T> {
        let whole = Arc::clone(&self.whole);
        let get = move || part(&whole.read().unwrap_or_else(PoisonError::into_inner));
        Current { get: Arc::new(get), replaced: self.replaced.subscribe() }
    }
}

/// A handle to one of the parts in use. After a reload, it returns the new one.
#[derive(Clone)]
pub struct Current<T> {
    get: Arc<dyn Fn() -> T + Send + Sync>,
    replaced: watch::Receiver<()>,
}

impl<T> fmt::Debug for Current<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

impl<T> Current<T> {
    pub fn get(&self) -> T {
        (self.get)()
    }

    /// Completes when a reload has replaced the parts since the last call.
    pub async fn replaced(&mut self) {
        if self.replaced.changed().await.is_err() {
            std::future::pending().await // nothing replaces it any more
        }
    }
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    pub changed: Vec<ConfigChange>,
    /// Changes that take effect only after a restart.
    pub needs_restart: Vec<ConfigChange>,
}

/// The errors in the config, one line for each; then nothing has changed.
pub type ReloadResult = Result<Reloaded, String>;

/// A request for a reload, and where the answer goes.
#[derive(Debug)]
pub struct ReloadRequest {
    pub by: &'static str,
    pub answer: Option<oneshot::Sender<ReloadResult>>,
}

/// The requests to the reloader.
#[derive(Debug)]
pub struct ReloadRequests {
    pub reloads: mpsc::Receiver<ReloadRequest>,
    /// Requests to check whether a file named by the config was replaced.
    pub looks: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Sends requests to the reloader.
#[derive(Debug, Clone)]
pub struct Reloader {
    reloads: mpsc::Sender<ReloadRequest>,
    looks: mpsc::Sender<oneshot::Sender<()>>,
}

impl Reloader {
    pub fn new() -> (Self, ReloadRequests) {
        const MOST: usize = 16;
        let ((reloads, asked), (looks, looked)) = (mpsc::channel(MOST), mpsc::channel(MOST));
        (Self { reloads, looks }, ReloadRequests { reloads: asked, looks: looked })
    }

    /// Reloads; `None` if the process is shutting down.
    pub async fn reload(&self, by: &'static str) -> Option<ReloadResult> {
        let (answer, answered) = oneshot::channel();
        self.reloads.send(ReloadRequest { by, answer: Some(answer) }).await.ok()?;
        answered.await.ok()
    }

    /// Reloads without waiting for the result.
    pub fn reload_soon(&self, by: &'static str) {
        // full: a waiting request will read the current files
        let _ = self.reloads.try_send(ReloadRequest { by, answer: None });
    }

    /// Returns once the files that the config names were checked, and replaced ones are in force, or after a while if
    /// the disk does not answer.
    pub async fn look(&self) {
        let (answer, answered) = oneshot::channel();
        let looked = async {
            // fails only during a shutdown
            if self.looks.send(answer).await.is_ok() {
                let _ = answered.await;
            }
        };
        let _ = timeout(PATIENCE, looked).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_takes_too_long_is_not_waited_for() {
        let (reloader, _asked) = Reloader::new();
        let began = tokio::time::Instant::now();
        for looks in 1..=20 {
            reloader.look().await; // also if more wait than there is room for
            assert!(began.elapsed() < (PATIENCE + Duration::from_millis(10)) * looks, "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_parts_are_replaced_at_once() {
        let live = Live::new((1, "one"));
        let (number, mut word) = (live.part(|whole| whole.0), live.part(|whole| whole.1));
        let before = live.get();
        assert_eq!((number.get(), word.get()), (1, "one"));
        live.replace((2, "two"));
        timeout(PATIENCE, word.replaced()).await.expect("heard of it");
        assert_eq!((number.get(), word.get(), *before), (2, "two", (1, "one")));
    }
}
