//! The log: wrong tokens, and external text.

use anyhow::{Result, ensure};

use crate::common::{Redis, SOON, eventually, exchange, process};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_logged_once_with_its_sender_and_without_the_token() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = process(&redis).env("PROMPT_ROLLBACK_SERVER__API_TOKEN", "the-right-token").start()?;
    for n in 0..50 {
        let answer = receiver.http().token(format!("guess-{n}")).get("/api/prompts").await?;
        ensure!(answer.status == 401, "{}", answer.text());
    }
    let line = eventually("a line in the log", SOON, async || {
        receiver.log().lines().find(|line| line.contains("a request was refused")).map(str::to_owned)
    })
    .await?;
    ensure!(line.contains("wrong_token") && line.contains("127.0.0.1"), "{line}");
    let log = receiver.log();
    ensure!(log.matches("a request was refused").count() == 1 && !log.contains("guess-"), "{log}");
    let metrics = receiver.http().token("the-right-token").get("/metrics").await?.text();
    ensure!(metrics.contains("prompt_rollback_refused_requests_total{reason=\"wrong_token\"} 50\n"), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_anyone_may_send_and_that_never_end_do_not_fill_the_log() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = process(&redis)
        .env("PROMPT_ROLLBACK_SERVER__API_TOKEN", "the-right-token")
        .env("PROMPT_ROLLBACK_SERVER__REQUEST_TIMEOUT", "1100ms")
        .start()?;
    let address = receiver.addr().parse()?;
    let head = "POST /login HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 100\r\n";
    let request = format!("{head}\r\ntoken=");
    for answer in futures_util::future::join_all((0..20).map(|_| exchange(address, request.as_bytes()))).await {
        let answer = answer?;
        ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let failed = async || receiver.log().contains("request failed").then_some(());
    eventually("a line in the log", SOON, failed).await?;
    let log = receiver.log();
    let line = log.lines().find(|line| line.contains("request failed")).unwrap_or_default();
    ensure!(line.contains("timeout") && line.contains("127.0.0.1"), "{line}");
    ensure!(log.matches("request failed").count() == 1, "{log}");
    Ok(())
}

/// The JSON formatter does not escape them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hidden_character_reaches_the_log() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = process(&redis).env("PROMPT_ROLLBACK_LOG__FORMAT", "json").start()?;
    crate::common::ship(&receiver.http(), "p").await?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v\u{202e}9\u{9b}2J\u{2028}"]).await?;
    ensure!(receiver.http().get("/api/prompts/p").await?.status == 200);
    let line = eventually("a line in the log", SOON, async || {
        receiver.log().lines().find(|line| line.contains("has changed") && line.contains("2J")).map(str::to_owned)
    })
    .await?;
    let hidden: Vec<char> = line.chars().filter(|c| prompt_rollback::visible::is_hidden(*c)).collect();
    ensure!(hidden.is_empty() && line.contains("\\u202e9"), "{hidden:?}: {line}");
    Ok(())
}
