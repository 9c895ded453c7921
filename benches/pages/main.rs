//! Open pages that follow changes, beside webhooks: a receiver built for release and a real redis-server, over loopback,
//! with all clients on the same two cores.
//!
//! `cargo bench --bench pages [-- --quick]`
//!
//! Measures the memory and the CPU time of 500 idle pages, the time from sending a webhook until pages are told of the
//! rollback, and the webhook's p99 with and without the pages. Webhooks come at a steady pace, each about another prompt.
//! Fails if a target is missed.

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

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver as Heard, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Receiver, Redis};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use figures::{Figure, Times, ms, table};
use memory::memory;
use wire::{Wire, http_length};
use world::{Model, cpu_seconds, name, outcomes, receiver, settle, webhook};

const PAGES: usize = 500;
/// Of the pages, one in so many says when it was told: more would measure the clients.
const ONE_IN: usize = 25;
/// The pace of webhooks.
const EVERY: Duration = Duration::from_millis(20);
/// A request of a browser, without the headers that do not matter.
const FOLLOW: &[u8] = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";

/// What a page was told, and when.
struct Told {
    /// The prompt; `None`: to read everything.
    prompt: Option<String>,
    at: Instant,
}

/// Opens `PAGES` pages on another thread. Those that are sampled report what they are told.
fn open_pages(address: String) -> Heard<Told> {
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut pages = tokio::task::JoinSet::new();
            for number in 0..PAGES {
                let sender = (number % ONE_IN == 0).then(|| sender.clone());
                pages.spawn(follow(address.clone(), sender));
            }
            while pages.join_next().await.is_some() {}
        });
    });
    heard
}

async fn follow(address: String, told: Option<Sender<Told>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(FOLLOW).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let Some(told) = &told else { continue };
        let at = Instant::now();
        let prompt = line.strip_prefix("data: {\"prompt\":\"").and_then(|rest| rest.split('"').next());
        if prompt.is_some() || line.starts_with("event: resync") {
            let _ = told.send(Told { prompt: prompt.map(str::to_owned), at }); // the bench may be over
        }
    }
}

struct Bench {
    redis: Redis,
    receiver: Receiver,
    model: Model,
    next: u64,
    each: u64,
}

impl Bench {
    fn start(each: u64) -> Result<Self> {
        let redis = Redis::start()?;
        let receiver = receiver(&redis)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let model = runtime.block_on(Model::make(&redis, &receiver))?;
        Ok(Self { redis, receiver, model, next: 0, each })
    }

    /// Critical alerts on one kept connection. Returns how long each took, and when it was sent.
    fn webhooks(&mut self) -> Result<(Times, HashMap<String, Instant>)> {
        let numbers = self.next..self.next + self.each;
        self.next = numbers.end;
        self.model.seed(&self.redis, numbers.clone())?;
        settle(&self.redis)?;
        let (mut times, mut sent) = (Times::default(), HashMap::new());
        let mut connection = Wire::connect(&self.receiver.addr())?;
        for number in numbers {
            let request = webhook(number..number + 1);
            sent.insert(name(number), Instant::now());
            let done = times.time(|| anyhow::Ok(outcomes(connection.ask(&request, http_length)?, "rolled_back")))?;
            ensure!(done == 1, "not rolled back");
            std::thread::sleep(EVERY);
        }
        Ok((times, sent))
    }

    /// The CPU time of the receiver while nothing happens, as a share of one core.
    fn idle_cpu(&self, during: Duration) -> Result<f64> {
        let [before, _] = cpu_seconds(self.receiver.pid(), &self.redis)?;
        let start = Instant::now();
        std::thread::sleep(during);
        let [after, _] = cpu_seconds(self.receiver.pid(), &self.redis)?;
        Ok((after - before) / start.elapsed().as_secs_f64())
    }

    fn memory(&self) -> Result<f64> {
        Ok(memory(self.receiver.pid())?.resident)
    }
}

fn main() -> Result<ExitCode> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    rlimit::increase_nofile_limit(4 * PAGES as u64)?;
    let mut bench = Bench::start(if quick { 300 } else { 2_000 })?;
    let quiet = Duration::from_secs(if quick { 20 } else { 60 });
    let (mut without, _) = bench.webhooks()?;
    let (idle_before, memory_before) = (bench.idle_cpu(quiet)?, bench.memory()?);

    let heard = open_pages(bench.receiver.addr());
    for _ in 0..PAGES / ONE_IN {
        heard.recv_timeout(Duration::from_secs(60)).context("a page")?;
    }
    // each page has read its first event, and the receiver nothing to do but to keep them
    std::thread::sleep(Duration::from_secs(2));
    let each_kb = (bench.memory()? - memory_before) * 1e3 / PAGES as f64;
    let idle = bench.idle_cpu(quiet)?;

    let _before = heard.try_iter().count();
    let (mut with, sent) = bench.webhooks()?;
    std::thread::sleep(Duration::from_secs(2));
    let (mut visible, mut resyncs) = (Times::default(), 0);
    let mut first: HashMap<String, usize> = HashMap::new();
    for Told { prompt, at } in heard.try_iter() {
        let Some(prompt) = prompt else {
            resyncs += 1;
            continue;
        };
        // later events about a prompt are of its verification
        let told = first.entry(prompt.clone()).or_default();
        *told += 1;
        if let Some(sent) = sent.get(&prompt).filter(|_| *told <= PAGES / ONE_IN) {
            visible.0.push(at.duration_since(*sent).as_secs_f64());
        }
    }
    ensure!(!visible.0.is_empty(), "no page was told of anything; {resyncs} times to read everything");
    let (p50, p99, worst) = (visible.quantile(0.5), visible.quantile(0.99), visible.quantile(1.0));
    let (before, after) = (without.quantile(0.99), with.quantile(0.99));
    eprintln!("{} of {} were told of; {resyncs} times to read everything", first.len(), sent.len());
    Ok(table(&[
        Figure {
            what: "CPU time while 500 pages are open and nothing happens",
            found: format!("{:.2} % of a core; without pages {:.2} %", idle * 100.0, idle_before * 100.0),
            target: "< 5 %",
            met: idle < 0.05,
        },
        Figure {
            what: "memory of each open page",
            found: format!("{each_kb:.1} kB"),
            target: "< 32 kB",
            met: each_kb < 32.0,
        },
        Figure {
            what: "from sending a webhook until a page is told, p99",
            found: format!("{} (p50 {}, worst {})", ms(p99), ms(p50), ms(worst)),
            target: "≤ 100 ms",
            met: p99 <= 0.1,
        },
        Figure {
            what: "the webhook's p99 with 500 pages open",
            found: format!("{}; without pages {}: {:.2} times", ms(after), ms(before), after / before),
            target: "≤ 1.2 times",
            met: after <= 1.2 * before,
        },
    ]))
}
