//! Slack's settings and secrets are replaced while the receiver runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::slack::{Signature, Slack, Via};
use prompt_rollback_testkit::{Dir, eventually};
use serde_json::json;

use super::kit::{GROUP, INCIDENTS, MAYA, OMAR, ON_CALL, PETE, SLACK_SOON, Workspace, acknowledged, slack};
use crate::common::{Receiver, Redis, SOON, World, alert, settings_of};

/// A workspace whose receiver has a config file.
struct Edited {
    dir: Dir,
    workspace: Workspace,
}

impl Edited {
    async fn start(slack: Slack, toml: &str, files: &[(&str, &str)]) -> Result<Self> {
        let (dir, redis) = (Dir::new("slack-reload")?, Redis::start()?);
        for (name, content) in files {
            dir.write(name, content)?;
        }
        let path = dir.write("prompt-rollback.toml", toml)?;
        let receiver = Receiver::start_with(&settings_of(Some(&path), &redis.receiver_url(), &[])).await?;
        receiver.wait_ready(SOON).await?;
        let workspace = Workspace { slack, world: World { redis, receiver } };
        workspace.take_clicks();
        workspace.ship("p").await?;
        Ok(Self { dir, workspace })
    }

    async fn reload(&self, toml: &str) -> Result<()> {
        self.dir.write("prompt-rollback.toml", toml)?;
        let answer = self.workspace.http().post("/-/reload", "").await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    }
}

/// With a bot token, and the rest of `[slack]`.
fn config(slack: &Slack, more: &str, approvers: &str) -> String {
    format!(
        "[slack]\napi_url = {:?}\nbot_token = {:?}\n{more}\n[deciders.on-call]\nchannel = \"#on-call\"\napprovers = [{approvers}]\n",
        slack.api_url(),
        slack.bot_token()
    )
}

#[tokio::test]
async fn slack_may_be_configured_while_running_and_taken_away_again() -> Result<()> {
    let edited = Edited::start(slack()?, "", &[]).await?;
    let workspace = &edited.workspace;
    workspace.ship("q").await?;
    let secret = format!("signing_secret = {:?}", workspace.slack.signing_secret());
    edited.reload(&config(&workspace.slack, &secret, "\"U1\"")).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await?;
    workspace.quiet().await?;

    edited.reload("").await?;
    let calls = workspace.slack.calls().len();
    workspace.receiver.outcomes(&[alert("q", "v2", "high")]).await?;
    let closed = workspace.slack.click(MAYA, &root, "approve").send().await?;
    assert_eq!(closed.status, 404);
    workspace.quiet().await?;
    assert_eq!(workspace.slack.calls().len(), calls, "nothing more is posted");

    edited.reload(&config(&workspace.slack, &secret, "\"U1\"")).await?;
    let root = workspace.titled("Decision needed: q v2").await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 2, "each incident has one root");
    Ok(())
}

