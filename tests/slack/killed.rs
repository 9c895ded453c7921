//! The process is killed or stopped while it notifies or handles a click: nothing is lost, and nothing is done twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback_testkit::Receiver as Process;
use prompt_rollback_testkit::eventually;
use prompt_rollback_testkit::slack::{Fault, Slack, Via};
use tokio::net::TcpStream;

use super::kit::{INCIDENTS, MAYA, ON_CALL, SLACK_SOON, Workspace, acknowledged, env, slack};
use crate::common::{Receiver, Redis, SOON, World, active, alert, assert_rolled_back_once, critical, outcomes, ship};

const MINUTE: Duration = Duration::from_secs(60);

fn process(slack: &Slack, redis: &Redis) -> Result<Process> {
    let (api, url) = (slack.api_url(), redis.receiver_url());
    let mut builder = Process::builder(env!("CARGO_BIN_EXE_prompt-rollback")).env("PROMPT_ROLLBACK_REDIS__URL", url);
    for (key, value) in env(slack, &api, &[("SLACK__APP_TOKEN", slack.app_token())]) {
        builder = builder.env(format!("PROMPT_ROLLBACK_{key}"), value);
    }
    builder.start()
}

/// Another replica, after the leases of the dead one have expired.
async fn next(slack: Slack, redis: Redis) -> Result<Workspace> {
    let api = slack.api_url();
    let receiver = Receiver::ready(&redis.receiver_url(), &env(&slack, &api, &[])).await?;
    receiver.clock.advance(Duration::from_secs(31));
    slack.set_request_url(format!("http://{}/slack/interactions", receiver.app.address));
    Ok(Workspace { slack, world: World { redis, receiver } })
}

#[tokio::test]
async fn a_kill_around_any_message_loses_none_and_repeats_none() -> Result<()> {
    // whether the message arrived, and which it is: the root, the reply, the overview
    for (arrives, after) in [(true, 0), (false, 0), (true, 1), (true, 2), (false, 2)] {
        let fault = if arrives { Fault::slow_reply(MINUTE) } else { Fault::hang(MINUTE) };
        let (slack, redis) = (slack()?, Redis::start()?);
        let mut process = process(&slack, &redis)?;
        ship(&process.http(), "p").await?;
        slack.inject(fault.on("chat.postMessage").after(after).times(1));
        let answer = crate::common::deliver(&process.http(), &[critical("p")]).await?;
        assert_eq!(outcomes(&answer)?, ["rolled_back{alert}"]);
        let struck = |slack: &Slack| {
            slack.calls_of("chat.postMessage").get(after).filter(|call| call.applied == arrives).cloned()
        };
        slack.wait_for("a message under way", SLACK_SOON, struck).await?;
        process.kill9();

        let workspace = next(slack, redis).await?;
        let root = workspace.titled("Rolled back automatically from v2 to v1").await?;
        let replies = workspace.replies(&root, 1).await?;
        workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
        workspace.quiet().await?;
        let counts = [ON_CALL, INCIDENTS].map(|channel| workspace.slack.roots(channel).len());
        assert_eq!((counts, replies.len()), ([1, 1], 1), "arrives: {arrives}, after {after}");
        assert_rolled_back_once(&workspace.redis, "p").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_kill_around_a_click_switches_at_most_once_and_a_repeat_is_safe() -> Result<()> {
    let (slack, redis) = (slack()?, Redis::start()?);
    let mut process = process(&slack, &redis)?;
    slack.set_request_url(format!("{}/slack/interactions", process.url()));
    ship(&process.http(), "p").await?;
    crate::common::deliver(&process.http(), &[alert("p", "v2", "high")]).await?;
    let root = slack.wait_for("a root", SLACK_SOON, |slack| slack.roots(ON_CALL).pop()).await?;
    let overview = slack.wait_for("an overview", SLACK_SOON, |slack| slack.roots(INCIDENTS).pop());
    overview.await?;
    let click = slack.click(MAYA, &root, "approve");
    let sent = tokio::spawn(click.send());
    slack.wait_for("some time", SOON, |_| Some(())).await?;
    process.kill9();
    let _ = sent.await?; // answered or not

    let workspace = next(slack, redis).await?;
    acknowledged(workspace.slack.click(MAYA, &root, "approve")).await?;
    workspace.titled("maya (U1) approved: rolled back from v2 to v1").await?;
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    assert_eq!((workspace.slack.roots(ON_CALL).len(), workspace.slack.replies(&root).len()), (1, 1));
    assert_rolled_back_once(&workspace.redis, "p").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_click_is_done_before_the_exit() -> Result<()> {
    for via in [Via::Http, Via::Socket] {
        let (slack, redis) = (slack()?, Redis::start()?);
        let mut process = process(&slack, &redis)?;
        slack.set_request_url(format!("{}/slack/interactions", process.url()));
        ship(&process.http(), "p").await?;
        crate::common::deliver(&process.http(), &[alert("p", "v2", "high")]).await?;
        let root = slack.wait_for("a root", SLACK_SOON, |slack| slack.roots(ON_CALL).pop()).await?;
        slack.wait_for("a socket", SLACK_SOON, |slack| (slack.sockets() > 0).then_some(())).await?;
        redis.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
        acknowledged(slack.click(MAYA, &root, "approve").via(via)).await?;
        let address = process.addr();
        let exit = tokio::task::spawn_blocking(move || process.sigterm().map(|status| (status, process)));
        eventually("no new connections", SOON, async || TcpStream::connect(&address).await.err()).await?;
        redis.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
        let (status, process) = exit.await??;
        ensure!(status.code() == Some(0), "{}", process.log());
        let active = active(&redis, "p").await?;
        ensure!(active.as_deref() == Some("v1"), "{via:?}: {active:?} {}", process.log());
    }
    Ok(())
}
