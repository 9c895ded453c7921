//! A prompt server with its users: reads the active version from Redis, counts requests, exports metrics.

use anyhow::{Context, Result};
use prompt_rollback::reader::Split;
use prompt_rollback_testkit::connect;
use prompt_rollback_testkit::shipped::Source;
use redis::aio::MultiplexedConnection;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Between two requests to one prompt.
const PAUSE: Duration = Duration::from_millis(20);
/// Bounds of the latency histogram.
const BOUNDS: [f64; 4] = [0.01, 0.1, 0.15, 0.3];

/// The answers of one version.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Served {
    pub ok: u32,
    pub failed: u32,
}

impl Served {
    pub fn answers(self) -> u32 {
        self.ok + self.failed
    }
}

/// The behavior of a version.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    pub error_ratio: f64,
    /// The score of each successful answer.
    pub score: f64,
    pub seconds: f64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { error_ratio: 0.0, score: 0.9, seconds: 0.02 }
    }
}

/// The measurements of one version.
#[derive(Debug, Default)]
struct Measured {
    served: Served,
    scores: f64,
    /// Successful answers, by the first bound that they are within.
    within: [u32; BOUNDS.len()],
}

#[derive(Debug, Default)]
struct World {
    /// By prompt and version.
    measured: BTreeMap<(String, String), Measured>,
    behaviour: BTreeMap<(String, String), Behaviour>,
}

/// Stops when dropped.
pub struct PromptServer {
    pub addr: String,
    world: Arc<Mutex<World>>,
    _tasks: JoinSet<Result<()>>,
}

impl PromptServer {
    /// Serves these prompts with their active versions.
    pub async fn start(redis_url: &str, prompts: &[&str], source: Source) -> Result<Self> {
        let redis = connect(&redis::Client::open(redis_url)?).await.context("redis")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let world = Arc::new(Mutex::new(World::default()));
        let mut tasks = JoinSet::new();
        for prompt in prompts {
            tasks.spawn(answer_requests(redis.clone(), (*prompt).to_owned(), world.clone()));
        }
        tasks.spawn(answer_scrapes(listener, world.clone(), source));
        Ok(Self { addr, world, _tasks: tasks })
    }

    /// Makes this fraction of the version's requests fail from now on, evenly spread.
    pub fn misbehave(&self, prompt: &str, version: &str, error_ratio: f64) {
        self.behave(prompt, version, Behaviour { error_ratio, ..Behaviour::default() });
    }

    /// Sets the behavior from now on.
    pub fn behave(&self, prompt: &str, version: &str, behaviour: Behaviour) {
        lock(&self.world).behaviour.insert((prompt.to_owned(), version.to_owned()), behaviour);
    }

    pub fn served(&self, prompt: &str, version: &str) -> Served {
        let world = lock(&self.world);
        world.measured.get(&(prompt.to_owned(), version.to_owned())).map(|one| one.served).unwrap_or_default()
    }
}

async fn answer_requests(mut redis: MultiplexedConnection, prompt: String, world: Arc<Mutex<World>>) -> Result<()> {
    let mut due = interval(PAUSE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut both = redis::pipe();
    both.atomic().get(format!("{{prompts}}:active:{prompt}")).hgetall(format!("{{prompts}}:routing:{prompt}"));
    let mut split: Option<Split> = None;
    for user in 0_u32.. {
        due.tick().await;
        // with a slow Redis, the last known version is served
        type Both = (Option<String>, Vec<(String, String)>);
        if let Ok((active, routing)) = both.query_async::<Both>(&mut redis).await {
            split = active.map(|active| Split::new(&active, &routing));
        }
        let Some(split) = &split else { continue };
        let version = split.version(user.to_string()).to_string();
        let mut world = lock(&world);
        let key = (prompt.clone(), version);
        let behaviour = world.behaviour.get(&key).copied().unwrap_or_default();
        let Measured { served, scores, within } = world.measured.entry(key).or_default();
        if f64::from(served.failed + 1) <= f64::from(served.answers() + 1) * behaviour.error_ratio {
            served.failed += 1;
        } else {
            served.ok += 1;
            *scores += behaviour.score;
            if let Some(place) = BOUNDS.iter().position(|bound| behaviour.seconds <= *bound) {
                within[place] += 1;
            }
        }
    }
    Ok(())
}

async fn answer_scrapes(listener: TcpListener, world: Arc<Mutex<World>>, source: Source) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let text = match source {
            Source::Native => native(&lock(&world))?,
            Source::OpenTelemetry => open_telemetry(&lock(&world))?,
        };
        tokio::spawn(answer(stream, text));
    }
}

async fn answer(mut stream: TcpStream, text: String) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "closed in the middle of a request");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).await?;
    Ok(())
}

fn native(world: &World) -> Result<String> {
    let mut text = String::new();
    for ((prompt, version), Measured { served, scores, within }) in &world.measured {
        let labels = format!(r#"prompt="{prompt}",version="{version}""#);
        for (outcome, count, within) in [("ok", served.ok, *within), ("error", served.failed, quick(served.failed))] {
            let labels = format!(r#"{labels},outcome="{outcome}""#);
            writeln!(text, "prompt_requests_total{{{labels}}} {count}")?;
            histogram(&mut text, "prompt_request_duration_seconds", &labels, within, count)?;
        }
        let count = served.ok;
        writeln!(
            text,
            "prompt_quality_score_sum{{{labels}}} {scores}\nprompt_quality_score_count{{{labels}}} {count}"
        )?;
    }
    Ok(text)
}

/// a series with an `error_type` appears with the first error, as SDKs do it
fn open_telemetry(world: &World) -> Result<String> {
    let mut text = String::new();
    for ((prompt, version), Measured { served, within, .. }) in &world.measured {
        let labels = format!(r#"gen_ai_prompt_name="{prompt}",gen_ai_prompt_version="{version}""#);
        let name = "gen_ai_client_operation_duration_seconds";
        histogram(&mut text, name, &labels, *within, served.ok)?;
        if served.failed > 0 {
            let labels = format!(r#"{labels},error_type="timeout""#);
            histogram(&mut text, name, &labels, quick(served.failed), served.failed)?;
        }
    }
    Ok(text)
}

/// Errors take as long as a usual answer.
fn quick(count: u32) -> [u32; BOUNDS.len()] {
    [0, count, 0, 0]
}

/// Without its sum, which no rule reads.
fn histogram(text: &mut String, name: &str, labels: &str, within: [u32; BOUNDS.len()], count: u32) -> Result<()> {
    let mut total = 0;
    for (bound, within) in BOUNDS.iter().zip(within) {
        total += within;
        writeln!(text, r#"{name}_bucket{{{labels},le="{bound}"}} {total}"#)?;
    }
    writeln!(text, r#"{name}_bucket{{{labels},le="+Inf"}} {count}"#)?;
    writeln!(text, "{name}_count{{{labels}}} {count}")?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
