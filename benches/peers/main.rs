//! The cost of a rollback, compared with a program that a team would write itself, and with a minimal script.
//!
//! `make bench-peers`, or `cargo bench --bench peers [-- --quick] [-- --receiver=PROGRAM] [-- --before=PROGRAM]`
//!
//! Each request is a critical alert that rolls another prompt back. Everything is measured in turns in one run, on the
//! same two cores as its clients. `--before` measures another build of the receiver as well. `--train` compares
//! nothing: it only produces the load for the profile of scripts/dist-pgo.

#[path = "../shared/figures.rs"]
mod figures;
#[path = "../shared/memory.rs"]
#[allow(dead_code, reason = "as below")]
mod memory;
#[path = "../shared/wire.rs"]
#[allow(dead_code, reason = "as below")]
mod wire;
#[path = "../receiver/world.rs"]
#[allow(dead_code, reason = "the receiver's own bench uses the rest")]
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Port, Process, ProcessBuilder, Receiver, Redis};

use figures::{Figure, Times, ms, table};
use memory::memory;
use wire::{Wire, http_length};
use world::{Model, connect, cpu_seconds, flood, name, outcomes, receiver_of, settle, webhook};

const CLIENTS: usize = 32;
const STORM: u64 = 3_000;
const SWITCH: &str = include_str!("switch.lua");

/// The measurements of one program, round by round.
#[derive(Default)]
struct Found {
    /// One request at a time, in seconds.
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Rollbacks per second over many connections.
    rate: Vec<f64>,
    /// CPU seconds per rollback, of the program and of its Redis.
    cpu: Vec<[f64; 2]>,
    /// A delivery with [`STORM`] alerts, in seconds.
    storm: Vec<f64>,
}

/// Makes prompts in a Redis.
type Seed = Box<dyn Fn(&Redis, std::ops::Range<u64>) -> Result<()>>;

/// A program that accepts webhooks, and its Redis.
struct Peer {
    redis: Redis,
    address: String,
    pid: u32,
    /// Makes the prompts with these numbers serve their bad version.
    seed: Seed,
    next: u64,
    found: Found,
}

impl Peer {
    fn prompts(&mut self, count: u64) -> Result<std::ops::Range<u64>> {
        let numbers = self.next..self.next + count;
        self.next += count;
        (self.seed)(&self.redis, numbers.clone())?;
        settle(&self.redis)?;
        Ok(numbers)
    }

    fn one_at_a_time(&mut self, count: u64) -> Result<()> {
        let numbers = self.prompts(count)?;
        let mut http = Wire::connect(&self.address)?;
        let mut times = Times::default();
        for number in numbers {
            let request = webhook(number..number + 1);
            let answer = times.time(|| http.ask(&request, http_length))?;
            ensure!(outcomes(answer, "rolled_back") == 1, "{}", String::from_utf8_lossy(answer));
        }
        self.found.p50.push(times.quantile(0.5));
        self.found.p99.push(times.quantile(0.99));
        Ok(())
    }

    fn many_at_once(&mut self, count: u64) -> Result<()> {
        let requests: Vec<_> = self.prompts(count)?.map(|number| webhook(number..number + 1)).collect();
        let before = cpu_seconds(self.pid, &self.redis)?;
        let took = flood(&self.address, &requests, CLIENTS)?;
        let after = cpu_seconds(self.pid, &self.redis)?;
        self.found.rate.push(count as f64 / took);
        self.found.cpu.push([0, 1].map(|at| (after[at] - before[at]) / count as f64));
        Ok(())
    }

    fn storm(&mut self) -> Result<()> {
        let request = webhook(self.prompts(STORM)?);
        let mut http = Wire::connect(&self.address)?;
        let mut times = Times::default();
        let answer = times.time(|| http.ask(&request, http_length))?;
        ensure!(outcomes(answer, "rolled_back") as u64 == STORM, "not all were rolled back");
        self.found.storm.push(times.quantile(1.0));
        Ok(())
    }
}

/// The receiver of this program.
fn ours(program: &Path, runtime: &tokio::runtime::Runtime) -> Result<(Receiver, Peer)> {
    let redis = Redis::start()?;
    let receiver = receiver_of(program, &redis)?;
    let model = runtime.block_on(Model::make(&redis, &receiver))?;
    let seed = move |redis: &Redis, numbers| model.seed(redis, numbers);
    let (address, pid) = (receiver.addr(), receiver.pid());
    let peer = Peer { redis, address, pid, seed: Box::new(seed), next: 0, found: Found::default() };
    Ok((receiver, peer))
}

