//! A stub of a receiver, and the program run against it.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// A request to the stub.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: String,
}

/// Answers each `METHOD path` with a canned status and body, and records the requests.
pub struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Stub {
    pub fn start(routes: &[(&str, u16, Value)]) -> Self {
        let routes = routes.iter().map(|(line, status, body)| (line.to_string(), *status, body.to_string()));
        Self::with(routes.collect())
    }

    pub fn with(routes: Vec<(String, u16, String)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (routes, seen_by_server) = (Arc::new(routes), seen.clone());
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (routes, seen) = (routes.clone(), seen_by_server.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, routes.clone(), seen.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, seen, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn run(&self, args: &[&str]) -> Output {
        program(args).env("PROMPT_ROLLBACK_URL", self.url()).output().unwrap()
    }
}

async fn answer(
    request: Request<Incoming>,
    routes: Arc<Vec<(String, u16, String)>>,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let line = format!("{} {}", request.method(), request.uri());
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (authorization, content_type) = (header("authorization"), header("content-type"));
    let body = String::from_utf8(request.into_body().collect().await?.to_bytes().to_vec()).unwrap();
    seen.lock().unwrap().push(Seen { line: line.clone(), authorization, content_type, body });
    let route = routes.iter().find(|(route, ..)| *route == line);
    let (status, body) = route.map_or((404, format!("no route {line}")), |(_, status, body)| (*status, body.clone()));
    Ok(Response::builder().status(status).body(Full::from(body)).unwrap())
}

/// The program, without this test's own environment.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    command.args(args).env_clear().env("USER", "ana").stdin(Stdio::null());
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
pub fn succeeds(output: &Output, text: &str) {
    assert_eq!((output.status.code(), stdout(output).as_str()), (Some(0), text), "{}", stderr(output));
}

#[track_caller]
pub fn fails(output: &Output, code: i32, message: &str) {
    assert_eq!((output.status.code(), stderr(output).as_str()), (Some(code), message), "{}", stdout(output));
}

/// An unused address.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
