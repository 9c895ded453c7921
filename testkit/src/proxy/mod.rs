//! A TCP proxy in front of Redis that breaks connections on demand.

mod plan;

use crate::Rng;
use anyhow::{Context, Result};
use plan::{Boundary, Plan, Struck};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Accepts and reads, but forwards and answers nothing. What was read meanwhile is lost, so a connection that lost
    /// something closes when this ends: a stream has no gaps.
    Stall,
    /// Closes all connections, and new ones at once.
    Cut,
    /// Answers each command itself, with these bytes: `-LOADING …\r\n`, `-OOM …\r\n`.
    Answer(Vec<u8>),
}

/// Which reply to drop: that of the command that contains `pattern`, after `skip` others that do.
#[derive(Debug)]
struct Loss {
    pattern: Vec<u8>,
    skip: usize,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    mode: watch::Sender<Mode>,
    loss: Mutex<Option<Loss>>,
    plan: Mutex<Option<Arc<Plan>>>,
    struck: Struck,
}

/// A running proxy on a loopback port; stops when dropped. Needs a tokio runtime.
#[derive(Debug)]
pub struct FaultProxy {
    addr: String,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free port, in front of `upstream` (`host:port`).
    pub async fn start(upstream: impl Into<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the proxy")?;
        let addr = listener.local_addr()?.to_string();
        let shared = Shared {
            upstream: upstream.into(),
            mode: watch::Sender::new(Mode::Pass),
            loss: Mutex::default(),
            plan: Mutex::default(),
            struck: Struck::default(),
        };
        let shared = Arc::new(shared);
        let accept = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { addr, shared, accept })
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Changes the mode for open and new connections.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Forwards the next command that contains `pattern`, drops its reply and closes that connection, so that its
    /// sender cannot know that it ran. Redis has run it by the time the connection closes.
    pub fn lose_next_reply_matching(&self, pattern: impl AsRef<[u8]>) {
        self.lose_reply_after(0, pattern);
    }

    /// Like [`lose_next_reply_matching`](Self::lose_next_reply_matching), for the command after `skip` others that
    /// contain `pattern`; an empty pattern matches every command.
    pub fn lose_reply_after(&self, skip: usize, pattern: impl AsRef<[u8]>) {
        *self.shared.lock() = Some(Loss { pattern: pattern.as_ref().to_vec(), skip });
    }

    /// Disturbs `per_mille` of the commands from now on, each in one of these ways: a delay, a cut before or inside it,
    /// its reply dropped (then a cut, or silence), a cut inside the reply, one direction closed. 0 ends it.
    pub fn strike(&self, rng: Rng, per_mille: u64) {
        let plan = (per_mille > 0).then(|| Arc::new(Plan::new(rng, per_mille)));
        *self.shared.plan.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = plan;
    }

