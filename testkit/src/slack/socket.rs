//! Socket Mode: the app connects, gets its interactions in envelopes and acknowledges each one.

use super::interact::{ACK_WITHIN, Delivery};
use super::records::Ack;
use super::state::Shared;
use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Slack closes further ones.
const MAX_SOCKETS: usize = 10;
const PING_EVERY: Duration = Duration::from_secs(10);

/// The state of sockets in the workspace.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Each opens one socket.
    pub tickets: BTreeSet<String>,
    pub open: Vec<Link>,
    turn: usize,
    waiting: HashMap<String, Waiting>,
    sent_at: HashMap<String, Instant>,
    last_link: u64,
}

/// An open socket.
#[derive(Debug)]
pub(super) struct Link {
    id: u64,
    orders: mpsc::UnboundedSender<Order>,
}

impl Link {
    pub fn order(&self, order: Order) {
        // a socket that has just closed accepts no orders
        self.orders.send(order).ok();
    }
}

/// A command to a socket.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Send(String),
    /// Sends a close frame, then closes.
    Close,
    /// Closes without a close frame.
    Cut,
    /// Stays open without reading or writing: like a lost network.
    Freeze,
}

#[derive(Debug)]
struct Waiting {
    link: u64,
    acked: oneshot::Sender<Option<Value>>,
}

/// The announcement that this socket will close: `warning`, `refresh_requested`, `link_disabled`.
pub(super) fn goodbye(reason: &str) -> Order {
    Order::Send(json!({"type": "disconnect", "reason": reason, "debug_info": {"host": "double"}}).to_string())
}

/// Switches a request to the WebSocket protocol, given a valid ticket.
pub(super) fn accept(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let ticket = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "ticket");
    let ticket = ticket.map(|(_, ticket)| ticket.into_owned()).unwrap_or_default();
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (status, key) = match key {
        None => (400, None),
        Some(_) if !shared.lock().sockets.tickets.remove(&ticket) => (401, None),
        Some(key) => (101, Some(key)),
    };
    let mut response = Response::builder().status(status);
    if let Some(key) = key {
        response = response
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, key);
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Ok(upgraded) = hyper::upgrade::on(request).await {
                let stream = TokioIo::new(upgraded);
                run(shared, WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
            }
        });
    }
    response.body(Full::default()).unwrap_or_default()
}

async fn run(shared: Arc<Shared>, socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
    let (mut out, mut inbound) = socket.split();
    let (orders, mut inbox) = mpsc::unbounded_channel();
    let link = {
        let mut state = shared.lock();
        let sockets = &mut state.sockets;
        sockets.last_link += 1;
        let link = Link { id: sockets.last_link, orders };
        let id = link.id;
        if sockets.open.len() == MAX_SOCKETS {
            link.order(goodbye("too_many_websockets"));
            link.order(Order::Close);
        } else {
            link.order(Order::Send(hello(&shared.setup.app_id, sockets.open.len() + 1)));
            sockets.open.push(link);
        }
        id
    };
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        let sent = tokio::select! {
            // an order takes effect before anything that the app sends after it
            biased;
            order = inbox.recv() => match order {
                Some(Order::Send(text)) => out.send(Frame::text(text)).await,
                Some(Order::Close) => {
                    // the app may never answer the close frame; Slack does not wait for it either
                    out.send(Frame::Close(None)).await.ok();
                    break;
                }
                Some(Order::Freeze) => {
                    // only a cut ends this
                    while !matches!(inbox.recv().await, Some(Order::Cut) | None) {}
                    break;
                }
                Some(Order::Cut) | None => break,
            },
            frame = inbound.next() => match frame {
                Some(Ok(Frame::Text(text))) => {
                    acknowledge(&shared, &text);
                    Ok(())
                }
                Some(Ok(_)) => Ok(()),
                Some(Err(_)) | None => break,
            },
            _ = pings.tick() => out.send(Frame::Ping(Bytes::from_static(b"ping"))).await,
        };
        if sent.is_err() {
            break;
        }
    }
    let mut state = shared.lock();
    state.sockets.open.retain(|open| open.id != link);
    // tells callers that wait for an ack over this socket that there will be none
    state.sockets.waiting.retain(|_, waiting| waiting.link != link);
}

fn hello(app_id: &str, connections: usize) -> String {
    json!({
        "type": "hello", "num_connections": connections, "connection_info": {"app_id": app_id},
        "debug_info": {"host": "double", "build_number": 1, "approximate_connection_time": 18_060},
    })
    .to_string()
}

fn acknowledge(shared: &Shared, text: &str) {
    let Ok(ack) = serde_json::from_str::<Value>(text) else { return };
    let Some(envelope_id) = ack["envelope_id"].as_str().map(str::to_owned) else { return };
    let payload = ack.get("payload").cloned();
    let mut state = shared.lock();
    let after = state.sockets.sent_at.get(&envelope_id).map(Instant::elapsed);
    if let Some(waiting) = state.sockets.waiting.remove(&envelope_id) {
        // the caller has given up; the record below shows the late ack
        waiting.acked.send(payload.clone()).ok();
    }
    state.acks.push(Ack { envelope_id, after, payload });
}

/// Sends an envelope over one socket and waits for its ack; then over the next one, as often as configured.
pub(super) async fn deliver(shared: &Shared, payload: &Value) -> Result<Delivery> {
    let envelope_id = shared.lock().next_id("envelope-");
    let mut envelope = json!({
        "type": "interactive", "envelope_id": envelope_id, "payload": payload,
        "accepts_response_payload": payload["type"] == "view_submission",
    });
    let start = Instant::now();
    let mut reason = "no socket is open";
    for attempt in 0..=shared.setup.redeliveries {
        if attempt > 0 {
            envelope["retry_attempt"] = attempt.into();
            envelope["retry_reason"] = "timeout".into();
        }
        let Some(acked) = send(shared, &envelope_id, envelope.to_string()) else { break };
        match tokio::time::timeout(ACK_WITHIN, acked).await {
            Ok(Ok(payload)) => {
                let body = payload.map(|payload| payload.to_string()).unwrap_or_default();
                let (latency, envelope_id) = (start.elapsed(), Some(envelope_id));
                return Ok(Delivery { acknowledged: true, status: 0, body, latency, envelope_id });
            }
            Ok(Err(_)) => reason = "the socket ended before the ack",
            Err(_) => reason = "no ack within 3 s",
        }
    }
    let (latency, body) = (start.elapsed(), reason.to_owned());
    Ok(Delivery { acknowledged: false, status: 0, body, latency, envelope_id: Some(envelope_id) })
}

fn send(shared: &Shared, envelope_id: &str, text: String) -> Option<oneshot::Receiver<Option<Value>>> {
    let (acked, receiver) = oneshot::channel();
    let mut state = shared.lock();
    let sockets = &mut state.sockets;
    sockets.turn += 1;
    let link = sockets.open.get(sockets.turn % sockets.open.len().max(1))?;
    let waiting = Waiting { link: link.id, acked };
    link.order(Order::Send(text));
    sockets.sent_at.insert(envelope_id.to_owned(), Instant::now());
    sockets.waiting.insert(envelope_id.to_owned(), waiting);
    Some(receiver)
}
