//! The weekly report of a dry run.

use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback::store::schedule::{Work, WorkItem};
use prompt_rollback_testkit::slack::{Fault, Slack};

use super::kit::{INCIDENTS, ON_CALL, SLACK_SOON, Workspace, slack};
use crate::common::kept::{due_at, progress, waiting};
use crate::common::{SOON, critical, eventually, resolved};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
const DRY: [(&str, &str); 1] = [("GUARDS__MODE", "dry-run")];

/// When the report is due: some days from now, whatever day and time it is.
fn days_from_now() -> Result<String> {
    let day = jiff::Timestamp::now().checked_add(Duration::from_secs(3 * 24 * 3_600))?;
    Ok(format!("{} 09:00", day.strftime("%a").to_string().to_lowercase()))
}

fn reports(slack: &Slack) -> Vec<String> {
    let roots = slack.roots(INCIDENTS).into_iter().map(|root| root.visible_text());
    roots.filter(|text| text.contains("Dry run:")).collect()
}

async fn scheduled(workspace: &Workspace) -> Result<()> {
    eventually("the report is scheduled", SOON, async || {
        due_at(&workspace.redis, Work::Report, "weekly").await.ok()?.map(drop)
    })
    .await
}

async fn done(workspace: &Workspace) -> Result<()> {
    eventually("the report is done", SLACK_SOON, async || {
        progress(&workspace.redis, Work::Report, &WorkItem::WeeklyReport, "reported").await.ok()?.map(drop)
    })
    .await
}

#[tokio::test]
async fn two_replicas_report_a_week_once_and_say_what_would_have_been_right() -> Result<()> {
    let weekly = days_from_now()?;
    let env = [DRY[0], ("REPORT__WEEKLY", weekly.as_str())];
    let workspace = Workspace::with(slack()?, &env).await?;
    let replica = workspace.replica(&env).await?;
    workspace.ship("q").await?;
    workspace.receiver.outcomes(&[critical("p"), critical("q")]).await?;
    workspace.receiver.outcomes(&[resolved(critical("q"))]).await?;
    workspace.receiver.clock.advance(Duration::from_secs(12 * 60));
    eventually("both are shown", SLACK_SOON, async || (workspace.slack.roots(ON_CALL).len() == 2).then_some(()))
        .await?;
    let open = workspace.get("/api/incidents?open=true").await?;
    let p = open["incidents"].as_array().and_then(|all| all.iter().find(|one| one["prompt"] == "p")).cloned();
    let id = p.and_then(|one| one["id"].as_str().map(str::to_owned)).unwrap_or_default();
    let body = serde_json::json!({ "decision": "approve", "operator": "maya" });
    let (status, answer) = workspace.post(&format!("/api/incidents/{id}/decide"), body).await?;
    ensure!(status == 200, "{answer}");
    scheduled(&workspace).await?;
    replica.clock.advance(WEEK + Duration::from_secs(12 * 60));
    workspace.receiver.clock.advance(WEEK);
    done(&workspace).await?;
    workspace.quiet().await?;
    let said = reports(&workspace.slack);
    ensure!(said.len() == 1, "{said:#?}");
    for expected in [
        "2 rollbacks would have happened this week",
        "PromptErrorRate: 1 right, 1 wrong, 0 unclear; 12 min earlier than people",
        "right: p v2 → v1: a person rolled back the same way, 12 min",
        "wrong: q v2 → v1: the alerts resolved by themselves",
    ] {
        ensure!(said[0].contains(expected), "{expected} in {}", said[0]);
    }
    Ok(())
}

#[tokio::test]
async fn a_report_whose_answer_got_lost_is_not_posted_twice() -> Result<()> {
    let workspace = Workspace::with(slack()?, &DRY).await?;
    scheduled(&workspace).await?;
    workspace.slack.inject(Fault::slow_reply(Duration::from_secs(60)).on("chat.postMessage").times(1));
    // both clocks: a message is searched from the time of its attempt
    workspace.slack.clock().advance(WEEK);
    workspace.receiver.clock.advance(WEEK);
    workspace
        .slack
        .wait_for("the report", SLACK_SOON, |slack| reports(slack).pop().filter(|text| text.contains("nothing would")))
        .await?;
    workspace.slack.clock().advance(Duration::from_secs(61));
    workspace.receiver.clock.advance(Duration::from_secs(61));
    done(&workspace).await?;
    ensure!(reports(&workspace.slack).len() == 1, "{:#?}", reports(&workspace.slack));
    Ok(())
}

#[tokio::test]
async fn it_is_silent_where_nothing_was_rehearsed_or_it_is_off() -> Result<()> {
    let armed = Workspace::start().await?;
    scheduled(&armed).await?;
    armed.receiver.clock.advance(WEEK);
    done(&armed).await?;
    ensure!(reports(&armed.slack).is_empty(), "automation is on: there is nothing to say");

    let off = Workspace::with(slack()?, &[DRY[0], ("REPORT__WEEKLY", "off")]).await?;
    off.thread(critical("p")).await?;
    ensure!(waiting(&off.redis, Work::Report).await? == 0, "none is scheduled");
    Ok(())
}
