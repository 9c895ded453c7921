//! Clicks that arrive late, twice, or at once.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::slack::Via;

use super::kit::{MAYA, OMAR, PETE, Workspace, acknowledged};
use crate::common::kept::{incident_id, keys};
use crate::common::{SOON, alert, assert_rolled_back_once, rollbacks};

#[tokio::test]
async fn who_clicks_too_late_is_told_who_was_first() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.receiver.clock.advance(Duration::from_secs(120));
    workspace.click(OMAR, &root, "dismiss").await?;
    let told = workspace.told(OMAR).await?;
    assert!(told.contains("maya (U1) rolled this back to v1 2"), "{told}");
    workspace.click(OMAR, &root, "approve").await?;
    workspace.serves("v1").await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.ephemeral(OMAR).len(), 1, "once per question");
    assert_rolled_back_once(&workspace.redis, "p").await
}

#[tokio::test]
async fn who_approves_what_was_dismissed_is_told_by_whom() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "dismiss").await?;
    workspace.click(OMAR, &root, "approve").await?;
    let told = workspace.told(OMAR).await?;
    assert!(told.contains("maya"), "{told}");
    workspace.serves("v2").await
}

#[tokio::test]
async fn who_decides_otherwise_after_their_own_decision_is_told_that_it_stands() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    // Slack shows both buttons until the message is edited
    let (dismiss, approve) =
        (workspace.slack.click(MAYA, &root, "dismiss"), workspace.slack.click(MAYA, &root, "approve"));
    dismiss.send().await?;
    approve.send().await?;
    let told = workspace.told(MAYA).await?;
    assert!(told.contains("already decided this: dismissed"), "{told}");
    workspace.serves("v2").await
}

#[tokio::test]
async fn who_would_investigate_too_is_told_who_does() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "investigate").await?;
    workspace.click(MAYA, &root, "investigate").await?; // a double click, which needs no answer
    workspace.click(OMAR, &root, "investigate").await?;
    let told = workspace.told(OMAR).await?;
    assert!(told.contains("maya (U1) is investigating"), "{told}");
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    assert_eq!((workspace.slack.replies(&root).len(), workspace.slack.ephemeral(MAYA).len()), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_replayed_click_and_a_double_click_do_nothing_more() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let (first, second) =
        (workspace.slack.click(MAYA, &root, "approve"), workspace.slack.click(MAYA, &root, "approve"));
    let (replayed, doubled) = tokio::join!(first.send_times(3), second.send());
    for delivery in replayed?.iter().chain([&doubled?]) {
        assert!(delivery.acknowledged, "{delivery:?}");
    }
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    // what a clicker is told goes its own way: one more is told, after all that was to be told before
    workspace.click(PETE, &root, "approve").await?;
    workspace.told(PETE).await?;
    assert_eq!(workspace.slack.replies(&root).len(), 1);
    assert_eq!(workspace.slack.ephemeral(MAYA), [], "nothing to tell: it is what they wanted");
    assert_rolled_back_once(&workspace.redis, "p").await
}

#[tokio::test]
async fn a_double_click_on_undo_undoes_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.receiver.outcomes(&[crate::common::critical("p")]).await?;
    let root = workspace.titled("Rolled back automatically").await?;
    let (first, second) = tokio::join!(
        workspace.slack.click(MAYA, &root, "undo").send(),
        workspace.slack.click(MAYA, &root, "undo").send(),
    );
    assert!(first?.acknowledged && second?.acknowledged);
    workspace.serves("v2").await?;
    workspace.replies(&root, 2).await?;
    workspace.quiet().await?;
    let undone = workspace.log("p").await?.iter().filter(|entry| entry["reason"] == "rollback undone").count();
    assert_eq!((undone, workspace.slack.replies(&root).len()), (1, 2));
    Ok(())
}

#[tokio::test]
async fn of_an_approval_and_a_dismissal_at_once_on_two_replicas_one_wins() -> Result<()> {
    let workspace = Workspace::start().await?;
    // the clicks arrive both ways, each at its own replica
    let other = workspace.replica(&[("SLACK__APP_TOKEN", workspace.slack.app_token())]).await?;
    workspace.slack.wait_for("Socket Mode", SOON, |slack| (slack.sockets() == 1).then_some(())).await?;
    for round in 0..5 {
        let prompt = format!("both-{round}");
        workspace.ship(&prompt).await?;
        let root = {
            workspace.receiver.outcomes(&[alert(&prompt, "v2", "high")]).await?;
            workspace
                .root("its root", |root| {
                    root.visible_text().contains(&format!("Prompt*\n`{prompt}`")) && !root.action_ids().is_empty()
                })
                .await?
        };
        let told_before = (workspace.slack.ephemeral(MAYA).len(), workspace.slack.ephemeral(OMAR).len());
        let (approved, dismissed) = tokio::join!(
            acknowledged(workspace.slack.click(MAYA, &root, "approve").via(Via::Socket)),
            acknowledged(workspace.slack.click(OMAR, &root, "dismiss").via(Via::Http)),
        );
        approved?;
        dismissed?;
        let decided = eventually("decided", SOON, async || {
            let phase = workspace.incident().await.ok()?["phase"].as_str()?.to_owned();
            (phase != "awaiting_decision").then_some(phase)
        })
        .await?;
        let (winner, loser, before) = match decided.as_str() {
            "verifying" => ("maya (U1)", OMAR, told_before.1),
            "dismissed" => ("omar (U2)", MAYA, told_before.0),
            other => anyhow::bail!("{other}"),
        };
        let told = workspace
            .slack
            .wait_for("the second person is told", SOON, |slack| slack.ephemeral(loser).get(before).cloned())
            .await
            .with_context(|| format!("round {round}: {decided}"))?;
        assert!(told.text.contains(winner), "{}", told.text);
        let switches = usize::from(decided == "verifying");
        assert_eq!(rollbacks(&workspace.redis, &prompt).await?, switches);
    }
    other.app.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_click_on_an_incident_that_has_expired_is_told_so() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let id = workspace.incident().await?["id"].as_str().context("an id")?.to_owned();
    workspace.quiet().await?;
    workspace.redis.cmd::<()>(&["DEL", &keys().incident(&incident_id(&id))]).await?;
    workspace.click(MAYA, &root, "approve").await?;
    let told = workspace.told(MAYA).await?;
    assert!(told.contains("expired"), "{told}");
    workspace.serves("v2").await
}

#[tokio::test]
async fn nobody_can_be_called_through_the_name_of_whoever_was_first() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.decide("approve", "<!channel> *maya*").await?;
    workspace.click(OMAR, &root, "approve").await?;
    let told = workspace.told(OMAR).await?;
    assert!(told.contains("maya") && !told.contains("<!channel>"), "{told}");
    let after = workspace.titled("Rolled back").await?;
    workspace.replies(&root, 1).await?;
    for message in workspace.slack.replies(&root).iter().chain([&after]) {
        assert!(!message.text.contains("<!channel>"), "{}", message.text);
    }
    Ok(())
}
