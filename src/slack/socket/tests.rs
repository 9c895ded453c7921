use std::time::Duration;

use prompt_rollback_testkit::slack::{self as double, Fault, Message};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;

use super::*;
use crate::config::Config;
use crate::http_client::{Proxies, ProxyConnector, tls_config};
use crate::tls::ClientTls;

const SOON: Duration = Duration::from_secs(20);

fn settings(slack: &double::Slack) -> config::SlackConfig {
    let keys = [("API_URL", slack.api_url()), ("APP_TOKEN", slack.app_token().to_owned())];
    let env = keys.map(|(key, value)| (format!("PROMPT_ROLLBACK_SLACK__{key}"), value));
    Config::load(None, env.into_iter()).expect("a config").slack
}

/// A workspace with a message that has a button, and a receiver of its clicks.
struct SocketWorld {
    slack: double::Slack,
    message: Message,
    clicks: mpsc::Receiver<Interaction>,
}

impl SocketWorld {
    async fn new() -> Self {
        let slack =
            double::Slack::builder().user("U1", "maya", "Maya").channel("C1", "on-call").redeliveries(3).start();
        let slack = slack.expect("a workspace");
        let button = json!({"type": "button", "action_id": "approve", "value": "v", "text": {"type": "plain_text", "text": "Do"}});
        let body = json!({"channel": "C1", "text": "?", "blocks": [{"type": "actions", "elements": [button]}]});
        let bot = Api::new(&settings(&slack), &slack.bot_token().into()).expect("a client");
        let Value::Object(_) = bot.post("chat.postMessage", &body).await.expect("posted") else { panic!("no object") };
        let message = slack.roots("C1").remove(0);
        let (sender, clicks) = mpsc::channel(8);
        tokio::spawn(run(settings(&slack), sender));
        let world = Self { slack, message, clicks };
        world.connected(1).await;
        world
    }

    async fn connected(&self, sockets: usize) {
        self.slack
            .wait_for("sockets", SOON, |slack| (slack.sockets() == sockets).then_some(()))
            .await
            .expect("connected");
    }

    /// Clicks, and waits until the click arrives.
    async fn click(&mut self) {
        let delivery = self.slack.click("U1", &self.message, "approve").send().await.expect("sent");
        assert!(delivery.acknowledged, "{}", delivery.body);
        assert!(delivery.latency < Duration::from_secs(1), "{:?}", delivery.latency);
        let Some(Interaction::Clicks(clicks)) = self.clicks.recv().await else { panic!("no click") };
        assert_eq!((clicks[0].user.as_str(), clicks[0].action_id.as_str()), ("U1", "approve"));
    }
}

#[tokio::test]
async fn clicks_arrive_whatever_becomes_of_connections() {
    let mut world = SocketWorld::new().await;
    world.click().await;

    world.slack.warn_sockets();
    world.connected(2).await;
    // the double takes turns, so one of these goes over the connection that is about to end
    world.click().await;
    world.click().await;

    world.slack.refresh_sockets();
    world.connected(1).await;
    world.click().await;

    world.slack.inject(Fault::status(503).on("apps.connections.open").times(2));
    world.slack.cut_sockets();
    world.connected(0).await;
    world.connected(1).await;
    world.click().await;
}

#[tokio::test]
async fn envelopes_without_a_click_are_acknowledged() {
    let mut world = SocketWorld::new().await;
    for payload in [json!({"type": "view_closed"}), json!({"type": "block_actions"}), json!(null), json!([[]])] {
        let delivery = world.slack.send_envelope(payload.clone()).await.expect("sent");
        assert!(delivery.acknowledged, "{payload}");
    }
    assert!(world.clicks.try_recv().is_err());
}

#[tokio::test]
async fn ends_when_nobody_takes_the_clicks_or_there_is_no_token() {
    let slack = double::Slack::builder().start().expect("a workspace");
    let (sender, clicks) = mpsc::channel(1);
    run(Config::default().slack, sender.clone()).await;
    let running = tokio::spawn(run(settings(&slack), sender));
    slack.wait_for("a socket", SOON, |slack| (slack.sockets() == 1).then_some(())).await.expect("connected");
    drop(clicks);
    timeout(SOON, running).await.expect("it ends").expect("without a panic");
}

type Peer = WebSocketStream<TcpStream>;

/// A served connection, and Slack's end of it.
async fn served(room: usize) -> (Peer, mpsc::Receiver<Interaction>, oneshot::Receiver<Ending>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = tls_config(false, &ClientTls::default()).expect("no certificates are needed");
    let connector = ProxyConnector::new(tls, Proxies::of_environment());
    let opened = async {
        let stream =
            connector.tunnel(format!("http://{address}").parse().expect("an address")).await.expect("connected");
        client_async_with_config(format!("ws://{address}"), TokioIo::new(stream), None).await
    };
    let (ours, theirs) =
        tokio::join!(opened, async { accept_async(listener.accept().await.expect("a connection").0).await });
    let (sender, clicks) = mpsc::channel(room);
    let (leave, left) = oneshot::channel();
    let connection = Connection { socket: ours.expect("connected").0, clicks: sender, leave: Some(leave) };
    tokio::spawn(connection.serve());
    (theirs.expect("accepted"), clicks, left)
}

