//! Split traffic: a gradual rollback and a canary, as people see them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::slack::Message;
use serde_json::json;

use super::kit::{INCIDENTS, MAYA, PETE, SLACK_SOON, Workspace, buttons};
use crate::common::{alert, critical};
use prompt_rollback_testkit::slack::Fault;

const MINUTE: Duration = Duration::from_secs(60);

async fn root_with(workspace: &Workspace, text: &str) -> Result<Message> {
    workspace.root(text, |root| root.visible_text().contains(text)).await
}

#[tokio::test]
async fn a_gradual_rollback_is_one_line_that_is_edited() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(PETE, &root, "approve_gradual").await?;
    workspace.click(MAYA, &root, "approve_gradual").await?;
    let begun = root_with(&workspace, "▶ 75 %").await?;
    assert_eq!(
        (begun.ts.as_str(), buttons(&begun)),
        (root.ts.as_str(), ["approve", "undo", "mark"].map(str::to_owned).to_vec())
    );
    workspace.quiet().await?;
    let replies = workspace.slack.replies(&root).len();
    for line in ["✓ 75 % → ▶ 50 % → 25 % → 0 %", "✓ 75 % → ✓ 50 % → ▶ 25 % → 0 %"] {
        workspace.receiver.clock.advance(10 * MINUTE);
        let now = root_with(&workspace, line).await?;
        assert_eq!(now.ts, root.ts, "the same message");
    }
    workspace.quiet().await?;
    assert_eq!(workspace.slack.replies(&root).len(), replies, "progress is no reply");
    workspace.receiver.clock.advance(10 * MINUTE);
    root_with(&workspace, "maya (U1) rolled back gradually").await?;
    Ok(())
}

#[tokio::test]
async fn a_paused_one_calls_people_who_choose_the_way() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve_gradual").await?;
    let begun = root_with(&workspace, "▶ 75 %").await?;
    let mut on_target = critical("p");
    on_target["labels"]["version"] = "v1".into();
    on_target["fingerprint"] = "00000000000000f1".into();
    workspace.receiver.outcomes(&[on_target]).await?;
    let paused = root_with(&workspace, "Gradual rollback paused").await?;
    assert_eq!(buttons(&paused), ["approve_gradual", "approve", "undo", "mark"]);
    workspace.click(MAYA, &begun, "approve").await?;
    workspace.quiet().await?;
    ensure!(workspace.active("p").await?.as_deref() == Some("v2"), "the question has changed since that message");
    workspace.click(MAYA, &paused, "undo").await?;
    root_with(&workspace, "maya (U1) ended the gradual rollback").await?;
    ensure!(workspace.active("p").await?.as_deref() == Some("v2"));
    let routing: Vec<String> = workspace.redis.cmd(&["HGETALL", "{prompts}:routing:p"]).await?;
    ensure!(routing.is_empty(), "{routing:?}");
    Ok(())
}

#[tokio::test]
async fn a_canary_is_one_message_from_its_first_percent_to_its_end() -> Result<()> {
    let workspace = Workspace::start().await?;
    let (status, answer) =
        workspace.post("/api/prompts/p/versions", json!({"version": "v3", "known_good": false})).await?;
    ensure!(status == 201, "{answer}");
    let body = json!({"version": "v3", "canary": true, "operator": "maya"});
    ensure!(workspace.post("/api/prompts/p/activate", body).await?.0 == 200);
    let posted = |text: &'static str| {
        workspace.slack.wait_for(text, SLACK_SOON, move |slack| {
            slack.roots(INCIDENTS).into_iter().find(|root| root.visible_text().contains(text))
        })
    };
    let first = posted("▶ 1 %").await?;
    workspace.receiver.clock.advance(10 * MINUTE);
    let next = posted("✓ 1 % → ▶ 5 %").await?;
    assert_eq!(next.ts, first.ts, "edited");
    workspace.receiver.outcomes(&[alert("p", "v3", "high")]).await?;
    let end = posted("stopped at 5 %").await?;
    assert_eq!(end.ts, first.ts, "edited");

    // a message that was not taken is searched for before it is posted again
    workspace.slack.inject(Fault::rate_limited(1).on("chat.postMessage").times(1));
    let body = json!({"version": "v3", "percent": 20, "operator": "maya", "force": true});
    let (status, answer) = workspace.post("/api/prompts/p/activate", body).await?;
    ensure!(status == 200, "{answer}");
    let again = posted("▶ 20 %").await?;
    assert_ne!(again.ts, first.ts, "another canary, another message");
    let kept = workspace.slack.message(INCIDENTS, &first.ts).context("the first one")?;
    ensure!(kept.visible_text().contains("stopped at 5 %"), "{}", kept.visible_text());
    Ok(())
}

