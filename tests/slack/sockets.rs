//! Socket Mode: the receiver needs no public address.

use anyhow::Result;
use prompt_rollback_testkit::between::WebProxy;
use prompt_rollback_testkit::slack::{Slack, Via};

use super::kit::{MAYA, OMAR, PETE, SLACK_SOON, Workspace, acknowledged, slack};
use crate::common::alert;

async fn connected(slack: &Slack) -> Result<()> {
    slack.wait_for("a socket", SLACK_SOON, |slack| (slack.sockets() > 0).then_some(())).await
}

/// Without a signing secret, so Socket Mode is the only way.
async fn workspace() -> Result<Workspace> {
    let slack = slack()?;
    let token = slack.app_token().to_owned();
    let workspace = Workspace::with(slack, &[("SLACK__APP_TOKEN", &token), ("SLACK__SIGNING_SECRET", "")]).await?;
    connected(&workspace.slack).await?;
    Ok(workspace)
}

/// A click is acknowledged first and handled then.
async fn phase_after_click(workspace: &Workspace, user: &str, action: &str, phase: &str) -> Result<()> {
    let root = workspace.root("a root with buttons", |root| root.action_ids().iter().any(|id| id == action)).await?;
    acknowledged(workspace.slack.click(user, &root, action).via(Via::Socket)).await?;
    workspace.phase(phase, SLACK_SOON).await
}

#[tokio::test]
async fn a_click_over_a_socket_decides() -> Result<()> {
    let workspace = workspace().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    acknowledged(workspace.slack.click(PETE, &root, "approve").via(Via::Socket)).await?;
    assert!(workspace.told(PETE).await?.contains("approvers"));
    workspace.serves("v2").await?;
    phase_after_click(&workspace, MAYA, "approve", "verifying").await?;
    workspace.serves("v1").await?;
    let over_http = workspace.slack.click(MAYA, &root, "approve").via(Via::Http).send().await?;
    assert_eq!(over_http.status, 404, "that way in is closed without slack.signing_secret");
    Ok(())
}

#[tokio::test]
async fn clicks_go_on_after_slack_replaces_or_drops_the_socket() -> Result<()> {
    let workspace = workspace().await?;
    workspace.thread(alert("p", "v2", "high")).await?;
    workspace.slack.refresh_sockets();
    let opened = |slack: &Slack| slack.calls_of("apps.connections.open").len();
    workspace.slack.wait_for("a second connection", SLACK_SOON, |slack| (opened(slack) == 2).then_some(())).await?;
    connected(&workspace.slack).await?;
    phase_after_click(&workspace, MAYA, "investigate", "investigating").await?;
    workspace.slack.cut_sockets();
    workspace.slack.wait_for("a third connection", SLACK_SOON, |slack| (opened(slack) >= 3).then_some(())).await?;
    connected(&workspace.slack).await?;
    phase_after_click(&workspace, OMAR, "dismiss", "dismissed").await
}

#[tokio::test]
async fn everything_goes_through_the_proxy_if_there_is_one() -> Result<()> {
    let (slack, proxy) = (slack()?, WebProxy::start()?);
    let (token, url) = (slack.app_token().to_owned(), proxy.url());
    let keys = [("SLACK__APP_TOKEN", token.as_str()), ("SLACK__SIGNING_SECRET", ""), ("SLACK__PROXY_URL", &url)];
    let workspace = Workspace::with(slack, &keys).await?;
    connected(&workspace.slack).await?;
    workspace.thread(alert("p", "v2", "high")).await?;
    phase_after_click(&workspace, MAYA, "approve", "verifying").await?;
    let seen = proxy.seen();
    let api = workspace.slack.api_url();
    for method in ["apps.connections.open", "chat.postMessage"] {
        let target = format!("{api}/{method}");
        assert!(seen.iter().any(|head| head.target() == target), "{method}: {seen:?}");
    }
    // a socket is no request: it needs a tunnel
    let socket = seen.iter().filter(|head| head.line.starts_with("CONNECT ")).count();
    assert!(socket > 0, "{seen:?}");
    Ok(())
}
