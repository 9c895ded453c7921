//! Requests that are refused before their body is read: the client still sends it, and must see the refusal all the same.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::common::{SOON, World};

const CHUNK: [u8; 16 << 10] = [b'x'; 16 << 10];

/// Sends all of a body before it reads anything, as many clients do. `late`: the body comes once the refusal is there.
async fn refused(address: SocketAddr, head: &str, body: usize, late: bool) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(head.as_bytes()).await?;
    if late {
        timeout(SOON, stream.readable()).await.context("no answer")??;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for sent in 0..body / CHUNK.len() {
        stream.write_all(&CHUNK).await.with_context(|| format!("after {sent} chunks"))?;
    }
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.context("the connection stays open")??;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_still_sends_reads_the_refusal_every_time() -> Result<()> {
    const BODY: usize = 1 << 20;
    let world = World::with(&[("SERVER__API_TOKEN", "s3cret-t0ken")]).await?;
    let declared = format!("Content-Length: {BODY}");
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{BODY:x}");
    for (path, token, length, status) in [
        ("/api/rollback", "s3cret-t0ken", &declared, 413),
        ("/api/rollback", "s3cret-t0ken", &chunked, 413),
        ("/api/rollback", "wrong", &declared, 401),
        ("/nowhere", "s3cret-t0ken", &declared, 404),
        ("/metrics", "s3cret-t0ken", &declared, 405),
    ] {
        let end = if length.contains("chunked") { "\r\n" } else { "\r\n\r\n" };
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{length}{end}");
        for attempt in 0..10 {
            // a chunked body is refused once it is too large, and not before
            let late = attempt % 2 == 0 && length.starts_with("Content-Length");
            let answer = refused(world.receiver.app.address, &head, BODY, late).await;
            let answer = answer.with_context(|| format!("{path} {length}, attempt {attempt}"))?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {length}: {answer}");
        }
    }
    Ok(())
}

/// Sends until the connection breaks; gives how much, and what was answered.
async fn endless(address: SocketAddr, pause: Duration, chunk: &[u8]) -> Result<(usize, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("POST /api/rollback HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 1024];
    let read = timeout(SOON, stream.read(&mut answer)).await.context("no answer")??;
    let mut sent = 0;
    while timeout(SOON, stream.write_all(chunk)).await.context("the connection hangs")?.is_ok() {
        sent += chunk.len();
        tokio::time::sleep(pause).await;
    }
    Ok((sent, String::from_utf8_lossy(&answer[..read]).into_owned()))
}

#[tokio::test]
async fn a_client_that_sends_for_ever_is_cut_off() -> Result<()> {
    let world = World::start().await?;
    let address = world.receiver.app.address;
    let (sent, answer) = endless(address, Duration::ZERO, &CHUNK).await?;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // what is discarded, and what the kernel holds for both ends
    assert!(sent < 32 << 20, "{sent}");
    let began = Instant::now();
    let (_, answer) = endless(address, Duration::from_millis(100), b"x").await?;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // five seconds, on a machine that may be busy
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4) && took < SOON, "{took:?}");
    Ok(())
}
