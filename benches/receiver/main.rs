//! The figures of docs/benchmarks.md: a real receiver, built for release, and a real redis-server, over loopback.
//!
//! `cargo bench --bench receiver [-- --quick] [-- --big] [-- --only=share,one]`
//!
//! Each ratio compares two things that are measured in turns in the same run, on the same two cores as the clients, so
//! that a busy machine slows both. Fails if a target is missed.

mod fair;
#[path = "../shared/figures.rs"]
mod figures;
#[path = "../shared/memory.rs"]
mod memory;
#[path = "../shared/wire.rs"]
mod wire;
mod world;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Receiver, Redis};

use figures::{Figure, Times, ms, table};
use memory::{Memory, memory};
use wire::{Wire, http_length, monitored, script_length};
use world::{COMMITTED, Model, connect, cpu_seconds, flood, flood_commits, outcomes, receiver, settle, webhook};

const CLIENTS: usize = 32;

/// Receiver and Redis under test, and a Redis that has only the scripts.
struct Bench {
    receiver: Receiver,
    redis: Redis,
    floor: Redis,
    model: Model,
    /// The next unused prompt.
    next: u64,
    quick: bool,
    figures: Vec<Figure>,
}

impl Bench {
    fn report(&mut self, what: &'static str, found: String, target: &'static str, met: bool) {
        eprintln!("{what}: {found} (target: {target})");
        self.figures.push(Figure { what, found, target, met });
    }

    /// Numbers of prompts that serve their bad version, in the Redis under test.
    fn prompts(&mut self, count: u64) -> Result<std::ops::Range<u64>> {
        let numbers = self.next..self.next + count;
        self.next += count;
        self.model.seed(&self.redis, numbers.clone())?;
        settle(&self.redis)?;
        Ok(numbers)
    }

    /// Rollbacks over 32 connections, compared with the bare script and 32 clients.
    fn share_of_the_floor(&mut self) -> Result<()> {
        let (rounds, each) = if self.quick { (3, 20_000) } else { (5, 60_000) };
        let mut shares = Vec::new();
        for _ in 0..rounds {
            let floor = self.floor_per_second(each)?;
            let numbers = self.prompts(each)?;
            let requests: Vec<_> = numbers.map(|number| webhook(number..number + 1)).collect();
            let (took, cpu) = self.with_cpu(|| flood(&self.receiver.addr(), &requests, CLIENTS))?;
            let switches = each as f64 / took;
            let [ours, redis] = cpu.map(|seconds| seconds / each as f64 * 1e6);
            eprintln!("  CPU per switch: receiver {ours:.0} us, Redis {redis:.0} us");
            let replayed = self.replayed_per_second(each)?;
            eprintln!(
                "  {switches:.0} switches/s, floor {floor:.0}/s (replayed {replayed:.0}/s), share {:.2}",
                switches / floor
            );
            shares.push((switches / floor, switches, floor));
        }
        shares.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (share, switches, floor) = shares[shares.len() / 2];
        let found = format!(
            "{share:.2} ({switches:.0} of {floor:.0} per second; {:.2} to {:.2})",
            shares[0].0,
            shares[shares.len() - 1].0
        );
        self.report("share of the floor, 32 connections", found, ">= 0.45", share >= 0.45);
        Ok(())
    }

