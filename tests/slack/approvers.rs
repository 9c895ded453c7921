//! Who may decide: the check fails closed.

use anyhow::Result;
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::slack::{Fault, Message};

use super::kit::{GROUP, MAYA, NINA, ON_CALL, PETE, SLACK_SOON, Workspace, slack};
use crate::common::{SOON, alert};

#[tokio::test]
async fn a_member_of_an_approving_group_may_decide() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    eventually("the group is resolved", SOON, async || {
        workspace.receiver.app.engine.store.group(GROUP).await.ok().flatten().map(drop)
    })
    .await?;
    workspace.click(NINA, &root, "approve").await?;
    workspace.serves("v1").await
}

#[tokio::test]
async fn who_may_not_decide_is_told_once_and_nobody_else_is() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    for action in ["approve", "approve", "investigate", "dismiss"] {
        workspace.click(PETE, &root, action).await?;
    }
    let told = workspace.told(PETE).await?;
    assert!(told.contains("deciders.on-call.approvers"), "{told}");
    workspace.serves("v2").await?;
    workspace.quiet().await?;
    let whispers: Vec<Message> = workspace.slack.ephemeral(PETE);
    assert_eq!((whispers.len(), whispers[0].thread_ts.as_deref()), (1, Some(root.ts.as_str())), "{whispers:?}");
    assert!(workspace.slack.ephemeral(MAYA).is_empty());
    assert!(workspace.slack.replies(&root).is_empty());
    assert_eq!(workspace.incident().await?["phase"], "awaiting_decision");
    Ok(())
}

#[tokio::test]
async fn a_group_that_cannot_be_resolved_may_not_decide() -> Result<()> {
    let slack = slack()?;
    slack.inject(Fault::error("no_such_subteam").on("usergroups.users.list"));
    let workspace = Workspace::with(slack, &[]).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let asked = |slack: &prompt_rollback_testkit::slack::Slack| {
        (!slack.calls_of("usergroups.users.list").is_empty()).then_some(())
    };
    workspace.slack.wait_for("the group is asked for", SLACK_SOON, asked).await?;
    workspace.click(NINA, &root, "approve").await?;
    assert!(workspace.told(NINA).await?.contains("approvers"));
    workspace.serves("v2").await
}

#[tokio::test]
async fn without_approvers_nobody_may_decide() -> Result<()> {
    let workspace = Workspace::with(slack()?, &[("DECIDERS__ON_CALL__APPROVERS", "")]).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.told(MAYA).await?;
    workspace.serves("v2").await
}

#[tokio::test]
async fn a_decider_with_no_channel_is_asked_in_the_channel_of_all_incidents() -> Result<()> {
    let workspace = Workspace::with(slack()?, &[("DECIDERS__ON_CALL__CHANNEL", "")]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let root = workspace.root_in("incidents", "a root", |_| true).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await?;
    workspace.quiet().await?;
    assert_eq!((workspace.slack.roots("incidents").len(), workspace.slack.roots(ON_CALL).len()), (1, 0));
    Ok(())
}
