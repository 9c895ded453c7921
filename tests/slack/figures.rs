//! Our own metrics about Slack.

use anyhow::{Context, Result};
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::slack::Fault;

use crate::common::{SOON, alert};
use crate::kit::{SLACK_SOON, Workspace};

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
    workspace.titled("maya dismissed this").await?;
    workspace.quiet().await?;
    assert_eq!(value(&workspace, &requests("chat.update", "ok")).await?, 2.0);
    Ok(())
}

#[tokio::test]
async fn the_lag_grows_while_slack_is_down_and_ends_with_it() -> Result<()> {
    let workspace = Workspace::start().await?;
    assert_eq!(value(&workspace, "slack_lag_seconds").await?, 0.0);
    workspace.slack.inject(Fault::status(503));
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let above = async |least: f64| {
        eventually(&format!("a lag above {least} s"), SOON, async || {
            value(&workspace, "slack_lag_seconds").await.ok().filter(|lag| *lag > least)
        })
        .await
    };
    let first = above(0.0).await?;
    above(first + 1.0).await?;
    assert!(value(&workspace, &requests("chat.postMessage", "retry")).await? >= 1.0);
    workspace.slack.heal();
    workspace.root("told", |_| true).await?;
    eventually("no lag", SLACK_SOON, async || (value(&workspace, "slack_lag_seconds").await.ok()? == 0.0).then_some(()))
        .await
        .context("all is told")
}
