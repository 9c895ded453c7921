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

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long, and how much, is discarded after the last response. The default `server.max_body_bytes` is as large.
const LONGEST: Duration = Duration::from_secs(5);
const MOST: usize = 16 << 20;
/// Discarded by one read.
const CHUNK: usize = 16 << 10;

/// Whether bytes of the last request were left unread.
pub type Unread = Arc<AtomicBool>;

/// A connection that discards what its client still sends after the last response.
pub struct Lingering<S> {
    stream: S,
    unread: Unread,
    end: End,
}

enum End {
    NotYet,
    Discarding { until: Pin<Box<Sleep>>, left: usize },
    Over,
}

impl<S> Lingering<S> {
    pub fn new(stream: S, unread: Unread) -> Self {
        Self { stream, unread, end: End::NotYet }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.end, End::NotYet) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.end = match this.unread.load(Ordering::Relaxed) {
                true => End::Discarding { until: Box::pin(sleep(LONGEST)), left: MOST },
                false => End::Over,
            };
        }
        if let End::Discarding { until, left } = &mut this.end {
            let mut chunk = [0; CHUNK];
            while *left > 0 && until.as_mut().poll(cx).is_pending() {
                let mut buffer = ReadBuf::new(&mut chunk);
                // a client that is gone has nothing to wait for
                let read =
                    ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)).map(|()| buffer.filled().len());
                match read {
                    Ok(read @ 1..) => *left = left.saturating_sub(read),
                    Ok(0) | Err(_) => break,
                }
            }
            this.end = End::Over;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    fn connection(unread: bool) -> (Lingering<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(CHUNK);
        (Lingering::new(ours, Arc::new(AtomicBool::new(unread))), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_still_sends_is_discarded_until_it_closes() {
        let (mut connection, mut client) = connection(true);
        connection.write_all(b"413").await.unwrap();
        let sending = tokio::spawn(async move {
            client.write_all(&vec![0; 1 << 20]).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let began = Instant::now();
        connection.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "it waits no longer than the client sends");
        assert_eq!(sending.await.unwrap(), b"413");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_for_ever_is_cut_off_by_time_or_size() {
        for (pause, within) in [(Duration::ZERO, Duration::ZERO), (Duration::from_millis(100), LONGEST)] {
            let (mut connection, mut client) = connection(true);
            let sending = tokio::spawn(async move {
                let mut sent = 0;
                while client.write_all(&[0; CHUNK]).await.is_ok() {
                    sent += CHUNK;
                    match pause {
                        Duration::ZERO => tokio::task::yield_now().await,
                        pause => sleep(pause).await,
                    }
                }
                sent
            });
            let began = Instant::now();
            connection.shutdown().await.unwrap();
            assert!(began.elapsed() <= within + pause, "{:?}", began.elapsed());
            drop(connection);
            let sent = sending.await.unwrap();
            assert!(sent <= MOST + 2 * CHUNK, "{sent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_was_read_nothing_is_waited_for() {
        let (mut connection, _client) = connection(false);
        let began = Instant::now();
        connection.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
