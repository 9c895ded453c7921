//! Socket Mode: clicks arrive over a connection that the receiver opens, so it needs no public address.
//!
//! The library's client is not used: it waits for ever while connecting, misses some ends of a connection, retries at a
//! fixed interval, and logs the address with the ticket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use slack_morphism::prelude::SlackApiAppsConnectionOpenRequest;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame, protocol::WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use ulid::Ulid;

use super::client::{Api, SlackError, within};
use super::payload::{self, BadInteraction, Interaction, SocketMessage};
use crate::config;
use crate::http_client::{Stream, innermost};

#[cfg(test)]
mod tests;

/// Interactions are a few kB.
const MAX_MESSAGE: usize = 1 << 20;
/// Slack pings less often; a dead connection must be noticed sooner.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);
/// If a frame cannot be written within this time, the connection is dead.
const SEND: Duration = Duration::from_secs(5);
/// How long a connection is kept after Slack said that it will close it.
const FAREWELL: Duration = Duration::from_secs(60);
/// After a connection of this length, failures are counted from zero again.
const HEALTHY: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TokioIo<Stream>>;

/// Why a connection must be replaced.
#[derive(Debug)]
enum Ending {
    /// Slack is about to close it; it works until then.
    Replace,
    /// Socket Mode is disabled for the app.
    Disabled,
    Lost(String),
    /// The receiver no longer accepts clicks.
    Stopped,
}

/// Keeps a connection open for ever, and queues the clicks that arrive. Returns at once without `slack.app_token`, and
/// when the queue is closed.
///
/// Each envelope is acknowledged at once, whatever it contains, except clicks for which the queue has no room: Slack
/// delivers those again. A click may arrive twice.
pub async fn run(config: config::SlackConfig, clicks: mpsc::Sender<Interaction>) {
    let app = match Api::of_app(&config) {
        Ok(Some(app)) => app,
        Ok(None) => return,
        Err(error) => return tracing::error!(%error, "clicks do not arrive over Socket Mode"),
    };
    // the current connection, and those that Slack is about to close; all end with this future
    let mut connections = JoinSet::new();
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let mut wait = Duration::ZERO;
        let ending = match connect(&app).await {
            Ok(socket) => {
                tracing::info!("Socket Mode: connected");
                let (leave, left) = oneshot::channel();
                let connection = Connection { socket, clicks: clicks.clone(), leave: Some(leave) };
                connections.spawn(connection.serve());
                left.await.unwrap_or_else(|_| Ending::Lost("its task ended".to_owned()))
            }
            Err(error) => {
                if let SlackError::RateLimited { retry_after } = error {
                    wait = retry_after;
                }
                Ending::Lost(error.to_string())
            }
        };
        while connections.try_join_next().is_some() {}
        if started.elapsed() >= HEALTHY {
            failures = 0;
        }
        match ending {
            Ending::Stopped => return,
            Ending::Replace => {
                tracing::debug!("Socket Mode: Slack requests a new connection");
                wait = if failures == 0 { Duration::ZERO } else { backoff(failures) };
            }
            Ending::Disabled => {
                tracing::error!("Socket Mode is disabled for the app: clicks do not arrive");
                wait = LONGEST_WAIT;
            }
            Ending::Lost(reason) => {
                tracing::warn!(reason, "Socket Mode: not connected");
                wait = wait.max(backoff(failures));
            }
        }
        failures += 1;
        tokio::select! {
            () = sleep(wait) => {}
            () = clicks.closed() => return,
        }
    }
}

/// Doubles up to a limit; the random half keeps replicas from reconnecting at the same time.
fn backoff(failures: u32) -> Duration {
    let most = LONGEST_WAIT.min(FIRST_WAIT * 2_u32.pow(failures.min(10)));
    let share = (Ulid::generate().random() % 1_000) as u32;
    most / 2 + most / 2 * share / 1_000
}

#[derive(Deserialize)]
struct Opened {
    /// Contains a ticket, so it is never shown.
    url: String,
}

async fn connect(app: &Api) -> Result<Socket, SlackError> {
    const METHOD: &str = "socket mode";
    let Opened { url } = app.post("apps.connections.open", &SlackApiAppsConnectionOpenRequest::new()).await?;
    let limits = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
    let unusable = || SlackError::retry(METHOD, "an invalid address");
    let address = url.strip_prefix("ws").map(|rest| format!("http{rest}")).ok_or_else(unusable)?;
    let address: Uri = address.parse().map_err(|_| unusable())?;
    within(METHOD, async {
        let stream = app.connector.tunnel(address).await;
        let stream = stream.map_err(|error| SlackError::retry(METHOD, innermost(error.as_ref())))?;
        match client_async_with_config(url, TokioIo::new(stream), Some(limits)).await {
            Ok((socket, _)) => Ok(socket),
            Err(error) => Err(SlackError::retry(METHOD, reason(&error))),
        }
    })
    .await
}

