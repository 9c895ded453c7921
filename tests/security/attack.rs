//! A thousand clients that cost memory: the receiver's memory is bounded, and an alert is still answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::{Http, encode};
use prompt_rollback_testkit::{Receiver, Redis};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::common::kept::{keys, prompt};
use crate::common::{DUPLICATE, ROLLED_BACK, critical, deliver, outcomes, process, ship};

const CLIENTS: usize = 1_000;
/// In MB, above the memory used before.
const MOST: f64 = 64.0;
/// As many as `metrics.max_prompts`.
const PROMPTS: usize = 20_000;

/// Many prompts that `/metrics` shows: copies of the state of one, of which nothing else is there.
async fn seed(redis: &Redis, http: &Http) -> Result<()> {
    const FIRST: &str = "team/prompt-00000";
    let path = format!("/api/prompts/{}", encode(FIRST));
    for version in ["2026-11-27.12345", "2026-11-28.12345"] {
        for what in ["versions", "activate"] {
            let answer = http.post_json(&format!("{path}/{what}"), &json!({ "version": version })).await?;
            ensure!((200..300).contains(&answer.status), "{what}: {}", answer.text());
        }
    }
    let mut pipeline = redis::pipe();
    for n in 1..PROMPTS {
        let name = format!("team/prompt-{n:05}");
        pipeline.cmd("COPY").arg(keys().state(&prompt(FIRST))).arg(keys().state(&prompt(&name))).ignore();
        pipeline.cmd("ZADD").arg(keys().activity()).arg(n).arg(name).ignore();
    }
    Ok(pipeline.exec_async(&mut redis.connection().await?).await?)
}

fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6)
}

/// A client that reads nothing, and for which the kernel buffers little.
async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    Ok(socket.connect(address).await?)
}

#[derive(Debug, Clone, Copy)]
enum Attack {
    NeverReads,
    Head,
    UnsignedSlack,
    SignedSlack,
    SlowWebhook,
}

impl Attack {
    fn request(self) -> Vec<u8> {
        let post = |path: &str, headers: &str, sent: usize| {
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1000000\r\n\r\n");
            [head.into_bytes(), vec![b' '; sent]].concat()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = format!("X-Slack-Signature: v0={}\r\nX-Slack-Request-Timestamp: {now}\r\n", "0".repeat(64));
        match self {
            Attack::NeverReads => b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Attack::Head => "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20).into_bytes(),
            Attack::UnsignedSlack => post("/slack/interactions", "", 900_000),
            Attack::SignedSlack => post("/slack/interactions", &signature, 900_000),
            Attack::SlowWebhook => post("/webhooks/alertmanager", "Authorization: Bearer hook\r\n", 900_000),
        }
    }
}

/// The most resident memory while a thousand clients do the same, and alerts are answered.
async fn attacked(receiver: &Receiver, attack: Attack, expected: &str) -> Result<f64> {
    let address = receiver.addr().parse()?;
    let request = attack.request();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let request = request.clone();
        clients.push(tokio::spawn(async move {
            let mut stream = connect(address).await.ok()?;
            let _ = stream.write_all(&request).await; // it may be evicted
            std::future::pending::<()>().await;
            Some(stream)
        }));
    }
    let (start, mut most, mut answered) = (Instant::now(), 0.0_f64, 0);
    while start.elapsed() < Duration::from_secs(8) || answered < 3 {
        // a new connection, as after an Alertmanager's restart
        let http = Http::new(receiver.url()).token("hook");
        if let Ok(answer) = deliver(&http, &[critical("p")]).await
            && answer.status == 200
        {
            let got = outcomes(&answer)?;
            ensure!(got == [expected] || got == [DUPLICATE], "{got:?}");
            answered += 1;
        }
        most = most.max(resident(receiver.pid())?);
        ensure!(start.elapsed() < Duration::from_secs(120), "{attack:?}: {answered} alerts were answered");
        tokio::time::sleep(Duration::from_millis(50)).await; // the load: twenty alerts a second at most
    }
    for client in clients {
        client.abort();
    }
    Ok(most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_clients_take_at_most_64_mb_and_block_no_alert() -> Result<()> {
    rlimit::increase_nofile_limit(8_192)?;
    let mut too_much = Vec::new();
    for attack in [Attack::NeverReads, Attack::Head, Attack::UnsignedSlack, Attack::SignedSlack, Attack::SlowWebhook] {
        let redis = Redis::start()?;
        let receiver = process(&redis)
            .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", "hook")
            .env("PROMPT_ROLLBACK_SLACK__BOT_TOKEN", "xoxb-1")
            .env("PROMPT_ROLLBACK_SLACK__SIGNING_SECRET", "s3cret")
            .env("PROMPT_ROLLBACK_SLACK__API_URL", "http://127.0.0.1:1")
            .start()?;
        seed(&redis, &receiver.http()).await?;
        ship(&receiver.http(), "p").await?;
        // as every few seconds with a Prometheus
        ensure!(receiver.http().get("/metrics").await?.status == 200);
        let idle = resident(receiver.pid())?;
        let most = attacked(&receiver, attack, ROLLED_BACK).await?;
        let found = format!("{attack:?}: {idle:.1} MB idle, {most:.1} MB under attack");
        eprintln!("{found}");
        too_much.extend((most - idle > MOST).then_some(found));
    }
    assert!(too_much.is_empty(), "{too_much:?}");
    Ok(())
}
