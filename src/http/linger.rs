//! Ends a connection so that its last response arrives.
//!
//! A request may be refused before its body is read. Closing a socket while bytes of that body wait in it resets the connection,
//! and a client that is reset while it sends never sees the refusal. The receiver therefore closes its own direction first and
//! discards what still arrives, within limits: sending for ever must not keep a connection open.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// How long, and how much, is discarded after the last response. The default `server.max_body_bytes` is as large.
const LONGEST: Duration = Duration::from_secs(5);
const MOST: u64 = 16 << 20;

/// Whether bytes of the last request were left unread.
pub type Unread = Arc<AtomicBool>;

/// A stream that hyper serves. If it ends with a body unread, `Rest` gets it: hyper's buffers need not live as long.
pub struct Lingering<S, F> {
    stream: Option<S>,
    unread: Unread,
    rest: Option<oneshot::Sender<S>>,
    written: F,
}

/// The stream after hyper has written the last response.
pub struct Rest<S>(oneshot::Receiver<S>);

impl<S, F: Fn()> Lingering<S, F> {
    /// `written` is called whenever nothing is left to write.
    pub fn new(stream: S, unread: Unread, written: F) -> (Self, Rest<S>) {
        let (sender, receiver) = oneshot::channel();
        (Self { stream: Some(stream), unread, rest: Some(sender), written }, Rest(receiver))
    }
}

impl<S: Unpin, F> Lingering<S, F> {
    /// The stream is there until hyper shuts it down.
    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Lingering<S, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, F: Fn() + Unpin> AsyncWrite for Lingering<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_flush(cx))?;
        // hyper flushes the stream once its own buffer is empty
        (self.written)();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        ready!(Pin::new(stream).poll_shutdown(cx))?;
        if self.unread.load(Ordering::Relaxed)
            && let (Some(stream), Some(rest)) = (self.stream.take(), self.rest.take())
        {
            let _ = rest.send(stream); // or the server stops
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> Rest<S> {
    /// Discards what the client still sends, if hyper shut the stream down before it was read. Call it when hyper's
    /// connection is dropped.
    pub async fn discard(self) {
        let Ok(stream) = self.0.await else { return };
        // a client that is gone has nothing to wait for
        let _ = tokio::time::timeout(LONGEST, tokio::io::copy(&mut stream.take(MOST), &mut tokio::io::sink())).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const CHUNK: usize = 16 << 10;

    /// A connection that hyper is done with, and its client.
    async fn ended(unread: bool) -> (Rest<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(CHUNK);
        let (mut connection, rest) = Lingering::new(ours, Arc::new(AtomicBool::new(unread)), || ());
        connection.write_all(b"413").await.unwrap();
        connection.shutdown().await.unwrap();
        (rest, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_still_sends_is_discarded_until_it_closes() {
        let (rest, mut client) = ended(true).await;
        let sending = tokio::spawn(async move {
            client.write_all(&vec![0; 1 << 20]).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let began = Instant::now();
        rest.discard().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "it waits no longer than the client sends");
        assert_eq!(sending.await.unwrap(), b"413");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_for_ever_is_cut_off_by_time_or_size() {
        for (pause, within) in [(Duration::ZERO, Duration::ZERO), (Duration::from_millis(100), LONGEST)] {
            let (rest, mut client) = ended(true).await;
            let sending = tokio::spawn(async move {
                let mut sent = 0_u64;
                while client.write_all(&[0; CHUNK]).await.is_ok() {
                    sent += CHUNK as u64;
                    match pause {
                        Duration::ZERO => tokio::task::yield_now().await,
                        pause => tokio::time::sleep(pause).await,
                    }
                }
                sent
            });
            let began = Instant::now();
            rest.discard().await;
            assert!(began.elapsed() <= within + pause, "{:?}", began.elapsed());
            let sent = sending.await.unwrap();
            assert!(sent <= MOST + 2 * CHUNK as u64, "{sent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_body_was_read_ends_without_a_wait() {
        let (rest, _client) = ended(false).await;
        let began = Instant::now();
        rest.discard().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
