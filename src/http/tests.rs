//! Clients that read slowly, or not at all. Redis is unreachable, because these requests do not need it.

use std::cell::Cell;
use std::net::IpAddr;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::input::Query;
use super::peer::Door;
use super::route::{PageKind, Route};
use super::*;
use crate::config::Config;
use crate::engine::Engine;
use crate::figures::FigureBook;
use crate::live::{Live, Reloader};
use crate::rules::RuleBook;
use crate::service::updates::Updates;
use crate::store::{Clock, Store};

fn server() -> HttpServer {
    server_with(Updates::default())
}

fn server_with(updates: Updates) -> HttpServer {
    server_of(updates, &[])
}

fn server_of(updates: Updates, env: &[(&str, &str)]) -> HttpServer {
    let all = [("REDIS__URL", "redis://127.0.0.1:1")].iter().chain(env);
    let all = all.map(|(key, value)| (format!("PROMPT_ROLLBACK_{key}"), (*value).to_owned()));
    let config = Config::load(None, all.collect::<Vec<_>>().into_iter()).expect("a config");
    let store = Store::new(&config.redis, Clock::default()).expect("a store");
    let engine = Arc::new(Engine::new(store, config.policy()));
    let (_, readiness) = watch::channel(Ok(()));
    let books = Books { rules: RuleBook::new().0, figures: FigureBook::default() };
    let context = Context::new(&config, 16, engine, readiness, Reloader::new().0, None, books);
    let context = context.showing(updates);
    HttpServer::new(Live::new(Arc::new(context)).part(Arc::clone))
}

/// How many bytes of a response a client buffers.
const BUFFERED: usize = 64;

/// A client that buffers little of a response, and how long its connection lasts.
async fn connect(server: &HttpServer) -> (DuplexStream, impl Future<Output = Duration>) {
    let slot = server.connections.enter(1, 16).await;
    connect_with(server, slot)
}

