//! Many prompts that fail together: one root in Slack covers all of them.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback_testkit::slack::{Fault, Message, Slack};
use prompt_rollback_testkit::{Receiver as Process, eventually};
use serde_json::Value;

use super::kit::{INCIDENTS, MAYA, MENTION, OMAR, ON_CALL, PETE, SLACK_SOON, Workspace, buttons, env, slack};
use crate::common::{
    ROLLED_BACK, Receiver, Redis, SOON, World, copy_prompt, critical, deliver, outcomes, resolved, rollbacks, ship,
};

const HELD: &str = "held{budget}";
const MINUTE: Duration = Duration::from_secs(60);
const ONE: (&str, &str) = ("GUARDS__MAX_AUTO_ROLLBACKS", "1");

fn of(prompt: &str) -> Value {
    let mut alert = critical(prompt);
    alert["labels"]["provider"] = "acme".into();
    alert["labels"]["group"] = "Check out: EU".into();
    alert
}

/// `p` is rolled back, `q` and `r` are held; returns the root that covers them.
async fn outage() -> Result<(Workspace, Message)> {
    let workspace = Workspace::with(slack()?, &[ONE]).await?;
    for prompt in ["q", "r"] {
        workspace.ship(prompt).await?;
    }
    assert_eq!(workspace.receiver.outcomes(&[of("p")]).await?, [ROLLED_BACK]);
    workspace.titled("Rolled back automatically from v2 to v1").await?;
    assert_eq!(workspace.receiver.outcomes(&[of("q"), of("r")]).await?, [HELD, HELD]);
    let root = together(&workspace, |root| root.visible_text().contains("waiting for a decision: 2")).await?;
    Ok((workspace, root))
}

/// Waits until the root of the coordinating incident satisfies `is`.
async fn together(workspace: &Workspace, is: impl Fn(&Message) -> bool) -> Result<Message> {
    let ours = |root: &Message| root.visible_text().contains("together");
    let found = workspace.slack.wait_for("a root for all", SLACK_SOON, |slack| {
        slack.roots(ON_CALL).into_iter().find(|root| ours(root) && is(root))
    });
    found.await.with_context(|| format!("{:#?}", texts(&workspace.slack.roots(ON_CALL))))
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(Message::visible_text).collect()
}

async fn serve(workspace: &Workspace, version: &str, prompts: &[&str]) -> Result<()> {
    eventually(&format!("{prompts:?} serve {version}"), 2 * SOON, async || {
        for prompt in prompts {
            (workspace.active(prompt).await.ok()?.as_deref() == Some(version)).then_some(())?;
        }
        Some(())
    })
    .await
}

#[tokio::test]
async fn one_root_speaks_for_all_and_members_have_none_of_their_own() -> Result<()> {
    let (workspace, root) = outage().await?;
    workspace.quiet().await?;
    let text = root.visible_text();
    for part in [
        "3 prompts fail together: decision needed",
        "Rolled back before: 1",
        "provider acme (3 of 3)",
        "group Check out: EU (3 of 3)",
        "`q` `v2` → `v1`",
        "`r` `v2` → `v1`",
        "p v2: verifying, before",
        MENTION,
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(buttons(&root), ["all_roll_back", "all_undo", "all_hold", "approve.0", "approve.1"]);
    // `p` already had a root, and keeps it
    for channel in [ON_CALL, INCIDENTS] {
        let roots = workspace.slack.roots(channel);
        assert_eq!(roots.len(), 2, "{:#?}", texts(&roots));
    }
    let overview = workspace.slack.roots(INCIDENTS).pop().context("an overview")?;
    assert_eq!(buttons(&overview), Vec::<String>::new());
    assert!(overview.visible_text().contains(&root.ts.replace('.', "")), "{}", overview.visible_text());
    Ok(())
}

#[tokio::test]
async fn an_unusable_root_holds_back_no_reply_and_the_reverse() -> Result<()> {
    let (workspace, root) = outage().await?;
    workspace.quiet().await?;
    let now = |slack: &Slack| slack.message(ON_CALL, &root.ts).map(|root| root.visible_text()).unwrap_or_default();
    let before = now(&workspace.slack);
    workspace.slack.inject(Fault::error("update_failed").on("chat.update"));
    workspace.click(MAYA, &root, "all_hold").await?;
    workspace.replies(&root, 1).await?;
    assert_eq!(now(&workspace.slack), before, "it is not edited yet");
    workspace.slack.heal();
    workspace.slack.inject(Fault::html(502).on("chat.postMessage").in_channel(ON_CALL));
    workspace.receiver.clock.advance(Duration::from_secs(31));
    let held = together(&workspace, |root| buttons(root).contains(&"all_release".to_owned())).await?;
    workspace.click(MAYA, &held, "all_release").await?;
    together(&workspace, |root| buttons(root).contains(&"all_hold".to_owned())).await?;
    assert_eq!(workspace.slack.replies(&root).len(), 1, "no reply is taken");
    workspace.slack.heal();
    workspace.receiver.clock.advance(Duration::from_secs(31));
    workspace.replies(&root, 2).await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 2, "{:#?}", texts(&workspace.slack.roots(ON_CALL)));
    Ok(())
}

