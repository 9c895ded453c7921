//! Scene 1: a version that fails is rolled back automatically, and each step is timed.

use crate::people::ON_CALL;
use crate::report::Row;
use crate::scene::{BUSY, Scene};
use crate::stack::LoggedProcess;
use crate::versions::{BAD, GOOD};
use anyhow::{Context, Result};
use jiff::Timestamp;
use prompt_rollback_testkit::slack::Message;
use serde_json::json;
use std::time::Duration;

const RULE: &str = "PromptErrorRateCritical";

/// The time of each step.
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

    /// The rows of the table.
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

/// Ships the bad version, and follows what happens until no server serves it any more.
pub async fn ship(scene: &Scene<'_>) -> Result<Hops> {
    let Scene { args, report, stack, traffic } = scene;
    BAD.ship(stack, json!({ "error_ratio": args.error_ratio })).await?;
    report.step(&format!("{} is shipped; {:.0} % of its requests fail", BAD.name, args.error_ratio * 100.0));

    let failed = async || traffic.of(BAD.name).iter().filter_map(|(_, served)| served.first_failed).min();
    let first_bad = scene.wait("a bad response", BUSY, &[LoggedProcess::Servers], failed).await?;
    report.event(first_bad, first_bad, "first bad response");

    let rule_fired = scene.fires(RULE, &BAD).await?;
    report.event(first_bad, rule_fired, &format!("rule fired: {RULE}"));

    let logs = [LoggedProcess::Alertmanager, LoggedProcess::Receiver];
    let committed = scene.wait("the rollback", BUSY, &logs, async || scene.committed_at(&BAD).await).await?;
    // the incident was opened with the Redis time of the first read
    let incident = scene.incident(&BAD).await?;
    let webhook = incident["opened_at"].as_str().context("an incident without opened_at")?.parse()?;
    report.event(first_bad, webhook, "webhook received");
    report.event(first_bad, committed, &format!("committed: {} → {}", BAD.name, GOOD.name));

    let servers = scene.no_longer_served(&BAD).await?;
    for (name, last) in &servers {
        report.event(first_bad, *last, &format!("{name}: last response by {}", BAD.name));
    }
    let counts = traffic.of(BAD.name);
    let answers = counts.iter().map(|(_, served)| served.answers).sum();
    let failed = counts.iter().map(|(_, served)| served.failed).sum();
    Ok(Hops { first_bad, rule_fired, webhook, committed, servers, answers, failed })
}

/// The thread about the rollback.
pub async fn thread(scene: &Scene<'_>, hops: &Hops) -> Result<Message> {
    let rolled_back = format!("automatically from {}", BAD.name);
    let is_it = |root: &Message| root.visible_text().contains(&rolled_back);
    let root = scene.wait_in_slack("the thread in Slack", |slack| slack.roots(ON_CALL).into_iter().find(is_it)).await?;
    let told = Timestamp::try_from(root.posted_at())?;
    scene.report.event(hops.first_bad, told, &format!("Slack: #{ON_CALL} is notified"));
    Ok(root)
}
