//! SIGTERM: requests in flight finish, then exit 0; within `server.shutdown_timeout`, whatever hangs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prompt_rollback_testkit::http::Answer;
use prompt_rollback_testkit::{Receiver, Redis, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::common::{ROLLED_BACK, SOON, assert_rolled_back_once, critical, deliver, outcomes, process, ship};

fn start(redis: &Redis) -> Result<Receiver> {
    process(redis).start()
}

/// A critical alert whose commit waits in Redis until `CLIENT UNPAUSE`.
async fn under_way(redis: &Redis, receiver: &Receiver) -> Result<JoinHandle<Result<Answer>>> {
    ship(&receiver.http(), "p").await?;
    redis.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
    let http = receiver.http();
    let delivery = tokio::spawn(async move { deliver(&http, &[critical("p")]).await });
    eventually("the commit waits in Redis", SOON, async || {
        let clients: String = redis.cmd(&["CLIENT", "LIST"]).await.ok()?;
        clients.lines().any(|line| line.contains("cmd=evalsha") && line.contains("flags=b")).then_some(())
    })
    .await?;
    Ok(delivery)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_the_exit() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis)?;
    let delivery = under_way(&redis, &receiver).await?;
    let address = receiver.addr();
    let exit = tokio::task::spawn_blocking(move || receiver.sigterm().map(|status| (status, receiver)));
    eventually("no new connections", SOON, async || TcpStream::connect(&address).await.err()).await?;
    assert!(!delivery.is_finished() && !exit.is_finished(), "it waits for the request");
    redis.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
    assert_eq!(outcomes(&delivery.await??)?, [ROLLED_BACK]);
    let (status, receiver) = exit.await??;
    assert_eq!(status.code(), Some(0), "{}", receiver.log());
    assert_rolled_back_once(&redis, "p").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_hold_up_the_exit() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis)?;
    let http = receiver.http();
    assert_eq!(http.get("/-/healthy").await?.status, 200); // a connection that is kept alive
    let silent = TcpStream::connect(receiver.addr()).await?;
    let exit = tokio::task::spawn_blocking(move || receiver.sigterm().map(|status| (status, receiver)));
    let (status, receiver) = exit.await??;
    assert_eq!(status.code(), Some(0));
    let log = receiver.log();
    assert!(log.contains("shutting down") && !log.contains("did not finish in time"), "{log}");
    drop((silent, http));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_exits_while_redis_is_away_too() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis)?;
    redis.pause()?;
    let status = tokio::task::spawn_blocking(move || receiver.sigterm()).await??;
    assert_eq!(status.code(), Some(0));
    redis.resume()
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status()?;
    ensure!(status.success(), "kill -{name}: {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis)?;
    let delivery = under_way(&redis, &receiver).await?;
    let address = receiver.addr();
    signal(receiver.pid(), "TERM")?;
    eventually("no new connections", SOON, async || TcpStream::connect(&address).await.err()).await?;
    signal(receiver.pid(), "INT")?;
    let status = tokio::task::spawn_blocking(move || receiver.process().wait()).await??;
    assert_eq!(status.code(), Some(1), "the request under way was cut off");
    assert!(delivery.await?.is_err());
    redis.cmd(&["CLIENT", "UNPAUSE"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_or_never_finish_do_not_hold_up_the_exit() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = process(&redis).env("PROMPT_ROLLBACK_SERVER__SHUTDOWN_TIMEOUT", "4s").start()?;
    let mut clients = Vec::new();
    for sent in [
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000),
        "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".to_owned(),
    ] {
        let mut client = TcpStream::connect(receiver.addr()).await?;
        // the rest waits in the client
        let _ = tokio::time::timeout(Duration::from_millis(200), client.write_all(sent.as_bytes())).await;
        clients.push(client);
    }
    let start = Instant::now();
    let status = tokio::task::spawn_blocking(move || receiver.sigterm()).await??;
    assert_eq!(status.code(), Some(0));
    // a busy machine may take a while, but far less than server.request_timeout and the limits of slow clients together
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(clients);
    Ok(())
}

/// The serving thread itself hangs here: it writes to a full log pipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_does_not_hold_up_the_exit() -> Result<()> {
    let port = prompt_rollback_testkit::Port::claim();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"))
        .arg("serve")
        .env("PROMPT_ROLLBACK_SERVER__LISTEN", port.addr())
        .env("PROMPT_ROLLBACK_REDIS__URL", "redis://127.0.0.1:1")
        .env("PROMPT_ROLLBACK_SERVER__SHUTDOWN_TIMEOUT", "1s")
        .stderr(Stdio::piped())
        .spawn()?;
    let http =
        prompt_rollback_testkit::http::Http::new(format!("http://{}", port.addr())).timeout(Duration::from_secs(1));
    // each is refused and logged; once the receiver stops answering, the pipe is full
    let (mut answered, mut silent) = (false, 0);
    let full = async || {
        match http.post("/api/pause", "").await {
            Ok(_) => (answered, silent) = (true, 0),
            Err(_) => silent += usize::from(answered),
        }
        (silent >= 3).then_some(())
    };
    eventually("the log is full", SOON, full).await?;
    signal(child.id(), "TERM")?;
    let ended = eventually("it has ended", SOON, async || child.try_wait().ok().flatten()).await;
    let _ = child.kill();
    assert_eq!(ended?.code(), Some(1));
    Ok(())
}
