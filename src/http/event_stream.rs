//! The body of a stream of Server-Sent Events.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::exposition::CutOff;
use super::peer::LONGEST;
use crate::decision::PromptName;
use crate::service::updates::{ChangedPrompts, PageSubscription, Update};

/// How soon a browser reconnects, in ms.
const RETRY: &str = "retry: 2000\n\n";
const RESYNC: &str = "event: resync\ndata: {}\n\n";
const STALE: &str = "event: stale\ndata: {}\n\n";
/// Proxies end what is silent for long, often for a minute. An event, because no script sees a comment: so a page knows
/// that its stream still works.
const KEEP_ALIVE: &str = "event: keep-alive\ndata: {}\n\n";
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Streams end this much earlier than `LONGEST`, each at another time: not all pages come back at once.
const SPREAD: Duration = Duration::from_secs(600);

/// The body of a stream.
pub struct EventStream {
    subscription: PageSubscription,
    visible: Box<dyn Fn(&str) -> bool + Send + Sync>,
    still_admitted: Box<dyn Fn() -> bool + Send + Sync>,
    greeted: bool,
    /// For the next keep-alive, or the end.
    timer: Pin<Box<Sleep>>,
    ends: Instant,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl EventStream {
    pub fn new(
        subscription: PageSubscription,
        visible: impl Fn(&str) -> bool + Send + Sync + 'static,
        still_admitted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let now = Instant::now();
        Self {
            ends: now + LONGEST - Duration::from_secs(subscription.number % SPREAD.as_secs()),
            subscription,
            visible: Box::new(visible),
            still_admitted: Box::new(still_admitted),
            greeted: false,
            timer: Box::pin(sleep_until(now + KEEP_ALIVE_EVERY)),
        }
    }

    /// The events of a batch; `None` if this caller may see none of them.
    fn changed(&self, changes: &ChangedPrompts) -> Option<Bytes> {
        let is_visible = |prompt: &&PromptName| (self.visible)(prompt.as_str());
        let spread = self.subscription.spread();
        if changes.prompts.iter().all(|prompt| is_visible(&prompt)) {
            return Some(changes.rendered(|prompts| render(prompts.iter(), spread)));
        }
        let visible = render(changes.prompts.iter().filter(is_visible), spread);
        (!visible.is_empty()).then_some(visible)
    }
}

fn render<'a>(prompts: impl Iterator<Item = &'a PromptName>, spread: Duration) -> Bytes {
    let spread = match spread.as_millis() {
        0 => String::new(),
        ms => format!(",\"spread\":{ms}"),
    };
    // a prompt's name contains nothing that JSON escapes
    prompts
        .map(|prompt| format!("event: change\ndata: {{\"prompt\":\"{prompt}\"{spread}}}\n\n"))
        .collect::<String>()
        .into()
}