/// FastAPI and redis-py, one worker.
fn fastapi() -> Result<((Process, Port), Peer)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("PEERS_PYTHON").map_or_else(|| root.join("target/peers/bin/python"), PathBuf::from);
    ensure!(python.exists(), "no {}: make bench-peers makes it", python.display());
    let redis = Redis::start()?;
    let port = Port::claim();
    let address = port.addr();
    let process = ProcessBuilder::new(&python, redis.dir())
        .args(["-m", "uvicorn", "peer:app", "--loop", "uvloop", "--http", "httptools", "--no-access-log"])
        .args(["--log-level", "warning", "--port", &port.number().to_string(), "--app-dir"])
        .arg(root.join("benches/peers"))
        .env("REDIS_URL", redis.admin_url())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .spawn_until(|| std::net::TcpStream::connect(&address).is_ok())?;
    let seed = |redis: &Redis, numbers: std::ops::Range<u64>| {
        let mut pipeline = redis::Pipeline::new();
        for prompt in numbers.map(name) {
            pipeline.cmd("SET").arg(format!("{{prompts}}:active:{prompt}")).arg("v2.1.0").ignore();
            pipeline.cmd("SET").arg(format!("{{prompts}}:good:{prompt}")).arg("v2.0.0").ignore();
        }
        Ok(pipeline.query::<()>(&mut connect(redis)?)?)
    };
    let pid = process.pid();
    Ok(((process, port), Peer { redis, address, pid, seed: Box::new(seed), next: 0, found: Found::default() }))
}

/// The minimal script, by redis-benchmark.
struct Script {
    redis: Redis,
    hash: String,
    found: Found,
}

impl Script {
    fn start() -> Result<Self> {
        let redis = Redis::start()?;
        let hash = redis::cmd("SCRIPT").arg("LOAD").arg(SWITCH).query(&mut connect(&redis)?)?;
        Ok(Self { redis, hash, found: Found::default() })
    }

    /// Rate, p50 and p99 in seconds.
    fn run(&self, clients: usize, count: u64) -> Result<[f64; 3]> {
        const RANDOM: &str = "__rand_int__"; // replaced for each call: each rollback is of another prompt
        let mut connection = connect(&self.redis)?;
        redis::cmd("FLUSHALL").exec(&mut connection)?;
        let keys = ["active", "state", "log"].map(|kind| format!("{{prompts}}:{kind}:bench-{RANDOM}"));
        let reason = "PromptErrorRateCritical: Error rate of bench-000000000001 v2.1.0 is 12.4%";
        let message = format!(
            r#"{{"prompt":"bench-{RANDOM}","from":"v2.1.0","to":"v2.0.0","at":1795885907808,"reason":"{reason}"}}"#
        );
        let output = Command::new("redis-benchmark")
            .args(["-p", &self.redis.port().to_string(), "-c", &clients.to_string(), "-n", &count.to_string()])
            .args(["-r", "2147483647", "--csv", "--user", Redis::ADMIN.name, "-a", Redis::ADMIN.password])
            .args(["EVALSHA", &self.hash, "4"])
            .args(keys)
            .args(["{prompts}:switches", "", "v2.0.0", &format!("bench-{RANDOM}"), reason, "1795885907808"])
            .args(["{prompts}:changes", &message])
            .output()
            .context("redis-benchmark (Debian: redis-tools)")?;
        let switched: u64 = redis::cmd("ZCARD").arg("{prompts}:switches").query(&mut connection)?;
        ensure!(switched * 1_000 > count * 999, "only {switched} of {count} switches");
        // "test","rps","avg","min","p50","p95","p99","max"
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().context("redis-benchmark said nothing")?;
        let fields: Vec<&str> = line.rsplitn(8, ',').map(|field| field.trim_matches('"')).collect();
        let field = |from_behind: usize| -> Result<f64> { Ok(fields.get(from_behind).context("a figure")?.parse()?) };
        Ok([field(6)?, field(3)? / 1e3, field(1)? / 1e3])
    }

    fn one_at_a_time(&mut self, count: u64) -> Result<()> {
        let [_, p50, p99] = self.run(1, count)?;
        self.found.p50.push(p50);
        self.found.p99.push(p99);
        Ok(())
    }

