//! The double of Slack validates like Slack, and fails on demand.

mod api;
mod blocks;
mod faults;
mod interactions;
mod page;
mod rate_limits;
mod sockets;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prompt_rollback_testkit::slack::{Message, Slack, SlackBuilder};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn workspace() -> SlackBuilder {
    Slack::builder()
        .user("U1", "maya", "Maya Lind")
        .user("U2", "omar", "Omar Haddad")
        .group("S1", "on-call", &["U1"])
        .channel("C1", "on-call")
        .channel("C2", "incidents")
        .channel_with("C3", "old", |channel| channel.archived = true)
        .channel_with("C4", "elsewhere", |channel| channel.bot_is_member = false)
        .channel_with("C5", "secret", |channel| (channel.private, channel.bot_is_member) = (true, false))
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn error(&self) -> &str {
        assert_eq!(self.body["ok"], false, "{}", self.body);
        self.body["error"].as_str().unwrap_or_default()
    }

    fn ok(self) -> Value {
        assert_eq!(self.body["ok"], true, "{}", self.body);
        self.body
    }
}

async fn request(url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Reply> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(body.into()))?).await?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
}

async fn call_as(slack: &Slack, token: &str, method: &str, args: Value) -> Result<Reply> {
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", "application/json; charset=utf-8"), ("authorization", &bearer)];
    request(&format!("{}/{method}", slack.api_url()), &headers, args.to_string()).await
}

async fn call(slack: &Slack, method: &str, args: Value) -> Result<Reply> {
    call_as(slack, slack.bot_token(), method, args).await
}

/// Sends the arguments as a form, which methods that only read require.
async fn form(slack: &Slack, method: &str, args: &[(&str, &str)]) -> Result<Reply> {
    let bearer = format!("Bearer {}", slack.bot_token());
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", bearer.as_str())];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(args).finish();
    request(&format!("{}/{method}", slack.api_url()), &headers, body).await
}

fn plain(text: &str) -> Value {
    json!({"type": "plain_text", "text": text})
}

fn button(id: &str) -> Value {
    json!({"type": "button", "action_id": id, "text": plain(id), "value": format!("value of {id}")})
}

fn actions(elements: &[Value]) -> Value {
    json!({"type": "actions", "elements": elements})
}

/// Posts a message with the buttons `approve` and `dismiss` and the menu `other`.
async fn post_question(slack: &Slack) -> Result<Message> {
    let option = |value: &str| json!({"text": plain(value), "value": value});
    let menu = json!({"type": "static_select", "action_id": "other", "options": [option("v1"), option("v2")]});
    let blocks = [actions(&[button("approve"), button("dismiss"), menu])];
    let posted = call(slack, "chat.postMessage", json!({"channel": "C1", "text": "?", "blocks": blocks})).await?.ok();
    Ok(slack.message("C1", posted["ts"].as_str().unwrap_or_default()).expect("just posted"))
}

/// A request as the app got it.
#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    body: String,
}

impl Received {
    fn payload(&self) -> Value {
        let (_, payload) = form_urlencoded::parse(self.body.as_bytes()).find(|(key, _)| key == "payload").unwrap();
        serde_json::from_str(&payload).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An app that records what it gets, and answers with `status` after `wait`.
struct App {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl App {
    async fn start(status: u16, wait: Duration) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/slack/interactions", listener.local_addr()?);
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let kept = kept.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
                        kept.lock().unwrap().push(Received { headers: parts.headers, body });
                        tokio::time::sleep(wait).await; // an app that is slow
                        let answer = Response::builder().status(status).body(Full::<Bytes>::from("noted"));
                        Ok::<_, hyper::Error>(answer.unwrap())
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { url, received })
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}