#[tokio::test]
async fn roll_back_all_is_one_click_of_an_approver() -> Result<()> {
    let (workspace, root) = outage().await?;
    for action in ["all_roll_back", "all_hold", "all_undo", "approve.0"] {
        workspace.click(PETE, &root, action).await?;
    }
    assert!(workspace.told(PETE).await?.contains("deciders.on-call.approvers"));
    workspace.quiet().await?;
    for (prompt, version) in [("p", "v1"), ("q", "v2"), ("r", "v2")] {
        assert_eq!(workspace.active(prompt).await?.as_deref(), Some(version), "{prompt}: Pete is no approver");
    }
    workspace.click(MAYA, &root, "all_roll_back").await?;
    serve(&workspace, "v1", &["q", "r"]).await?;
    let after = together(&workspace, |root| root.visible_text().contains("all decided")).await?;
    assert_eq!((after.ts.as_str(), buttons(&after)), (root.ts.as_str(), vec!["all_undo".to_owned()]));
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[0].contains("maya (U1) started rolling back all"), "{replies:?}");
    assert!(replies[1].contains("done for maya (U1): 2 rolled back"), "{replies:?}");
    for prompt in ["p", "q", "r"] {
        assert_eq!(rollbacks(&workspace.redis, prompt).await?, 1, "{prompt}");
    }
    // all are over: it closes, and no prompt gets a root afterwards
    workspace.receiver.clock.advance(6 * MINUTE);
    together(&workspace, |root| root.visible_text().contains("Closed: 3 prompts failed together")).await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 2, "{:#?}", texts(&workspace.slack.roots(ON_CALL)));
    Ok(())
}

#[tokio::test]
async fn the_fallback_decider_decides_once_the_first_is_removed() -> Result<()> {
    let sre = [ONE, ("GUARDS__FALLBACK_DECIDER", "sre"), ("DECIDERS__SRE__APPROVERS", PETE)];
    let mut workspace = Workspace::with(slack()?, &sre).await?;
    for prompt in ["q", "r"] {
        workspace.ship(prompt).await?;
    }
    let titled = |text: &'static str| move |root: &Message| root.visible_text().contains(text);
    assert_eq!(workspace.receiver.outcomes(&[of("p")]).await?, [ROLLED_BACK]);
    workspace.root_in(INCIDENTS, "p", titled("Rolled back automatically from v2 to v1")).await?;
    assert_eq!(workspace.receiver.outcomes(&[of("q"), of("r")]).await?, [HELD, HELD]);
    let root = workspace.root_in(INCIDENTS, "a root for all", titled("waiting for a decision: 2")).await?;

    let next = workspace.replica(&[ONE]).await?;
    std::mem::replace(&mut workspace.world.receiver, next).app.shutdown().await;
    workspace.receiver.clock.advance(MINUTE);
    workspace.take_clicks();
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies[0].contains("sre is no longer configured: on-call decides"), "{replies:?}");
    workspace.quiet().await?;
    let root = workspace.slack.message(INCIDENTS, &root.ts).context("the root")?;
    workspace.click(MAYA, &root, "all_roll_back").await?;
    serve(&workspace, "v1", &["q", "r"]).await
}