#[tokio::test]
async fn who_may_decide_is_who_the_new_config_names() -> Result<()> {
    let slack = slack()?;
    let secret = format!("signing_secret = {:?}", slack.signing_secret());
    let toml = config(&slack, &secret, "\"U1\"");
    let edited = Edited::start(slack, &toml, &[]).await?;
    let workspace = &edited.workspace;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(OMAR, &root, "approve").await?;
    workspace.told(OMAR).await?;
    workspace.serves("v2").await?;
    edited.reload(&config(&workspace.slack, &secret, "\"U2\"")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.told(MAYA).await?;
    workspace.serves("v2").await?;
    workspace.click(OMAR, &root, "dismiss").await?;
    workspace.phase("dismissed", SOON).await?;

    // a group is resolved at once, not at the next refresh
    edited.reload(&config(&workspace.slack, &secret, "\"S1\"")).await?;
    eventually("the group is resolved", SOON, async || {
        workspace.receiver.app.engine.store.group(GROUP).await.ok().flatten().map(drop)
    })
    .await
}

#[tokio::test]
async fn another_reason_of_the_same_length_is_told_as_well() -> Result<()> {
    let slack = slack()?;
    let secret = format!("signing_secret = {:?}", slack.signing_secret());
    let toml = config(&slack, &secret, "\"U1\"") + "[deciders.on-duty]\napprovers = [\"U1\"]\n";
    let edited = Edited::start(slack, &toml, &[]).await?;
    let workspace = &edited.workspace;
    ensure!(workspace.post("/api/prompts/p/versions", json!({"version": "v3"})).await?.0 == 201);
    let body = json!({"version": "v3", "canary": true, "operator": "maya"});
    ensure!(workspace.post("/api/prompts/p/activate", body).await?.0 == 200);
    let root = workspace.root_in(INCIDENTS, "a canary", |root| root.visible_text().contains("▶ 1 %")).await?;
    let told = async |decider: &str| -> Result<()> {
        workspace.click(PETE, &root, "canary_abort").await?;
        let wanted = format!("Only approvers of {decider} may do this");
        let is_told = |slack: &Slack| slack.ephemeral(PETE).pop().filter(|told| told.text.contains(&wanted));
        workspace.slack.wait_for(&wanted, SLACK_SOON, is_told).await.map(drop)
    };
    told("on-call").await?;
    edited.reload(&format!("{toml}[guards]\nfallback_decider = \"on-duty\"\n")).await?;
    told("on-duty").await
}

#[tokio::test]
async fn a_signing_secret_is_followed_when_its_file_is_replaced() -> Result<()> {
    let slack = slack()?;
    let toml = config(&slack, "signing_secret_file = \"secret\"", "\"U1\"");
    let edited = Edited::start(slack, &toml, &[("secret", "another-one")]).await?;
    let workspace = &edited.workspace;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    let unsigned = workspace.slack.click(MAYA, &root, "approve").send().await?;
    assert_eq!(unsigned.status, 401);
    edited.dir.write("secret", workspace.slack.signing_secret())?;
    // sooner than the receiver looks at its files by itself
    let signed = workspace.slack.click(MAYA, &root, "approve").send().await?;
    assert_eq!(signed.status, 200);
    workspace.serves("v1").await
}

#[tokio::test]
async fn forged_clicks_that_wait_for_a_new_secret_keep_no_others_out() -> Result<()> {
    let slack = slack()?;
    let toml = config(&slack, "signing_secret_file = \"secret\"", "\"U1\"");
    let secret = slack.signing_secret().to_owned();
    let edited = Edited::start(slack, &toml, &[("secret", secret.as_str())]).await?;
    let slack = &edited.workspace.slack;
    // the receiver waits until the file stays the same
    let writing = async {
        for n in 1..60 {
            edited.dir.write("secret", format!("{secret}{}", "\n".repeat(n)))?;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        anyhow::Ok(())
    };
    // they take all memory for such bodies
    let forged = |length: usize| {
        slack.post_interaction(format!("payload={}", "a".repeat(length - "payload=".len())), Signature::Wrong)
    };
    let click = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let payload = json!({"type": "view_closed", "pad": "x".repeat(12_000)}).to_string();
        slack.post_interaction(format!("payload={}", encode(&payload)), Signature::Valid).await
    };
    let (written, clicked, one, another, rest) =
        tokio::join!(writing, click, forged(1 << 20), forged(1 << 20), forged(24 << 10));
    written?;
    let clicked = clicked?;
    assert_eq!(clicked.status, 200, "{}", clicked.body);
    for refused in [one?, another?, rest?] {
        assert_eq!(refused.status, 401, "{}", refused.body);
    }
    Ok(())
}

#[tokio::test]
async fn tokens_are_followed_when_their_files_are_replaced() -> Result<()> {
    let slack = slack()?;
    let files = "app_token_file = \"app\"";
    let toml = config(&slack, files, "\"U1\"").replace("bot_token = ", "bot_token_file = \"bot\" #");
    let edited = Edited::start(slack, &toml, &[("app", "xapp-old"), ("bot", "xoxb-old")]).await?;
    let workspace = &edited.workspace;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let refused = |slack: &Slack| {
        let tried = |method: &str| !slack.calls_of(method).is_empty();
        (tried("apps.connections.open") && tried("chat.postMessage")).then_some(())
    };
    workspace.slack.wait_for("the old tokens are tried", SLACK_SOON, refused).await?;
    assert!(workspace.slack.roots(ON_CALL).is_empty() && workspace.slack.sockets() == 0);
    edited.dir.write("bot", workspace.slack.bot_token())?;
    edited.dir.write("app", workspace.slack.app_token())?;
    workspace.slack.wait_for("a socket", SLACK_SOON, |slack| (slack.sockets() > 0).then_some(())).await?;
    let root = workspace.root("a root", |_| true).await?;
    acknowledged(workspace.slack.click(MAYA, &root, "approve").via(Via::Socket)).await?;
    workspace.phase("verifying", SLACK_SOON).await
}

#[tokio::test]
async fn a_socket_stays_open_while_other_settings_are_replaced() -> Result<()> {
    let slack = slack()?;
    let app = format!("app_token = {:?}", slack.app_token());
    let toml = config(&slack, &app, "\"U1\"");
    let edited = Edited::start(slack, &toml, &[]).await?;
    let workspace = &edited.workspace;
    workspace.slack.wait_for("a socket", SLACK_SOON, |slack| (slack.sockets() > 0).then_some(())).await?;
    for n in 2..6 {
        edited.reload(&format!("{toml}[guards]\nmax_auto_rollbacks = {n}\n")).await?;
    }
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    acknowledged(workspace.slack.click(MAYA, &root, "approve").via(Via::Socket)).await?;
    workspace.phase("verifying", SLACK_SOON).await?;
    assert_eq!(workspace.slack.calls_of("apps.connections.open").len(), 1);
    Ok(())
}
