//! Connections that limit each answer, for a client that would read any amount.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

/// Connects as `C` does.
#[derive(Debug, Clone)]
pub struct Capped<C> {
    connector: C,
    max_answer: usize,
}

impl<C> Capped<C> {
    /// `max_answer` limits each answer including its head, in bytes.
    pub fn new(connector: C, max_answer: usize) -> Self {
        Self { connector, max_answer }
    }
}

impl<C> Service<Uri> for Capped<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = CappedStream<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, max_answer) = (self.connector.call(uri), self.max_answer);
        Box::pin(async move { Ok(CappedStream { stream: connecting.await?, max_answer, read: 0 }) })
    }
}

/// HTTP/1 without pipelining: everything read between two writes is one answer.
#[derive(Debug)]
pub struct CappedStream<S> {
    stream: S,
    max_answer: usize,
    read: usize,
}

/// Why a connection was closed.
#[derive(Debug)]
struct TooLarge(usize);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is larger than {} bytes", self.0)
    }
}

impl std::error::Error for TooLarge {}

impl<S: Read + Unpin> Read for CappedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; 8 << 10];
        let room = chunk.len().min(buf.remaining());
        let mut chunk = ReadBuf::new(&mut chunk[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, chunk.unfilled()))?;
        self.read += chunk.filled().len();
        if self.read > self.max_answer {
            return Poll::Ready(Err(io::Error::other(TooLarge(self.max_answer))));
        }
        buf.put_slice(chunk.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for CappedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

impl<S: Connection> Connection for CappedStream<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}
