//! Clients that are slow, silent or many.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prompt_rollback::app::App;
use prompt_rollback::store::Clock;
use prompt_rollback_testkit::{Dir, Port, ProcessBuilder, eventually, http::Http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::half_minute::ends_after_half_a_minute;
use crate::common::{
    DUPLICATE, ROLLED_BACK, SOON, World, assert_rolled_back_once, critical, deliver, exchange, outcomes, settings, ship,
};

/// What a client sends before it falls silent.
const SILENCES: [&str; 4] = [
    "",
    "POST /webhooks/alertm",
    "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nX-Slow:",
    "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
];

async fn silent_client(world: &World, sent: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(world.receiver.app.address).await?;
    stream.write_all(sent.as_bytes()).await?;
    Ok(stream)
}

/// Waits until everything that was sent has been read, so that later requests meet a full server.
async fn settle(world: &World) -> Result<()> {
    let port = world.receiver.app.address.port();
    eventually("all connections accepted", SOON, async || {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let local = format!(":{port:04X} ");
        // the listening socket's receive queue counts connections that were not accepted yet
        let listening = table.lines().find(|line| line.contains(&local) && line.contains(" 0A "))?;
        listening.contains(" 00000000:00000000 ").then_some(())
    })
    .await
}

/// A silent connection is closed after half a minute: an earlier answer did not wait for that.
const BY_ITSELF: Duration = Duration::from_secs(25);

async fn answered_soon(world: &World, expected: &str) -> Result<()> {
    let start = Instant::now();
    // a new connection, as after an Alertmanager's restart
    let fresh = Http::new(format!("http://{}", world.receiver.app.address));
    let got = outcomes(&deliver(&fresh, &[critical("p")]).await?)?;
    ensure!(got == [expected], "{got:?}");
    let took = start.elapsed();
    ensure!(took < BY_ITSELF, "answered after {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_half_sent_requests_do_not_block_the_webhook() -> Result<()> {
    for sent in SILENCES {
        let world = World::with(&[("SERVER__MAX_CONNECTIONS", "32")]).await?;
        world.ship("p").await?;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(silent_client(&world, sent).await?);
        }
        settle(&world).await?;
        answered_soon(&world, ROLLED_BACK).await?;
        for _ in 0..50 {
            clients.push(silent_client(&world, sent).await?);
        }
        answered_soon(&world, DUPLICATE).await?;
        assert_rolled_back_once(&world.redis, "p").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_are_bounded_and_the_webhook_is_answered() -> Result<()> {
    // both ends of each connection are in this process
    rlimit::increase_nofile_limit(8_192)?;
    let world = World::with(&[("SERVER__MAX_CONNECTIONS", "200")]).await?;
    world.ship("p").await?;
    let mut clients = Vec::new();
    for n in 0..3_000 {
        clients.push(silent_client(&world, SILENCES[n % SILENCES.len()]).await?);
    }
    settle(&world).await?;
    answered_soon(&world, ROLLED_BACK).await?;
    // the server has closed all but those within its limit
    let mut open = 0;
    let mut bytes = [0; 256];
    for client in &mut clients {
        let read = tokio::time::timeout(Duration::from_millis(1), client.read(&mut bytes)).await;
        open += usize::from(read.is_err());
    }
    assert!(open <= 200, "{open} are still open");
    Ok(())
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up_in_time() -> Result<()> {
    let world = World::start().await?;
    // virtual time, so that a busy machine does not matter
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let answer = exchange(world.receiver.app.address, SILENCES[3].as_bytes()).await?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("timeout"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn head_is_answered_as_get_without_the_body() -> Result<()> {
    let world = World::with(&[("SERVER__API_TOKEN", "s3cret")]).await?;
    for (path, status) in [
        ("/-/healthy", 200),
        ("/-/ready", 200),
        ("/metrics", 200),
        ("/api/prompts", 401),
        ("/nowhere", 404),
        ("/webhooks/alertmanager", 405),
        ("/api/rollback", 405),
    ] {
        let ask = async |method: &str| {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            exchange(world.receiver.app.address, request.as_bytes()).await
        };
        let (get, head) = (ask("GET").await?, ask("HEAD").await?);
        let (get, body) = get.split_once("\r\n\r\n").unwrap_or_default();
        assert!(!body.is_empty() && head.ends_with("\r\n\r\n"), "{path}: {head}");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        let names = |head: &str| head.lines().map(|line| line.split(':').next().map(str::to_owned)).collect::<Vec<_>>();
        let mut expected = names(get);
        if path == "/metrics" {
            // not formatted for HEAD, so its length is unknown
            expected.retain(|name| name.as_deref() != Some("content-length"));
        }
        assert_eq!(names(head.trim_end())[1..], expected[1..], "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_headers_is_refused() -> Result<()> {
    let world = World::start().await?;
    let ask = async |headers: String| {
        let request = format!("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        exchange(world.receiver.app.address, request.as_bytes()).await
    };
    let large = |bytes| format!("X-Large: {}\r\n", "x".repeat(bytes));
    let many = |count| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    for fits in [large(30_000), many(62)] {
        let answer = ask(fits).await?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    for refused in [large(200_000), many(63)] {
        let answer = ask(refused).await?;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_without_a_request_ends_after_half_a_minute() -> Result<()> {
    // needs no Redis
    let app = App::start(&settings("redis://127.0.0.1:1", &[]), Clock::default()).await?;
    for sent in ["", "GET /-/healthy HT", "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        ends_after_half_a_minute(app.address, sent.as_bytes(), sent.ends_with("\r\n\r\n")).await?;
    }
    Ok(())
}

/// A limit of open files below `server.max_connections`: without a free descriptor, no connection could be evicted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_open_files_are_fewer_connections_and_not_an_outage() -> Result<()> {
    let redis = crate::common::Redis::start()?;
    let (dir, port) = (Dir::new("few-files")?, Port::claim());
    let process = ProcessBuilder::new("prlimit", dir.path())
        .without_env("PROMPT_ROLLBACK_")
        .env("PROMPT_ROLLBACK_SERVER__LISTEN", port.addr())
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .args(["--nofile=200:200", "--", env!("CARGO_BIN_EXE_prompt-rollback"), "serve"])
        .spawn()?;
    let http = Http::new(format!("http://{}", port.addr()));
    let ready = async || http.get("/-/ready").await.ok().filter(|answer| answer.status == 200).map(drop);
    eventually("ready", SOON, ready).await?;
    ship(&http, "p").await?;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(port.addr()).await?);
    }
    let start = Instant::now();
    let fresh = Http::new(format!("http://{}", port.addr()));
    assert_eq!(outcomes(&deliver(&fresh, &[critical("p")]).await?)?, [ROLLED_BACK]);
    assert!(start.elapsed() < BY_ITSELF, "{:?}", start.elapsed());
    assert!(process.log().contains("fewer than server.max_connections"), "{}", process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_not_thrown_out_to_make_room() -> Result<()> {
    let world = World::with(&[("SERVER__MAX_CONNECTIONS", "8")]).await?;
    for attempt in 0..20 {
        let prompt = format!("p-{attempt}");
        world.ship(&prompt).await?;
        world.redis.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
        let alerts = [critical(&prompt)];
        let fresh = Http::new(format!("http://{}", world.receiver.app.address));
        let waiting = tokio::spawn(async move { deliver(&fresh, &alerts).await });
        eventually("the commit waits in Redis", SOON, async || {
            let clients: String = world.redis.cmd(&["CLIENT", "LIST"]).await.ok()?;
            let waits = clients.lines().any(|line| line.contains("cmd=evalsha") && line.contains("flags=b"));
            (waits || waiting.is_finished()).then_some(())
        })
        .await?;
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(silent_client(&world, "").await?);
        }
        settle(&world).await?;
        world.redis.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
        let answer = waiting.await??;
        if answer.status == 503 && answer.text().contains("\"timeout\"") {
            continue; // all of this took longer than server.request_timeout
        }
        assert_eq!(outcomes(&answer)?, [ROLLED_BACK]);
        return Ok(());
    }
    anyhow::bail!("this machine is too busy to make room within server.request_timeout")
}

/// The answer to a request whose body never comes; `Err` if there is none before `server.request_timeout`.
async fn refused_early(world: &World, head: &str) -> Result<String> {
    let request = format!("{head}Host: localhost\r\nContent-Length: 1000000\r\n\r\npayload=");
    let answer = exchange(world.receiver.app.address, request.as_bytes()).await?;
    ensure!(!answer.contains("\"timeout\""), "{answer}");
    Ok(answer)
}

#[tokio::test]
async fn what_slack_did_not_send_is_refused_before_its_body_is_read() -> Result<()> {
    let post = "POST /slack/interactions HTTP/1.1\r\n";
    let world = World::start().await?;
    assert!(refused_early(&world, post).await?.starts_with("HTTP/1.1 404 "), "Slack is not configured");
    let slack =
        [("SLACK__BOT_TOKEN", "xoxb-1"), ("SLACK__SIGNING_SECRET", "s3cret"), ("SLACK__API_URL", "http://127.0.0.1:1")];
    let world = World::with(&slack).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let signature = format!("v0={}", "0".repeat(64));
    for (signature, timestamp) in [
        ("", ""),
        (signature.as_str(), ""),
        ("", now.to_string().as_str()),
        (&signature, &(now - 400).to_string()),
        (&signature, &(now + 400).to_string()),
        (&signature, "soon"),
        ("v0=00", &now.to_string()),
        (&signature.replace("v0", "v1"), &now.to_string()),
    ] {
        let headers = [("X-Slack-Signature", signature), ("X-Slack-Request-Timestamp", timestamp)];
        let headers = headers.iter().filter(|(_, value)| !value.is_empty());
        let head: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = refused_early(&world, &format!("{post}{head}")).await?;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{signature:?} {timestamp:?}: {answer}");
    }
    // only the body shows whether the signature is valid
    let head = format!("{post}X-Slack-Signature: {signature}\r\nX-Slack-Request-Timestamp: {now}\r\n");
    assert!(refused_early(&world, &head).await.is_err());
    Ok(())
}

#[tokio::test]
async fn beyond_a_shared_budget_large_bodies_are_503_and_criticals_are_not() -> Result<()> {
    const BODY: usize = 1 << 20;
    let limits = [("SERVER__MAX_BODY_BYTES", "1MiB"), ("SERVER__MAX_BUFFERED_BYTES", "2MiB")];
    let world = World::with(&limits).await?;
    world.ship("p").await?;
    let large = |sent: usize| {
        let head = "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        format!("{head}Content-Length: {BODY}\r\n\r\n{}", " ".repeat(sent)).into_bytes()
    };
    let mut refused = 0;
    for attempt in 0..10 {
        // two of them hold a MiB and send no more, until they are evicted
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(world.receiver.app.address).await?;
            stream.write_all(&large(BODY - 1_000)).await?;
            stalled.push(stream);
        }
        settle(&world).await?;
        for _ in 0..5 {
            let answer = exchange(world.receiver.app.address, &large(BODY)).await?;
            refused += usize::from(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"overloaded\""));
        }
        let expected = if attempt == 0 { ROLLED_BACK } else { DUPLICATE };
        answered_soon(&world, expected).await?;
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "three bodies of a MiB fit in two");
    // they are closed, and their memory is free
    let free = async || {
        let answer = exchange(world.receiver.app.address, &large(BODY)).await.ok()?;
        answer.starts_with("HTTP/1.1 400 ").then_some(()) // spaces are not JSON
    };
    eventually("memory is given back", SOON, free).await
}
