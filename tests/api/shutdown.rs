//! SIGTERM: requests under way finish, then exit 0.

use anyhow::Result;
use prompt_rollback_testkit::{Receiver, Redis, Wait, eventually};
use tokio::net::TcpStream;

use crate::common::{ROLLED_BACK, SOON, assert_flipped_once, critical, deliver, outcomes, ship};

fn start(redis: &Redis) -> Result<Receiver> {
    Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .wait(Wait::Ready)
        .start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_the_exit() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis)?;
    ship(&receiver.http(), "p").await?;
    // writes wait, so the delivery is under way for as long as the test likes
    redis.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
    let http = receiver.http();
    let delivery = tokio::spawn(async move { deliver(&http, &[critical("p")]).await });
    eventually("the commit waits in Redis", SOON, async || {
        let clients: String = redis.cmd(&["CLIENT", "LIST"]).await.ok()?;
        clients.lines().any(|line| line.contains("cmd=evalsha") && line.contains("flags=b")).then_some(())
    })
    .await?;
    let address = receiver.addr();
    let exit = tokio::task::spawn_blocking(move || receiver.sigterm().map(|status| (status, receiver)));
    eventually("no new connections", SOON, async || TcpStream::connect(&address).await.err()).await?;
    assert!(!delivery.is_finished() && !exit.is_finished(), "it waits for the request");
    redis.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
    assert_eq!(outcomes(&delivery.await??)?, [ROLLED_BACK]);
    let (status, receiver) = exit.await??;
    assert_eq!(status.code(), Some(0), "{}", receiver.log());
    assert_flipped_once(&redis, "p").await
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
    assert!(log.contains("shutting down") && !log.contains("did not end in time"), "{log}");
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
