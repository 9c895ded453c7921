//! The receiver's own metrics about Slack.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::slack::{Fault, Slack};

use super::kit::{ON_CALL, SLACK_SOON, Workspace};
use crate::common::{SOON, alert};

/// The value of one series.
async fn value(workspace: &Workspace, series: &str) -> Result<f64> {
    let text = workspace.http().get("/metrics").await?.text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("prompt_rollback_{series} ")));
    Ok(line.map(str::parse).transpose()?.unwrap_or_default())
}

fn requests(method: &str, result: &str) -> String {
    format!("slack_requests_total{{method=\"{method}\",result=\"{result}\"}}")
}

#[tokio::test]
async fn each_call_is_counted_by_what_came_of_it() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.inject(Fault::rate_limited(1).on("chat.postMessage").times(1));
    workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    for (method, result, count) in [
        ("chat.postMessage", "ok", 2.0),
        ("chat.postMessage", "rate_limited", 1.0),
        ("chat.getPermalink", "ok", 1.0),
        ("usergroups.users.list", "ok", 1.0),
        ("chat.update", "ok", 0.0),
    ] {
        assert_eq!(value(&workspace, &requests(method, result)).await?, count, "{method} {result}");
    }
    workspace.decide("dismiss", "maya").await?;
    workspace.titled("maya (api) dismissed this").await?;
    workspace.quiet().await?;
    assert_eq!(value(&workspace, &requests("chat.update", "ok")).await?, 2.0);
    Ok(())
}

#[tokio::test]
async fn the_lag_grows_while_slack_is_down_and_ends_with_it() -> Result<()> {
    let workspace = Workspace::start().await?;
    assert_eq!(value(&workspace, "notification_lag_seconds{target=\"slack\"}").await?, 0.0);
    workspace.slack.inject(Fault::status(503));
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let above = async |least: f64| {
        eventually(&format!("a lag above {least} s"), SOON, async || {
            value(&workspace, "notification_lag_seconds{target=\"slack\"}").await.ok().filter(|lag| *lag > least)
        })
        .await
    };
    let first = above(0.0).await?;
    above(first + 1.0).await?;
    assert!(value(&workspace, &requests("chat.postMessage", "retry")).await? >= 1.0);
    workspace.slack.heal();
    workspace.root("told", |_| true).await?;
    no_lag(&workspace).await
}

async fn no_lag(workspace: &Workspace) -> Result<()> {
    let told =
        async || (value(workspace, "notification_lag_seconds{target=\"slack\"}").await.ok()? == 0.0).then_some(());
    eventually("no lag", SLACK_SOON, told).await.context("all is told")
}

#[tokio::test]
async fn one_thread_that_is_stuck_shows_its_own_lag_while_others_are_told() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.ship("q").await?;
    workspace.thread(alert("p", "v2", "high")).await?;
    no_lag(&workspace).await?;
    workspace.receiver.clock.advance(Duration::from_secs(200));
    assert_eq!(
        value(&workspace, "notification_lag_seconds{target=\"slack\"}").await?,
        0.0,
        "all is told, however long ago"
    );
    workspace.slack.inject(Fault::error("update_failed").on("chat.update").in_channel(ON_CALL));
    workspace.decide("investigate", "maya").await?;
    workspace.receiver.clock.advance(Duration::from_secs(200));
    workspace.receiver.outcomes(&[alert("q", "v2", "high")]).await?;
    workspace.root("the other", |root| root.visible_text().contains("`q`")).await?;
    let lag =
        async || value(&workspace, "notification_lag_seconds{target=\"slack\"}").await.ok().filter(|lag| *lag >= 200.0);
    eventually("its lag is shown", SOON, lag).await?;
    workspace.slack.heal();
    workspace.receiver.clock.advance(Duration::from_secs(31));
    let edited =
        |slack: &Slack| slack.roots(ON_CALL).into_iter().find(|root| root.text.contains("Under investigation"));
    workspace.slack.wait_for("the edit", SLACK_SOON, edited).await?;
    no_lag(&workspace).await
}