    /// The result of `work`, and the CPU seconds that receiver and Redis took for it.
    fn with_cpu<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, [f64; 2])> {
        let before = cpu_seconds(self.receiver.pid(), &self.redis)?;
        let done = work()?;
        let after = cpu_seconds(self.receiver.pid(), &self.redis)?;
        Ok((done, [after[0] - before[0], after[1] - before[1]]))
    }

    fn floor_per_second(&self, commits: u64) -> Result<f64> {
        let mut connection = connect(&self.floor)?;
        redis::cmd("FLUSHALL").exec(&mut connection)?;
        let output = Command::new("redis-benchmark")
            .args(["-p", &self.floor.port().to_string(), "-c", &CLIENTS.to_string(), "-n", &commits.to_string()])
            .args(["-r", "2147483647", "--csv", "--user", Redis::ADMIN.name, "-a", Redis::ADMIN.password])
            .args(self.model.commit_template())
            .output()
            .context("redis-benchmark (Debian: redis-tools)")?;
        let committed: u64 = redis::cmd("ZCARD").arg("{prompts}:incidents").query(&mut connection)?;
        ensure!(committed * 1_000 > commits * 999, "only {committed} of {commits} were committed");
        // "test","rps","avg","min","p50","p95","p99","max"
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().context("redis-benchmark said nothing")?;
        let rate = line.rsplit(',').nth(6).context("rps")?.trim_matches('"').parse()?;
        Ok(rate)
    }

    /// The receiver's own commits, sent by the bench's client to existing prompts: redis-benchmark can only create new
    /// ones.
    fn replayed_per_second(&self, commits: u64) -> Result<f64> {
        redis::cmd("FLUSHALL").exec(&mut connect(&self.floor)?)?;
        self.model.seed(&self.floor, 0..commits)?;
        let requests: Vec<_> = (0..commits).map(|number| self.model.commit(number)).collect();
        Ok(commits as f64 / flood_commits(&self.floor, &requests, CLIENTS)?)
    }

    /// One request at a time: rollbacks, their repeats, and the bare script, in turns.
    fn one_at_a_time(&mut self) -> Result<()> {
        let (turns, each) = if self.quick { (6, 250) } else { (20, 500) };
        let numbers = self.prompts(turns * each)?;
        let mut connection = connect(&self.floor)?;
        redis::cmd("FLUSHALL").exec(&mut connection)?;
        self.model.seed(&self.floor, numbers.clone())?;
        let mut http = Wire::connect(&self.receiver.addr())?;
        let mut redis = Wire::to_redis(&self.floor)?;
        let (mut switches, mut duplicates, mut scripts) = (Times::default(), Times::default(), Times::default());
        for turn in 0..turns {
            let numbers = numbers.start + turn * each..numbers.start + (turn + 1) * each;
            let requests: Vec<_> = numbers.clone().map(|number| webhook(number..number + 1)).collect();
            for (times, outcome) in [(&mut switches, "rolled_back"), (&mut duplicates, "duplicate")] {
                for request in &requests {
                    let answer = times.time(|| http.ask(request, http_length))?;
                    ensure!(outcomes(answer, outcome) == 1, "{}", String::from_utf8_lossy(answer));
                }
            }
            let commits: Vec<_> = numbers.map(|number| self.model.commit(number)).collect();
            for commit in &commits {
                let answer = scripts.time(|| redis.ask(commit, script_length))?;
                ensure!(answer.starts_with(COMMITTED), "{}", String::from_utf8_lossy(answer));
            }
        }
        // a rollback does at least what a duplicate does, which loads, and a bare commit
        let mut parts = Times(duplicates.0.iter().zip(&scripts.0).map(|(load, commit)| load + commit).collect());
        let (p50, p99, script) = (switches.quantile(0.5), switches.quantile(0.99), scripts.quantile(0.5));
        let ratio = p50 / script;
        let found = format!("{ratio:.2} ({} of {})", ms(p50), ms(script));
        self.report("one webhook at a time, p50 / the script's p50", found, "<= 5", ratio <= 5.0);
        let found = format!(
            "{} (the script's {}; a duplicate and a bare script, one after the other: {}, their p50 {})",
            ms(p99),
            ms(scripts.quantile(0.99)),
            ms(parts.quantile(0.99)),
            ms(parts.quantile(0.5)),
        );
        self.report("one webhook at a time, p99", found, "< 0.5 ms", p99 < 0.000_5);
        let duplicate = duplicates.quantile(0.5);
        let ratio = duplicate / p50;
        let found = format!("{ratio:.2} ({} of {})", ms(duplicate), ms(p50));
        self.report("a duplicate's p50 / a switch's p50", found, "<= 0.8", ratio <= 0.8);
        Ok(())
    }

    /// A duplicate asks Redis once and writes nothing.
    fn round_trips_of_a_duplicate(&mut self) -> Result<()> {
        const WRITES: [&str; 14] = [
            "SET",
            "DEL",
            "HSET",
            "HDEL",
            "HINCRBY",
            "ZADD",
            "ZREM",
            "ZREMRANGEBYSCORE",
            "XADD",
            "PUBLISH",
            "EXPIRE",
            "PEXPIRE",
            "INCR",
            "XTRIM",
        ];
        let numbers = self.prompts(100)?;
        let mut http = Wire::connect(&self.receiver.addr())?;
        for number in numbers.clone() {
            http.ask(&webhook(number..number + 1), http_length)?;
        }
        settle(&self.redis)?;
        let seen = monitored(&self.redis, || {
            for number in numbers.clone() {
                let answer = http.ask(&webhook(number..number + 1), http_length)?;
                ensure!(outcomes(answer, "duplicate") == 1, "{}", String::from_utf8_lossy(answer));
            }
            Ok(())
        })?;
        // calls about a prompt, and the writes of their scripts; the receiver's own tracking continues
        let about = |number| {
            let key = format!("{{prompts}}:active:{}", world::name(number)).into_bytes();
            let calls = seen.chunk_by(|_, next| next.in_script).filter(|call| call[0].args.contains(&key));
            calls.map(|call| call.iter().filter(|seen| WRITES.iter().any(|name| seen.is(name))).count()).collect()
        };
        let calls: Vec<Vec<usize>> = numbers.map(about).collect();
        let trips: Vec<usize> = calls.iter().map(Vec::len).collect();
        let writes: usize = calls.iter().flatten().sum();
        let met = writes == 0 && trips.iter().all(|trips| *trips == 1);
        let found = format!("{} for {} duplicates, {writes} writes", trips.iter().sum::<usize>(), trips.len());
        self.report("round trips to Redis", found, "1 each, 0 writes", met);
        Ok(())
    }

    /// 3000 critical alerts for as many prompts in one delivery.
    fn storm(&mut self) -> Result<()> {
        const ALERTS: u64 = 3_000;
        let mut times = Times::default();
        for _ in 0..if self.quick { 3 } else { 9 } {
            let numbers = self.prompts(ALERTS)?;
            let request = webhook(numbers);
            let mut http = Wire::connect(&self.receiver.addr())?;
            let (answer, [ours, redis]) = self.with_cpu(|| times.time(|| http.ask(&request, http_length)))?;
            ensure!(outcomes(answer, "rolled_back") == 3_000, "not all were rolled back");
            eprintln!("  CPU of a body: receiver {}, Redis {}", ms(ours), ms(redis));
        }
        let (p50, worst) = (times.quantile(0.5), times.quantile(1.0));
        self.report(
            "3000 criticals in one body, worst",
            format!("{} (median {})", ms(worst), ms(p50)),
            "< 500 ms",
            worst < 0.5,
        );
        Ok(())
    }

    /// A separate receiver: how soon it is ready, and how much memory it uses.
    fn start_and_memory(&mut self) -> Result<()> {
        let redis = Redis::start()?;
        let mut starts = Times::default();
        for _ in 0..5 {
            starts.time(|| receiver(&redis))?;
        }
        let worst = starts.quantile(1.0);
        self.report("serve ready after its start, worst of 5", ms(worst), "<= 100 ms", worst <= 0.1);
        let receiver = receiver(&redis)?;
        std::thread::sleep(Duration::from_secs(2));
        self.keeps("memory after its start", &receiver)?;
        self.model.seed(&redis, 0..10_000)?;
        settle(&redis)?;
        let each: Vec<_> = (0..10_000).map(|number| webhook(number..number + 1)).collect();
        let mut http = Wire::connect(&receiver.addr())?;
        for request in each[..100].iter().cycle().take(each.len()) {
            http.ask(request, http_length)?;
        }
        std::thread::sleep(Duration::from_secs(2));
        self.keeps("memory after 10,000 webhooks about 100 prompts", &receiver)?;
        flood(&receiver.addr(), &each[100..], CLIENTS)?;
        std::thread::sleep(Duration::from_secs(2));
        // grows with the prompts, whose series it keeps for Prometheus: no target
        let Memory { resident, own } = memory(receiver.pid())?;
        eprintln!("  memory with 10,000 prompts, each rolled back: {resident:.1} MB, {own:.1} MB its own");
        Ok(())
    }

    /// The page of 10,000 prompts, of which 100 have an open incident: the first one of a second, which reads the order
    /// of all, and those that share it.
    fn page(&mut self) -> Result<()> {
        let redis = Redis::start()?;
        self.model.seed(&redis, 0..9_900)?;
        self.model.seed_incidents(&redis, 9_900..10_000)?;
        let receiver = receiver(&redis)?;
        settle(&redis)?;
        let mut http = Wire::connect(&receiver.addr())?;
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n";
        let (mut first, mut shared) = (Times::default(), Times::default());
        for _ in 0..if self.quick { 5 } else { 20 } {
            std::thread::sleep(Duration::from_millis(1_100));
            let page = first.time(|| http.ask(request, http_length))?;
            let page = String::from_utf8_lossy(page).into_owned();
            ensure!(page.matches("<tr data-key=").count() == 100 && page.contains("10000 prompts"), "{page}");
            for _ in 0..5 {
                shared.time(|| http.ask(request, http_length))?;
            }
        }
        let (first, shared) = (first.quantile(0.5), shared.quantile(0.5));
        self.report("the page of 10,000 prompts, the first one of a second, p50", ms(first), "<= 100 ms", first <= 0.1);
        self.report("the page of 10,000 prompts, the others, p50", ms(shared), "<= 100 ms", shared <= 0.1);
        Ok(())
    }

    fn keeps(&mut self, what: &'static str, receiver: &Receiver) -> Result<()> {
        let Memory { resident, own } = memory(receiver.pid())?;
        self.report(what, format!("{resident:.1} MB, {own:.1} MB its own"), "< 12 MB", resident < 12.0);
        Ok(())
    }

    /// A million prompts and 100,000 open incidents, compared with an empty namespace, one request at a time, in turns.
    fn big(&mut self) -> Result<()> {
        const PROMPTS: u64 = 1_000_000;
        const INCIDENTS: u64 = 100_000;
        let (turns, each) = (20, 250);
        let full = Redis::start()?;
        let start = Instant::now();
        self.model.seed(&full, 0..PROMPTS - INCIDENTS)?;
        self.model.seed_incidents(&full, PROMPTS - INCIDENTS..PROMPTS)?;
        let bytes: String = redis::cmd("INFO").arg("memory").query(&mut connect(&full)?)?;
        let used = bytes.lines().find_map(|line| line.strip_prefix("used_memory_human:")).unwrap_or_default();
        eprintln!("  seeded in {:.0} s, {used} in Redis", start.elapsed().as_secs_f64());
        let over_full = receiver(&full)?;
        settle(&full)?;
        eprintln!("  looked at by the receiver after {:.0} s", start.elapsed().as_secs_f64());
        let numbers = self.prompts(turns * each)?;
        let mut http = [Wire::connect(&self.receiver.addr())?, Wire::connect(&over_full.addr())?];
        let mut times = [Times::default(), Times::default()];
        // every 150th: not those that were written, and cached, last
        let places = [(numbers.start, 1), (0, 150)];
        for turn in 0..turns {
            for ((http, times), (first, step)) in http.iter_mut().zip(&mut times).zip(places) {
                for at in turn * each..(turn + 1) * each {
                    let number = first + at * step;
                    let request = webhook(number..number + 1);
                    let answer = times.time(|| http.ask(&request, http_length))?;
                    ensure!(outcomes(answer, "rolled_back") == 1, "{}", String::from_utf8_lossy(answer));
                }
            }
        }
        let [empty, full] = times.each_mut().map(|times| times.quantile(0.5));
        let ratio = full / empty;
        let found = format!("{ratio:.2} ({} of {})", ms(full), ms(empty));
        self.report("a million prompts, 100,000 incidents: p50 / an empty namespace's", found, "<= 1.3", ratio <= 1.3);
        Ok(())
    }
}

