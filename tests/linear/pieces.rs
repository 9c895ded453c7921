//! How long the thread that serves works at a stretch, by its CPU time: other requests wait that long. Compared with the CPU
//! time of a known piece in the same run, because every machine is as fast as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::StatusCode;
use prompt_rollback::app::App;
use prompt_rollback::config::LoadedConfig;
use prompt_rollback::store::Clock;
use prompt_rollback_testkit::http::{Answer, Http};
use prompt_rollback_testkit::{Redis, computed, eventually, least};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::{alert, delivery, read};

/// The least of this many counts: workers run on the same thread.
const TRIES: usize = 5;
const ROWS: usize = 1_000;

fn single_threaded() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A receiver on a thread of this process, as in a process of its own.
struct Served {
    http: Http,
    clients: Runtime,
    /// In nanoseconds.
    longest: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
    _redis: Redis,
}

impl Served {
    fn start() -> Result<Self> {
        let redis = Redis::start()?;
        let env = [
            ("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url()),
            ("PROMPT_ROLLBACK_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("PROMPT_ROLLBACK_SERVER__REQUEST_TIMEOUT", "4900ms".to_owned()),
        ];
        let settings = LoadedConfig::load(None, env.map(|(key, value)| (key.to_owned(), value)).into_iter())?;
        let longest = Arc::<AtomicU64>::default();
        let (started, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let seen = Arc::clone(&longest);
        let serve = async move {
            let app = App::start(&settings, Clock::default()).await?;
            started.send(app.address)?;
            // it has a turn between any two pieces
            let watch = tokio::spawn(async move {
                let mut before = computed();
                loop {
                    tokio::task::yield_now().await;
                    let now = computed();
                    let piece = u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX);
                    seen.fetch_max(piece, Ordering::Relaxed);
                    before = now;
                }
            });
            let _ = stopped.await;
            watch.abort();
            app.shutdown().await;
            anyhow::Ok(())
        };
        let thread = std::thread::spawn(move || single_threaded()?.block_on(serve));
        let http = Http::new(format!("http://{}", address.recv().context("it did not start")?));
        let served =
            Self { http, clients: single_threaded()?, longest, stop: Some(stop), thread: Some(thread), _redis: redis };
        let ready = async || served.http.get("/-/ready").await.ok().filter(|answer| answer.status == 200).map(drop);
        served.clients.block_on(eventually("ready", Duration::from_secs(120), ready))?;
        Ok(served)
    }

    /// The longest piece while `ask` is answered, and the answer.
    fn longest(&self, ask: impl AsyncFn() -> Result<Answer>) -> Result<(Duration, Answer)> {
        let mut least = None;
        for _ in 0..TRIES {
            self.longest.store(0, Ordering::Relaxed);
            let answer = self.clients.block_on(ask())?;
            let took = Duration::from_nanos(self.longest.load(Ordering::Relaxed));
            ensure!(answer.status == 200, "{} {:.300}", answer.status, answer.text());
            if least.as_ref().is_none_or(|(least, _)| took < *least) {
                least = Some((took, answer));
            }
        }
        least.context("no answer")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Fails unless the longest piece is much shorter than `known`.
fn compare(what: &str, longest: Duration, known: Duration) {
    eprintln!("{what}: {longest:?} at a stretch; a known piece takes {known:?}");
    assert!(3 * longest < known, "{what}: {longest:?} at a stretch; a known piece takes {known:?}");
}

#[test]
fn a_short_body_with_very_many_alerts_is_read_in_pieces() -> Result<()> {
    let served = Served::start()?;
    let body = format!(r#"{{"alerts":[{}]}}"#, vec!["{}"; 21_800].join(","));
    assert!(body.len() < 65_536);
    let known = least(|| read(body.as_bytes()));
    let (longest, answer) = served.longest(async || served.http.post("/webhooks/alertmanager", body.clone()).await)?;
    assert_eq!(answer.json()?["results"].as_array().map(Vec::len), Some(21_800));
    compare("alerts", longest, known);
    Ok(())
}

#[test]
fn long_lists_are_answered_in_pieces() -> Result<()> {
    let served = Served::start()?;
    served.clients.block_on(async {
        for n in 0..ROWS {
            for (what, body) in [("versions", json!({"version": "v2"})), ("activate", json!({"version": "v2"}))] {
                let answer = served.http.post_json(&format!("/api/prompts/team%2Fprompt-{n:04}/{what}"), &body).await?;
                ensure!((200..300).contains(&answer.status), "{what}: {}", answer.text());
            }
        }
        let alerts = delivery(ROWS, |n| {
            alert(n, "firing", &format!("team/prompt-{n:04}"), "v2")
                .replace(r#""severity":"critical""#, r#""severity":"high""#)
        });
        let answer = served.http.post("/webhooks/alertmanager", alerts).await?;
        ensure!(answer.status == u16::from(StatusCode::OK), "{:.300}", answer.text());
        anyhow::Ok(())
    })?;
    for (path, rows) in [("prompts", "prompts"), ("incidents", "incidents"), ("log", "entries")] {
        let path = format!("/api/{path}?limit={ROWS}");
        let (longest, answer) = served.longest(async || served.http.get(&path).await)?;
        let list: Value = answer.json()?;
        assert_eq!(list[rows].as_array().map(Vec::len), Some(ROWS), "{path}");
        // the answer is read, and written again
        let text = answer.text();
        let known =
            least(|| serde_json::from_str(&text).map(|list: Value| (list.to_string(), serde_json::to_value(list))));
        compare(&path, longest, known);
    }
    Ok(())
}