#[tokio::test]
async fn of_two_people_at_once_one_decides_and_the_other_is_told() -> Result<()> {
    let (workspace, root) = outage().await?;
    let (maya, omar) =
        tokio::join!(workspace.click(MAYA, &root, "all_roll_back"), workspace.click(OMAR, &root, "all_hold"));
    maya?;
    omar?;
    let refused = |slack: &Slack| slack.ephemeral(MAYA).pop().or_else(|| slack.ephemeral(OMAR).pop());
    workspace.slack.wait_for("one of them is refused", SLACK_SOON, refused).await?;
    workspace.quiet().await?;
    let whispers = [MAYA, OMAR].map(|user| workspace.slack.ephemeral(user).len());
    assert_eq!(whispers.iter().sum::<usize>(), 1, "{whispers:?}");
    let (rolled_back, held) = (whispers[0] == 0, whispers[1] == 0);
    assert_ne!(rolled_back, held);
    let version = if rolled_back { "v1" } else { "v2" };
    serve(&workspace, version, &["q", "r"]).await
}

#[tokio::test]
async fn hold_all_stops_escalation_and_automation_until_it_ends() -> Result<()> {
    let (workspace, root) = outage().await?;
    workspace.click(MAYA, &root, "all_hold").await?;
    let held = together(&workspace, |root| root.visible_text().contains("maya (U1) put all prompts on hold")).await?;
    assert!(!held.visible_text().contains(MENTION), "no one is mentioned: {}", held.visible_text());
    assert_eq!(buttons(&held), ["all_roll_back", "all_undo", "all_release", "approve.0", "approve.1"]);
    eventually("both are on hold", SOON, async || {
        let q = workspace.get("/api/prompts/q").await.ok()?;
        let r = workspace.get("/api/prompts/r").await.ok()?;
        (q["incidents"][0]["deadline"].is_null() && r["incidents"][0]["deadline"].is_null()).then_some(())
    })
    .await?;
    workspace.receiver.clock.advance(10 * MINUTE);
    workspace.receiver.outcomes(&[of("q")]).await?;
    workspace.receiver.clock.advance(MINUTE);
    workspace.quiet().await?;
    assert_eq!(workspace.active("q").await?.as_deref(), Some("v2"));
    // one of them alone
    let held = together(&workspace, |_| true).await?;
    workspace.click(MAYA, &held, "approve.0").await?;
    serve(&workspace, "v1", &["q"]).await?;
    let held = together(&workspace, |root| root.visible_text().contains("waiting for a decision: 1")).await?;
    workspace.click(MAYA, &held, "all_release").await?;
    serve(&workspace, "v1", &["r"]).await?; // the window has passed
    let log = workspace.log("r").await?;
    assert_eq!(log.last().context("an entry")?["operator"], "system");
    Ok(())
}

#[tokio::test]
async fn undo_all_serves_again_what_was_rolled_back_before() -> Result<()> {
    let (workspace, root) = outage().await?;
    workspace.click(MAYA, &root, "all_undo").await?;
    serve(&workspace, "v2", &["p", "q", "r"]).await?;
    let after = together(&workspace, |root| root.visible_text().contains("p v2: dismissed, before")).await?;
    let after = match buttons(&after).contains(&"all_hold".to_owned()) {
        true => after,
        false => together(&workspace, |root| buttons(root).contains(&"all_hold".to_owned())).await?,
    };
    assert_eq!(buttons(&after), ["all_roll_back", "all_hold", "approve.0", "approve.1"]);
    Ok(())
}

#[tokio::test]
async fn automation_goes_on_by_itself_and_says_so() -> Result<()> {
    let (workspace, root) = outage().await?;
    workspace.receiver.clock.advance(5 * MINUTE);
    serve(&workspace, "v1", &["q"]).await?;
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies[0].contains("automation resumes, at most 1 prompts in 5 min"), "{replies:?}");
    assert!(replies[1].contains("rolled back automatically: q"), "{replies:?}");
    assert_eq!(workspace.active("r").await?.as_deref(), Some("v2"));
    Ok(())
}

