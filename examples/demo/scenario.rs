//! A good version serves, a bad one is shipped, and each hop of its automatic rollback is timed.

use crate::Args;
use crate::people::ON_CALL;
use crate::report::{Report, Row};
use crate::stack::{PROMPT, Stack};
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::slack::{Message, Slack};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

pub const GOOD: &str = "v1.9.0";
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

    /// For the table.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::first("first bad response", self.first_bad),
            Row::new("rule fired", self.rule_fired, self.first_bad),
            Row::new("webhook received", self.webhook, self.rule_fired),
            Row::new("committed", self.committed, self.webhook),
        ];
        rows.extend(Row::of_servers(&self.servers, self.committed));
        rows
    }
}

/// Starts everything around this workspace and lets the good version serve for a while.
pub async fn start(args: &Args, slack: Slack, report: &Report) -> Result<(Stack, Traffic)> {
    report.step("starting Redis, the receiver, two prompt servers, Alertmanager and Prometheus");
    let stack = Stack::start(args, slack).await?;

    register(&stack, json!({ "version": GOOD, "known_good": true })).await?;
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
    ship(stack, json!({ "version": BAD, "error_ratio": args.error_ratio })).await?;
    report.step(&format!("{BAD} is shipped; {:.0} % of its requests fail", args.error_ratio * 100.0));

    let first_bad = eventually("a bad response", Duration::from_secs(10), async || {
        traffic.of(BAD).iter().filter_map(|(_, served)| served.first_failed).min()
    })
    .await?;
    report.event(first_bad, first_bad, "first bad response");

    // Two scrapes and an evaluation; more on a busy machine.
    let within = args.profile.interval() * 6 + Duration::from_secs(10);
    let rule_fired = eventually(&format!("{RULE} fires"), within, async || fired_at(stack, RULE, BAD).await).await;
    let rule_fired =
        rule_fired.context("Prometheus sees no reason to: is the error ratio above the rule's threshold?")?;
    report.event(first_bad, rule_fired, &format!("rule fired: {RULE}"));

    let committed = eventually("the rollback", Duration::from_secs(15), async || committed_at(stack, BAD).await).await;
    let committed = committed.with_context(|| explain(stack))?;
    let webhook = webhook_at(stack).await?;
    report.event(first_bad, webhook, "webhook received");
    report.event(first_bad, committed, &format!("committed: {BAD} → {GOOD}"));

    let servers = no_longer_served(traffic, BAD).await?;
    for (name, last) in &servers {
        report.event(first_bad, *last, &format!("{name}: last response by {BAD}"));
    }
    let counts = traffic.of(BAD);
    let answers = counts.iter().map(|(_, served)| served.answers).sum();
    let failed = counts.iter().map(|(_, served)| served.failed).sum();
    Ok(Hops { first_bad, rule_fired, webhook, committed, servers, answers, failed })
}

/// When the thread that tells of it was posted.
pub async fn told(stack: &Stack) -> Result<Timestamp> {
    let told = |slack: &Slack| {
        let is_it = |root: &Message| root.visible_text().contains(&format!("automatically from {BAD}"));
        slack.roots(ON_CALL).into_iter().find(is_it)
    };
    let root = stack.slack.wait_for("the thread in Slack", Duration::from_secs(15), told).await?;
    Ok(Timestamp::try_from(root.posted_at())?)
}

/// Registers and activates a version that behaves as `wish` says.
pub async fn ship(stack: &Stack, wish: Value) -> Result<()> {
    for server in &stack.servers {
        let answer = server.http().post_json("/misbehave", &wish).await?;
        ensure!(answer.status == 200, "{}: {}", server.name, answer.text());
    }
    register(stack, json!({ "version": wish["version"] })).await?;
    activate(stack, wish["version"].as_str().unwrap_or_default()).await
}

/// Waits until no server serves `version` any more, and gives each one's last response by it.
pub async fn no_longer_served(traffic: &Traffic, version: &str) -> Result<Vec<(&'static str, Timestamp)>> {
    let quiet = Duration::from_millis(1500);
    let last_served = || -> Vec<(&'static str, Timestamp)> {
        traffic.of(version).into_iter().filter_map(|(name, served)| Some((name, served.last?))).collect()
    };
    eventually("every server is back on the good version", Duration::from_secs(15), async || {
        let latest = traffic.of(GOOD).into_iter().map(|(_, served)| served.last).min().flatten()?;
        let servers = last_served();
        let quiet_since = |last: Timestamp| latest.duration_since(last).unsigned_abs() >= quiet && latest > last;
        servers.iter().all(|(_, last)| quiet_since(*last)).then_some(servers)
    })
    .await
}

/// When a rule fired for `version`, by Prometheus' own account.
pub async fn fired_at(stack: &Stack, rule: &str, version: &str) -> Option<Timestamp> {
    let alerts = stack.prometheus.alerts().await.ok()?;
    let ours = alerts.iter().find(|alert| {
        let labels = &alert["labels"];
        alert["state"] == "firing" && labels["alertname"] == rule && labels["version"] == version
    })?;
    ours["activeAt"].as_str()?.parse().ok()
}

/// When the rollback from `version` was committed: the deployment log's entry has the time at which Redis ran the script in its id.
pub async fn committed_at(stack: &Stack, version: &str) -> Option<Timestamp> {
    let key = format!("{{prompts}}:log:{PROMPT}");
    let entries: Vec<(String, Vec<String>)> =
        stack.redis.cmd(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]).await.ok()?;
    let (id, fields) = entries.first()?;
    let field = |name: &str| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    if (field("event"), field("from"), field("to")) != (Some("rollback"), Some(version), Some(GOOD)) {
        return None;
    }
    Timestamp::from_millisecond(id.split_once('-')?.0.parse().ok()?).ok()
}

/// When the receiver took up the webhook: the incident was opened with the time that Redis gave to the first read.
async fn webhook_at(stack: &Stack) -> Result<Timestamp> {
    let incident = incident(stack, BAD).await?.context("no incident in /api/incidents")?;
    let opened = incident["opened_at"].as_str().context("an incident without opened_at")?;
    Ok(opened.parse()?)
}

/// The incident about `version`, as the API shows it.
pub async fn incident(stack: &Stack, version: &str) -> Result<Option<Value>> {
    let incidents = stack.receiver.http().get("/api/incidents").await?.json()?;
    let mut incidents = incidents["incidents"].as_array().into_iter().flatten();
    Ok(incidents.find(|one| one["version"] == version).cloned())
}

async fn register(stack: &Stack, body: Value) -> Result<()> {
    call(stack, &format!("/api/prompts/{PROMPT}/versions"), body).await
}

async fn activate(stack: &Stack, version: &str) -> Result<()> {
    call(stack, &format!("/api/prompts/{PROMPT}/activate"), json!({ "version": version, "operator": "demo" })).await
}

async fn call(stack: &Stack, path: &str, body: Value) -> Result<()> {
    let answer = stack.receiver.http().post_json(path, &body).await?;
    ensure!((200..300).contains(&answer.status), "POST {path} {body}: {} {}", answer.status, answer.text());
    Ok(())
}

/// Where it got stuck, as far as the receiver and Alertmanager say.
pub fn explain(stack: &Stack) -> String {
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
