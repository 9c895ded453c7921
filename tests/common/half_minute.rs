//! Connections that end by a timer, in virtual time.

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, pause, resume};

use super::SOON;

/// Stops time: only [`advance`] moves it. A paused tokio moves it by itself whenever there is nothing to do, also while what a
/// socket was sent is still on its way, but not while a blocking task runs.
struct StoppedTime {
    /// The blocking task ends when this is dropped.
    _keep: Sender<()>,
}

impl StoppedTime {
    fn start() -> Self {
        pause();
        let (keep, ended) = channel();
        tokio::task::spawn_blocking(move || ended.recv_timeout(SOON));
        Self { _keep: keep }
    }
}

impl Drop for StoppedTime {
    fn drop(&mut self) {
        resume();
    }
}

/// Asserts that the receiver ends a connection on which the client sends no more than this after half a minute.
pub async fn ends_after_half_a_minute(address: SocketAddr, sent: &[u8], is_answered: bool) -> Result<()> {
    let _time = StoppedTime::start();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(sent).await?;
    if is_answered {
        ensure!(stream.read(&mut [0; 4096]).await? > 0, "no answer to {sent:?}");
    }
    // connections are accepted in their order: the first one was, once the second one has ended
    let mut second = TcpStream::connect(address).await?;
    second.write_all(b"?\r\n\r\n").await?;
    let _ = second.read_to_end(&mut Vec::new()).await;

    advance(Duration::from_secs(29)).await;
    let open = stream.try_read(&mut [0]);
    ensure!(open.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "ended early: {sent:?}");
    advance(Duration::from_secs(2)).await;
    stream.read_to_end(&mut Vec::new()).await?;
    // if the connection had not ended, time would have moved by itself
    ensure!(start.elapsed() == Duration::from_secs(31), "{sent:?}: {:?}", start.elapsed());
    Ok(())
}