fn connect_with(server: &HttpServer, slot: Arc<Slot>) -> (DuplexStream, impl Future<Output = Duration>) {
    let (client, stream) = tokio::io::duplex(BUFFERED);
    let address = IpAddr::from([127, 0, 0, 1]);
    let peer = Peer { site: Site::Main, door: Door::Plain, since: Instant::now(), certified: false, address };
    let served = async move {
        let (start, graceful) = (Instant::now(), GracefulShutdown::new());
        server.converse(stream, peer, &slot, graceful.watcher()).await;
        start.elapsed()
    };
    (client, served)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Alerts without a prompt: they are answered, and otherwise ignored.
fn delivery(alerts: usize) -> String {
    let alerts = vec![r#"{"status":"firing","labels":{"alertname":"Row"}}"#; alerts].join(",");
    post("/webhooks/alertmanager", &format!(r#"{{"version":"4","status":"firing","alerts":[{alerts}]}}"#))
}

/// Each kind of response, and its end.
fn requests() -> [(&'static str, String, &'static str); 4] {
    [
        ("the API", get("/api/prompts?limit=none"), "}"),
        ("metrics", get("/metrics"), "# EOF\n"),
        ("a delivery", delivery(100), "]}"),
        ("a large delivery", delivery(2_000), "]}"),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_of_its_answer_is_cut_off() {
    for (what, request, _) in requests() {
        let server = server();
        let (mut client, served) = connect(&server).await;
        let sent = client.write_all(request.as_bytes());
        let both = async { tokio::join!(served, sent) };
        let ended = timeout(60 * WRITE_TIMEOUT, both).await;
        let (lasted, sent) = ended.unwrap_or_else(|_| panic!("{what}: the connection is still open"));
        sent.expect("it was read");
        let most = WRITE_TIMEOUT + Duration::from_secs(5); // metrics wait for Redis
        assert!((WRITE_TIMEOUT..most).contains(&lasted), "{what}: {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_a_little_at_a_time_gets_the_whole_answer() {
    for (what, request, end) in requests() {
        let server = server();
        let (mut client, served) = connect(&server).await;
        let reading = async {
            client.write_all(request.as_bytes()).await.expect("it is read");
            let (mut answer, mut part) = (Vec::new(), [0; 1024]);
            loop {
                tokio::time::sleep(WRITE_TIMEOUT / 2).await;
                match client.read(&mut part).await.expect("more") {
                    0 => return String::from_utf8(answer).expect("text"),
                    read => answer.extend_from_slice(&part[..read]),
                }
            }
        };
        let (lasted, answer) = tokio::join!(served, reading);
        assert!(answer.ends_with(end), "{what}: {answer:.200} … after {lasted:?}");
        assert!(lasted > WRITE_TIMEOUT, "{what}: {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_cuts_no_response_off() {
    let server = server();
    let slot = server.connections.enter(1, 1).await;
    slot.busy(); // or the next connection would not wait
    let (mut client, served) = connect_with(&server, slot);
    let read = Cell::new(0);
    let waiting = async {
        server.connections.enter(2, 1).await;
        read.get()
    };
    let reading = async {
        client.write_all(get("/openapi.json").as_bytes()).await.expect("it is read");
        let mut part = [0; BUFFERED];
        loop {
            match client.read(&mut part).await.expect("more") {
                0 => return read.get(),
                more => read.set(read.get() + more),
            }
        }
    };
    let (_, entered, whole) = tokio::join!(served, waiting, reading);
    assert!(entered + 2 * BUFFERED >= whole, "after {entered} of {whole} bytes");
}

#[tokio::test(start_paused = true)]
async fn who_has_not_signed_in_gets_short_answers() {
    let form = format!("token=wrong&name={0}&next=/{0}", "\"".repeat(1_500));
    let form = post("/login", &form).replacen("\r\n", "\r\nSec-Fetch-Site: same-origin\r\n", 1);
    let addresses = [format!("/?{}", "&".repeat(30_000)), format!("/prompts/{}", "\"".repeat(30_000))];
    for request in addresses.iter().map(|path| get(path)).chain([form]) {
        let server = server_of(Updates::default(), &[("SERVER__API_TOKEN", "token-of-ops")]);
        let (mut client, served) = connect(&server).await;
        let reading = async {
            client.write_all(request.as_bytes()).await.expect("it is read");
            read_all(&mut client).await
        };
        let (_, answer) = tokio::join!(served, reading);
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("action=\"/login\""), "{answer:.300}");
        assert!(answer.len() < budget::OWN, "{} bytes for {request:.30}", answer.len());
    }
}

#[tokio::test(start_paused = true)]
async fn files_of_the_program_leave_the_memory_to_deliveries() {
    let server = server();
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let (client, served) = connect(&server).await;
        clients.push(client);
        connections.push(served);
    }
    let delivered = async {
        const START: &str = "HTTP/1.1 200 OK\r\n";
        for client in &mut clients {
            client.write_all(get("/openapi.json").as_bytes()).await.expect("it is read");
            let mut start = [0; START.len()];
            client.read_exact(&mut start).await.expect("an answer");
            assert_eq!(String::from_utf8_lossy(&start), START);
        }
        let (mut client, served) = connect(&server).await;
        let reading = async {
            client.write_all(delivery(1_000).as_bytes()).await.expect("it is read");
            read_all(&mut client).await
        };
        let (_, answer) = tokio::join!(served, reading);
        assert!(answer.starts_with(START), "{answer:.300}");
    };
    tokio::select! {
        () = delivered => {}
        _ = join_all(connections) => panic!("they have not read everything"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_few_lists_are_in_memory_at_once() {
    let server = server();
    let context = server.context.get();
    let list = |rows: usize| Query::parse(Some(&format!("limit={rows}&entries={rows}")), None).expect("a query");
    let (long, short) = (list(1_000), list(1));
    let room = |route, query| context.room_for(route, query).now_or_never().map(|room| room.expect("a number of rows"));
    let held = [Route::Incidents, Route::Logs].map(|route| room(route, &long));
    assert!(held.iter().all(Option::is_some));
    for route in [Route::Prompts, Route::Log, Route::Page(PageKind::Incidents), Route::Page(PageKind::Prompt)] {
        assert!(room(route, &short).is_none(), "{route:?} has to wait");
    }
    assert!(room(Route::Incident, &short).is_some(), "a single incident need not wait");
    drop(held);
    assert!(room(Route::Prompts, &long).is_some());
}

/// What arrives until nothing more does.
async fn read_all(client: &mut DuplexStream) -> String {
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while let Ok(read) = timeout(Duration::from_secs(1), client.read(&mut part)).await {
        match read.expect("it is open") {
            0 => break,
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test(start_paused = true)]
async fn a_page_that_reads_slowly_costs_little_and_reads_everything_again() {
    const CHANGES: usize = 5_000;
    let updates = Updates::default();
    let server = server_with(updates.clone());
    let (mut client, served) = connect(&server).await;
    let reading = async {
        client.write_all(get("/events").as_bytes()).await.expect("it is read");
        let began = read_all(&mut client).await;
        assert!(began.starts_with("HTTP/1.1 200 OK\r\n") && began.contains("retry: 2000\n\n"), "{began}");
        for n in 0..CHANGES {
            updates.change(&[&format!("p-{n}")]).await;
            tokio::task::yield_now().await;
        }
        let kept = read_all(&mut client).await;
        assert!(kept.contains("\"p-0\"") && !kept.contains(&format!("\"p-{}\"", CHANGES - 1)), "{kept:.200}");
        assert!(kept.trim_end().ends_with("event: resync\ndata: {}"), "it knows that it missed some: {kept}");
        assert!(kept.len() < MAX_HEAD + (8 << 10), "{} bytes were kept for it", kept.len());
        updates.change(&["last"]).await;
        assert!(read_all(&mut client).await.contains("\"last\""), "afterwards it hears of changes again");
        updates.close();
        assert_eq!(read_all(&mut client).await, "0\r\n\r\n", "a shutdown ends it");
    };
    let (_, ()) = tokio::join!(served, reading);
    assert_eq!(updates.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_reads_nothing_is_cut_off() {
    let updates = Updates::default();
    let server = server_with(updates.clone());
    let (mut client, served) = connect(&server).await;
    client.write_all(b"GET /events HTTP/1.1\r\n").await.expect("there is room");
    let silent = async {
        client.write_all(b"Host: localhost\r\n\r\n").await.expect("it is read");
        client
    };
    let both = async { tokio::join!(served, silent) };
    let ended = timeout(60 * WRITE_TIMEOUT, both).await;
    let (lasted, _client) = ended.expect("the connection ends");
    assert!((WRITE_TIMEOUT..2 * WRITE_TIMEOUT).contains(&lasted), "{lasted:?}");
    assert_eq!(updates.open(), 0, "its place is free");
}