/// The library's error texts may contain addresses and bodies.
fn reason(error: &SocketError) -> String {
    match error {
        SocketError::Io(error) => error.kind().to_string(),
        SocketError::Tls(_) => "TLS failed".to_owned(),
        SocketError::Http(response) => format!("HTTP status {}", response.status().as_u16()),
        SocketError::Capacity(_) => "a message is too large".to_owned(),
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => "the connection was closed".to_owned(),
        _ => "not the WebSocket protocol".to_owned(),
    }
}

struct Connection {
    socket: Socket,
    clicks: mpsc::Sender<Interaction>,
    /// Reports once why a new connection is needed.
    leave: Option<oneshot::Sender<Ending>>,
}

impl Connection {
    async fn serve(mut self) {
        let ending = self.listen().await;
        self.leave(ending);
    }

    fn leave(&mut self, ending: Ending) {
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(ending); // fails only while everything is being dropped
        }
    }

    /// Handles frames until the connection ends.
    async fn listen(&mut self) -> Ending {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut until = None;
        loop {
            tokio::select! {
                frame = self.socket.next() => {
                    heard = Instant::now();
                    let text = match frame {
                        None | Some(Ok(Frame::Close(_))) => return Ending::Lost("Slack closed the connection".to_owned()),
                        Some(Err(error)) => return Ending::Lost(reason(&error)),
                        Some(Ok(Frame::Text(text))) => text,
                        Some(Ok(_)) => continue,
                    };
                    match self.handle(&text).await {
                        Ok(None) => {}
                        Ok(Some(goodbye)) => {
                            // this connection still handles what Slack sends, while the new one is opened
                            self.leave(goodbye);
                            until = Some(Instant::now() + FAREWELL);
                        }
                        Err(ending) => return ending,
                    }
                }
                now = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Ending::Lost("Slack sent nothing for too long".to_owned());
                    }
                    if until.is_some_and(|until| now > until) {
                        let _ = timeout(SEND, self.socket.close(None)).await; // it was about to be closed anyway
                        return Ending::Replace;
                    }
                    if let Err(ending) = self.send(Frame::Ping(Vec::new().into())).await {
                        return ending;
                    }
                }
                () = self.clicks.closed() => return Ending::Stopped,
            }
        }
    }

    /// `Some`: Slack says that the connection is about to end.
    async fn handle(&mut self, text: &str) -> Result<Option<Ending>, Ending> {
        let (id, interaction) = match payload::parse_envelope(text) {
            Ok(SocketMessage::Goodbye { disabled: true }) => return Ok(Some(Ending::Disabled)),
            Ok(SocketMessage::Goodbye { disabled: false }) => return Ok(Some(Ending::Replace)),
            Ok(SocketMessage::Delivery { id, interaction }) => (id, interaction),
            Ok(SocketMessage::Other) => return Ok(None),
            Err(error) => {
                tracing::warn!(%error, "Socket Mode: unreadable message");
                return Ok(None);
            }
        };
        if let Some(interaction) = interaction
            && !self.queue(interaction)?
        {
            return Ok(None);
        }
        self.send(Frame::text(json!({ "envelope_id": id }).to_string())).await?;
        Ok(None)
    }

    /// Whether to acknowledge the envelope.
    fn queue(&self, interaction: Result<Interaction, BadInteraction>) -> Result<bool, Ending> {
        match interaction {
            Ok(interaction @ Interaction::Clicks(_)) => match self.clicks.try_send(interaction) {
                Ok(()) => Ok(true),
                Err(TrySendError::Full(_)) => {
                    tracing::warn!("Socket Mode: too many clicks at once; Slack will deliver this one again");
                    Ok(false)
                }
                Err(TrySendError::Closed(_)) => Err(Ending::Stopped),
            },
            Ok(Interaction::Other(kind)) => {
                tracing::debug!(kind, "an interaction without an action");
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, "Socket Mode: unreadable interaction");
                Ok(true) // it will not become readable
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), Ending> {
        match timeout(SEND, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ending::Lost(reason(&error))),
            Err(_) => Err(Ending::Lost("Slack does not read from the connection".to_owned())),
        }
    }
}