#[tokio::test]
async fn a_canary_whose_message_cannot_be_edited_goes_on_in_replies() -> Result<()> {
    let workspace = Workspace::start().await?;
    let (status, answer) = workspace.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    ensure!(status == 201, "{answer}");
    let body = json!({"version": "v3", "canary": true, "operator": "maya"});
    ensure!(workspace.post("/api/prompts/p/activate", body).await?.0 == 200);
    let root = workspace.root_in(INCIDENTS, "▶ 1 %", |root| root.visible_text().contains("▶ 1 %")).await?;
    workspace.slack.inject(Fault::error("edit_window_closed").on("chat.update"));
    workspace.receiver.clock.advance(10 * MINUTE);
    let replies = workspace.replies(&root, 2).await?;
    ensure!(replies[0].contains("does not allow edits") && replies[1].contains("▶ 5 %"), "{replies:?}");
    let asked = workspace.slack.replies(&root).pop().context("a reply")?;
    workspace.click(MAYA, &asked, "canary_abort").await?;
    let replies = workspace.replies(&root, 3).await?;
    ensure!(replies[2].contains("v2 has all traffic"), "{replies:?}");
    workspace.quiet().await?;
    ensure!(workspace.slack.replies(&root).len() == 3, "each is said once");
    ensure!(workspace.active("p").await?.as_deref() == Some("v2"));
    Ok(())
}

#[tokio::test]
async fn a_canarys_message_ends_although_the_next_canary_has_begun() -> Result<()> {
    let workspace = Workspace::start().await?;
    let (status, answer) = workspace.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    ensure!(status == 201, "{answer}");
    let share = async |percent: u32| -> Result<()> {
        let body = json!({"version": "v3", "percent": percent, "operator": "maya", "force": true});
        let (status, answer) = workspace.post("/api/prompts/p/activate", body).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    };
    let posted =
        |text: &'static str| workspace.root_in(INCIDENTS, text, move |root| root.visible_text().contains(text));
    share(20).await?;
    let first = posted("▶ 20 %").await?;
    workspace.slack.inject(Fault::status(503).on("chat.update"));
    share(0).await?;
    share(30).await?;
    workspace.slack.heal();
    let next = posted("▶ 30 %").await?;
    assert_ne!(next.ts, first.ts, "another canary, another message");
    let ended = workspace.slack.message(INCIDENTS, &first.ts).context("the first one")?;
    ensure!(ended.visible_text().contains("Canary ended") && buttons(&ended).is_empty(), "{}", ended.visible_text());
    Ok(())
}

#[tokio::test]
async fn approvers_steer_a_canary_from_its_message() -> Result<()> {
    let workspace = Workspace::start().await?;
    let (status, answer) = workspace.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    ensure!(status == 201, "{answer}");
    let body = json!({"version": "v3", "canary": true, "operator": "maya"});
    ensure!(workspace.post("/api/prompts/p/activate", body).await?.0 == 200);
    let posted =
        |text: &'static str| workspace.root_in(INCIDENTS, text, move |root| root.visible_text().contains(text));
    let first = posted("▶ 1 %").await?;
    ensure!(first.visible_text().contains("Advances on a timer only"), "{}", first.visible_text());
    assert_eq!(buttons(&first), ["canary_pause", "canary_skip", "canary_hold", "canary_promote", "canary_abort"]);
    workspace.click(PETE, &first, "canary_promote").await?;
    workspace.click(MAYA, &first, "canary_pause").await?;
    let paused = posted("paused by maya (U1)").await?;
    assert_eq!(buttons(&paused)[0], "canary_resume");
    workspace.receiver.clock.advance(60 * MINUTE);
    workspace.click(MAYA, &paused, "canary_skip").await?;
    let next = posted("✓ 1 % → ▶ 5 %").await?;
    // a message of the earlier stage does not apply to this one
    workspace.click(MAYA, &first, "canary_abort").await?;
    workspace.quiet().await?;
    ensure!(workspace.get("/api/prompts/p").await?["canary"]["percent"] == 5);
    workspace.click(MAYA, &next, "canary_abort").await?;
    let end = posted("v2 has all traffic").await?;
    ensure!(buttons(&end).is_empty(), "{:?}", buttons(&end));
    ensure!(workspace.active("p").await?.as_deref() == Some("v2"));
    Ok(())
}
