//! Socket Mode: envelopes, acknowledgements, goodbyes.

use super::{SOON, call_as, post_question, workspace};
use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use prompt_rollback_testkit::slack::{Slack, Via};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(slack: &Slack) -> Result<Self> {
        let opened = call_as(slack, slack.app_token(), "apps.connections.open", json!({})).await?.ok();
        let url = opened["url"].as_str().context("a URL")?.to_owned();
        let (socket, hello) = Self::connect(&url).await?;
        assert_eq!((&hello["type"], &hello["connection_info"]["app_id"]), (&json!("hello"), &json!("A0DOUBLE")));
        Ok(socket)
    }

    async fn connect(url: &str) -> Result<(Self, Value)> {
        let mut socket = Self(connect_async(url).await?.0);
        let hello = socket.next().await?.context("a first message")?;
        Ok((socket, hello))
    }

    /// The next message; none if the socket ended.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            return Ok(match tokio::time::timeout(SOON, self.0.next()).await? {
                Some(Ok(Frame::Text(text))) => Some(serde_json::from_str(&text)?),
                Some(Ok(Frame::Ping(_))) => continue,
                _ => None,
            });
        }
    }

    async fn ack(&mut self, envelope: &Value) -> Result<()> {
        let ack = json!({"envelope_id": envelope["envelope_id"]});
        Ok(self.0.send(Frame::text(ack.to_string())).await?)
    }
}

#[tokio::test]
async fn an_envelope_is_acknowledged() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let mut socket = Socket::open(&slack).await?;
    assert_eq!(slack.sockets(), 1);
    let click = tokio::spawn(slack.click("U1", &question, "approve").send());
    let envelope = socket.next().await?.context("an envelope")?;
    assert_eq!((&envelope["type"], &envelope["accepts_response_payload"]), (&json!("interactive"), &json!(false)));
    assert_eq!(envelope["payload"]["actions"][0]["action_id"], "approve");
    assert_eq!(envelope.get("retry_attempt"), None);
    socket.ack(&envelope).await?;
    let delivery = click.await??;
    assert!(delivery.acknowledged && delivery.latency < Duration::from_secs(3));
    assert_eq!(delivery.envelope_id.as_deref(), envelope["envelope_id"].as_str());
    let ack = slack.acks().remove(0);
    assert_eq!(Some(ack.envelope_id), delivery.envelope_id);
    assert!(ack.after.is_some());
    Ok(())
}

#[tokio::test]
async fn without_an_ack_within_three_seconds_it_failed() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let mut socket = Socket::open(&slack).await?;
    let click = tokio::spawn(slack.click("U1", &question, "approve").send());
    let envelope = socket.next().await?.context("an envelope")?;
    assert!(!click.await??.acknowledged);
    socket.ack(&envelope).await?;
    let late = slack.wait_for("the late ack", SOON, |slack| slack.acks().pop()).await?;
    assert!(late.after.is_some_and(|after| after >= Duration::from_secs(3)));
    socket.ack(&json!({"envelope_id": "never sent"})).await?;
    let odd = slack.wait_for("the odd ack", SOON, |slack| slack.acks().get(1).cloned()).await?;
    assert_eq!(odd.after, None);
    Ok(())
}

#[tokio::test]
async fn an_unacknowledged_envelope_comes_again_over_another_socket() -> Result<()> {
    let slack = workspace().redeliveries(1).start()?;
    let question = post_question(&slack).await?;
    let mut sockets = [Socket::open(&slack).await?, Socket::open(&slack).await?];
    let click = tokio::spawn(slack.click("U1", &question, "approve").send());
    let (first, second) = sockets.split_at_mut(1);
    let (first, second) = (&mut first[0], &mut second[0]);
    // the socket that gets it closes without an ack
    let (envelope, other) = tokio::select! {
        envelope = first.next() => (envelope?, second),
        envelope = second.next() => (envelope?, first),
    };
    let envelope = envelope.context("an envelope")?;
    let again = tokio::time::timeout(SOON, other.next()).await??.context("the envelope again")?;
    assert_eq!((&again["envelope_id"], &again["retry_attempt"]), (&envelope["envelope_id"], &json!(1)));
    assert_eq!(again["payload"], envelope["payload"]);
    other.ack(&again).await?;
    assert!(click.await??.acknowledged);
    Ok(())
}

#[tokio::test]
async fn a_ticket_opens_one_socket() -> Result<()> {
    let slack = workspace().start()?;
    let opened = call_as(&slack, slack.app_token(), "apps.connections.open", json!({})).await?.ok();
    let url = opened["url"].as_str().unwrap();
    let (_socket, _) = Socket::connect(url).await?;
    assert!(connect_async(url).await.is_err());
    assert!(connect_async(format!("{}/link/?ticket=x", slack.url().replace("http", "ws"))).await.is_err());
    Ok(())
}

#[tokio::test]
async fn goodbyes_come_with_and_without_warning() -> Result<()> {
    let slack = workspace().start()?;
    let mut socket = Socket::open(&slack).await?;
    slack.warn_sockets();
    assert_eq!(socket.next().await?.unwrap()["reason"], "warning");
    assert_eq!(slack.sockets(), 1, "a warned socket still works");
    slack.refresh_sockets();
    let goodbye = socket.next().await?.unwrap();
    assert_eq!((&goodbye["type"], &goodbye["reason"]), (&json!("disconnect"), &json!("refresh_requested")));
    assert_eq!(socket.next().await?, None);
    slack.wait_for("the end", SOON, |slack| (slack.sockets() == 0).then_some(())).await?;
    let mut socket = Socket::open(&slack).await?;
    slack.cut_sockets();
    assert_eq!(socket.next().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_frozen_socket_stays_open_and_dead() -> Result<()> {
    let slack = workspace().start()?;
    let mut socket = Socket::open(&slack).await?;
    slack.freeze_sockets();
    socket.0.send(Frame::Ping("anyone?".into())).await?;
    assert!(tokio::time::timeout(Duration::from_millis(300), socket.0.next()).await.is_err());
    assert_eq!(slack.sockets(), 1);
    slack.cut_sockets();
    slack.wait_for("the end", SOON, |slack| (slack.sockets() == 0).then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn an_eleventh_socket_is_turned_away() -> Result<()> {
    let slack = workspace().start()?;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(Socket::open(&slack).await?);
    }
    let opened = call_as(&slack, slack.app_token(), "apps.connections.open", json!({})).await?.ok();
    let (_, goodbye) = Socket::connect(opened["url"].as_str().unwrap()).await?;
    assert_eq!(goodbye["reason"], "too_many_websockets");
    assert_eq!(slack.sockets(), 10);
    Ok(())
}

#[tokio::test]
async fn without_a_socket_a_click_is_not_delivered() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let delivery = slack.click("U1", &question, "approve").via(Via::Socket).send().await?;
    assert!(!delivery.acknowledged, "{}", delivery.body);
    let delivery = slack.send_envelope(json!({"type": "unheard_of"})).await?;
    assert!(!delivery.acknowledged);
    Ok(())
}
