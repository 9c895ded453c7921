//! A version that answers badly without failing: a person decides, in Slack, and each hop from the click on is timed.

use crate::Args;
use crate::people::{self, MAYA, PRODUCT};
use crate::report::{Report, Row};
use crate::scenario::{GOOD, committed_at, explain, fired_at, incident, no_longer_served, ship};
use crate::stack::Stack;
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::slack::{Click, Message, Slack};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const DULL: &str = "v2.1.0";
const RULE: &str = "PromptQualityDropHigh";
const QUALITY: f64 = 0.5;
const APPROVE: &str = "approve";
/// What leads to a rollback: the button and the menu.
const DECISIVE: [&str; 2] = [APPROVE, "other_version"];

/// So long somebody may take to click.
const PATIENCE: Duration = Duration::from_secs(120);

/// When each hop happened.
pub struct Decision {
    clicked: Timestamp,
    committed: Timestamp,
    servers: Vec<(&'static str, Timestamp)>,
}

impl Decision {
    /// For the table.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::first("clicked", self.clicked), Row::new("committed", self.committed, self.clicked)];
        rows.extend(Row::of_servers(&self.servers, self.committed));
        rows
    }
}

/// Ships the dull version and follows what a person makes of it; nothing if they let it serve.
pub async fn ask(args: &Args, stack: &Stack, traffic: &Traffic, report: &Report) -> Result<Option<Decision>> {
    ship(stack, json!({ "version": DULL, "quality": QUALITY })).await?;
    report.step(&format!("{DULL} is shipped; no request fails, but its answers score {QUALITY} instead of 0.9"));
    let first = eventually("a response by it", Duration::from_secs(10), async || {
        traffic.of(DULL).iter().filter_map(|(_, served)| served.first).min()
    })
    .await?;
    report.event(first, first, &format!("first response by {DULL}"));

    // Scrapes, an evaluation, and one more that finds it lasting; more on a busy machine.
    let within = args.profile.interval() * 8 + Duration::from_secs(10);
    // Its own account of when is that of the first sign; it fires once that has lasted.
    eventually(&format!("{RULE} fires"), within, async || fired_at(stack, RULE, DULL).await).await?;
    report.event(first, Timestamp::now(), &format!("rule fired: {RULE}"));

    let question = stack.slack.wait_for("a question in Slack", Duration::from_secs(20), question).await;
    let question = question.with_context(|| explain(stack))?;
    let asked = Timestamp::try_from(question.posted_at())?;
    report.event(first, asked, &format!("Slack: #{PRODUCT} is asked; {DULL} is served meanwhile"));

    let Some((clicked, committed)) = decided(args, stack, &question, report).await? else {
        return Ok(None);
    };
    report.event(first, clicked, "clicked");
    report.event(first, committed, &format!("committed: {DULL} → {GOOD}"));
    let servers = no_longer_served(traffic, DULL).await?;
    for (name, last) in &servers {
        report.event(first, *last, &format!("{name}: last response by {DULL}"));
    }
    let told = |slack: &Slack| {
        let root = slack.message(&question.channel, &question.ts)?;
        (root.element(APPROVE).is_none() && !slack.replies(&root).is_empty()).then_some(())
    };
    stack.slack.wait_for("the thread tells of the rollback", Duration::from_secs(15), told).await?;
    report.step("the thread tells who decided, and its buttons are gone");
    Ok(Some(Decision { clicked, committed, servers }))
}

/// The thread that asks about the dull version.
fn question(slack: &Slack) -> Option<Message> {
    let is_it = |root: &Message| root.element(APPROVE).is_some() && root.visible_text().contains(DULL);
    slack.roots(PRODUCT).into_iter().find(is_it)
}

/// Waits for a decision, and makes it where nobody does: when it was clicked and committed.
async fn decided(
    args: &Args,
    stack: &Stack,
    question: &Message,
    report: &Report,
) -> Result<Option<(Timestamp, Timestamp)>> {
    let slack = &stack.slack;
    let address = format!("{}/#{}/{}", slack.url(), question.channel, question.ts);
    let mut left = Duration::ZERO;
    if people::somebody(args) {
        report.invite(&format!("Your decision: click \"Approve rollback\" on {address}"));
        left = PATIENCE;
    } else {
        report.step(&format!("nobody is here, so the demo clicks \"Approve rollback\" itself: {address}"));
    }
    let asked = Instant::now();
    let mut own_click = false;
    loop {
        if let Some(committed) = committed_at(stack, DULL).await {
            return Ok(Some((clicked_before(committed, slack, question).unwrap_or(committed), committed)));
        }
        let incident = incident(stack, DULL).await?.context("the incident is gone")?;
        let phase = incident["phase"].as_str().unwrap_or_default();
        if !["awaiting_decision", "investigating", "verifying"].contains(&phase) {
            report.step(&format!("nobody rolled {DULL} back: its incident is {phase}"));
            return Ok(None);
        }
        if asked.elapsed() > left && !own_click {
            if left > Duration::ZERO {
                report.step(&format!("nobody clicked for {left:?}, so the demo does"));
            }
            own_click = true;
            approve(slack, question).await?;
        }
        ensure!(asked.elapsed() < left + Duration::from_secs(15), "the click did nothing:\n{}", explain(stack));
        sleep(Duration::from_millis(20)).await;
    }
}

/// The click that led to the rollback; none if somebody used the command line.
fn clicked_before(committed: Timestamp, slack: &Slack, question: &Message) -> Option<Timestamp> {
    // Redis tells whole milliseconds.
    let by = committed + Duration::from_millis(1);
    let decides = |click: &Click| click.ts == question.ts && DECISIVE.contains(&click.action_id.as_str());
    let clicks = slack.clicks().into_iter().filter(decides);
    clicks.filter_map(|click| Timestamp::try_from(click.at).ok()).filter(|at| *at <= by).max()
}

/// Clicks as the page does.
async fn approve(slack: &Slack, question: &Message) -> Result<()> {
    let click = json!({ "user": MAYA, "channel": question.channel, "ts": question.ts, "action_id": APPROVE });
    let answer = Http::new(slack.url()).post_json("/ui/click", &click).await?.json()?;
    ensure!(answer["acknowledged"] == true, "the receiver did not take the click: {answer}");
    Ok(())
}
