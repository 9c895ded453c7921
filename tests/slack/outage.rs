//! A long outage of Slack: nothing is lost, and afterwards the threads look as if Slack had been there.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::slack::{Fault, Message, Slack};
use serde_json::json;

use super::kit::{INCIDENTS, ON_CALL, SLACK_SOON, Workspace, buttons, env, slack};
use crate::common::kept::{SLACK, due_at};
use crate::common::{REPLICATED, Receiver, Redis, SOON, alert, critical, eventually, incidents, ship};

fn root_of(slack: &Slack, channel: &str, prompt: &str) -> Option<Message> {
    let ours = |root: &Message| root.visible_text().contains(&format!("Prompt*\n`{prompt}`"));
    let mut all = slack.roots(channel).into_iter().filter(ours);
    let only = all.next();
    assert!(all.next().is_none(), "two roots for {prompt}");
    only
}

#[tokio::test]
async fn after_an_outage_each_incident_has_one_root_and_its_replies_in_order() -> Result<()> {
    let workspace = Workspace::start().await?;
    for prompt in ["first", "second", "worst"] {
        workspace.ship(prompt).await?;
    }
    workspace.slack.inject(Fault::status(503));
    workspace.receiver.outcomes(&[alert("first", "v2", "medium")]).await?;
    workspace.receiver.outcomes(&[alert("first", "v2", "high")]).await?;
    workspace.receiver.clock.advance(Duration::from_secs(300));
    workspace.phase("awaiting_decision", SOON).await?;
    prompt_rollback_testkit::eventually("escalated", SOON, async || {
        let id = workspace.incident().await.ok()?["id"].as_str()?.to_owned();
        let events = workspace.get(&format!("/api/incidents/{id}")).await.ok()?["events"].clone();
        events.as_array()?.iter().any(|event| event["kind"] == "escalated").then_some(())
    })
    .await?;
    workspace.decide("investigate", "maya").await?;
    workspace.decide("approve", "maya").await?;
    workspace.receiver.outcomes(&[alert("second", "v2", "high")]).await?;
    workspace.receiver.outcomes(&[critical("worst")]).await?;
    let before = workspace.slack.calls_of("auth.test").len();
    let asks = |slack: &Slack| (slack.calls_of("auth.test").len() >= before + 3).then_some(());
    workspace.slack.wait_for("three looks at Slack", SLACK_SOON, asks).await?;
    assert!(workspace.slack.roots(ON_CALL).is_empty());
    let tries = workspace.slack.calls().len();
    assert!(tries < 30, "{tries} calls into an outage of seconds");

    workspace.slack.heal();
    let told = |slack: &Slack| {
        let all = ["first", "second", "worst"].map(|prompt| root_of(slack, ON_CALL, prompt));
        let overviews = ["first", "second", "worst"].iter().all(|prompt| root_of(slack, INCIDENTS, prompt).is_some());
        let [Some(first), Some(second), Some(worst)] = all else { return None };
        (overviews && slack.replies(&first).len() == 5).then_some((first, second, worst))
    };
    let (first, second, worst) = workspace.slack.wait_for("everything is shown", SLACK_SOON * 2, told).await?;
    workspace.quiet().await?;
    assert!(worst.ts < first.ts && first.ts < second.ts, "the worst first, then the oldest");
    assert!(first.visible_text().contains("maya (api) approved"), "the present state: {}", first.visible_text());
    assert_eq!((buttons(&first), buttons(&second).len()), (vec!["undo".to_owned(), "mark".to_owned()], 5));
    let replies = workspace.replies(&first, 5).await?;
    for (reply, said) in replies.iter().zip([
        "(high)",
        "a person must decide",
        "no decision before the deadline",
        "maya (api) is investigating",
        "maya (api) rolled v2 back to v1",
    ]) {
        assert!(reply.contains(said), "{said} in {replies:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn after_an_hour_without_slack_each_thread_reads_as_usual() -> Result<()> {
    let workspace = Workspace::start().await?;
    let prompts = ["watched", "asked", "worst", "over"];
    for prompt in prompts {
        workspace.ship(prompt).await?;
    }
    let incident = async |prompt: &str| -> Result<serde_json::Value> {
        let all = workspace.get("/api/incidents").await?["incidents"].as_array().cloned().unwrap_or_default();
        let id = all.iter().find(|one| one["prompt"] == prompt).context("an incident")?["id"].clone();
        workspace.get(&format!("/api/incidents/{}", id.as_str().unwrap_or_default())).await
    };
    let decide = async |prompt: &str, decision: &str| -> Result<()> {
        let path = format!("/api/incidents/{}/decide", incident(prompt).await?["id"].as_str().unwrap_or_default());
        let (status, answer) =
            workspace.post(&path, serde_json::json!({"decision": decision, "operator": "maya"})).await?;
        anyhow::ensure!(status == 200, "{answer}");
        Ok(())
    };
    workspace.slack.inject(Fault::status(503));
    workspace.receiver.outcomes(&[alert("watched", "v2", "medium"), alert("asked", "v2", "high")]).await?;
    for step in 1..=12 {
        workspace.receiver.clock.advance(Duration::from_secs(300));
        workspace.settled(&[Work::Incident]).await?;
        match step {
            2 => workspace.receiver.outcomes(&[alert("watched", "v2", "high")]).await.map(drop)?,
            3 => workspace.receiver.outcomes(&[alert("over", "v2", "high")]).await.map(drop)?,
            5 => decide("over", "investigate").await?,
            7 => decide("over", "dismiss").await?,
            8 => workspace.receiver.outcomes(&[critical("worst")]).await.map(drop)?,
            10 => decide("asked", "approve").await?,
            _ => {}
        }
    }
    assert!(workspace.slack.roots(ON_CALL).is_empty());
    workspace.slack.heal();
    let all =
        |slack: &Slack| prompts.into_iter().map(|prompt| root_of(slack, ON_CALL, prompt)).collect::<Option<Vec<_>>>();
    let roots = workspace.slack.wait_for("all roots", SLACK_SOON * 2, all).await?;
    workspace.quiet().await?;
    for (prompt, root) in prompts.iter().zip(&roots) {
        let incident = incident(prompt).await?;
        let events = incident["events"].as_array().context("events")?;
        let (files, replies): (Vec<_>, Vec<_>) =
            workspace.slack.replies(root).into_iter().partition(|reply| !reply.files.is_empty());
        assert_eq!(files.len(), usize::from(!incident["flip"].is_null()), "{prompt}: the post-mortem of a rollback");
        let replies: Vec<_> = replies.iter().map(Message::visible_text).collect();
        assert_eq!(replies.len(), events.len() - 1, "{prompt}: {replies:#?}");
        for (reply, event) in replies.iter().zip(&events[1..]) {
            assert!(reply.contains(event["text"].as_str().context("text")?), "{prompt}: {event} in {reply}");
        }
        assert_eq!(
            workspace.slack.message(ON_CALL, &root.ts).context("a root")?.edited,
            None,
            "{prompt}: right at once"
        );
        assert!(root_of(&workspace.slack, INCIDENTS, prompt).is_some(), "{prompt}");
    }
    let [watched, asked, worst, over] = &roots[..] else { anyhow::bail!("four roots") };
    assert!([watched, asked, over].iter().all(|root| worst.ts < root.ts), "the worst one first");
    for (root, says) in [
        (watched, "Decision overdue"),
        (asked, "maya (api) approved"),
        (worst, "Rolled back automatically"),
        (over, "maya (api) dismissed this"),
    ] {
        assert!(root.visible_text().contains(says), "{says}: {}", root.visible_text());
    }
    Ok(())
}

#[tokio::test]
async fn nothing_becomes_a_dead_letter_for_slacks_sake() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.revoke(true);
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let asks = |slack: &Slack| (slack.calls_of("auth.test").len() >= 3).then_some(());
    workspace.slack.wait_for("three tries", SLACK_SOON, asks).await?;
    assert_eq!(
        workspace.slack.calls_of("chat.postMessage").len(),
        1,
        "no message is attempted while Slack accepts none"
    );
    let (_, dead_letters) = workspace.receiver.app.engine.store.counts().await?;
    assert_eq!(dead_letters, 0);
    workspace.slack.revoke(false);
    let root = workspace.root("told once the token is back", |_| true).await?;
    assert_eq!(buttons(&root).len(), 5);
    Ok(())
}

#[tokio::test]
async fn two_replicas_tell_each_thing_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    let other = workspace.replica(&[]).await?;
    let prompts: Vec<String> = (0..4).map(|n| format!("prompt-{n}")).collect();
    for prompt in &prompts {
        workspace.ship(prompt).await?;
    }
    let alerts: Vec<_> = prompts.iter().map(|prompt| critical(prompt)).collect();
    workspace.receiver.outcomes(&alerts).await?;
    workspace.slack.wait_for("all roots", SLACK_SOON, |slack| (slack.roots(ON_CALL).len() >= 4).then_some(())).await?;
    workspace.quiet().await?;
    for prompt in &prompts {
        let root = root_of(&workspace.slack, ON_CALL, prompt).with_context(|| format!("{prompt} is shown"))?;
        assert_eq!(workspace.slack.replies(&root).len(), 1, "{prompt}");
        assert!(root_of(&workspace.slack, INCIDENTS, prompt).is_some());
    }
    other.app.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_channel_gets_about_one_message_a_second() -> Result<()> {
    let workspace = Workspace::start().await?;
    let prompts: Vec<String> = (0..4).map(|n| format!("prompt-{n}")).collect();
    for prompt in &prompts {
        workspace.ship(prompt).await?;
    }
    let alerts: Vec<_> = prompts.iter().map(|prompt| critical(prompt)).collect();
    workspace.receiver.outcomes(&alerts).await?;
    workspace.slack.wait_for("all roots", SLACK_SOON, |slack| (slack.roots(ON_CALL).len() == 4).then_some(())).await?;
    workspace.quiet().await?;
    let ours = |channel: &serde_json::Value| channel == ON_CALL || channel == "#on-call";
    let calls = workspace.slack.calls();
    let posts = calls.iter().filter(|call| call.method.starts_with("chat.post") && ours(&call.args["channel"]));
    let at: Vec<_> = posts.map(|call| call.at).collect();
    assert_eq!(at.len(), 8, "a root and a reply each");
    // the first one used the name, before the channel's id was known; a busy machine moves them a little
    for pair in at.windows(2).skip(1) {
        let gap = pair[1].duration_since(pair[0])?;
        assert!(gap > Duration::from_millis(500), "{gap:?} between two messages");
    }
    Ok(())
}

#[tokio::test]
async fn people_are_told_once_a_replica_has_the_commit_or_stays_away() -> Result<()> {
    let (slack, redis) = (slack()?, Redis::start()?);
    let replica = Redis::builder().replica_of(&redis).start()?;
    redis.wait_for_replicas(1).await?;
    let receiver = Receiver::ready(&redis.url(), &env(&slack, &slack.api_url(), &REPLICATED)).await?;
    for (prompt, comes_back) in [("first", true), ("second", false)] {
        eventually("the replica follows", SLACK_SOON, async || {
            let answer = receiver.http.post_json("/api/resume", &json!({})).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        ship(&receiver.http, prompt).await?;
        replica.pause()?;
        assert_eq!(receiver.deliver(&[critical(prompt)]).await?.status, 503, "not replicated");
        // processed, and postponed
        let id = incidents(&redis, prompt).await?[0]["id"].as_str().context("an id")?.to_owned();
        let mut due = None;
        for _ in 0..2 {
            due = eventually("put off", SLACK_SOON, async || {
                let at = due_at(&redis, SLACK, &id).await.ok()?;
                at.filter(|at| Some(*at) > due).map(Some)
            })
            .await?;
        }
        assert!(root_of(&slack, ON_CALL, prompt).is_none(), "{prompt} is shown too early");
        if comes_back {
            replica.resume()?;
        } else {
            receiver.clock.advance(Duration::from_secs(30));
        }
        slack.wait_for("its thread", SLACK_SOON, |slack| root_of(slack, ON_CALL, prompt)).await?;
    }
    Ok(())
}
