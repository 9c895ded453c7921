//! Metrics as text. Data from Redis is read at most once a second and formatted once, for all clients. The receiver's
//! own counters are current.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::elsewhere;
use crate::metrics::{Metrics, ScrapeData};
use crate::store::StoreError;

/// How long data from Redis is reused.
const FRESH: Duration = Duration::from_secs(1);
/// How long it is reused while Redis is unreachable, or too many snapshots are still being sent.
const EXPIRES: Duration = Duration::from_secs(5);
/// Snapshots in memory at once: beyond that, clients that still read the oldest one are disconnected.
const SNAPSHOTS: usize = 2;
/// A client that reads slowly holds this much of a snapshot, not all of it.
const CHUNK: usize = 8 << 10;

/// The latest data, for all clients.
#[derive(Debug, Default)]
pub struct Exposition {
    snapshots: Mutex<Snapshots>,
    /// The receiver's own counters, as last formatted.
    own: std::sync::Mutex<Bytes>,
}

#[derive(Debug, Default)]
struct Snapshots {
    /// The oldest first. A client holds only a weak reference and a chunk.
    all: VecDeque<Arc<RenderedMetrics>>,
    /// When Redis was last asked, with or without success.
    asked: Option<Instant>,
}

/// The series of one moment, as text.
#[derive(Debug)]
pub struct RenderedMetrics {
    at: Instant,
    chunks: Vec<Bytes>,
}

impl Exposition {
    /// The same bytes for all clients until something changes: a slow client may hold them for long.
    pub fn shared(&self, own: String) -> Bytes {
        let mut last = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != own {
            *last = Bytes::from(own.into_boxed_str().into_boxed_bytes());
        }
        last.clone()
    }

    /// The latest snapshot, read now with `read` unless it is fresh. `None`: there is none that may still be shown.
    pub async fn latest(
        &self,
        metrics: &Metrics,
        read: impl AsyncFnOnce() -> Result<ScrapeData, StoreError>,
    ) -> Option<Arc<RenderedMetrics>> {
        let mut snapshots = self.snapshots.lock().await;
        // also for the clients that waited for it
        if snapshots.asked.is_none_or(|asked| asked.elapsed() >= FRESH) && snapshots.make_room() {
            let at = Instant::now();
            match read().await {
                Ok(stored) => {
                    let chunks = elsewhere::run(move || Chunks::of(stored)).await;
                    snapshots.all.extend(chunks.ok().map(|chunks| Arc::new(RenderedMetrics { at, chunks })));
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics are served without the data stored in Redis");
                    metrics.ready(false); // the alert rules trust the series of a ready receiver
                }
            }
            snapshots.asked = Some(Instant::now());
        }
        snapshots.all.back().filter(|latest| latest.at.elapsed() < EXPIRES).cloned()
    }
}

impl Snapshots {
    /// Whether another snapshot may be created. The latest one is kept, for the case that Redis becomes unreachable.
    fn make_room(&mut self) -> bool {
        let latest = self.all.back().cloned();
        let is_latest = |one: &Arc<RenderedMetrics>| latest.as_ref().is_some_and(|latest| Arc::ptr_eq(latest, one));
        self.all.retain(|one| Arc::weak_count(one) > 0 || is_latest(one));
        if self.all.len() < SNAPSHOTS {
            return true;
        }
        let expired = latest.as_ref().is_none_or(|latest| latest.at.elapsed() >= EXPIRES);
        if expired {
            self.all.pop_front();
        }
        expired
    }
}

/// Text that is cut into chunks while it is written.
#[derive(Default)]
struct Chunks {
    done: Vec<Bytes>,
    next: String,
}

impl Chunks {
    fn of(stored: ScrapeData) -> Result<Vec<Bytes>, fmt::Error> {
        let mut chunks = Self::default();
        stored.encode(&mut chunks)?;
        chunks.write_str(Metrics::END)?;
        chunks.done.push(Bytes::from(chunks.next));
        Ok(chunks.done)
    }
}

impl Write for Chunks {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.next.len() + text.len() > CHUNK {
            let full = std::mem::replace(&mut self.next, String::with_capacity(CHUNK));
            self.done.extend((!full.is_empty()).then(|| Bytes::from(full)));
        }
        self.next.push_str(text);
        Ok(())
    }
}

/// A response that is being read: the receiver's own counters, then the snapshot, as long as it exists.
#[derive(Debug)]
pub struct Reading {
    own: Option<Bytes>,
    snapshot: Weak<RenderedMetrics>,
    next: usize,
    left: u64,
}

