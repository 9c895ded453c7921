//! The world of the bench: a receiver on a Redis full of prompts with exactly the form that it writes.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use prompt_rollback_testkit::{Receiver, Redis};
use serde_json::{Value, json};

use crate::wire::{self, Wire, http_length, monitored, pack, script_length};

const NAMESPACE: &str = "{prompts}";
/// The number of the model in the names of prompts; the others count from 0.
const MODEL: u64 = 999_999_999_999;
/// The reply of the commit script.
pub const COMMITTED: &[u8] = b"*1\r\n:1\r\n";
/// The number of digits in names, as in redis-benchmark's.
const DIGITS: usize = 12;

pub fn name(number: u64) -> String {
    format!("bench-{number:012}")
}

/// A receiver as shipped, except for the limit of automatic rollbacks, which the bench exceeds.
pub fn receiver(redis: &Redis) -> Result<Receiver> {
    receiver_of(env!("CARGO_BIN_EXE_prompt-rollback").as_ref(), redis)
}

/// Like [`receiver`], of another build.
pub fn receiver_of(program: &Path, redis: &Redis) -> Result<Receiver> {
    Receiver::builder(program)
        .config("[guards]\nmax_auto_rollbacks = 1000000000\n")
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .start()
}

/// A critical alert as the shipped rules fire it.
fn alert(number: u64) -> Value {
    let prompt = name(number);
    json!({
        "status": "firing",
        "labels": {
            "alertname": "PromptErrorRateCritical", "prompt": prompt, "version": "v2.1.0", "severity": "critical",
            "action": "rollback", "decider": "system", "time_limit": "2m",
        },
        "annotations": {
            "summary": format!("Error rate of {prompt} v2.1.0 is 12.4%"),
            "description": "More than 5 % of requests failed, over five minutes or, beyond doubt, over the last one.",
            "value": "12.4%",
            "verify": "(prompt_version:request_errors:ratio_critical{prompt=\"$prompt\",version=\"$version\"} or \
                prompt_version:request_errors:ratio_rate5m{prompt=\"$prompt\",version=\"$version\"}) < bool 0.01",
        },
        "startsAt": "2026-11-21T00:38:12.689818Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=prompt_version%3Arequest_errors%3Aratio_critical&g0.tab=1",
        "fingerprint": format!("{number:016x}"),
    })
}

/// A delivery of these prompts' alerts, as bytes of a request.
pub fn webhook(numbers: Range<u64>) -> Vec<u8> {
    let alerts: Vec<Value> = numbers.map(alert).collect();
    let body = json!({
        "receiver": "prompt-rollback", "status": "firing", "alerts": alerts,
        "groupLabels": {}, "commonLabels": {"severity": "critical"}, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093", "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0,
    })
    .to_string();
    post(&body)
}

