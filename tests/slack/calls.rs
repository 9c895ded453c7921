//! Mentions in a thread, and where they are visible.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback_testkit::slack::{Fault, Slack};

use super::kit::{INCIDENTS, MAYA, MENTION, SLACK_SOON, Workspace};
use crate::common::alert;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_alert_that_turns_an_observation_into_a_question_calls() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "medium")).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[0].contains("(high)") && !replies[0].contains(MENTION), "{replies:?}");
    assert!(replies[1].contains("a person must decide") && replies[1].contains(MENTION), "{replies:?}");
    assert!(workspace.slack.replies(&root).iter().all(|reply| !reply.broadcast), "no escalation yet");
    Ok(())
}

#[tokio::test]
async fn each_escalation_is_noticed_in_both_channels_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let overview = workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    let link = format!("/p{}", root.ts.replace('.', ""));
    for times in 1..=2 {
        workspace.receiver.clock.advance(5 * MINUTE);
        workspace.replies(&root, times).await?;
        let calls = workspace.replies(&overview, times).await?;
        assert!(calls[times - 1].contains(MENTION) && calls[times - 1].contains(&link), "{calls:?}");
        workspace.quiet().await?;
        let (replies, calls) = (workspace.slack.replies(&root), workspace.slack.replies(&overview));
        assert_eq!((replies.len(), calls.len()), (times, times));
        assert!(replies.iter().chain(&calls).all(|message| message.broadcast), "the channel sees it");
        assert!(calls.iter().all(|call| call.action_ids().is_empty()), "buttons are in the thread");
    }
    workspace.click(MAYA, &root, "dismiss").await?;
    let replies = workspace.replies(&root, 3).await?;
    workspace.quiet().await?;
    assert!(!replies[2].contains(MENTION), "{replies:?}");
    assert!(!workspace.slack.replies(&root)[2].broadcast);
    assert_eq!((workspace.slack.replies(&overview).len(), workspace.slack.roots(INCIDENTS).len()), (2, 1));
    Ok(())
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_found_again() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.thread(alert("p", "v2", "high")).await?;
    let overview = workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    workspace.slack.inject(Fault::lose_reply().on("chat.postMessage").in_channel(INCIDENTS).times(1));
    // Slack's clock, too: messages are searched from the time of the attempt
    workspace.slack.clock().advance(5 * MINUTE);
    workspace.receiver.clock.advance(5 * MINUTE);
    workspace.replies(&overview, 1).await?;
    let searched = |slack: &Slack| slack.calls_of("conversations.replies").pop();
    workspace.slack.wait_for("a search", SLACK_SOON, searched).await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.replies(&overview).len(), 1);
    Ok(())
}

#[tokio::test]
async fn without_a_channel_of_their_own_people_are_called_once() -> Result<()> {
    let workspace = Workspace::with(super::kit::slack()?, &[("DECIDERS__ON_CALL__CHANNEL", "")]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let root = workspace.root_in(INCIDENTS, "a root", |_| true).await?;
    workspace.receiver.clock.advance(5 * MINUTE);
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    let replies = workspace.slack.replies(&root);
    assert_eq!((replies.len(), replies[0].broadcast), (1, true), "{replies:?}");
    Ok(())
}
