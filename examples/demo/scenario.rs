//! The story: a good version serves, a bad one is shipped, and each hop of the rollback is timed.

use crate::Args;
use crate::report::Report;
use crate::stack::{PROMPT, Stack};
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use prompt_rollback_testkit::eventually;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const GOOD: &str = "v1.9.0";
const BAD: &str = "v2.0.0";
const RULE: &str = "PromptErrorRateCritical";

/// When each hop happened.
pub struct Hops {
    pub first_bad: Timestamp,
    pub rule_fired: Timestamp,
    pub webhook: Timestamp,
    pub committed: Timestamp,
    /// Each server's last response by the bad version.
    pub servers: Vec<(&'static str, Timestamp)>,
    /// Responses by the bad version, and how many of them failed.
    pub answers: u64,
    pub failed: u64,
}

impl Hops {
    /// First bad response → last server on the bad version.
    pub fn total(&self) -> Duration {
        let last = self.servers.iter().map(|(_, last)| *last).max().unwrap_or(self.committed);
        last.duration_since(self.first_bad).unsigned_abs()
    }
}

/// Starts everything and lets the good version serve for a while.
pub async fn start(args: &Args, report: &Report) -> Result<(Stack, Traffic)> {
    report.step("starting Redis, the receiver, two prompt servers, Alertmanager and Prometheus");
    let stack = Stack::start(args).await?;

    let versions = format!("/api/prompts/{PROMPT}/versions");
    call(&stack, &versions, json!({ "version": GOOD, "known_good": true })).await?;
    activate(&stack, GOOD).await?;
    let traffic = Traffic::start(&stack.servers, args.rps);
    eventually("both servers serve the good version", Duration::from_secs(5), async || {
        traffic.of(GOOD).iter().all(|(_, served)| served.answers > 0).then_some(())
    })
    .await?;
    report.step(&format!("{GOOD} is active and known-good; {} requests a second to each server", args.rps));

    // Two scrapes at least. The rest makes runs meet the scrapes at different moments.
    let interval = args.profile.interval();
    let phase = interval.mul_f64(f64::from(Timestamp::now().subsec_nanosecond()) / 1e9);
    sleep(interval * 2 + phase).await;
    let failed: u64 = traffic.of(GOOD).iter().map(|(_, served)| served.failed).sum();
    ensure!(failed == 0, "{failed} requests failed while only {GOOD} was served");
    Ok((stack, traffic))
}

/// Ships the bad version and follows what happens until no server serves it any more.
pub async fn ship_bad_version(args: &Args, stack: &Stack, traffic: &Traffic, report: &Report) -> Result<Hops> {
    for server in &stack.servers {
        let wish = json!({ "version": BAD, "error_ratio": args.error_ratio });
        let answer = server.http().post_json("/misbehave", &wish).await?;
        ensure!(answer.status == 200, "{}: {}", server.name, answer.text());
    }
    call(stack, &format!("/api/prompts/{PROMPT}/versions"), json!({ "version": BAD })).await?;
    activate(stack, BAD).await?;
    report.step(&format!("{BAD} is shipped; {:.0} % of its requests fail", args.error_ratio * 100.0));

    let first_bad = eventually("a bad response", Duration::from_secs(10), async || {
        traffic.of(BAD).iter().filter_map(|(_, served)| served.first_failed).min()
    })
    .await?;
    report.event(first_bad, first_bad, "first bad response");

    // Two scrapes and an evaluation; more on a busy machine.
    let within = args.profile.interval() * 6 + Duration::from_secs(10);
    let rule_fired = eventually(&format!("{RULE} fires"), within, async || fired_at(stack).await).await;
    let rule_fired =
        rule_fired.context("Prometheus sees no reason to: is the error ratio above the rule's threshold?")?;
    report.event(first_bad, rule_fired, &format!("rule fired: {RULE}"));

    let committed = eventually("the rollback", Duration::from_secs(15), async || committed_at(stack).await).await;
    let committed = committed.with_context(|| explain(stack))?;
    let webhook = webhook_at(stack).await?;
    report.event(first_bad, webhook, "webhook received");
    report.event(first_bad, committed, &format!("committed: {BAD} → {GOOD}"));

    let quiet = Duration::from_millis(1500);
    let gone = eventually("every server is back on the good version", Duration::from_secs(15), async || {
        let latest = traffic.of(GOOD).into_iter().map(|(_, served)| served.last).min().flatten()?;
        let servers = last_served(traffic);
        let quiet_since = |last: Timestamp| latest.duration_since(last).unsigned_abs() >= quiet && latest > last;
        servers.iter().all(|(_, last)| quiet_since(*last)).then_some(servers)
    });
    let servers = gone.await?;
    for (name, last) in &servers {
        report.event(first_bad, *last, &format!("{name}: last response by {BAD}"));
    }
    let counts = traffic.of(BAD);
    let answers = counts.iter().map(|(_, served)| served.answers).sum();
    let failed = counts.iter().map(|(_, served)| served.failed).sum();
    Ok(Hops { first_bad, rule_fired, webhook, committed, servers, answers, failed })
}

fn last_served(traffic: &Traffic) -> Vec<(&'static str, Timestamp)> {
    traffic.of(BAD).into_iter().filter_map(|(name, served)| Some((name, served.last?))).collect()
}

/// When the rule fired, by Prometheus' own account.
async fn fired_at(stack: &Stack) -> Option<Timestamp> {
    let alerts = stack.prometheus.alerts().await.ok()?;
    let ours = alerts.iter().find(|alert| {
        let labels = &alert["labels"];
        alert["state"] == "firing" && labels["alertname"] == RULE && labels["version"] == BAD
    })?;
    ours["activeAt"].as_str()?.parse().ok()
}

/// When the rollback was committed: the deployment log's entry has the time at which Redis ran the script in its id.
async fn committed_at(stack: &Stack) -> Option<Timestamp> {
    let key = format!("{{prompts}}:log:{PROMPT}");
    let entries: Vec<(String, Vec<String>)> =
        stack.redis.cmd(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]).await.ok()?;
    let (id, fields) = entries.first()?;
    let field = |name: &str| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    if (field("event"), field("from"), field("to")) != (Some("rollback"), Some(BAD), Some(GOOD)) {
        return None;
    }
    Timestamp::from_millisecond(id.split_once('-')?.0.parse().ok()?).ok()
}

