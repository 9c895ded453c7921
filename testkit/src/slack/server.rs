//! The HTTP server: one port for the Web API, uploads, response URLs, Socket Mode and the web page.

use super::api::{self, Request, under_faults};
use super::interact::{self, reply_to_interaction};
use super::state::Shared;
use super::{page, socket};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

const MAX_BODY: usize = 64 << 20;

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(super) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("connection closed on purpose")
    }
}

impl std::error::Error for Closed {}

/// An answer before it goes out.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: u16,
    kind: &'static str,
    body: Bytes,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    fn new(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, kind, body: body.into(), headers: Vec::new() }
    }

    pub fn of_json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    /// Any text as JSON, valid or not.
    pub fn raw_json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_owned())
    }

    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub fn html(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The body as JSON, or as a string if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| String::from_utf8_lossy(&self.body).into())
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::builder().status(self.status).header(header::CONTENT_TYPE, self.kind);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Full::new(self.body)).unwrap_or_default()
    }
}

/// Serves until dropped.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        // for example out of file descriptors: wait until some are closed
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(shared.clone(), stream))),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| route(shared.clone(), request));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // errors are ignored: the client may disconnect, and faults close connections
    connection.with_upgrades().await.ok();
}

async fn route(shared: Arc<Shared>, request: hyper::Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let path = request.uri().path().to_owned();
    if path == "/link/" || path == "/link" {
        return Ok(socket::accept(&shared, request));
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(Answer::text(413, "too large").into_response());
    };
    let body = body.to_bytes();
    let (area, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((&path, ""));
    let is_post = parts.method == Method::POST;
    let query = parts.uri.query().unwrap_or_default();
    let answer = match (area, rest) {
        ("api", method) => {
            let call = Request { method, is_post, query, headers: &parts.headers, body: &body };
            api::handle(&shared, call).await?
        }
        ("upload", id) => upload(&shared, id, &parts.headers, &body).await?,
        ("response", id) if is_post => reply_to_interaction(&shared, id, &body).await?,
        ("files", rest) => file(&shared, rest.split('/').next().unwrap_or_default()),
        ("ui", "state") => page::state(&shared, query),
        ("ui", "click") if is_post => page::click(&shared, &parts.headers, &body).await,
        _ if path == "/" || area == "archives" => Answer::html(200, page::HTML),
        _ => Answer::text(404, "not found"),
    };
    Ok(answer.into_response())
}

/// The bytes of a file: the bare body, or the first part of a multipart form.
async fn upload(shared: &Shared, id: &str, headers: &hyper::HeaderMap, body: &Bytes) -> Result<Answer, Closed> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = kind.strip_prefix("multipart/form-data").and_then(|rest| rest.split("boundary=").nth(1));
    let content = match boundary {
        Some(boundary) => first_part(body, boundary.trim_matches('"')),
        None => Some(&body[..]),
    };
    under_faults(shared, "upload", json!({"file": id, "length": body.len()}), "", || {
        let mut state = shared.lock();
        match (state.files.get_mut(id), content) {
            (None, _) => Answer::text(404, "no such upload"),
            (_, None) => Answer::text(400, "no part in the form"),
            (Some(file), Some(content)) if content.len() != file.announced => Answer::text(400, "wrong length"),
            (Some(file), Some(content)) => {
                file.content = Some(content.to_vec());
                Answer::text(200, format!("OK - {}", content.len()))
            }
        }
    })
    .await
}

fn first_part<'b>(body: &'b [u8], boundary: &str) -> Option<&'b [u8]> {
    let find = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).position(|window| window == needle);
    let start = find(body, b"\r\n\r\n")? + 4;
    let end = find(&body[start..], format!("\r\n--{boundary}").as_bytes())?;
    Some(&body[start..start + end])
}

fn file(shared: &Shared, id: &str) -> Answer {
    let state = shared.lock();
    let Some(content) = state.files.get(id).and_then(|file| file.content.clone()) else {
        return Answer::text(404, "no such file");
    };
    let kind = match content.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, ..] => "image/jpeg",
        // other uploads must not run in the page's origin
        _ => "application/octet-stream",
    };
    Answer::new(200, kind, content).header("x-content-type-options", "nosniff")
}

/// Posts to the app, as Slack's own servers do.
pub(super) async fn post_to_app(
    url: &str,
    headers: Vec<(&str, String)>,
    body: String,
) -> anyhow::Result<(u16, String)> {
    let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
    connector.set_nodelay(true);
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor).build::<_, Full<Bytes>>(connector);
    let mut request = hyper::Request::post(url).header(header::USER_AGENT, interact::USER_AGENT);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = client.request(request.body(Full::new(body.into()))?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