    fn many_at_once(&mut self, count: u64) -> Result<()> {
        let [rate, ..] = self.run(CLIENTS, count)?;
        self.found.rate.push(rate);
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median, lowest and highest of the rounds' ratios.
fn ratio(ours: &[f64], theirs: &[f64]) -> (f64, String) {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let median = median(ratios);
    (median, format!("{median:.2} ({least:.2} to {most:.2})"))
}

fn row(what: &str, found: &Found) -> String {
    let mid = |values: &Vec<f64>| median(values.clone());
    let cpu = if found.cpu.is_empty() {
        "–".to_owned()
    } else {
        let [own, redis] = [0, 1].map(|at| median(found.cpu.iter().map(|cpu| cpu[at] * 1e6).collect()));
        format!("{own:.0} / {redis:.0} us")
    };
    let storm = if found.storm.is_empty() { "–".to_owned() } else { format!("{:.0} ms", mid(&found.storm) * 1e3) };
    let (p50, p99, rate) = (ms(mid(&found.p50)), ms(mid(&found.p99)), mid(&found.rate));
    format!("| {what} | {p50} / {p99} | {rate:.0} | {cpu} | {storm} |")
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn run() -> Result<Vec<Figure>> {
    let option = |name: &str| std::env::args().find_map(|arg| arg.strip_prefix(name).map(PathBuf::from));
    let flag = |name: &str| std::env::args().any(|arg| arg == name);
    let (rounds, one, many, script) =
        if flag("--quick") { (3, 500, 5_000, 20_000) } else { (7, 1_000, 20_000, 60_000) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let program = option("--receiver=").unwrap_or_else(|| env!("CARGO_BIN_EXE_prompt-rollback").into());
    let (mut receiver, mut ours_now) = ours(&program, &runtime)?;
    if flag("--train") {
        // the load for the profile, which is written when the program ends
        ours_now.one_at_a_time(1_000)?;
        ours_now.many_at_once(5_000)?;
        ours_now.storm()?;
        receiver.sigterm()?;
        return Ok(Vec::new());
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let idle = memory(receiver.pid())?.resident;
    let mut before = option("--before=").map(|program| ours(&program, &runtime)).transpose()?;
    let (_process, mut peer) = fastapi()?;
    let mut bare = Script::start()?;
    eprintln!("load average at the start: {}", load());
    for round in 1..=rounds {
        bare.one_at_a_time(script / 10)?;
        ours_now.one_at_a_time(one)?;
        peer.one_at_a_time(one)?;
        bare.many_at_once(script)?;
        ours_now.many_at_once(many)?;
        peer.many_at_once(many / 5)?;
        ours_now.storm()?;
        if let Some((_, before)) = &mut before {
            before.one_at_a_time(one)?;
            before.many_at_once(many)?;
            before.storm()?;
        }
        eprintln!("round {round} of {rounds}, load average {}", load());
    }
    let (ours, theirs, bare) = (&ours_now.found, &peer.found, &bare.found);
    println!(
        "| | 1 connection, p50 / p99 | switches/s, {CLIENTS} connections | CPU a switch, of it / of Redis | {STORM} in one body |"
    );
    println!("|---|---|---|---|---|");
    println!("{}", row("prompt-rollback", ours));
    if let Some((_, before)) = &before {
        println!("{}", row("the build before", &before.found));
    }
    println!("{}", row("FastAPI and redis-py, one worker", theirs));
    println!("{}\n", row("a script of six commands, redis-benchmark", bare));

    let mut figures = Vec::new();
    let (share, found) = ratio(&ours.rate, &bare.rate);
    figures.push(Figure { what: "switches a second / the script's", found, target: ">= 0.25", met: share >= 0.25 });
    let (times, found) = ratio(&ours.rate, &theirs.rate);
    figures.push(Figure { what: "switches a second / FastAPI's", found, target: ">= 6", met: times >= 6.0 });
    let (times, found) = ratio(&ours.p50, &bare.p50);
    figures.push(Figure { what: "one at a time, p50 / the script's", found, target: "<= 4.2", met: times <= 4.2 });
    if let Some((_, before)) = &before {
        let (times, found) = ratio(&ours.storm, &before.found.storm);
        figures.push(Figure { what: "a body of 3,000 / before", found, target: "<= 1", met: times <= 1.0 });
        let (times, found) = ratio(&ours.rate, &before.found.rate);
        figures.push(Figure { what: "switches a second / before", found, target: ">= 1", met: times >= 1.0 });
    }
    figures.push(Figure {
        what: "memory after the start",
        found: format!("{idle:.1} MB"),
        target: "<= 15 MB",
        met: idle <= 15.0,
    });
    Ok(figures)
}

fn main() -> Result<ExitCode> {
    Ok(table(&run()?))
}
