//! The receiver, its input, and the memory of it and its Redis.

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::slack::Slack;
use prompt_rollback_testkit::{Receiver, Redis};
use serde_json::{Value, json};

use crate::memory::{Memory, memory};
use crate::wire::{Wire, http_length};

/// The figures of docs/operations.md, in bytes: a prompt with two versions, an incident with two alerts and a Slack
/// thread (without a picture, because there is no Prometheus), and a log entry.
const PROMPT: f64 = 5_700.0;
const INCIDENT: f64 = 9_000.0;
const ENTRY: f64 = 90.0;

/// As shipped, except for the limit of automatic rollbacks.
pub fn receiver(redis: &Redis, slack: &Slack) -> Result<Receiver> {
    let mut builder = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .config("[guards]\nmax_auto_rollbacks = 1000000000\n")
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url());
    for (key, value) in [
        ("SLACK__BOT_TOKEN", slack.bot_token().to_owned()),
        ("SLACK__SIGNING_SECRET", slack.signing_secret().to_owned()),
        ("SLACK__API_URL", slack.api_url()),
        ("DECIDERS__ON_CALL__CHANNEL", "#on-call".to_owned()),
        ("DECIDERS__ON_CALL__APPROVERS", "U1".to_owned()),
    ] {
        builder = builder.env(format!("PROMPT_ROLLBACK_{key}"), value);
    }
    builder.start()
}

fn name(prompt: usize) -> String {
    format!("soak-{prompt:04}")
}

fn request(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The JSON of a response that must be 2xx.
fn body(answer: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(answer)?;
    ensure!(text.starts_with("HTTP/1.1 2"), "{text}");
    Ok(serde_json::from_str(text.split_once("\r\n\r\n").map_or("", |(_, body)| body))?)
}

pub fn post(http: &mut Wire, prompt: usize, what: &str, value: &Value) -> Result<()> {
    let sent = request(&format!("/api/prompts/{}/{what}", name(prompt)), value);
    body(http.ask(&sent, http_length)?).map(drop)
}

/// Creates prompts with the rollback target `v1` and the active version `v2`.
pub fn ship(http: &mut Wire, prompts: usize) -> Result<()> {
    for prompt in 0..prompts {
        post(http, prompt, "versions", &json!({"version": "v1", "known_good": true}))?;
        post(http, prompt, "activate", &json!({"version": "v1"}))?;
        post(http, prompt, "versions", &json!({"version": "v2"}))?;
        post(http, prompt, "activate", &json!({"version": "v2"}))?;
    }
    Ok(())
}

pub fn alert(prompt: usize, version: &str, severity: &str, status: &str) -> Value {
    let prompt = name(prompt);
    json!({
        "status": status,
        "labels": {"alertname": format!("PromptErrorRate{severity}"), "prompt": prompt, "version": version, "severity": severity},
        "annotations": {
            "summary": format!("Error rate of {prompt} {version} is 12.4%"),
            "description": "More than 5 % of requests failed, over five minutes or, beyond doubt, over the last one.",
            "value": "12.4%",
            "runbook_url": "https://runbooks.example/prompt-error-rate",
        },
        "startsAt": "2026-11-21T00:38:12.689818Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=prompt_version%3Arequest_errors%3Aratio_critical&g0.tab=1",
        "fingerprint": format!("{prompt} {version} {severity}"),
    })
}

pub fn delivery(alerts: &[Value]) -> Vec<u8> {
    let body = json!({
        "receiver": "prompt-rollback", "status": "firing", "alerts": alerts,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093", "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0,
    });
    request("/webhooks/alertmanager", &body)
}

/// The outcome of each alert; `None`: send them again.
pub fn delivered(answer: &[u8]) -> Result<Option<Vec<String>>> {
    if answer.starts_with(b"HTTP/1.1 503") {
        return Ok(None);
    }
    let answer = body(answer)?;
    let results = answer["results"].as_array().context("results")?;
    results
        .iter()
        .map(|result| Ok(result["outcome"].as_str().context("an outcome")?.to_owned()))
        .collect::<Result<_>>()
        .map(Some)
}

/// The state at one moment.
pub struct Sample {
    /// Of the receiver.
    pub memory: Memory,
    /// Redis' data, in bytes.
    pub redis: f64,
    pub open: usize,
    pub incidents: usize,
    pub entries: usize,
}

impl Sample {
    pub fn now(receiver: &Receiver, redis: &Redis) -> Result<Self> {
        let mut connection = redis::Client::open(redis.admin_url())?.get_connection()?;
        let info: String = redis::cmd("INFO").arg("memory").query(&mut connection)?;
        let data = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:")).context("INFO")?;
        let mut count = |command: &str, key: String| redis::cmd(command).arg(key).query(&mut connection);
        let [open, incidents] = [":open", ""].map(|set| count("ZCARD", format!("{{prompts}}:incidents{set}")));
        let mut entries = 0;
        for prompt in 0..crate::PROMPTS {
            entries += count("XLEN", format!("{{prompts}}:log:{}", name(prompt)))?;
        }
        Ok(Self {
            memory: memory(receiver.pid())?,
            redis: data.trim().parse()?,
            open: open?,
            incidents: incidents?,
            entries,
        })
    }
}

/// The estimated size of Redis' data, in bytes.
pub fn reckoned(prompts: usize, end: &Sample) -> f64 {
    prompts as f64 * PROMPT + end.incidents as f64 * INCIDENT + end.entries as f64 * ENTRY
}
