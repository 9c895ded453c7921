//! Requests over HTTP: the receiver's CPU time for one, from its first byte to the last one of the response.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::{Receiver, Redis, linear};
use serde_json::{Value, json};

/// Measurements of each size: the receiver does other things as well.
const TRIES: usize = 3;

struct World {
    runtime: tokio::runtime::Runtime,
    receiver: std::cell::RefCell<Receiver>,
    _redis: Redis,
}

impl World {
    fn start() -> Result<Self> {
        let redis = Redis::start()?;
        let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
            .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
            .env("PROMPT_ROLLBACK_SERVER__REQUEST_TIMEOUT", "4900ms")
            .start()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, receiver: receiver.into(), _redis: redis })
    }

    /// The receiver's CPU time for a POST of `body`, which is answered with `status`. On a busy machine the receiver may
    /// run out of time before it has had that much of a CPU: then the body is sent again, as Alertmanager does.
    fn cost(&self, http: &Http, path: &str, body: &str, status: u16) -> Result<Duration> {
        const PATIENCE: usize = 20;
        for _ in 0..PATIENCE {
            let before = self.receiver.borrow_mut().process().computed();
            let answer = self.runtime.block_on(http.post(path, body.to_owned()))?;
            let is_late = answer.status == 503 && answer.json()?["error"]["code"] == "timeout";
            ensure!(is_late || answer.status == status, "{path}: {} {:.300}", answer.status, answer.text());
            if !is_late {
                return Ok(self.receiver.borrow_mut().process().computed() - before);
            }
        }
        bail!("{path}: not answered in time {PATIENCE} times in a row")
    }

    /// Checks a `body` of this many bytes, sent to a path that may depend on their number.
    fn linear(&self, what: &str, status: u16, path: impl Fn(usize, usize) -> String, body: impl Fn(usize) -> String) {
        let http = self.receiver.borrow().http();
        let mut asked = 0;
        linear(what, 64 << 10, |bytes| {
            let body = body(bytes);
            let once = |_| {
                asked += 1;
                self.cost(&http, &path(asked, bytes), &body, status).expect("an answer")
            };
            (0..TRIES).map(once).min().unwrap_or_default()
        });
    }
}

#[test]
fn bodies_of_the_api_are_read_and_acted_upon() -> Result<()> {
    let world = World::start()?;
    let versions = |kind: &str, n: usize| format!("/api/prompts/{kind}-{n}/versions");
    let content =
        |text: &str, bytes: usize| json!({"version": "v1", "content": text.repeat(bytes / text.len())}).to_string();
    let text = |bytes| content("be kind. ", bytes);
    world.linear("the text of a version", 201, |n, _| versions("text", n), text);
    world.linear(
        "a text that is all escapes",
        201,
        |n, _| versions("escapes", n),
        |bytes| content("\u{1}\"", bytes / 4),
    );
    world.linear(
        "the same text once more",
        200,
        |_, bytes| versions("same", bytes),
        |bytes| {
            let http = world.receiver.borrow().http();
            let answer = world.runtime.block_on(http.post(&versions("same", bytes), text(bytes))).expect("an answer");
            assert!([200, 201].contains(&answer.status), "{}", answer.text());
            text(bytes)
        },
    );
    let contact = |bytes: usize| json!({"version": "v1", "contact": "x".repeat(bytes)}).to_string();
    world.linear("a contact that is too long", 400, |n, _| versions("contact", n), contact);
    world.linear(
        "white space",
        201,
        |n, _| versions("space", n),
        |bytes| format!("{}{}", " ".repeat(bytes), json!({"version": "v1"})),
    );
    Ok(())
}

#[test]
fn deliveries_are_read_and_answered() -> Result<()> {
    let world = World::start()?;
    let delivery = |alert: &Value, bytes: usize| {
        let alert = alert.to_string();
        let alerts = vec![alert.as_str(); bytes / alert.len()].join(",");
        format!(r#"{{"version":"4","status":"firing","alerts":[{alerts}]}}"#)
    };
    let path = |_, _| "/webhooks/alertmanager".to_owned();
    let nameless = json!({"status": "firing", "labels": {"alertname": "Row"}, "annotations": {"summary": "it fails"}});
    world.linear("alerts that name no prompt", 200, path, |bytes| delivery(&nameless, bytes));
    let unknown = json!({"status": "firing", "fingerprint": "f", "startsAt": "2026-11-21T00:38:16Z",
        "labels": {"alertname": "Row", "prompt": "p", "version": "v9", "severity": "critical"}});
    world.linear("alerts on a prompt that is not known", 200, path, |bytes| delivery(&unknown, bytes));
    Ok(())
}

/// The thread that serves all requests only moves the bytes; other threads process them.
#[test]
fn what_is_large_is_read_and_decided_about_beside_the_thread_that_serves() -> Result<()> {
    let world = World::start()?;
    let http = world.receiver.borrow().http();
    // quotes, which are two bytes each in JSON
    let text = json!({"version": "v1", "content": "\"".repeat(3 << 20)}).to_string();
    let alert = json!({"status": "firing", "labels": {"alertname": "Row"}}).to_string();
    let delivery = format!(r#"{{"alerts":[{}]}}"#, vec![alert; 30_000].join(","));
    for (what, path, body, statuses) in [
        ("a text", "/api/prompts/p/versions", &text, [201, 503]),
        ("the same once more", "/api/prompts/p/versions", &text, [200, 503]),
        ("a delivery", "/webhooks/alertmanager", &delivery, [200, 503]),
    ] {
        let computed = || {
            let mut receiver = world.receiver.borrow_mut();
            let process = receiver.process();
            (process.computed(), process.computed_by_first_thread())
        };
        let before = computed();
        let answer = world.runtime.block_on(http.post(path, body.clone()))?;
        ensure!(statuses.contains(&answer.status), "{what}: {} {:.300}", answer.status, answer.text());
        let after = computed();
        let (all, serving) = (after.0 - before.0, after.1 - before.1);
        eprintln!("{what}: {all:?}, of which {serving:?} by the thread that serves");
        assert!(3 * serving < all, "{what}: {all:?}, of which {serving:?} by the thread that serves");
    }
    Ok(())
}