/// A delivery as bytes of a request.
pub fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// How many alerts of an answer had this outcome.
pub fn outcomes(answer: &[u8], outcome: &str) -> usize {
    let wanted = format!(r#""outcome":"{outcome}""#);
    answer.windows(wanted.len()).filter(|window| *window == wanted.as_bytes()).count()
}

/// Everything that one prompt has in Redis, to be copied under other names, and the receiver's commit about it.
pub struct Model {
    serving_bad: Vec<(String, String)>,
    rolled_back: Vec<(String, String)>,
    log: Vec<Vec<(String, String)>>,
    incident: (String, String),
    commit: Vec<Vec<u8>>,
}

impl Model {
    /// Lets the receiver create one prompt with a known-good and a bad active version, and roll it back.
    pub async fn make(redis: &Redis, receiver: &Receiver) -> Result<Self> {
        let (http, prompt) = (receiver.http(), name(MODEL));
        for (path, body) in [
            ("versions", json!({"version": "v2.0.0", "known_good": true})),
            ("activate", json!({"version": "v2.0.0"})),
            ("versions", json!({"version": "v2.1.0"})),
            ("activate", json!({"version": "v2.1.0"})),
        ] {
            let answer = http.post_json(&format!("/api/prompts/{prompt}/{path}"), &body).await?;
            ensure!(answer.status < 300, "{path}: {}", answer.text());
        }
        let mut connection = connect(redis)?;
        let (state, log) = (format!("{NAMESPACE}:state:{prompt}"), format!("{NAMESPACE}:log:{prompt}"));
        let read = |connection: &mut redis::Connection| redis::cmd("HGETALL").arg(&state).query(connection);
        let serving_bad = read(&mut connection)?;
        let log: Vec<(String, Vec<(String, String)>)> =
            redis::cmd("XRANGE").arg(log).arg("-").arg("+").query(&mut connection)?;
        let mut switch = Wire::connect(&receiver.addr())?;
        let seen = monitored(redis, || {
            let answer = switch.ask(&webhook(MODEL..MODEL + 1), http_length)?;
            ensure!(outcomes(answer, "rolled_back") == 1, "{}", String::from_utf8_lossy(answer));
            Ok(())
        })?;
        let log_key = format!("{NAMESPACE}:log:{prompt}").into_bytes();
        let commit = seen.into_iter().find(|seen| seen.is("EVALSHA") && seen.args.contains(&log_key));
        let rolled_back = read(&mut connection)?;
        let ids: Vec<String> =
            redis::cmd("ZRANGE").arg(format!("{NAMESPACE}:incidents")).arg(0).arg(-1).query(&mut connection)?;
        let id = ids.into_iter().next().context("the incident")?;
        let record = redis::cmd("GET").arg(format!("{NAMESPACE}:incident:{id}")).query(&mut connection)?;
        Ok(Self {
            serving_bad,
            rolled_back,
            log: log.into_iter().map(|(_, fields)| fields).collect(),
            incident: (id, record),
            commit: commit.context("the commit in MONITOR")?.args,
        })
    }

    /// Writes prompts that serve their bad version.
    pub fn seed(&self, redis: &Redis, numbers: Range<u64>) -> Result<()> {
        self.write(redis, numbers, |pipeline, number| {
            let prompt = name(number);
            pipeline.cmd("SET").arg(format!("{NAMESPACE}:active:{prompt}")).arg("v2.1.0").ignore();
            self.state(pipeline, &self.serving_bad, number);
        })
    }

    /// Writes prompts that were rolled back, each with its open incident.
    pub fn seed_incidents(&self, redis: &Redis, numbers: Range<u64>) -> Result<()> {
        let record = &self.incident.1;
        let state = self.rolled_back.iter().find(|(field, _)| field == "json").context("a state")?;
        let state: Value = serde_json::from_str(&state.1)?;
        let phase = state["incidents"][0]["phase"].as_str().context("phase")?.to_owned();
        let key = |rest: &str| format!("{NAMESPACE}:{rest}");
        let later = u64::try_from(jiff::Timestamp::now().as_millisecond())? + 86_400_000;
        self.write(redis, numbers, |pipeline, number| {
            let (prompt, id) = (name(number), self.incident_id(number));
            pipeline.cmd("SET").arg(key(&format!("active:{prompt}"))).arg("v2.0.0").ignore();
            self.state(pipeline, &self.rolled_back, number);
            pipeline.cmd("SET").arg(key(&format!("incident:{id}"))).arg(self.renamed(record, number)).ignore();
            pipeline.cmd("ZADD").arg(key("incidents")).arg(0).arg(&id).ignore();
            pipeline.cmd("ZADD").arg(key("incidents:open")).arg(0).arg(&id).ignore();
            pipeline.cmd("HINCRBY").arg(key("phases")).arg(&phase).arg(1).ignore();
            pipeline.cmd("ZADD").arg(key("due")).arg(later).arg(format!("{id}|act")).ignore();
        })
    }

    fn write(&self, redis: &Redis, numbers: Range<u64>, add: impl Fn(&mut redis::Pipeline, u64)) -> Result<()> {
        const AT_ONCE: u64 = 500;
        let mut connection = connect(redis)?;
        let mut start = numbers.start;
        while start < numbers.end {
            let end = numbers.end.min(start + AT_ONCE);
            let mut pipeline = redis::Pipeline::new();
            for number in start..end {
                add(&mut pipeline, number);
            }
            pipeline.query::<()>(&mut connection)?;
            start = end;
        }
        Ok(())
    }

    fn state(&self, pipeline: &mut redis::Pipeline, fields: &[(String, String)], number: u64) {
        let prompt = name(number);
        let key = |rest: &str| format!("{NAMESPACE}:{rest}");
        let hash = pipeline.cmd("HSET").arg(key(&format!("state:{prompt}")));
        for (field, value) in fields {
            hash.arg(field).arg(self.renamed(value, number));
        }
        hash.ignore();
        for entry in &self.log {
            pipeline.cmd("XADD").arg(key(&format!("log:{prompt}"))).arg("*").arg(entry).ignore();
        }
        pipeline.cmd("ZADD").arg(key("prompts")).arg(0).arg(&prompt).ignore();
        pipeline.cmd("ZADD").arg(key("activity")).arg(jiff::Timestamp::now().as_millisecond()).arg(&prompt).ignore();
    }

    fn incident_id(&self, number: u64) -> String {
        let id = &self.incident.0;
        format!("{}{number:012}", &id[..id.len() - DIGITS])
    }

    fn renamed(&self, text: &str, number: u64) -> String {
        text.replace(&name(MODEL), &name(number)).replace(&self.incident.0, &self.incident_id(number))
    }

    /// The receiver's commit about another prompt, as bytes to send.
    pub fn commit(&self, number: u64) -> Vec<u8> {
        let id_at = 3 + self.key_count();
        let args: Vec<Vec<u8>> = self
            .commit
            .iter()
            .enumerate()
            .map(|(at, arg)| {
                let text = self.renamed(&String::from_utf8_lossy(arg), number);
                // each commit has an id of its own
                if at == id_at { format!("{}{number:012}", &text[..text.len() - DIGITS]) } else { text }.into_bytes()
            })
            .collect();
        pack(&args)
    }

    /// A commit for redis-benchmark, which replaces each `__rand_int__` anew. Its prompts are new to Redis, and the
    /// arguments say so, so that each commit succeeds.
    pub fn commit_template(&self) -> Vec<String> {
        const RANDOM: &str = "__rand_int__";
        let keys = self.key_count();
        let (_, model) = self.incident.0.split_at(self.incident.0.len() - DIGITS);
        let mut args: Vec<String> = self
            .commit
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).replace(&format!("{MODEL}"), RANDOM).replace(model, RANDOM))
            .collect();
        let argv = &mut args[3 + keys..];
        let length = argv[0].len();
        argv[0].replace_range(length - DIGITS.., RANDOM);
        argv[3] = "0".to_owned(); // no state yet
        argv[4] = "-".to_owned(); // nothing active yet
        args
    }

    fn key_count(&self) -> usize {
        std::str::from_utf8(&self.commit[2]).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

/// A blocking connection that knows the commit script.
pub fn connect(redis: &Redis) -> Result<redis::Connection> {
    let mut connection = redis::Client::open(redis.admin_url())?.get_connection()?;
    redis::cmd("SCRIPT").arg("LOAD").arg(include_str!("../../src/store/commit.lua")).exec(&mut connection)?;
    Ok(connection)
}

/// Blocks until the receiver has no more external changes to check, which seeding causes.
pub fn settle(redis: &Redis) -> Result<()> {
    let mut connection = connect(redis)?;
    let mut quiet = 0;
    while quiet < 3 {
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut connection)?;
        std::thread::sleep(Duration::from_millis(300));
        let info: String = redis::cmd("INFO").arg("commandstats").query(&mut connection)?;
        let looked = info.contains("cmdstat_scan:") || info.contains("cmdstat_hget:");
        quiet = if looked { 0 } else { quiet + 1 };
    }
    Ok(())
}

