//! A thousand clients that cost memory: the receiver's memory is bounded, and an alert is still answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::{Http, encode};
use prompt_rollback_testkit::slack::sign;
use prompt_rollback_testkit::{Receiver, Redis};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::kit::{Files, client_config, curl, outcome};
use crate::common::kept::{keys, prompt};
use crate::common::{DUPLICATE, ROLLED_BACK, SOON, critical, deliver, delivery, eventually, outcomes, process, ship};

const CLIENTS: usize = 1_000;
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

#[derive(Debug, Clone, Copy, PartialEq)]
enum Attack {
    NeverReads,
    NeverReadsTls,
    Head,
    UnsignedSlack,
    SignedSlack,
    SlowWebhook,
    ManyAlerts,
}

impl Attack {
    /// In MB, above the memory used before.
    fn most(self) -> f64 {
        match self {
            // the state of a TLS connection takes 20 kB
            Attack::NeverReadsTls => 96.0,
            // what is held, besides one delivery that is being read or answered: 50,000 alerts take 8 MB, their answer 7 MB
            Attack::ManyAlerts => 96.0,
            _ => 64.0,
        }
    }

    fn request(self) -> Vec<u8> {
        let post = |path: &str, headers: &str, sent: usize| {
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1000000\r\n\r\n");
            [head.into_bytes(), vec![b' '; sent]].concat()
        };
        match self {
            Attack::NeverReads | Attack::NeverReadsTls => b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Attack::Head => "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20).into_bytes(),
            Attack::UnsignedSlack => post("/slack/interactions", "", 900_000),
            Attack::SignedSlack => post("/slack/interactions", &forged(), 900_000),
            Attack::SlowWebhook => post("/webhooks/alertmanager", "Authorization: Bearer hook\r\n", 900_000),
            Attack::ManyAlerts => {
                // of little text
                let body = format!(r#"{{"alerts":[{}]}}"#, vec!["{}"; 50_000].join(","));
                let headers = format!("Authorization: Bearer hook\r\nContent-Length: {}", body.len());
                format!("POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}")
                    .into_bytes()
            }
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Headers with a well-formed signature that is wrong.
fn forged() -> String {
    format!("X-Slack-Signature: v0={}\r\nX-Slack-Request-Timestamp: {}\r\n", "0".repeat(64), now())
}

/// One hostile client. `connected` is called once it is.
async fn harass(
    attack: Attack,
    address: SocketAddr,
    tls: Option<&TlsConnector>,
    request: &[u8],
    connected: impl FnOnce(),
) -> Result<()> {
    async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, attack: Attack, request: &[u8]) {
        let _ = stream.write_all(request).await; // it may be evicted
        match attack {
            Attack::ManyAlerts => drop(stream.read(&mut [0]).await), // the answer; then once more
            _ => std::future::pending().await,
        }
    }
    let stream = connect(address).await?;
    match tls {
        None => {
            connected();
            send(stream, attack, request).await;
        }
        Some(tls) => {
            let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
            connected();
            send(stream, attack, request).await;
        }
    }
    Ok(())
}

/// Sends a critical alert over a new connection, as after an Alertmanager's restart: its outcome, if it was accepted.
async fn alerted(receiver: &Receiver, files: Option<&Files>) -> Result<Option<String>> {
    let Some(files) = files else {
        let http = Http::new(receiver.url()).token("hook");
        let answer = deliver(&http, &[critical("p")]).await.ok().filter(|answer| answer.status == 200);
        return Ok(answer.map(|answer| outcomes(&answer)).transpose()?.map(|outcomes| outcomes.concat()));
    };
    let (ca, body) = (files.path("ca"), delivery(&[critical("p")]));
    let arguments = ["--cacert", &ca, "--header", "Authorization: Bearer hook", "--data", &body];
    let got = curl(receiver.addr().parse()?, "/webhooks/alertmanager", &arguments).await?;
    if got.status == 200 { outcome(&got).map(Some) } else { Ok(None) }
}

/// The most resident memory while a thousand clients do the same, and alerts are answered.
async fn attacked(receiver: &Receiver, attack: Attack, files: Option<&Files>, expected: &str) -> Result<f64> {
    let address = receiver.addr().parse()?;
    let (request, connected) = (Arc::new(attack.request()), Arc::<AtomicUsize>::default());
    let tls = files.map(client_config).transpose()?.map(|config| TlsConnector::from(Arc::new(config)));
    let client = |_| {
        let (tls, request, connected) = (tls.clone(), Arc::clone(&request), Arc::clone(&connected));
        tokio::spawn(async move {
            let mut uncounted = Some(connected);
            loop {
                let count = || {
                    if let Some(connected) = uncounted.take() {
                        connected.fetch_add(1, Ordering::Relaxed);
                    }
                };
                let _ = harass(attack, address, tls.as_ref(), &request, count).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let (start, mut most, mut answered) = (Instant::now(), 0.0_f64, 0);
    let all = || connected.load(Ordering::Relaxed) == CLIENTS;
    while start.elapsed() < Duration::from_secs(8) || answered < 3 || !all() {
        if let Some(got) = alerted(receiver, files).await? {
            ensure!(got == expected || got == DUPLICATE, "{got:?}");
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

/// Certificates, with which the receiver speaks TLS from now on.
async fn encrypted(receiver: &Receiver) -> Result<Files> {
    let (files, _) = Files::new()?;
    let (cert, key) = (files.path("server"), files.path("server-key"));
    receiver.write_config(&format!("[server]\ntls_cert_file = {cert:?}\ntls_key_file = {key:?}\n"))?;
    receiver.hangup()?;
    let (address, ca) = (receiver.addr().parse()?, files.path("ca"));
    eventually("it speaks TLS", SOON, async || {
        let scraped = curl(address, "/metrics", &["--cacert", &ca, "--output", "/dev/null"]).await.ok()?;
        (scraped.status == 200).then_some(())
    })
    .await?;
    Ok(files)
}

fn receiver(redis: &Redis) -> Result<Receiver> {
    process(redis)
        .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", "hook")
        .env("PROMPT_ROLLBACK_SLACK__BOT_TOKEN", "xoxb-1")
        .env("PROMPT_ROLLBACK_SLACK__SIGNING_SECRET", "s3cret")
        .env("PROMPT_ROLLBACK_SLACK__API_URL", "http://127.0.0.1:1")
        .start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_clients_take_little_memory_and_block_no_alert() -> Result<()> {
    rlimit::increase_nofile_limit(8_192)?;
    let mut too_much = Vec::new();
    for attack in [
        Attack::NeverReads,
        Attack::NeverReadsTls,
        Attack::Head,
        Attack::UnsignedSlack,
        Attack::SignedSlack,
        Attack::SlowWebhook,
        Attack::ManyAlerts,
    ] {
        let redis = Redis::start()?;
        let receiver = receiver(&redis)?;
        seed(&redis, &receiver.http()).await?;
        ship(&receiver.http(), "p").await?;
        // as every few seconds with a Prometheus
        ensure!(receiver.http().get("/metrics").await?.status == 200);
        let files = if attack == Attack::NeverReadsTls { Some(encrypted(&receiver).await?) } else { None };
        let idle = resident(receiver.pid())?;
        let most = attacked(&receiver, attack, files.as_ref(), ROLLED_BACK).await?;
        let found = format!("{attack:?}: {idle:.1} MB idle, {most:.1} MB under attack");
        eprintln!("{found}");
        too_much.extend((most - idle > attack.most()).then_some(found));
    }
    assert!(too_much.is_empty(), "{too_much:?}");
    Ok(())
}

/// Twelve senders with bodies of which eight fill the memory for unsigned ones, and which never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_get_through_while_forged_ones_that_never_end_arrive() -> Result<()> {
    const LENGTH: usize = (256 << 10) + (8 << 10);
    let redis = Redis::start()?;
    let receiver = receiver(&redis)?;
    let address: SocketAddr = receiver.addr().parse()?;
    let body = vec![b' '; LENGTH - 1];
    let senders = (0..12).map(|_| {
        let body = body.clone();
        tokio::spawn(async move {
            loop {
                let head = format!(
                    "POST /slack/interactions HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {LENGTH}\r\n\r\n",
                    forged()
                );
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                    let _ = stream.read(&mut [0]).await; // it is refused
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    // the load: they have begun before the first click
    tokio::time::sleep(Duration::from_secs(1)).await;
    let payload = json!({"type": "view_closed", "pad": "x".repeat(12_000)}).to_string();
    let click = format!("payload={}", encode(&payload));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let at = now();
        let http = Http::new(receiver.url())
            .header("x-slack-request-timestamp", at.to_string())
            .header("x-slack-signature", sign("s3cret", at, &click));
        statuses.push(http.post_form("/slack/interactions", click.clone()).await?.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    senders.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(statuses, [200; 20], "{}", receiver.log());
    Ok(())
}
