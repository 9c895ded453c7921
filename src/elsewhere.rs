//! Runs computations on another thread that would block the serving thread for too long. One large piece at a time, so that
//! the serving thread has a core of its own on any machine with two, and one small piece beside it: a critical alert in a
//! delivery of a hundred kB does not wait for pages, pictures and huge deliveries of others.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

static PIECES: Semaphore = Semaphore::const_new(AT_ONCE);
static SMALL_PIECES: Semaphore = Semaphore::const_new(AT_ONCE);

/// In unit tests, each test has a runtime whose paused clock runs on while it waits for another runtime's permit.
const AT_ONCE: usize = if cfg!(test) { Semaphore::MAX_PERMITS } else { 1 };

/// JSON up to this many bytes is parsed in less than a millisecond; larger texts are parsed on another thread.
pub const LARGE: usize = 64 << 10;
/// The largest input of a small piece.
const SMALL: usize = 1 << 20;
/// A value in JSON costs as much as this many bytes of text, however short it is.
const VALUE: usize = 32;

/// The size of JSON, by what it costs to parse.
pub fn json_size(text: &[u8]) -> usize {
    if text.len() > SMALL {
        return text.len(); // large in any case
    }
    // there is one between any two values
    text.len() + VALUE * text.iter().filter(|byte| **byte == b',').count()
}

/// Runs `work` on another thread. If the caller is dropped, running work finishes, and waiting work is not started.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    run_within(&PIECES, work).await
}

/// Runs `work` on an input of `size`: at once if it is small, otherwise on another thread.
pub async fn run_sized<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    match turns(size) {
        None => work(),
        Some(pieces) => run_within(pieces, work).await,
    }
}

fn turns(size: usize) -> Option<&'static Semaphore> {
    if size <= LARGE {
        return None;
    }
    Some(if size <= SMALL { &SMALL_PIECES } else { &PIECES })
}

/// Like [`run`]. `None`: the work has panicked, and its caller goes on.
pub async fn try_run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    AssertUnwindSafe(run(work)).catch_unwind().await.ok()
}

async fn run_within<T: Send + 'static>(pieces: &'static Semaphore, work: impl FnOnce() -> T + Send + 'static) -> T {
    let permit = pieces.acquire().await;
    let span = tracing::Span::current(); // log lines of the other thread carry it as well
    let piece = tokio::task::spawn_blocking(move || {
        let done = span.in_scope(work);
        drop(permit);
        done
    });
    match piece.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => std::future::pending().await, // the runtime is shutting down
    }
}

/// Runs `work` at once if it is small, otherwise on another thread.
pub async fn run_if<T: Send + 'static>(large: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if large { run(work).await } else { work() }
}

/// A value that may have so many parts that freeing it takes long. Then another thread frees it, also if its owner is
/// cancelled.
#[derive(Debug)]
pub struct Large<T: Default + Send + 'static> {
    value: T,
    large: bool,
}

impl<T: Default + Send + 'static> Large<T> {
    pub fn new(value: T, large: bool) -> Self {
        Self { value, large }
    }

    pub fn get(&mut self) -> &mut T {
        &mut self.value
    }

    pub fn into_inner(mut self) -> T {
        self.large = false;
        std::mem::take(&mut self.value)
    }
}

impl<T: Default + Send + 'static> Drop for Large<T> {
    fn drop(&mut self) {
        let value = std::mem::take(&mut self.value);
        // without a runtime there is no serving thread to block
        if let Some(runtime) = Handle::try_current().ok().filter(|_| self.large) {
            runtime.spawn_blocking(move || drop(value));
        }
    }
}

/// Whether `work` has to wait for another thread.
#[cfg(test)]
pub fn needs_another_thread(work: impl Future) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
    let (free, freed) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async move {
        // the only other thread is busy
        let _busy = tokio::task::spawn_blocking(move || freed.recv());
        let waits = work.now_or_never().is_none();
        drop(free);
        waits
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn pieces_run_one_at_a_time_and_the_serving_thread_goes_on() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let piece = || {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            run_within(&ONE, move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                running.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let all = futures_util::future::join_all((0..5).map(|_| piece()));
        let ticks = async {
            let mut ticks = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ticks += 1;
                if ticks == 20 {
                    return;
                }
            }
        };
        tokio::pin!(all);
        tokio::select! {
            biased;
            _ = &mut all => panic!("the serving thread was kept for 100 ms"),
            () = ticks => {}
        }
        all.await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_is_small_does_not_wait_for_what_is_huge() {
        let is = |size, pieces| turns(size).is_some_and(|turns| std::ptr::eq(turns, pieces));
        assert!(turns(LARGE).is_none());
        assert!(is(LARGE + 1, &SMALL_PIECES) && is(SMALL, &SMALL_PIECES) && is(SMALL + 1, &PIECES));
    }

    #[test]
    fn many_short_values_are_as_large_as_they_cost() {
        let values = |value: &str, count: usize| json_size(format!("[{}]", vec![value; count].join(",")).as_bytes());
        assert!(values("{}", 20_000) > 8 * LARGE, "{}", values("{}", 20_000));
        assert!(values("{}", 50_000) > SMALL);
        let text = format!("\"{}\"", "x".repeat(50_000));
        assert!(values(&text, 1) < LARGE);
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_the_next_piece_runs() {
        let caught = tokio::spawn(run(|| panic!("boom"))).await.expect_err("a panic");
        assert!(caught.is_panic());
        assert_eq!(
            try_run(|| if true {
                panic!("boom")
            })
            .await,
            None
        );
        assert_eq!(run(|| 7).await, 7);
    }
}
