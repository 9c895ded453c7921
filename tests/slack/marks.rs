//! People mark versions in the thread, which also shows how the served version was activated.

use anyhow::{Context, Result};
use prompt_rollback::store::schedule::WorkItem;
use prompt_rollback_testkit::slack::Message;
use serde_json::{Value, json};

use super::kit::{MAYA, OMAR, PETE, Workspace, acknowledged, buttons};
use crate::common::kept::{SLACK, incident_id, keys};
use crate::common::{ROLLED_BACK, alert, critical};

/// The value of the option that marks `version` as `kind`.
fn option(root: &Message, kind: &str, version: &str) -> Result<String> {
    let menu = root.element("mark").context("a menu of marks")?;
    let groups = menu["option_groups"].as_array().context("groups")?;
    let mut options = groups.iter().flat_map(|group| group["options"].as_array().into_iter().flatten());
    let is_it = |option: &&Value| {
        option["text"]["text"] == version && option["value"].as_str().is_some_and(|value| value.starts_with(kind))
    };
    let found = options.find(is_it).with_context(|| format!("{kind} {version} in {menu}"))?;
    Ok(found["value"].as_str().context("a value")?.to_owned())
}

async fn click(workspace: &Workspace, user: &str, root: &Message, value: &str) -> Result<()> {
    acknowledged(workspace.slack.click(user, root, "mark").option(value)).await.map(drop)
}

async fn mark_of(workspace: &Workspace, version: &str) -> Result<Value> {
    let prompt = workspace.get("/api/prompts/p").await?;
    let versions = prompt["versions"].as_array().context("versions")?;
    Ok(versions.iter().find(|v| v["version"] == version).context("the version")?["mark"].clone())
}

/// v0 is a possible target as well.
async fn workspace() -> Result<Workspace> {
    let workspace = Workspace::start().await?;
    workspace.post("/api/prompts/p/versions", json!({"version": "v0", "known_good": true})).await?;
    Ok(workspace)
}

#[tokio::test]
async fn an_approver_may_rule_out_the_target_and_is_asked_anew() -> Result<()> {
    let workspace = workspace().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let value = option(&root, "bad", "v1")?;
    click(&workspace, PETE, &root, &value).await?;
    assert!(workspace.told(PETE).await?.contains("Only approvers of on-call"));
    assert_eq!(mark_of(&workspace, "v1").await?, Value::Null, "Pete is no approver");
    click(&workspace, MAYA, &root, &value).await?;
    let mark = mark_of(&workspace, "v1").await?;
    let id = workspace.incident().await?["id"].clone();
    assert_eq!((&mark["kind"], &mark["operator"]), (&json!("bad"), &json!("maya (U1)")));
    let reason = format!("in the thread of incident {} about v2", id.as_str().context("an id")?);
    assert_eq!(mark["reason"], json!(reason));

    let after = workspace.titled("Not offered as a rollback target: v1").await?;
    assert_eq!(after.ts, root.ts);
    assert!(after.visible_text().contains("`v2` → `v0`"), "{}", after.visible_text());
    let replies = workspace.replies(&root, 1).await?;
    assert!(
        replies[0].contains("maya (U1) marked v1 as bad") && replies[0].contains("would go to v0 now"),
        "{replies:?}"
    );
    assert!(option(&after, "bad", "v1").is_err() && option(&after, "good", "v1").is_ok());

    // the earlier button was about another target
    workspace.click(MAYA, &root, "approve").await?;
    assert!(workspace.told(MAYA).await?.contains("the question has changed"));
    workspace.serves("v2").await?;
    workspace.click(MAYA, &after, "approve").await?;
    workspace.serves("v0").await
}

#[tokio::test]
async fn what_was_rolled_back_may_be_marked_for_good_and_is_not_offered_again() -> Result<()> {
    let workspace = workspace().await?;
    assert_eq!(workspace.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    let root = workspace.titled("Rolled back automatically from v2 to v1").await?;
    assert_eq!(buttons(&root), ["undo", "mark"]);
    click(&workspace, MAYA, &root, &option(&root, "bad", "v2")?).await?;
    let after = workspace.root("no undo", |root| buttons(root) == ["mark"]).await?;
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[1].contains("maya (U1) marked v2 as bad"), "{replies:?}");
    // an outdated screen
    workspace.click(MAYA, &root, "undo").await?;
    assert!(workspace.told(MAYA).await?.contains("v2 is marked as bad by maya (U1)"));
    workspace.serves("v1").await?;
    click(&workspace, MAYA, &after, &option(&after, "good", "v2")?).await?;
    let trusted = workspace.root("an undo", |root| buttons(root).contains(&"undo".to_owned())).await?;
    assert_eq!(mark_of(&workspace, "v2").await?["kind"], "good");
    workspace.click(OMAR, &trusted, "undo").await?;
    workspace.serves("v2").await
}

#[tokio::test]
async fn a_forged_menu_value_marks_nothing() -> Result<()> {
    let workspace = workspace().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let value = option(&root, "bad", "v1")?;
    let button = value.strip_prefix("bad:").context("a prefix")?;
    for forged in [button.to_owned(), format!("ugly:{button}"), value.replace("|v1|", "||"), "bad:".to_owned()] {
        let mut root = root.clone();
        let menu = root.blocks.iter_mut().flat_map(|block| block["elements"].as_array_mut().into_iter().flatten());
        let menu = menu.into_iter().find(|element| element["action_id"] == "mark").context("a menu")?;
        menu["option_groups"][0]["options"][0]["value"] = json!(forged);
        click(&workspace, MAYA, &root, &forged).await?;
    }
    for version in ["v1", "v2"] {
        assert_eq!(mark_of(&workspace, version).await?, Value::Null);
    }
    Ok(())
}

#[tokio::test]
async fn the_thread_tells_who_deployed_and_what_else_changed_group_first() -> Result<()> {
    let workspace = Workspace::start().await?;
    let grouped = |prompt: &str| {
        let mut alert = alert(prompt, "v2", "high");
        alert["labels"]["group"] = "checkout".into();
        alert
    };
    // only an alert of its own shows that `cart` belongs to the group
    workspace.ship("cart").await?;
    workspace.thread(grouped("cart")).await?;
    workspace.quiet().await?;
    for prompt in ["a", "b", "c", "d"] {
        workspace.ship(prompt).await?;
    }
    workspace.receiver.outcomes(&[grouped("p")]).await?;
    let root = workspace.titled("Prompt*\n`p`").await?;
    let text = root.visible_text();
    for part in ["In service* `v2` since <!date^", "by `api`", "Also changed* `cart` `v1` → `v2`", "(same group)"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let place = |part: &str| text.find(part).with_context(|| format!("{part} in {text}"));
    assert!(place("`cart`")? < place("`d`")? && place("`d`")? < place("`c`")?, "{text}");
    assert!(!text.contains("`b`") && text.contains("Also changed* 2 more prompts"), "{text}");

    // read once, stored, and shown again
    let id = workspace.incident().await?["id"].as_str().context("an id")?.to_owned();
    let sync = keys().progress(SLACK, &WorkItem::Incident(incident_id(&id)));
    let kept: String = workspace.redis.cmd(&["HGET", &sync, "deployed"]).await?;
    let other = kept.replace("\"cart\"", "\"basket\"");
    workspace.redis.cmd::<()>(&["HSET", &sync, "deployed", &other]).await?;
    workspace.click(MAYA, &root, "investigate").await?;
    let later = workspace.titled("Under investigation").await?;
    assert!(later.visible_text().contains("`basket`"), "{}", later.visible_text());
    Ok(())
}
