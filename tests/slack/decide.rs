//! One thread for an incident, in which one click decides.

use anyhow::{Context, Result};
use serde_json::json;

use super::kit::{INCIDENTS, MAYA, MENTION, OMAR, ON_CALL, PETE, Workspace, acknowledged, buttons};
use crate::common::{ROLLED_BACK, SOON, alert, assert_rolled_back_once, critical};

#[tokio::test]
async fn an_alert_for_a_person_opens_one_thread_and_a_linked_overview() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    assert_eq!(buttons(&root), ["approve", "approve_gradual", "investigate", "dismiss", "mark"]);
    let text = root.visible_text();
    for part in ["Decision needed", "v2 fails", "`v2` → `v1`", "on-call", MENTION, "<!date^", "runbooks.example"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let confirm = root.element("approve").context("a button")?["confirm"].to_string();
    assert!(confirm.contains("v2") && confirm.contains("v1"), "{confirm}");

    let overview = workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    assert_eq!(buttons(&overview), Vec::<String>::new());
    let link = format!("/archives/{ON_CALL}/p{}", root.ts.replace('.', ""));
    assert!(overview.visible_text().contains(&link), "{}", overview.visible_text());

    // a repeated alert changes nothing
    workspace.quiet().await?;
    workspace.slack.forget_calls();
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    workspace.quiet().await?;
    let calls: Vec<_> = workspace.slack.calls().into_iter().map(|call| call.method).collect();
    assert!(!calls.iter().any(|method| method.starts_with("chat.")), "{calls:?}");
    assert_eq!((workspace.slack.roots(ON_CALL).len(), workspace.slack.roots(INCIDENTS).len()), (1, 1));
    Ok(())
}

#[tokio::test]
async fn a_worse_alert_is_a_reply_in_the_same_thread() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "medium")).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let now = workspace.titled("Decision needed").await?;
    assert_eq!(now.ts, root.ts);
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies[0].contains("PromptErrorRate (high)"), "{replies:?}");
    Ok(())
}

#[tokio::test]
async fn an_approval_rolls_back_before_its_answer_and_removes_the_buttons() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await?;
    let after = workspace.titled("maya (U1) approved: rolled back from v2 to v1").await?;
    assert_eq!((after.ts.as_str(), buttons(&after)), (root.ts.as_str(), vec!["undo".to_owned(), "mark".to_owned()]));
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies[0].contains("maya (U1) rolled v2 back to v1"), "{replies:?}");
    let overview = |root: &prompt_rollback_testkit::slack::Message| root.visible_text().contains("Rolled back");
    workspace.root_in(INCIDENTS, "the overview follows", overview).await?;
    workspace.quiet().await?;
    assert_eq!((workspace.slack.replies(&root).len(), workspace.slack.roots(ON_CALL).len()), (1, 1));
    let log = workspace.log("p").await?;
    let entry = log.iter().find(|entry| entry["event"] == "rollback").context("in the log")?;
    assert_eq!(entry["operator"], "maya (U1)");
    assert_rolled_back_once(&workspace.redis, "p").await
}

#[tokio::test]
async fn an_automatic_rollback_is_told_and_can_be_undone() -> Result<()> {
    let workspace = Workspace::start().await?;
    assert_eq!(workspace.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    let root = workspace.titled("Rolled back automatically from v2 to v1").await?;
    assert_eq!(buttons(&root), ["undo", "mark"]);
    let label = root.element("undo").context("a button")?["text"]["text"].clone();
    assert_eq!(label, "Undo (re-activate v2)");
    workspace.click(PETE, &root, "undo").await?;
    workspace.serves("v1").await?;
    assert!(workspace.told(PETE).await?.contains("on-call"));
    workspace.click(MAYA, &root, "undo").await?;
    workspace.serves("v2").await?;
    let after = workspace.titled("maya (U1) undid the rollback: v2 is served again").await?;
    assert_eq!(buttons(&after), Vec::<String>::new());
    // the alert still fires, and a person has overruled it
    workspace.receiver.outcomes(&[critical("p")]).await?;
    workspace.serves("v2").await?;
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[0].contains("rolled v2 back to v1") && replies[1].contains("maya (U1) undid"), "{replies:?}");
    Ok(())
}

#[tokio::test]
async fn the_menu_rolls_back_to_another_known_good_version() -> Result<()> {
    let workspace = Workspace::start().await?;
    for version in ["v0", "v1", "v2"] {
        let known_good = version != "v2";
        workspace.post("/api/prompts/q/versions", json!({"version": version, "known_good": known_good})).await?;
        workspace.post("/api/prompts/q/activate", json!({"version": version})).await?;
    }
    let root = workspace.thread(alert("q", "v2", "high")).await?;
    assert_eq!(buttons(&root), ["approve", "approve_gradual", "investigate", "dismiss", "other_version", "mark"]);
    let menu = root.element("other_version").context("a menu")?;
    let options = menu["options"].as_array().context("options")?;
    assert_eq!(options.iter().map(|o| o["text"]["text"].as_str()).collect::<Vec<_>>(), [Some("v0")]);
    let value = options[0]["value"].as_str().context("a value")?;
    acknowledged(workspace.slack.click(PETE, &root, "other_version").option(value)).await?;
    assert_eq!(workspace.active("q").await?.as_deref(), Some("v2"), "the menu needs an approver too");
    acknowledged(workspace.slack.click(MAYA, &root, "other_version").option(value)).await?;
    assert_eq!(workspace.active("q").await?.as_deref(), Some("v0"));
    workspace.titled("maya (U1) approved: rolled back from v2 to v0").await?;
    Ok(())
}

#[tokio::test]
async fn an_investigation_shows_where_to_look_and_a_dismissal_ends_it() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(OMAR, &root, "investigate").await?;
    let under = workspace.titled("Under investigation").await?;
    assert_eq!(buttons(&under), ["approve", "approve_gradual", "dismiss", "mark"]);
    let replies = workspace.replies(&root, 1).await?;
    for part in ["omar (U2) is investigating", "https://runbooks.example/errors", "activate v1 → v2"] {
        assert!(replies[0].contains(part), "{part} is missing in {replies:?}");
    }
    workspace.click(MAYA, &under, "dismiss").await?;
    let end = workspace.titled("maya (U1) dismissed this").await?;
    assert_eq!(buttons(&end), Vec::<String>::new());
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[1].contains("maya (U1) dismissed this"), "{replies:?}");
    workspace.serves("v2").await?;
    workspace.phase("dismissed", SOON).await
}