#[tokio::test]
async fn a_rollback_lists_how_the_prompts_of_its_group_do() -> Result<()> {
    let workspace = Workspace::start().await?;
    for prompt in ["refunds", "returns"] {
        workspace.ship(prompt).await?;
        let mut alert = of(prompt);
        alert["labels"]["severity"] = "high".into();
        workspace.receiver.outcomes(&[alert.clone()]).await?;
        workspace.titled(&format!("Decision needed: {prompt} v2")).await?;
        if prompt == "returns" {
            workspace.receiver.outcomes(&[resolved(alert)]).await?;
            workspace.receiver.clock.advance(2 * MINUTE);
            workspace.titled("Resolved: returns").await?;
        }
    }
    workspace.receiver.outcomes(&[of("p")]).await?;
    let root = workspace.titled("Rolled back automatically from v2 to v1").await?;
    let replies = workspace.replies(&root, 1).await?;
    let listed = "Same group (Check out: EU): returns v2 (no open incident), refunds v2 (an incident is open)";
    assert!(replies[0].contains(listed), "{replies:?}");
    Ok(())
}

#[tokio::test]
async fn kill_9_in_the_middle_of_a_bulk_decision_goes_on_and_does_each_once() -> Result<()> {
    const MANY: usize = 150;
    let (slack, redis) = (slack()?, Redis::start()?);
    let (api, url) = (slack.api_url(), redis.receiver_url());
    let mut builder = Process::builder(env!("CARGO_BIN_EXE_prompt-rollback")).env("PROMPT_ROLLBACK_REDIS__URL", url);
    for (key, value) in env(&slack, &api, &[ONE]) {
        builder = builder.env(format!("PROMPT_ROLLBACK_{key}"), value);
    }
    let mut process = builder.start()?;
    slack.set_request_url(format!("{}/slack/interactions", process.url()));
    ship(&process.http(), "p").await?;
    let prompts: Vec<String> = (0..MANY).map(|n| format!("p-{n:03}")).collect();
    copy_prompt(&redis, "p", &prompts).await?;
    outcomes(&deliver(&process.http(), &[of("p")]).await?)?;
    outcomes(&deliver(&process.http(), &prompts.iter().map(|p| of(p)).collect::<Vec<_>>()).await?)?;
    let all = format!("{} prompts fail together", MANY + 1);
    let is_told = |slack: &Slack| slack.roots(ON_CALL).into_iter().find(|root| root.visible_text().contains(&all));
    let root = slack.wait_for("a root for all", SLACK_SOON, is_told).await?;
    slack.click(MAYA, &root, "all_roll_back").send().await?;
    // all at once, while the receiver continues
    let keys: Vec<String> = prompts.iter().map(|prompt| format!("{{prompts}}:active:{prompt}")).collect();
    let switched = async || {
        let command: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
        let active: Vec<String> = redis.cmd(&command).await?;
        anyhow::Ok(active.iter().filter(|version| *version == "v1").count())
    };
    eventually("some are rolled back", SOON, async || switched().await.ok().filter(|count| *count > 0)).await?;
    process.kill9();
    let before = switched().await?;
    assert!((1..MANY).contains(&before), "{before} of {MANY} before the end");

    let receiver = Receiver::ready(&redis.receiver_url(), &env(&slack, &api, &[ONE])).await?;
    receiver.clock.advance(Duration::from_secs(31));
    slack.set_request_url(format!("http://{}/slack/interactions", receiver.app.address));
    let workspace = Workspace { slack, world: World { redis, receiver } };
    together(&workspace, |root| root.visible_text().contains("all decided")).await?;
    let replies = workspace.replies(&root, 2).await?;
    assert!(
        replies.iter().any(|reply| reply.contains(&format!("done for maya (U1): {MANY} rolled back"))),
        "{replies:?}"
    );
    workspace.quiet().await?;
    for prompt in &prompts {
        assert_eq!(rollbacks(&workspace.redis, prompt).await?, 1, "{prompt}");
        let log = workspace.log(prompt).await?;
        assert_eq!(log.last().context("an entry")?["operator"], "maya (U1)", "{prompt}");
    }
    let roots = workspace.slack.roots(ON_CALL);
    assert!(roots.len() <= 2, "{:#?}", texts(&roots));
    Ok(())
}