fn run() -> Result<Vec<Figure>> {
    let flag = |name: &str| std::env::args().any(|arg| arg == name);
    let only = std::env::args().find_map(|arg| arg.strip_prefix("--only=").map(str::to_owned));
    let (redis, floor) = (Redis::start()?, Redis::start()?);
    let receiver = receiver(&redis)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let model = runtime.block_on(Model::make(&redis, &receiver))?;
    let mut bench = Bench { receiver, redis, floor, model, next: 0, quick: flag("--quick"), figures: Vec::new() };
    type Part = fn(&mut Bench) -> Result<()>;
    let parts: [(&str, Part); 9] = [
        ("share", Bench::share_of_the_floor),
        ("one", Bench::one_at_a_time),
        ("trips", Bench::round_trips_of_a_duplicate),
        ("storm", Bench::storm),
        ("start", Bench::start_and_memory),
        ("page", Bench::page),
        ("fair", Bench::fair),
        ("metrics", Bench::metrics),
        ("big", Bench::big),
    ];
    for (name, part) in parts {
        let wanted = only.as_ref().map_or(name != "big" || flag("--big"), |only| only.split(',').any(|n| n == name));
        if wanted {
            part(&mut bench).with_context(|| format!("{name}; the receiver said:\n{}", bench.receiver_tail()))?;
        }
    }
    Ok(bench.figures)
}

impl Bench {
    fn receiver_tail(&self) -> String {
        let log = self.receiver.log();
        let warnings: Vec<&str> = log.lines().rev().filter(|line| !line.contains(" INFO ")).take(5).collect();
        warnings.join("\n")
    }
}

fn main() -> Result<ExitCode> {
    Ok(table(&run()?))
}