/// When the receiver took up the webhook: the incident was opened with the time that Redis gave to the first read.
async fn webhook_at(stack: &Stack) -> Result<Timestamp> {
    let incidents = stack.receiver.http().get("/api/incidents").await?.json()?;
    let incident = incidents["incidents"].as_array().into_iter().flatten().find(|one| one["version"] == BAD);
    let opened = incident.and_then(|one| one["opened_at"].as_str()).context("no incident in /api/incidents")?;
    Ok(opened.parse()?)
}

async fn activate(stack: &Stack, version: &str) -> Result<()> {
    call(stack, &format!("/api/prompts/{PROMPT}/activate"), json!({ "version": version, "operator": "demo" })).await
}

async fn call(stack: &Stack, path: &str, body: Value) -> Result<()> {
    let answer = stack.receiver.http().post_json(path, &body).await?;
    ensure!((200..300).contains(&answer.status), "POST {path} {body}: {} {}", answer.status, answer.text());
    Ok(())
}

/// Where a rollback got stuck, as far as the receiver and Alertmanager say.
fn explain(stack: &Stack) -> String {
    let tail = |log: String| {
        let lines: Vec<_> = log.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    };
    format!(
        "receiver:\n{}\nAlertmanager:\n{}\nthe rule fired, but",
        tail(stack.receiver.log()),
        tail(stack.alertmanager.log())
    )
}