/// The client was too slow.
#[derive(Debug, thiserror::Error)]
#[error("figures that are too old to be read on")]
pub struct CutOff;

impl Reading {
    pub fn new(own: Bytes, snapshot: &Arc<RenderedMetrics>) -> Self {
        let length: usize = snapshot.chunks.iter().map(Bytes::len).sum();
        let left = (own.len() + length) as u64;
        Self { own: Some(own), snapshot: Arc::downgrade(snapshot), next: 0, left }
    }
}

impl Body for Reading {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Polling<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match self.own.take() {
            Some(own) => own,
            None => {
                let Some(snapshot) = self.snapshot.upgrade() else { return Poll::Ready(Some(Err(CutOff))) };
                let Some(chunk) = snapshot.chunks.get(self.next) else { return Poll::Ready(None) };
                self.next += 1;
                chunk.clone()
            }
        };
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::decision::{PromptName, Timestamp};
    use crate::store::RedisFault;
    use crate::store::VersionSeries;

    fn stored(prompts: usize) -> ScrapeData {
        let series = (0..prompts).map(|n| VersionSeries {
            prompt: PromptName::parse(&format!("team/prompt-{n:05}")).unwrap(),
            version: format!("2026-11-28.{n}"),
            previous: "2026-11-27.1".to_owned(),
            activated: Timestamp(1_500),
        });
        ScrapeData { series: series.collect(), ..ScrapeData::default() }
    }

    async fn text(reading: Reading) -> Result<String, CutOff> {
        Ok(String::from_utf8(reading.collect().await?.to_bytes().to_vec()).unwrap())
    }

    fn away() -> StoreError {
        StoreError::Unavailable { kind: RedisFault::Connection, message: "away".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn one_reading_a_second_serves_all_and_for_five_seconds_without_redis() {
        let (exposition, metrics) = (Exposition::default(), Metrics::new());
        let reads = std::cell::Cell::new(0);
        let ask = async |works: bool| {
            let read = async || {
                reads.set(reads.get() + 1);
                tokio::time::sleep(Duration::from_millis(100)).await;
                if works { Ok(self::stored(1)) } else { Err(away()) }
            };
            exposition.latest(&metrics, read).await.is_some()
        };
        let many = futures_util::future::join_all((0..1_000).map(|_| ask(true))).await;
        assert!(many.iter().all(|there| *there));
        assert_eq!(reads.get(), 1);
        tokio::time::sleep(FRESH).await;
        assert!(ask(true).await);
        assert_eq!(reads.get(), 2);
        for second in 1..=5 {
            tokio::time::sleep(FRESH).await;
            let many = futures_util::future::join_all((0..100).map(|_| ask(false))).await;
            assert!(many.iter().all(|there| *there == (second < 5)), "{second}: what was read is {} s old", second);
            assert_eq!(reads.get(), 2 + second, "those who waited share the failure");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_scrapers_hold_two_snapshots_at_most() {
        let (exposition, metrics) = (Exposition::default(), Metrics::new());
        let mut readers = Vec::new();
        for second in 0..40 {
            let latest = exposition.latest(&metrics, async || Ok(stored(1_000))).await;
            let latest = latest.unwrap_or_else(|| panic!("second {second}: one slow client must not stop the others"));
            readers.push(Reading::new(Bytes::from_static(b"own\n"), &latest));
            assert!(exposition.snapshots.lock().await.all.len() <= SNAPSHOTS);
            drop(latest);
            tokio::time::sleep(FRESH).await;
        }
        let last = readers.pop().unwrap();
        let first = readers.swap_remove(0);
        assert!(text(first).await.is_err());
        let whole = text(last).await.unwrap();
        assert!(whole.starts_with("own\n") && whole.ends_with("# EOF\n"), "{whole}");
        // when they are gone, there is room at once
        drop(readers);
        assert!(exposition.latest(&metrics, async || Ok(stored(1))).await.is_some());
        assert!(exposition.snapshots.lock().await.all.len() <= 2);
    }

    #[tokio::test]
    async fn a_snapshot_is_read_whole_and_its_length_is_known() {
        let (exposition, metrics) = (Exposition::default(), Metrics::new());
        let snapshot = exposition.latest(&metrics, async || Ok(stored(5_000))).await.unwrap();
        assert!(snapshot.chunks.len() > 10 && snapshot.chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        let reading = Reading::new(Bytes::from_static(b"own\n"), &snapshot);
        let length = reading.size_hint().exact();
        let text = text(reading).await.unwrap();
        assert_eq!(length, Some(text.len() as u64));
        assert_eq!(text.matches("\nprompt_rollback_active_version_info{").count(), 5_000);
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