    /// How often [`strike`](Self::strike) did each of these.
    pub fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.shared.struck.all()
    }

    /// Whether a reply that is to be dropped has not come yet.
    pub fn loss_pending(&self) -> bool {
        self.shared.lock().is_some()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.set(Mode::Cut);
        self.accept.abort();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Loss>> {
        self.loss.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn loses_reply_of(&self, command: &[u8]) -> bool {
        let mut loss = self.lock();
        let Some(armed) = loss.as_mut() else {
            return false;
        };
        let pattern = &armed.pattern;
        let matches = pattern.is_empty() || command.windows(pattern.len()).any(|window| window == pattern);
        if matches && armed.skip == 0 {
            *loss = None;
            return true;
        }
        armed.skip -= usize::from(matches);
        false
    }

    /// Returns when the stall is over.
    async fn stalled(&self) -> io::Result<()> {
        let _ = self.mode.subscribe().wait_for(|mode| *mode != Mode::Stall).await;
        Ok(())
    }

    fn boundary(&self) -> Boundary {
        let plan = self.plan.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let boundary = plan.map_or(Boundary::Pass, |plan| plan.draw());
        self.struck.note(boundary);
        boundary
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.mode.borrow() != Mode::Cut {
            tokio::spawn(serve(client, shared.clone()));
        }
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let relay = async {
        let server = TcpStream::connect(&shared.upstream).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let client = ToClient {
            writer: tokio::sync::Mutex::new(to_client),
            left: AtomicUsize::new(usize::MAX),
            ends: AtomicBool::new(false),
        };
        tokio::select! {
            done = replies(from_server, &client, &shared) => done,
            done = commands(from_client, to_server, &client, &shared) => done,
        }
    };
    tokio::select! {
        done = relay => done,
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => Ok(()),
    }
}

struct ToClient {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Bytes that may still be forwarded to the client.
    left: AtomicUsize,
    /// Whether the connection closes when none are left.
    ends: AtomicBool,
}

impl ToClient {
    /// Forwards nothing to the client any more.
    fn silence(&self) {
        self.left.store(0, Ordering::SeqCst);
    }
}

async fn replies(mut from: OwnedReadHalf, client: &ToClient, shared: &Shared) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        if *shared.mode.borrow() == Mode::Stall {
            return shared.stalled().await;
        }
        let left = client.left.load(Ordering::SeqCst);
        if left > 0 {
            client.writer.lock().await.write_all(&chunk[..read.min(left)]).await?;
        }
        if left < usize::MAX {
            client.left.store(left.saturating_sub(read), Ordering::SeqCst);
            if left <= read && client.ends.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    }
}

async fn commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    client: &ToClient,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(length) = command_length(&buffer) {
            let rest = buffer.split_off(length);
            let command = std::mem::replace(&mut buffer, rest);
            let mode = shared.mode.borrow().clone();
            let boundary = match mode {
                Mode::Stall => return shared.stalled().await,
                Mode::Cut => return Ok(()),
                Mode::Answer(reply) => {
                    client.writer.lock().await.write_all(&reply).await?;
                    continue;
                }
                Mode::Pass if shared.loses_reply_of(&command) => Boundary::LoseReply,
                Mode::Pass => shared.boundary(),
            };
            match boundary {
                Boundary::Cut => return Ok(()),
                Boundary::CutInside => {
                    to.write_all(&command[..command.len() / 2]).await?;
                    to.shutdown().await?; // read before the end, instead of dropped with it
                    return Ok(());
                }
                Boundary::Delay(wait) => tokio::time::sleep(wait).await,
                Boundary::Silence | Boundary::LoseReply => client.silence(),
                Boundary::CutReply(bytes) => {
                    client.ends.store(true, Ordering::SeqCst);
                    client.left.store(bytes, Ordering::SeqCst);
                }
                Boundary::HalfCloseClient => {
                    client.silence();
                    client.writer.lock().await.shutdown().await?;
                }
                Boundary::Pass | Boundary::HalfCloseServer => {}
            }
            to.write_all(&command).await?;
            if matches!(boundary, Boundary::LoseReply | Boundary::HalfCloseServer) {
                // Redis runs everything it was sent before it sees the end and closes, which ends `replies`
                to.shutdown().await?;
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The bytes of the first complete command in `buffer`: an array of bulk strings. Anything else (TLS) is forwarded as
/// it arrives.
fn command_length(buffer: &[u8]) -> Option<usize> {
    let number = |at: usize, mark: u8| -> Option<(usize, usize)> {
        let end = at + buffer[at..].iter().position(|byte| *byte == b'\n')?;
        let line = buffer[at..end].strip_prefix(&[mark])?.strip_suffix(b"\r")?;
        Some((std::str::from_utf8(line).ok()?.parse().ok()?, end + 1))
    };
    match buffer.first()? {
        b'*' => {
            let (items, mut at) = number(0, b'*')?;
            for _ in 0..items {
                if at >= buffer.len() {
                    return None;
                }
                let (length, start) = number(at, b'$')?;
                at = start + length + 2;
            }
            (at <= buffer.len()).then_some(at)
        }
        _ => Some(buffer.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::command_length;

    #[test]
    fn a_command_ends_after_its_last_argument() {
        let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        assert_eq!(command_length(get), Some(get.len()));
        assert_eq!(command_length(&[get.as_slice(), b"*1\r\n$4\r\nPI"].concat()), Some(get.len()));
        for cut in 1..get.len() {
            assert_eq!(command_length(&get[..cut]), None, "cut at {cut}");
        }
        assert_eq!(command_length(b"\x16\x03\x01"), Some(3));
        assert_eq!(command_length(b""), None);
    }
}
