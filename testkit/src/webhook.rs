//! A program that accepts signed events. It verifies the signature independently, refuses old signatures, and records
//! everything it was sent.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How many seconds a signature is valid.
const TOLERANCE: i64 = 300;

/// How it answers an event with a valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Does {
    /// Answers with this status; 2xx accepts the event.
    Answer(u16),
    /// Answers with this status and header.
    AnswerWith(u16, &'static str, String),
    /// Accepts the event and closes the connection without an answer.
    LoseAnswer,
    /// Never answers.
    Hang,
}

/// One request with a valid signature.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    /// As sent.
    pub body: String,
    pub event: Value,
    pub content_type: String,
    pub headers: HeaderMap,
    pub taken: bool,
}

impl Delivery {
    /// The type without the common prefix.
    pub fn kind(&self) -> &str {
        self.event["type"].as_str().unwrap_or_default().trim_start_matches("io.prompt-rollback.")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn subject(&self) -> &str {
        self.event["subject"].as_str().unwrap_or_default()
    }
}

type Rule = Box<dyn Fn(&Value, usize) -> Does + Send>;

struct State {
    secret: String,
    deliveries: Vec<Delivery>,
    problems: Vec<String>,
    rule: Rule,
}

/// The running program; stops when dropped.
pub struct Webhook {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Webhook {
    /// Accepts events that are signed with `secret`.
    pub async fn start(secret: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let rule: Rule = Box::new(|_, _| Does::Answer(204));
        let state = State { secret: secret.to_owned(), deliveries: Vec::new(), problems: Vec::new(), rule };
        let state = Arc::new(Mutex::new(state));
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(Arc::clone(&state), listener));
        Ok(Self { address, state, task })
    }

    /// Its URL, with a query as in workflow services.
    pub fn url(&self) -> String {
        format!("http://{}/events?sig=query-secret", self.address)
    }

    /// Sets how it answers from now on, by the event and by how often that was sent before.
    pub fn does(&self, rule: impl Fn(&Value, usize) -> Does + Send + 'static) {
        self.lock().rule = Box::new(rule);
    }

    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.lock().secret);
    }

    /// All requests with a valid signature, in order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.lock().deliveries.clone()
    }

    /// The first accepted delivery of each event.
    pub fn taken(&self) -> Vec<Delivery> {
        let mut first: Vec<Delivery> = Vec::new();
        for delivery in self.deliveries().into_iter().filter(|delivery| delivery.taken) {
            if first.iter().all(|known| known.id != delivery.id) {
                first.push(delivery);
            }
        }
        first
    }

    /// Kinds of the accepted events about `subject`, in order.
    pub fn kinds(&self, subject: &str) -> Vec<String> {
        let about = self.taken().into_iter().filter(|delivery| delivery.subject() == subject);
        about.map(|delivery| delivery.kind().to_owned()).collect()
    }

    /// The faults of requests.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(state: Arc<Mutex<State>>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        drop(tokio::spawn(async move { connection.await.ok() }));
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let does = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&state.secret, &parts.method, &parts.headers, &body) {
            Err(problem) => {
                state.problems.push(format!("{problem:#}"));
                Does::Answer(401)
            }
            Ok(mut delivery) => {
                let before = state.deliveries.iter().filter(|other| other.id == delivery.id).count();
                let does = (state.rule)(&delivery.event, before);
                delivery.taken = matches!(does, Does::Answer(200..=299) | Does::LoseAnswer);
                state.deliveries.push(delivery);
                does
            }
        }
    };
    let response = |status| Response::builder().status(status);
    let response = match does {
        Does::Answer(status) => response(status),
        Does::AnswerWith(status, name, value) => response(status).header(name, value),
        Does::LoseAnswer => return Err(std::io::Error::other("on purpose")),
        Does::Hang => std::future::pending().await,
    };
    response.body(Full::default()).map_err(std::io::Error::other)
}

/// The request, if a receiver of events would accept it.
fn read(secret: &str, method: &Method, headers: &HeaderMap, body: &Bytes) -> Result<Delivery> {
    let field = |name: &str| -> Result<String> {
        let value = headers.get(name).with_context(|| format!("no header {name}"))?;
        Ok(value.to_str()?.to_owned())
    };
    ensure!(method == Method::POST, "{method}");
    let (id, timestamp, signature) = (field("webhook-id")?, field("webhook-timestamp")?, field("webhook-signature")?);
    let signed_at: i64 = timestamp.parse()?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    ensure!((now - signed_at).abs() <= TOLERANCE, "signed {} s ago", now - signed_at);
    let body = std::str::from_utf8(body)?.to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    ensure!(signature == expected, "the signature is wrong");
    let event: Value = serde_json::from_str(&body)?;
    ensure!(event["id"] == id.as_str(), "the event has another id than the request");
    let content_type = field(header::CONTENT_TYPE.as_str())?;
    Ok(Delivery { id, body, event, content_type, headers: headers.clone(), taken: false })
}