async fn say(peer: &mut Peer, message: Value) {
    peer.send(Frame::text(message.to_string())).await.expect("sent");
}

/// The id in the next acknowledgement, if one arrives before the next ping.
async fn acknowledged(peer: &mut Peer) -> Option<String> {
    loop {
        match peer.next().await?.expect("a frame") {
            Frame::Text(text) => {
                return Some(serde_json::from_str::<Value>(&text).expect("JSON")["envelope_id"].as_str()?.to_owned());
            }
            Frame::Ping(_) => return None,
            _ => {}
        }
    }
}

fn click(envelope: &str) -> Value {
    let action = json!({"action_id": "approve", "value": "v", "action_ts": "1.2"});
    let payload = json!({"type": "block_actions", "user": {"id": "U1"}, "actions": [action]});
    json!({"type": "interactive", "envelope_id": envelope, "payload": payload})
}

#[tokio::test]
async fn envelopes_of_any_kind_are_acknowledged() {
    let (mut peer, mut clicks, _left) = served(8).await;
    assert_eq!(acknowledged(&mut peer).await, None, "the first ping");
    for (n, kind) in ["events_api", "slash_commands", "new_in_2031"].into_iter().enumerate() {
        say(&mut peer, json!({"type": kind, "envelope_id": format!("e{n}"), "payload": {}})).await;
        assert_eq!(acknowledged(&mut peer).await, Some(format!("e{n}")));
    }
    // none of these is an envelope; the next one still arrives
    for text in ["", "{", "[]", "null", r#"{"type":"hello"}"#, r#"{"envelope_id":7}"#] {
        peer.send(Frame::text(text)).await.expect("sent");
    }
    peer.send(Frame::binary(vec![0xff; 9])).await.expect("sent");
    say(&mut peer, click("e9")).await;
    assert_eq!(acknowledged(&mut peer).await, Some("e9".to_owned()));
    assert!(clicks.try_recv().is_ok());
}

#[tokio::test]
async fn a_click_without_room_is_left_to_slack() {
    let (mut peer, mut clicks, _left) = served(1).await;
    assert_eq!(acknowledged(&mut peer).await, None, "the first ping");
    for envelope in ["a", "b"] {
        say(&mut peer, click(envelope)).await;
    }
    // acknowledged in order, so the answer to this one shows that there is none for b
    say(&mut peer, json!({"type": "events_api", "envelope_id": "c"})).await;
    assert_eq!(acknowledged(&mut peer).await, Some("a".to_owned()));
    assert_eq!(acknowledged(&mut peer).await, Some("c".to_owned()));
    assert!(clicks.try_recv().is_ok());
    say(&mut peer, click("b")).await;
    assert_eq!(acknowledged(&mut peer).await, Some("b".to_owned()), "delivered again");
    assert!(clicks.try_recv().is_ok());
}

#[tokio::test]
async fn a_connection_works_on_after_the_goodbye() {
    for (reason, disabled) in [("warning", false), ("refresh_requested", false), ("link_disabled", true)] {
        let (mut peer, mut clicks, left) = served(8).await;
        assert_eq!(acknowledged(&mut peer).await, None, "the first ping");
        say(&mut peer, json!({"type": "disconnect", "reason": reason})).await;
        let ending = left.await.expect("an ending");
        assert_eq!(matches!(ending, Ending::Disabled), disabled, "{reason}");
        assert!(disabled || matches!(ending, Ending::Replace), "{reason}");
        say(&mut peer, click("late")).await;
        assert_eq!(acknowledged(&mut peer).await, Some("late".to_owned()), "{reason}");
        assert!(clicks.try_recv().is_ok());
    }
}

#[tokio::test]
async fn a_dead_connection_is_noticed() {
    let (_silent_peer, _clicks, left) = served(1).await;
    tokio::time::pause(); // only timers run here
    let started = Instant::now();
    let Ok(Ending::Lost(reason)) = left.await else { panic!("not lost") };
    assert_eq!(reason, "Slack sent nothing for too long");
    assert!(started.elapsed() <= SILENCE + PING, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_closed_connection_is_noticed() {
    let (mut peer, _clicks, left) = served(1).await;
    peer.close(None).await.expect("closed");
    assert!(matches!(left.await, Ok(Ending::Lost(_))));
    let (peer, _clicks, left) = served(1).await;
    drop(peer);
    assert!(matches!(left.await, Ok(Ending::Lost(_))));
}

#[test]
fn waits_grow_within_bounds_and_differ() {
    for failures in 0..20 {
        let most = (FIRST_WAIT * 2_u32.pow(failures.min(10))).min(LONGEST_WAIT);
        let waits: Vec<_> = (0..50).map(|_| backoff(failures)).collect();
        assert!(waits.iter().all(|wait| *wait >= most / 2 && *wait <= most), "{failures}: {waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}: all alike");
    }
}

#[test]
fn an_address_with_a_ticket_does_not_show() {
    let error =
        SocketError::Url(tokio_tungstenite::tungstenite::error::UrlError::UnableToConnect("wss://x/?ticket=1".into()));
    assert!(!reason(&error).contains("ticket"), "{}", reason(&error));
}
