//! A server that sends too much.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers every request with 200, a beginning, and spaces.
#[derive(Debug)]
pub struct Flood {
    address: SocketAddr,
    sent: Arc<AtomicUsize>,
}

impl Flood {
    /// `length`: of the whole body; `None`: endless.
    pub async fn start(beginning: &str, length: Option<usize>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, sent) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let (beginning, count) = (beginning.to_owned(), Arc::clone(&sent));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (beginning, count) = (beginning.clone(), Arc::clone(&count));
                // a client may disconnect
                tokio::spawn(async move { answer(stream, &beginning, length, &count).await.ok() });
            }
        });
        Ok(Self { address, sent })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bytes that it has sent, to all clients together.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn answer(mut stream: TcpStream, beginning: &str, length: Option<usize>, sent: &AtomicUsize) -> Result<()> {
    const SPACES: [u8; 4096] = [b' '; 4096];
    let mut request = [0; 4096];
    // every request of these tests fits
    while stream.read(&mut request).await? > 0 {
        let framing = match length {
            Some(length) => format!("Content-Length: {length}"),
            None => "Connection: close".to_owned(),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n\r\n{beginning}");
        stream.write_all(head.as_bytes()).await?;
        let mut left = length.map(|length| length - beginning.len());
        while left != Some(0) {
            let part = SPACES.len().min(left.unwrap_or(SPACES.len()));
            stream.write_all(&SPACES[..part]).await?;
            sent.fetch_add(part, Ordering::Relaxed);
            left = left.map(|left| left - part);
        }
    }
    Ok(())
}
