//! Interactions that are none, or odd.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::slack::Signature;
use serde_json::{Value, json};

use super::kit::{MAYA, Workspace, acknowledged};
use crate::common::{alert, assert_same, dump};

/// All keys but those that come and go by themselves: the pace of channels, the members of groups.
async fn kept(workspace: &Workspace) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut dump = dump(&workspace.redis).await?;
    dump.retain(|key, _| !key.contains(":pace:") && !key.contains("group:"));
    Ok(dump)
}

#[tokio::test]
async fn what_slack_did_not_sign_just_now_changes_nothing() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    let now = workspace.slack.clock().now();
    let before = kept(&workspace).await?;
    for signature in [
        Signature::Missing,
        Signature::Wrong,
        Signature::At(now - Duration::from_secs(330)),
        Signature::At(now + Duration::from_secs(330)),
    ] {
        let delivery = workspace.slack.click(MAYA, &root, "approve").signature(signature.clone()).send().await?;
        assert_eq!(delivery.status, 401, "{signature:?}: {}", delivery.body);
    }
    let large = format!("payload={}", "a".repeat(1 << 20));
    assert_eq!(workspace.slack.post_interaction(large, Signature::Valid).await?.status, 413);
    let counted = workspace.http().get("/metrics").await?.text();
    let series = "prompt_rollback_refused_requests_total{reason=\"wrong_signature\"} 4\n";
    assert!(counted.contains(series), "{counted}");
    assert_same(&before, &kept(&workspace).await?, "unsigned clicks");
    workspace.serves("v2").await
}

/// An app that is installed in several workspaces signs the clicks of all of them with one secret.
#[tokio::test]
async fn a_click_from_another_workspace_or_app_changes_nothing() -> Result<()> {
    for other in [("SLACK__TEAM_ID", "T0OTHER"), ("SLACK__APP_ID", "A0OTHER")] {
        let workspace = Workspace::with(super::kit::slack()?, &[other]).await?;
        let root = workspace.thread(alert("p", "v2", "high")).await?;
        workspace.quiet().await?;
        let before = kept(&workspace).await?;
        workspace.click(MAYA, &root, "approve").await?;
        assert_same(&before, &kept(&workspace).await?, other.0);
        workspace.serves("v2").await?;
    }
    let slack = super::kit::slack()?;
    let (team, app) = (slack.team().to_owned(), slack.app_id().to_owned());
    let workspace = Workspace::with(slack, &[("SLACK__TEAM_ID", &team), ("SLACK__APP_ID", &app)]).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await
}

/// People choose their names themselves.
#[tokio::test]
async fn whoever_is_called_system_does_not_look_like_an_automatic_rollback() -> Result<()> {
    let slack = prompt_rollback_testkit::slack::Slack::builder()
        .user(MAYA, "system", "System")
        .channel(super::kit::ON_CALL, "on-call")
        .channel(super::kit::INCIDENTS, "incidents")
        .start()?;
    let approvers = ("DECIDERS__ON_CALL__APPROVERS", MAYA);
    let workspace = Workspace::with(slack, &[approvers]).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await?;
    let entry = workspace.log("p").await?.pop().expect("an entry");
    assert_eq!((entry["event"].as_str(), entry["operator"].as_str()), ("rollback", "system (U1)"));
    let incident = workspace.incident().await?;
    let shown = workspace.get(&format!("/api/incidents/{}", incident["id"].as_str().unwrap_or_default())).await?;
    assert_eq!((&shown["flip"]["operator"], &shown["decided_by"]), (&json!("system (U1)"), &json!("system (U1)")));
    workspace.titled("system (U1) approved: rolled back from v2 to v1").await?;
    Ok(())
}

#[tokio::test]
async fn odd_interactions_are_answered_and_never_fatal() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let click = workspace.slack.click(MAYA, &root, "approve").payload()?;
    let with = |pointer: &str, value: Value| {
        let mut payload = click.clone();
        if let Some(place) = payload.pointer_mut(pointer) {
            *place = value;
        }
        format!("payload={}", encode(&payload.to_string()))
    };
    for (what, body, status) in [
        ("nothing", String::new(), 400),
        ("another form", "command=%2Frollback".to_owned(), 400),
        ("no JSON", "payload=%7B".to_owned(), 400),
        ("JSON of another shape", "payload=%5B1%5D".to_owned(), 400),
        ("no user", with("/user", Value::Null), 400),
        ("no actions", with("/actions", Value::Null), 400),
        ("an unknown action", with("/actions/0/action_id", json!("explode")), 200),
        ("a value of another app", with("/actions/0/value", json!("' OR 1=1")), 200),
        ("an empty value", with("/actions/0/value", json!("")), 200),
        ("a user that is no id", with("/user/id", json!("U1:{prompts}\r\n")), 200),
        ("another type", with("/type", json!("view_closed")), 200),
        ("no actions at all", with("/actions", json!([])), 200),
        ("bytes that are no text", "payload=%ff%fe".to_owned(), 400),
    ] {
        let delivery = workspace.slack.post_interaction(body, Signature::Valid).await?;
        assert_eq!(delivery.status, status, "{what}: {}", delivery.body);
        workspace.serves("v2").await?;
    }
    assert_eq!(workspace.http().get("/-/healthy").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_organisation_wide_app_and_absent_or_unknown_fields_are_fine() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let click = workspace
        .slack
        .click(MAYA, &root, "approve")
        .org_wide()
        .without_message()
        .field("channel", Value::Null)
        .field("something_new", json!({"deep": [1, null]}));
    acknowledged(click).await?;
    workspace.serves("v1").await
}