fn resync(spread: Duration) -> Bytes {
    match spread.as_millis() {
        0 => Bytes::from_static(RESYNC.as_bytes()),
        ms => format!("event: resync\ndata: {{\"spread\":{ms}}}\n\n").into(),
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        let frame = |text: Bytes| Poll::Ready(Some(Ok(Frame::data(text))));
        if !this.greeted {
            this.greeted = true;
            // a reload between its admission and its subscription told it nothing
            return if (this.still_admitted)() {
                frame(Bytes::from_static(RETRY.as_bytes()))
            } else {
                Poll::Ready(None)
            };
        }
        while let Poll::Ready(update) = this.subscription.poll_next(polling) {
            match update {
                None => return Poll::Ready(None),
                Some(Update::Reloaded) if !(this.still_admitted)() => return Poll::Ready(None),
                Some(Update::Stale) => return frame(Bytes::from_static(STALE.as_bytes())),
                // another config changes what automation would do
                Some(Update::Resync | Update::Reloaded) => return frame(resync(this.subscription.spread())),
                Some(Update::Changed(changes)) => {
                    if let Some(events) = this.changed(&changes) {
                        return frame(events);
                    }
                }
            }
        }
        if this.timer.as_mut().poll(polling).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        // the session may have ended
        if now >= this.ends || !(this.still_admitted)() {
            return Poll::Ready(None);
        }
        this.timer.as_mut().reset((now + KEEP_ALIVE_EVERY).min(this.ends));
        frame(Bytes::from_static(KEEP_ALIVE.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt;

    use super::*;
    use crate::service::updates::Updates;

    /// The next frame; `None` at the end.
    async fn next(stream: &mut EventStream) -> Option<String> {
        let frame = stream.frame().await?.expect("no error").into_data().expect("data");
        Some(String::from_utf8(frame.to_vec()).expect("text"))
    }

    async fn greeted(updates: &Updates, visible: impl Fn(&str) -> bool + Send + Sync + 'static) -> EventStream {
        let mut stream = EventStream::new(updates.subscribe(9, None).expect("a page"), visible, || true);
        assert_eq!(next(&mut stream).await.as_deref(), Some("retry: 2000\n\n"));
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_sends_an_event_every_15_s_and_ends_within_an_hour() {
        let updates = Updates::default();
        let start = Instant::now();
        let (mut first, mut second) = (greeted(&updates, |_| true).await, greeted(&updates, |_| true).await);
        let mut at = Vec::new();
        while let Some(event) = next(&mut first).await {
            assert_eq!(event, "event: keep-alive\ndata: {}\n\n");
            at.push(start.elapsed().as_secs());
        }
        assert_eq!(at, (1..240).map(|n| 15 * n).collect::<Vec<_>>());
        let ended = start.elapsed();
        assert!(ended < LONGEST && ended > LONGEST - SPREAD, "{ended:?}");
        while next(&mut second).await.is_some() {}
        assert!(start.elapsed() < ended + Duration::from_millis(10), "each stream ends at a time of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_hears_only_of_prompts_that_it_may_see() {
        let updates = Updates::default();
        let mut some = greeted(&updates, |prompt| prompt.starts_with("team-a/")).await;
        let (mut all, mut none) = (greeted(&updates, |_| true).await, greeted(&updates, |_| false).await);
        updates.change(&["team-a/p", "team-b/p", "team-a/q"]).await;
        let event = |prompt: &str| format!("event: change\ndata: {{\"prompt\":\"{prompt}\"}}\n\n");
        assert_eq!(next(&mut some).await, Some(event("team-a/p") + &event("team-a/q")));
        assert_eq!(next(&mut all).await, Some(event("team-a/p") + &event("team-b/p") + &event("team-a/q")));
        updates.change(&["team-b/p"]).await;
        for stream in [&mut some, &mut none] {
            assert_eq!(next(stream).await.as_deref(), Some(KEEP_ALIVE), "nothing of it, not even an empty event");
        }
        assert_eq!(next(&mut all).await, Some(event("team-b/p")));
    }

    #[tokio::test(start_paused = true)]
    async fn with_many_open_pages_an_event_says_how_to_spread_the_reads() {
        let updates = Updates::default();
        let mut some = greeted(&updates, |prompt| prompt != "q").await;
        let more: Vec<_> = (0..60).map(|_| updates.subscribe(99, None).expect("a page")).collect();
        updates.change(&["p", "q"]).await;
        let expected = "event: change\ndata: {\"prompt\":\"p\",\"spread\":510}\n\n";
        assert_eq!(next(&mut some).await.as_deref(), Some(expected));
        updates.reloaded().await;
        assert_eq!(next(&mut some).await.as_deref(), Some("event: resync\ndata: {\"spread\":510}\n\n"));
        drop(more);
        updates.change(&["p"]).await;
        assert_eq!(next(&mut some).await.as_deref(), Some("event: change\ndata: {\"prompt\":\"p\"}\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_what_admitted_it() {
        let updates = Updates::default();
        let admitted = Arc::new(AtomicBool::new(true));
        let open = || {
            let admitted = Arc::clone(&admitted);
            EventStream::new(
                updates.subscribe(9, None).expect("a page"),
                |_| true,
                move || admitted.load(Ordering::Relaxed),
            )
        };
        let mut stream = open();
        assert!(next(&mut stream).await.is_some());
        updates.reloaded().await;
        updates.change(&["p"]).await;
        assert_eq!(next(&mut stream).await.as_deref(), Some(RESYNC), "the config may have changed what pages show");
        assert!(next(&mut stream).await.expect("it goes on").contains("\"p\""));
        let mut another = open();
        assert!(next(&mut another).await.is_some());
        admitted.store(false, Ordering::Relaxed);
        assert_eq!(next(&mut another).await, None, "with the next keep-alive, because a session may have ended");
        updates.reloaded().await;
        assert_eq!(next(&mut stream).await, None, "with a reload");
        assert_eq!(next(&mut open()).await, None, "nor does one begin that was admitted just before");
    }
}
