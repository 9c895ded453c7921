//! Legitimate webhooks beside 2,000 connections that send nothing, or a byte per second: a receiver built for release
//! and a real redis-server, over loopback, with all clients on the same two cores.
//!
//! `cargo bench --bench slowloris [-- --quick]`
//!
//! A third of the slow clients sends nothing, a third sends the head of a request slowly, a third its body. An evicted
//! client reconnects after a tenth of a second. Fails if a target is missed.

#[allow(dead_code, reason = "shared with the other benches")]
#[path = "../shared/figures.rs"]
mod figures;
#[allow(dead_code, reason = "shared with the other benches")]
#[path = "../shared/memory.rs"]
mod memory;
#[allow(dead_code, reason = "shared with the other benches")]
#[path = "../shared/wire.rs"]
mod wire;
#[allow(dead_code, reason = "shared with the other benches")]
#[path = "../receiver/world.rs"]
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prompt_rollback_testkit::{Receiver, Redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use figures::{Figure, Times, ms, table};
use memory::memory;
use wire::{Wire, http_length};
use world::{Model, outcomes, settle, webhook};

const SLOW: usize = 2_000;
const DRIP: Duration = Duration::from_secs(1);
const COME_BACK: Duration = Duration::from_millis(100);
const HEAD: &str = "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n";

/// The state of the slow clients.
#[derive(Default)]
struct Crowd {
    open: AtomicUsize,
    thrown_out: AtomicUsize,
    over: AtomicBool,
}

impl Crowd {
    /// Starts `SLOW` clients on another thread.
    fn start(address: String) -> Arc<Self> {
        let crowd = Arc::new(Self::default());
        let theirs = Arc::clone(&crowd);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                for number in 0..SLOW {
                    tokio::spawn(Arc::clone(&theirs).client(address.clone(), number));
                }
                while !theirs.over.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        crowd
    }

    async fn client(self: Arc<Self>, address: String, number: usize) {
        // not all at the same moment of each second
        tokio::time::sleep(DRIP * u32::try_from(number).unwrap_or_default() / SLOW as u32).await;
        loop {
            if let Ok(stream) = TcpStream::connect(&address).await {
                self.open.fetch_add(1, Ordering::Relaxed);
                let _ = Self::drip(stream, number).await;
                self.open.fetch_sub(1, Ordering::Relaxed);
                self.thrown_out.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(COME_BACK).await;
        }
    }

    /// Sends slowly until the receiver closes the connection.
    async fn drip(mut stream: TcpStream, number: usize) -> std::io::Result<()> {
        let drop: &[u8] = match number % 3 {
            0 => b"",
            1 => {
                stream.write_all(HEAD.as_bytes()).await?;
                b"x"
            }
            _ => {
                stream.write_all(HEAD.as_bytes()).await?;
                stream.write_all(b"\r\n").await?;
                b" "
            }
        };
        let mut answer = [0; 512];
        loop {
            match tokio::time::timeout(DRIP, stream.read(&mut answer)).await {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return Ok(()),
                Err(_) => stream.write_all(drop).await?,
            }
        }
    }
}

/// Legitimate requests, half of them new alerts and half their repeats; in seconds.
struct Honest {
    kept: Times,
    fresh: Times,
    /// Requests that were sent again because the receiver had closed the connection.
    again: usize,
}

struct Bench {
    redis: Redis,
    receiver: Receiver,
    model: Model,
    next: u64,
    each: u64,
}

impl Bench {
    fn start(connections: Option<u32>, each: u64) -> Result<Self> {
        let redis = Redis::start()?;
        let mut receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
            .config("[guards]\nmax_auto_rollbacks = 1000000000\n")
            .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url());
        if let Some(connections) = connections {
            receiver = receiver.env("PROMPT_ROLLBACK_SERVER__MAX_CONNECTIONS", connections.to_string());
        }
        let receiver = receiver.start()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let model = runtime.block_on(Model::make(&redis, &receiver))?;
        Ok(Self { redis, receiver, model, next: 0, each })
    }

    /// On one kept connection, like Alertmanager's, and on a new one for each request, as after its restart.
    fn honest(&mut self) -> Result<Honest> {
        let numbers = self.next..self.next + 2 * self.each;
        self.next = numbers.end;
        self.model.seed(&self.redis, numbers.clone())?;
        settle(&self.redis)?;
        let address = self.receiver.addr();
        let (mut kept, mut fresh) = (Times::default(), Times::default());
        let mut connection = Wire::connect(&address)?;
        let mut again = 0;
        for number in numbers {
            let request = webhook(number..number + 1);
            for outcome in ["rolled_back", "duplicate"] {
                let fits = |answer: &[u8]| outcomes(answer, outcome) == 1;
                let (times, keep) = if number % 2 == 0 { (&mut kept, true) } else { (&mut fresh, false) };
                let answered = times.time(|| {
                    // evicted while it waited: sent again, as Alertmanager does, and the time counts
                    for _ in 0..10 {
                        let mut new = if keep { None } else { Some(Wire::connect(&address)?) };
                        match new.as_mut().unwrap_or(&mut connection).ask(&request, http_length).map(fits) {
                            Ok(fits) => return anyhow::Ok(fits),
                            Err(_) => again += 1,
                        }
                        if keep {
                            connection = Wire::connect(&address)?;
                        }
                    }
                    anyhow::bail!("thrown out ten times")
                })?;
                ensure!(answered, "not {outcome}");
            }
        }
        Ok(Honest { kept, fresh, again })
    }
}

/// `connections`: the limit of open connections, if not the default.
fn run(what: &str, connections: Option<u32>, held: usize, each: u64, figures: &mut Vec<Figure>) -> Result<()> {
    let mut bench = Bench::start(connections, each)?;
    let mut idle = bench.honest()?;
    let idle_mb = memory(bench.receiver.pid())?.resident;
    let crowd = Crowd::start(bench.receiver.addr());
    let start = Instant::now();
    while crowd.open.load(Ordering::Relaxed) < held {
        ensure!(start.elapsed() < Duration::from_secs(60), "{} are open", crowd.open.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(2 * DRIP);
    let open = crowd.open.load(Ordering::Relaxed);
    let each_kb = (memory(bench.receiver.pid())?.resident - idle_mb) * 1e3 / open as f64;
    eprintln!("{what}: {each_kb:.1} kB for each of {open}");
    let before = crowd.thrown_out.load(Ordering::Relaxed);
    let start = Instant::now();
    let mut beside = bench.honest()?;
    let thrown_out = (crowd.thrown_out.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    let open = crowd.open.load(Ordering::Relaxed);
    crowd.over.store(true, Ordering::Relaxed);
    let again = beside.again;
    eprintln!(
        "{what}: {open} slow ones open at the end, {thrown_out:.0} a second thrown out; {again} honest ones sent again"
    );
    for (how, idle, beside) in [
        ("a kept connection", &mut idle.kept, &mut beside.kept),
        ("new connections", &mut idle.fresh, &mut beside.fresh),
    ] {
        let (p50, p99) = (beside.quantile(0.5), beside.quantile(0.99));
        let (was50, was99) = (idle.quantile(0.5), idle.quantile(0.99));
        let found = format!(
            "{} (p50 {}, worst {}); without them {} (p50 {}); {:.1} times",
            ms(p99),
            ms(p50),
            ms(beside.quantile(1.0)),
            ms(was99),
            ms(was50),
            p99 / was99
        );
        eprintln!("{what}, {how}: p99 {found}");
        let what = Box::leak(format!("{what}, {how}: p99 of {}", beside.0.len()).into_boxed_str());
        figures.push(Figure { what, found, target: "< 50 ms", met: p99 < 0.05 });
    }
    Ok(())
}

fn main() -> Result<ExitCode> {
    let each = if std::env::args().any(|arg| arg == "--quick") { 500 } else { 2_000 };
    rlimit::increase_nofile_limit(2 * SLOW as u64)?;
    let mut figures = Vec::new();
    run("2,000 slow connections", None, 900, each, &mut figures)?;
    run("2,000 where 4,096 are allowed", Some(4_096), SLOW * 9 / 10, each, &mut figures)?;
    Ok(table(&figures))
}
