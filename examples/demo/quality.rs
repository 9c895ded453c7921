//! Scene 2: a version that gives bad answers without failing. A person decides in Slack, and each step from the click
//! on is timed.

use crate::people::{self, MAYA, PRODUCT};
use crate::report::Row;
use crate::scene::{BUSY, Scene};
use crate::screenshots;
use crate::stack::LoggedProcess;
use crate::versions::{DULL, GOOD};
use anyhow::{Result, bail};
use jiff::Timestamp;
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::slack::{Click, Message, Slack};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const RULE: &str = "PromptQualityDropHigh";
const QUALITY: f64 = 0.5;
const APPROVE: &str = "approve";
/// The elements that lead to a rollback: the button and the menu.
const DECISIVE: [&str; 2] = [APPROVE, "other_version"];

/// How long a person may take to click.
const PATIENCE: Duration = Duration::from_secs(120);

/// The time of each step.
pub struct DecisionTimes {
    clicked: Timestamp,
    pub committed: Timestamp,
    servers: Vec<(&'static str, Timestamp)>,
}

impl DecisionTimes {
    /// The rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::first("clicked", self.clicked), Row::new("committed", self.committed, self.clicked)];
        rows.extend(Row::of_servers(&self.servers, self.committed));
        rows
    }
}

/// Ships the dull version, and follows the person's decision; `None` if they let it serve.
pub async fn ask(scene: &Scene<'_>) -> Result<Option<DecisionTimes>> {
    let Scene { report, stack, traffic, .. } = scene;
    DULL.ship(stack, json!({ "quality": QUALITY })).await?;
    report.step(&format!("{} is shipped; no request fails, but its answers score {QUALITY} instead of 0.9", DULL.name));
    let first = async || traffic.of(DULL.name).iter().filter_map(|(_, served)| served.first).min();
    let first = scene.wait("a response by it", BUSY, &[LoggedProcess::Servers], first).await?;
    report.event(first, first, &format!("first response by {}", DULL.name));

    // the first sign, by Prometheus' clock; the rule fires after that has lasted
    scene.fires(RULE, &DULL).await?;
    report.event(first, Timestamp::now(), &format!("rule fired: {RULE}"));

    let logs = [LoggedProcess::Alertmanager, LoggedProcess::Receiver];
    let question = scene.wait("a question in Slack", BUSY, &logs, async || question(&stack.slack)).await?;
    let asked = Timestamp::try_from(question.posted_at())?;
    report.event(first, asked, &format!("Slack: #{PRODUCT} is asked; {} keeps serving meanwhile", DULL.name));

    screenshots::of_question(scene).await?;
    let Some((clicked, committed)) = decided(scene, &question).await? else {
        return Ok(None);
    };
    report.event(first, clicked, "clicked");
    report.event(first, committed, &format!("committed: {} → {}", DULL.name, GOOD.name));
    let servers = scene.no_longer_served(&DULL).await?;
    for (name, last) in &servers {
        report.event(first, *last, &format!("{name}: last response by {}", DULL.name));
    }
    let told = |slack: &Slack| {
        let root = slack.message(&question.channel, &question.ts)?;
        (root.element(APPROVE).is_none() && !slack.replies(&root).is_empty()).then_some(())
    };
    scene.wait_in_slack("the thread to tell of the rollback", told).await?;
    report.step("the thread says who decided, and its buttons are gone");
    Ok(Some(DecisionTimes { clicked, committed, servers }))
}

/// The thread with the question about the dull version.
fn question(slack: &Slack) -> Option<Message> {
    let is_it = |root: &Message| root.element(APPROVE).is_some() && root.visible_text().contains(DULL.name);
    slack.roots(PRODUCT).into_iter().find(is_it)
}

/// Waits for a decision, or makes it if no one does. Returns when it was clicked and committed.
async fn decided(scene: &Scene<'_>, question: &Message) -> Result<Option<(Timestamp, Timestamp)>> {
    let Scene { args, report, stack, .. } = scene;
    let link = scene.link(question);
    let mut left = Duration::ZERO;
    if people::somebody(args) {
        let page = format!("{}/incidents", stack.receiver.url());
        report.invite(&format!("Your decision: click \"Approve rollback\" in the incident on {page}, or on {link}"));
        left = PATIENCE;
    } else {
        report.step(&format!("the demo clicks \"Approve rollback\" itself: {link}"));
    }
    let asked = Instant::now();
    let _waiting = report.screen.waiting("your click; after two minutes the demo clicks itself");
    let mut next_click = asked + left;
    loop {
        if let Some(committed) = scene.committed_at(&DULL).await {
            return Ok(Some((clicked_before(committed, &stack.slack, question).unwrap_or(committed), committed)));
        }
        let incident = scene.incident(&DULL).await?;
        match incident["phase"].as_str().unwrap_or_default() {
            "awaiting_decision" | "confirming" | "investigating" | "verifying" => {}
            "rolling_back" => {
                report.step("a gradual rollback takes half an hour, so the demo continues without it");
                return Ok(None);
            }
            phase => {
                report.step(&format!("{} stays active: its incident is {phase}", DULL.name));
                return Ok(None);
            }
        }
        if Instant::now() >= next_click {
            if left > Duration::ZERO {
                report.step("two minutes are over, so the demo clicks \"Approve rollback\"");
            }
            // a click that was not acknowledged within three seconds is repeated, as a person would
            let pause = if approve(&stack.slack, question).await? { 2 * BUSY } else { Duration::from_secs(1) };
            next_click = Instant::now() + pause;
        }
        if asked.elapsed() > left + BUSY {
            bail!("\"Approve rollback\" was clicked, but it had no effect{}", stack.logs(&[LoggedProcess::Receiver]));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The click that led to the rollback; `None` if someone used the page or the command line.
fn clicked_before(committed: Timestamp, slack: &Slack, question: &Message) -> Option<Timestamp> {
    // Redis' time has whole milliseconds
    let by = committed + Duration::from_millis(1);
    let decides = |click: &Click| click.ts == question.ts && DECISIVE.contains(&click.action_id.as_str());
    let clicks = slack.clicks().into_iter().filter(decides);
    clicks.filter_map(|click| Timestamp::try_from(click.at).ok()).filter(|at| *at <= by).max()
}

/// Clicks like the page. Returns whether the click was acknowledged.
async fn approve(slack: &Slack, question: &Message) -> Result<bool> {
    let click = json!({ "user": MAYA, "channel": question.channel, "ts": question.ts, "action_id": APPROVE });
    let answer = Http::new(slack.url()).post_json("/ui/click", &click).await?.json()?;
    Ok(answer["acknowledged"] == true)
}