/// CPU time that a process and its Redis have used, in seconds.
pub fn cpu_seconds(pid: u32, redis: &Redis) -> Result<[f64; 2]> {
    let info: String = redis::cmd("INFO").query(&mut connect(redis)?)?;
    let field = |name: &str| -> Result<f64> {
        let text = info.lines().find_map(|line| line.strip_prefix(name)).context("a field of INFO")?;
        Ok(text.parse()?)
    };
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // after the name in parentheses: state is the first field, user and system time the 12th and 13th, in 1/100 s
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok([ticks / 100.0, field("used_cpu_user:")? + field("used_cpu_sys:")?])
}

/// Sends each webhook over one of `connections`, all at once, and expects each to roll back. Returns the seconds that
/// this took.
pub fn flood(address: &str, webhooks: &[Vec<u8>], connections: usize) -> Result<f64> {
    flood_with(address, &[], webhooks, connections, http_length, |answer| outcomes(answer, "rolled_back") == 1)
}

/// Sends commits to Redis over one of `connections`, all at once. Returns the seconds that this took.
pub fn flood_commits(redis: &Redis, commits: &[Vec<u8>], connections: usize) -> Result<f64> {
    let login = wire::login();
    flood_with(&redis.addr(), &login, commits, connections, script_length, |answer| answer.starts_with(COMMITTED))
}

fn flood_with(
    address: &str,
    login: &[u8],
    requests: &[Vec<u8>],
    connections: usize,
    complete: impl Fn(&[u8]) -> Option<usize> + Copy,
    is_expected: impl Fn(&[u8]) -> bool + Copy,
) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            if !login.is_empty() {
                wire::ask(&mut stream, login, &mut Vec::new(), wire::line_length).await?;
            }
            streams.push(stream);
        }
        let next = std::cell::Cell::new(0);
        let take = || {
            let at = next.get();
            next.set(at + 1);
            requests.get(at)
        };
        let start = std::time::Instant::now();
        let tasks = streams.into_iter().map(|mut stream| async move {
            let mut buffer = Vec::with_capacity(16 << 10);
            while let Some(request) = take() {
                wire::ask(&mut stream, request, &mut buffer, complete).await?;
                ensure!(is_expected(&buffer), "{}", String::from_utf8_lossy(&buffer));
            }
            Ok(())
        });
        tasks.collect::<FuturesUnordered<_>>().try_collect::<Vec<()>>().await?;
        Ok(start.elapsed().as_secs_f64())
    })
}
