//! Clicks while Redis' replies are lost or late: each is carried out, once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::proxy::Mode;
use prompt_rollback_testkit::slack::{Delivery, Message, Signature};
use prompt_rollback_testkit::{FaultProxy, Redis, eventually};

use super::kit::{MAYA, PETE, SLACK_SOON, Workspace, env, slack};
use crate::common::{Receiver, SOON, World, alert, critical, log, rollbacks};

/// A workspace whose receiver reaches Redis through a proxy.
async fn behind_a_proxy() -> Result<(Workspace, FaultProxy)> {
    let (redis, slack) = (Redis::start()?, slack()?);
    let proxy = FaultProxy::start(redis.addr()).await?;
    let api = slack.api_url();
    let receiver = Receiver::ready(&proxy.url(), &env(&slack, &api, &[])).await?;
    let workspace = Workspace { slack, world: World { redis, receiver } };
    workspace.take_clicks();
    workspace.ship("p").await?;
    Ok((workspace, proxy))
}

/// One click, which can be delivered again.
struct Click<'a>(&'a Workspace, String);

impl<'a> Click<'a> {
    fn new(workspace: &'a Workspace, user: &str, root: &Message, action: &str) -> Result<Self> {
        let payload = workspace.slack.click(user, root, action).payload()?;
        Ok(Self(workspace, format!("payload={}", encode(&payload.to_string()))))
    }

    async fn deliver(&self) -> Result<Delivery> {
        self.0.slack.post_interaction(self.1.clone(), Signature::Valid).await
    }

    /// Delivers it until it is acknowledged.
    async fn acknowledged(&self) -> Result<()> {
        eventually("acknowledged", SOON, async || self.deliver().await.ok().filter(|delivery| delivery.acknowledged))
            .await
            .map(drop)
    }
}

#[tokio::test]
async fn whichever_answer_of_redis_gets_lost_an_approval_is_carried_out_once() -> Result<()> {
    let (workspace, proxy) = behind_a_proxy().await?;
    for lost in 0..8 {
        let prompt = format!("p-{lost}");
        workspace.ship(&prompt).await?;
        workspace.receiver.outcomes(&[alert(&prompt, "v2", "high")]).await?;
        let about = format!("Prompt*\n`{prompt}`");
        let root = workspace
            .root("its root", |root| root.visible_text().contains(&about) && !root.action_ids().is_empty())
            .await?;
        workspace.quiet().await?;
        let click = Click::new(&workspace, MAYA, &root, "approve")?;
        // contained only in commands of this click: the incident, and its receipt
        proxy.lose_reply_after(lost, root_incident(&root));
        click.acknowledged().await?;
        let carried_out = async || (workspace.active(&prompt).await.ok()??.as_str() == "v1").then_some(());
        eventually(&format!("carried out although answer {lost} got lost"), SOON, carried_out).await?;
        ensure!(lost >= 4 || !proxy.loss_pending(), "answer {lost} was not lost");
        click.acknowledged().await?; // as Slack repeats itself
        ensure!(rollbacks(&workspace.redis, &prompt).await? == 1, "{lost}");
        proxy.lose_reply_after(usize::MAX, "nothing");
    }
    workspace.quiet().await?;
    assert_eq!(workspace.slack.ephemeral(MAYA), [], "there is nothing to tell");
    Ok(())
}

/// The id of the incident that a root is about.
fn root_incident(root: &Message) -> String {
    let metadata = root.metadata.as_ref().map(|metadata| metadata["event_payload"]["incident"].clone());
    metadata.and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default()
}

#[tokio::test]
async fn a_click_that_comes_again_much_later_does_nothing_although_it_could() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.receiver.outcomes(&[critical("p")]).await?;
    let root = workspace.titled("Rolled back automatically").await?;
    let undo = Click::new(&workspace, MAYA, &root, "undo")?;
    undo.acknowledged().await?;
    workspace.serves("v2").await?;
    let before = log(&workspace.redis, "p").await?.len();
    workspace.receiver.clock.advance(Duration::from_secs(240));
    undo.acknowledged().await?;
    ensure!(log(&workspace.redis, "p").await?.len() == before, "undone twice");
    workspace.quiet().await?;
    assert_eq!(workspace.slack.ephemeral(MAYA), [], "it did what they wanted");
    Ok(())
}

/// A refused click stays refused when it arrives again, although it could be carried out by then.
#[tokio::test]
async fn a_click_that_was_refused_stays_refused() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let activate = |version: &str| serde_json::json!({"version": version, "percent": 10});
    workspace.post("/api/prompts/p/versions", serde_json::json!({"version": "v3"})).await?;
    workspace.post("/api/prompts/p/activate", activate("v3")).await?;
    let click = Click::new(&workspace, MAYA, &root, "approve_gradual")?;
    click.acknowledged().await?;
    let told = workspace.told(MAYA).await?;
    ensure!(told.contains("under way"), "{told}");
    workspace.post("/api/prompts/p/activate", serde_json::json!({"version": "v2"})).await?;
    click.acknowledged().await?;
    workspace.quiet().await?;
    ensure!(workspace.active("p").await?.as_deref() == Some("v2") && rollbacks(&workspace.redis, "p").await? == 0);
    assert_eq!(workspace.slack.ephemeral(MAYA).len(), 1, "told once");
    Ok(())
}

#[tokio::test]
async fn slack_is_answered_in_time_and_the_click_goes_on_behind() -> Result<()> {
    let (workspace, proxy) = behind_a_proxy().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    let click = Click::new(&workspace, MAYA, &root, "approve")?;
    proxy.set(Mode::Stall);
    let began = Instant::now();
    let delivery = click.deliver().await?;
    let took = began.elapsed();
    ensure!(took < Duration::from_millis(2_900), "answered after {took:?}: {delivery:?}");
    ensure!(delivery.acknowledged, "{delivery:?}");
    proxy.set(Mode::Pass);
    eventually("the click is carried out", SLACK_SOON, async || {
        (workspace.active("p").await.ok()??.as_str() == "v1").then_some(())
    })
    .await?;
    click.acknowledged().await?;
    ensure!(rollbacks(&workspace.redis, "p").await? == 1);
    Ok(())
}

/// Answers from receipts are not available to everyone.
#[tokio::test]
async fn a_click_that_goes_on_behind_needs_an_approver_too() -> Result<()> {
    let (workspace, proxy) = behind_a_proxy().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    let click = Click::new(&workspace, PETE, &root, "approve")?;
    proxy.set(Mode::Stall);
    click.deliver().await?;
    proxy.set(Mode::Pass);
    ensure!(workspace.told(PETE).await?.contains("approvers"));
    workspace.serves("v2").await
}
