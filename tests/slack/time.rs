//! Automatic changes in a thread.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::slack::Message;
use serde_json::json;

use super::kit::{INCIDENTS, MAYA, MENTION, OMAR, Workspace, buttons};
use crate::common::{SOON, alert, resolved};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_observation_that_ends_while_the_alert_fires_asks() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "medium")).await?;
    assert!(root.visible_text().contains("Observing"));
    workspace.receiver.clock.advance(60 * MINUTE);
    let asked = workspace.titled("Decision needed").await?;
    assert_eq!((asked.ts.as_str(), buttons(&asked)[0].as_str()), (root.ts.as_str(), "approve_gradual"));
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies[0].contains("still firing") && replies[0].contains(MENTION), "{replies:?}");
    workspace.click(MAYA, &asked, "approve").await?;
    workspace.serves("v1").await
}

#[tokio::test]
async fn a_missed_deadline_calls_in_the_thread_and_in_the_overview() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let quiet = workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    assert!(!quiet.visible_text().contains(MENTION), "the overview mentions no one yet");
    workspace.receiver.clock.advance(5 * MINUTE);
    let overdue = workspace.titled("Decision overdue").await?;
    assert_eq!(buttons(&overdue), ["approve", "approve_gradual", "investigate", "dismiss", "mark"]);
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies[0].contains("no decision before the deadline") && replies[0].contains(MENTION), "{replies:?}");
    workspace
        .root_in(INCIDENTS, "a call in the overview", |root: &Message| root.visible_text().contains(MENTION))
        .await?;
    // the question is the same, so its button from before the escalation is still valid
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await
}

#[tokio::test]
async fn an_investigation_stops_the_deadline_and_asks_again() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.receiver.clock.advance(4 * MINUTE);
    workspace.click(MAYA, &root, "investigate").await?;
    let under = workspace.titled("Under investigation").await?;
    workspace.receiver.clock.advance(4 * MINUTE);
    workspace.settled(&[Work::Incident]).await?;
    assert_eq!(workspace.incident().await?["phase"], "investigating", "its first deadline has passed and stopped");
    workspace.receiver.clock.advance(MINUTE);
    let again = workspace.titled("Decision needed").await?;
    assert_eq!(buttons(&again), ["approve", "approve_gradual", "investigate", "dismiss", "mark"]);
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[0].contains("maya (U1) is investigating") && replies[1].contains("asking again"), "{replies:?}");
    // the question has changed: the old message's buttons have no effect
    workspace.click(OMAR, &under, "approve").await?;
    assert!(workspace.told(OMAR).await?.contains("the question has changed"));
    workspace.serves("v2").await
}

#[tokio::test]
async fn an_incident_that_resolves_before_a_decision_closes() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.receiver.outcomes(&[resolved(alert("p", "v2", "high"))]).await?;
    workspace.receiver.clock.advance(MINUTE);
    let end = workspace.titled("Resolved").await?;
    assert_eq!(buttons(&end), Vec::<String>::new());
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[0].contains("has ended") && replies[1].contains("before a decision was made"), "{replies:?}");
    workspace.click(MAYA, &root, "approve").await?;
    let told = workspace.told(MAYA).await?;
    assert!(told.contains("already closed: resolved"), "{told}");
    workspace.serves("v2").await
}

#[tokio::test]
async fn shipping_another_version_supersedes_and_nobody_is_called_any_more() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    workspace.post("/api/prompts/p/activate", json!({"version": "v3"})).await?;
    let end = workspace.titled("Superseded").await?;
    assert_eq!(buttons(&end), Vec::<String>::new());
    workspace.click(MAYA, &root, "approve").await?;
    let told = workspace.told(MAYA).await?;
    assert!(told.contains("superseded"), "{told}");
    workspace.serves("v3").await?;
    workspace.receiver.clock.advance(10 * MINUTE);
    workspace.settled(&[Work::Incident]).await?;
    workspace.quiet().await?;
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies.iter().all(|reply| !reply.contains(MENTION)), "{replies:?}");
    workspace.phase("superseded", SOON).await
}
