//! Faulty answers of Slack: everything is posted anyway, once.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback_testkit::slack::{Fault, Message, Slack};

use super::kit::{GROUP, INCIDENTS, MAYA, NINA, ON_CALL, PETE, SLACK_SOON, Workspace, buttons, slack};
use crate::common::kept::keys;
use crate::common::{SOON, alert, critical};

const MINUTE: Duration = Duration::from_secs(60);
const POST: &str = "chat.postMessage";
const UPDATE: &str = "chat.update";

/// Affects posts to the decider's channel once.
fn once(fault: Fault) -> Fault {
    fault.on(POST).in_channel(ON_CALL).times(1)
}

fn posts_to(slack: &Slack, channel: &str) -> usize {
    let here = |arg: &serde_json::Value| arg == channel || arg == "#on-call";
    slack.calls_of(POST).iter().filter(|call| here(&call.args["channel"])).count()
}

#[tokio::test]
async fn temporary_errors_of_slack_are_retried_and_the_message_posted_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    for fault in [
        Fault::status(500),
        Fault::html(502),
        Fault::html(200),
        Fault::error("internal_error"),
        Fault::drop_connection(),
    ] {
        workspace.slack.inject(once(fault));
    }
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    assert_eq!(posts_to(&workspace.slack, ON_CALL), 6);
    workspace.click(MAYA, &root, "approve").await?;
    workspace.titled("maya (U1) approved").await?;
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    assert_eq!((workspace.slack.roots(ON_CALL).len(), workspace.slack.replies(&root).len()), (1, 1));
    Ok(())
}

#[tokio::test]
async fn a_rate_limited_channel_is_left_alone_for_as_long_as_slack_says() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.inject(once(Fault::rate_limited(4)));
    workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    let calls: Vec<_> =
        workspace.slack.calls_of(POST).into_iter().filter(|call| call.args["channel"] == "#on-call").collect();
    assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [429, 200]);
    let waited = calls[1].at.duration_since(calls[0].at)?;
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
    Ok(())
}

#[tokio::test]
async fn a_root_whose_blocks_are_refused_goes_as_plain_text() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.inject(once(Fault::error("invalid_blocks")));
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    assert!(root.blocks.is_empty() && root.text.contains("Decision needed"), "{root:?}");
    // updates are rejected too, but the current state is shown
    workspace.slack.inject(Fault::error("invalid_blocks").on(UPDATE).in_channel(ON_CALL).times(1));
    workspace.decide("approve", "maya").await?;
    let after = workspace.titled("maya (api) approved").await?;
    assert_eq!((after.ts, after.blocks.len()), (root.ts, 0));
    Ok(())
}

#[tokio::test]
async fn a_refused_reply_becomes_plain_text_or_nothing_and_later_ones_go_on() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.slack.inject(once(Fault::error("invalid_blocks")));
    workspace.click(MAYA, &root, "investigate").await?;
    workspace.replies(&root, 1).await?;
    let plain = workspace.slack.replies(&root).pop().context("a reply")?;
    assert!(plain.blocks.is_empty() && plain.text.contains("maya (U1) is investigating"), "{plain:?}");
    // the next one is rejected even as plain text
    workspace.slack.inject(once(Fault::error("invalid_blocks")));
    workspace.slack.inject(once(Fault::error("msg_too_long")));
    workspace.receiver.clock.advance(5 * MINUTE);
    workspace.titled("Decision needed").await?;
    workspace.quiet().await?;
    workspace.decide("dismiss", "maya").await?;
    let replies = workspace.replies(&root, 2).await?;
    assert!(replies.len() == 2 && replies[1].contains("maya (api) dismissed this"), "{replies:?}");
    Ok(())
}

#[tokio::test]
async fn a_missing_or_archived_channel_falls_back_to_the_incident_channel() -> Result<()> {
    for channel in ["#nowhere", "#old"] {
        let workspace = Workspace::with(slack()?, &[("DECIDERS__ON_CALL__CHANNEL", channel)]).await?;
        workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
        let root = workspace.root_in(INCIDENTS, "a root in the fallback", |root| !root.action_ids().is_empty()).await?;
        workspace.click(MAYA, &root, "approve").await?;
        workspace.serves("v1").await?;
        workspace.replies(&root, 1).await?;
        workspace.quiet().await?;
        assert_eq!(workspace.slack.roots(INCIDENTS).len(), 1, "{channel}");
        let tries = workspace.slack.calls_of(POST).iter().filter(|call| call.args["channel"] == channel).count();
        assert_eq!(tries, 1, "{channel}: no retry loop");
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_that_is_lost_later_falls_back_too_and_holds_up_nobody() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "medium")]).await?;
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    workspace.slack.inject(Fault::error("channel_not_found").in_channel(ON_CALL));
    workspace.decide("investigate", "omar").await?;
    let moved = workspace.root_in(INCIDENTS, "a root in the fallback", |root| {
        root.action_ids().iter().any(|id| id == "approve")
            && root.visible_text().contains("omar (api) is investigating")
    });
    let moved = moved.await?;
    let replies = workspace.replies(&moved, 3).await?;
    for (reply, said) in replies.iter().zip(["(medium)", "omar (api) is investigating", "cannot show this in #on-call"])
    {
        assert!(reply.contains(said), "who comes here knows nothing yet: {replies:#?}");
    }
    workspace.click(MAYA, &moved, "approve").await?;
    workspace.serves("v1").await?;
    workspace.quiet().await
}

#[tokio::test]
async fn a_root_that_someone_deleted_is_posted_again() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "medium")).await?;
    workspace.quiet().await?;
    workspace.slack.delete(&root);
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let again = workspace.titled("Decision needed").await?;
    assert_ne!(again.ts, root.ts);
    workspace.click(MAYA, &again, "approve").await?;
    workspace.serves("v1").await
}

#[tokio::test]
async fn an_answer_that_is_lost_does_not_double_a_message() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.inject(once(Fault::lose_reply()));
    workspace.slack.inject(Fault::lose_reply().on(POST).in_channel(INCIDENTS).times(1));
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    workspace.quiet().await?;
    workspace.slack.inject(once(Fault::lose_reply()));
    workspace.click(MAYA, &root, "approve").await?;
    workspace.titled("maya (U1) approved").await?;
    workspace.replies(&root, 1).await?;
    workspace.quiet().await?;
    let counts = (
        workspace.slack.roots(ON_CALL).len(),
        workspace.slack.roots(INCIDENTS).len(),
        workspace.slack.replies(&root).len(),
    );
    assert_eq!(counts, (1, 1, 1));
    Ok(())
}

#[tokio::test]
async fn a_message_found_after_a_lost_answer_is_brought_up_to_date() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.inject(once(Fault::lose_reply()));
    workspace.slack.inject(Fault::error("internal_error").on("conversations.history"));
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    // decided while it is unknown whether the question arrived
    workspace.decide("approve", "omar").await?;
    workspace.slack.heal();
    let after = workspace.titled("omar (api) approved").await?;
    assert_eq!((buttons(&after), after.ts), (vec!["undo".to_owned(), "mark".to_owned()], root.ts));
    Ok(())
}

#[tokio::test]
async fn a_crash_between_an_answer_and_its_record_does_not_double_a_message() -> Result<()> {
    let mut workspace = Workspace::start().await?;
    workspace.slack.inject(once(Fault::slow_reply(MINUTE)));
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.crash().await?;
    workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 1, "the root is found again");
    workspace.slack.inject(once(Fault::slow_reply(MINUTE)));
    workspace.click(MAYA, &root, "approve").await?;
    workspace.replies(&root, 1).await?;
    workspace.crash().await?;
    workspace.titled("maya (U1) approved").await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.replies(&root).len(), 1, "the reply is found again");
    Ok(())
}

#[tokio::test]
async fn slack_hanging_delays_neither_deadlines_nor_observations_nor_clicks() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.ship("q").await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.receiver.outcomes(&[alert("q", "v2", "medium")]).await?;
    workspace.root("both roots", |root| root.visible_text().contains('q')).await?;
    workspace.quiet().await?;
    workspace.slack.inject(Fault::hang(60 * MINUTE));
    let phase_of = async |prompt: &str| -> Result<serde_json::Value> {
        let incidents = workspace.get("/api/incidents").await?;
        let all = incidents["incidents"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|incident| incident["prompt"] == prompt).context("an incident")
    };
    // another notification that hangs
    workspace.receiver.outcomes(&[alert("p", "v2", "medium")]).await?;
    let hangs =
        |slack: &Slack| slack.calls().into_iter().find(|call| call.status == 0 && call.method.starts_with("chat."));
    workspace.slack.wait_for("a call that hangs", SOON, hangs).await?;

    workspace.receiver.clock.advance(60 * MINUTE);
    // the receiver gives up a call after ten seconds: a notification that waited for it would be later than that
    prompt_rollback_testkit::eventually("both happen while Slack hangs", Duration::from_secs(9), async || {
        let observed = phase_of("q").await.ok()?["phase"] == "awaiting_decision";
        let id = phase_of("p").await.ok()?["id"].as_str()?.to_owned();
        let events = workspace.get(&format!("/api/incidents/{id}")).await.ok()?["events"].clone();
        let escalated = events.as_array()?.iter().any(|event| event["kind"] == "escalated");
        (observed && escalated).then_some(())
    })
    .await?;
    // a refusal and an approval both have to be shown in Slack, but neither click waits for it
    workspace.click(PETE, &root, "approve").await?;
    workspace.serves("v2").await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_made_again() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.inject(once(Fault::hang(MINUTE)));
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.titled("maya (U1) approved").await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_channel_that_must_wait_does_not_hold_up_others() -> Result<()> {
    let slack = slack()?;
    let more = [("DECIDERS__PRODUCT_PM__CHANNEL", "#incidents"), ("DECIDERS__PRODUCT_PM__APPROVERS", "U2")];
    let workspace = Workspace::with(slack, &more).await?;
    let prompts = ["a", "b", "c", "d", "e", "f"];
    for prompt in prompts {
        workspace.ship(prompt).await?;
    }
    workspace.slack.inject(Fault::rate_limited(30).on(POST).in_channel(ON_CALL));
    let alerts: Vec<_> = prompts.iter().map(|prompt| alert(prompt, "v2", "high")).collect();
    workspace.receiver.outcomes(&alerts).await?;
    workspace
        .slack
        .wait_for("a refusal", SLACK_SOON, |slack| slack.calls_of(POST).iter().find(|call| call.status == 429).cloned())
        .await?;
    let mut product = alert("p", "v2", "high");
    product["labels"]["decider"] = "product-pm".into();
    workspace.receiver.outcomes(&[product]).await?;
    let is_asked = |slack: &Slack| slack.roots(INCIDENTS).into_iter().find(|root: &Message| !buttons(root).is_empty());
    // less than the other channel must wait
    let asked = workspace.slack.wait_for("product is asked in the meantime", Duration::from_secs(25), is_asked).await?;
    assert!(asked.visible_text().contains("product-pm"));
    Ok(())
}

#[tokio::test]
async fn a_root_that_cannot_be_edited_stays_and_news_become_replies() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    workspace.slack.inject(Fault::error("edit_window_closed").on(UPDATE).in_channel(ON_CALL));
    workspace.click(MAYA, &root, "investigate").await?;
    let replies = workspace.replies(&root, 3).await?;
    assert!(replies[0].contains("does not allow edits") && replies[0].contains("`edit_window_closed`"), "{replies:#?}");
    assert!(
        replies[1].contains("maya (U1) is investigating") && replies[2].contains("Under investigation"),
        "{replies:#?}"
    );
    let asked = workspace.slack.replies(&root).pop().context("the question")?;
    assert!(buttons(&asked).contains(&"approve".to_owned()), "{asked:?}");
    // the buttons of the reply are the valid ones
    workspace.click(MAYA, &asked, "approve").await?;
    workspace.serves("v1").await?;
    let replies = workspace.replies(&root, 5).await?;
    assert!(replies[3].contains("maya (U1) rolled v2 back to v1"), "{replies:#?}");
    assert_eq!(buttons(&workspace.slack.replies(&root)[4]), ["undo", "mark"]);
    workspace.quiet().await?;
    let edits = workspace.slack.calls_of(UPDATE).into_iter().filter(|call| call.args["channel"] == ON_CALL).count();
    let notices = replies.iter().filter(|reply| reply.contains("does not allow edits")).count();
    assert_eq!((edits, notices, workspace.slack.roots(ON_CALL).len()), (1, 1, 1), "tried once, said once, one thread");
    assert_eq!(workspace.slack.message(ON_CALL, &root.ts).context("the root")?.text, root.text);
    // the channel of all incidents can be edited
    workspace.root_in(INCIDENTS, "the overview", |root| root.visible_text().contains("maya (U1) approved")).await?;
    // if the root is gone as well, a new one shows everything
    workspace.slack.delete(&root);
    workspace.slack.heal();
    workspace.decide("undo", "maya").await?;
    let again = workspace.root("a new root", |again| again.ts != root.ts).await?;
    let replies = workspace.replies(&again, 3).await?;
    assert!(
        replies[0].contains("maya (U1) is investigating") && !replies[2].contains("does not allow"),
        "{replies:#?}"
    );
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 1);
    Ok(())
}

/// Slack also says this about messages that exist. Each change of the incident must not start a new thread.
#[tokio::test]
async fn a_root_that_slack_claims_is_missing_stays_and_gets_replies() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    workspace.slack.inject(Fault::error("message_not_found").on(UPDATE).in_channel(ON_CALL));
    workspace.click(MAYA, &root, "investigate").await?;
    workspace.replies(&root, 3).await?;
    workspace.quiet().await?;
    workspace.decide("approve", "maya").await?;
    let replies = workspace.replies(&root, 5).await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 1, "one thread");
    let said = |part: &str| replies.iter().filter(|reply| reply.contains(part)).count();
    for part in ["does not allow edits", "🔎 maya (U1) is investigating", "maya (api) rolled v2 back to v1"] {
        assert_eq!(said(part), 1, "{part}: {replies:#?}");
    }
    Ok(())
}

/// The message is never found: it is posted once more, because it may have been deleted, and then left alone.
#[tokio::test]
async fn a_root_that_slack_never_finds_again_is_posted_anew_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    for method in [UPDATE, "chat.getPermalink"] {
        workspace.slack.inject(Fault::error("message_not_found").on(method));
    }
    workspace.click(MAYA, &root, "investigate").await?;
    let again = workspace.root("a new root", |again| again.ts != root.ts).await?;
    workspace.replies(&again, 1).await?;
    workspace.quiet().await?;
    workspace.decide("approve", "maya").await?;
    workspace.receiver.clock.advance(5 * MINUTE);
    let replies = workspace.replies(&again, 5).await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 2, "not one for each change");
    for part in ["does not allow edits", "maya (U1) is investigating", "maya (api) rolled v2 back to v1"] {
        assert_eq!(replies.iter().filter(|reply| reply.contains(part)).count(), 1, "{part}: {replies:#?}");
    }
    // it is unknown when it can be edited again: it stays, and decisions are accepted anyway
    workspace.slack.heal();
    workspace.decide("undo", "maya").await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_thread_that_can_not_be_replied_to_is_begun_again_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    // the reply, not the new root, and the reply again
    workspace.slack.inject(once(Fault::error("thread_not_found")));
    workspace.slack.inject(once(Fault::error("thread_not_found")).after(1));
    workspace.click(MAYA, &root, "investigate").await?;
    let again = workspace.root("a new root", |again| again.ts != root.ts).await?;
    workspace.decide("approve", "maya").await?;
    workspace.titled("maya (api) approved").await?;
    workspace.quiet().await?;
    assert_eq!(workspace.slack.roots(ON_CALL).len(), 2, "one more thread, not one for each try");
    let replies = workspace.replies(&again, 1).await?;
    assert!(replies[0].contains("maya (api) rolled v2 back to v1"), "later replies continue: {replies:#?}");
    Ok(())
}

#[tokio::test]
async fn a_rate_limit_that_lasts_too_long_silences_nobody() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.quiet().await?;
    // as a master whose clock is an hour behind finds it, and as PERSIST leaves it
    for (channel, command) in [(ON_CALL, vec!["PX", "3600000"]), (INCIDENTS, vec![])] {
        let key = keys().rate_limit(channel);
        let command: Vec<&str> = ["SET", &key, "1"].into_iter().chain(command).collect();
        workspace.redis.cmd::<()>(&command).await?;
    }
    workspace.click(MAYA, &root, "approve").await?;
    workspace.titled("maya (U1) approved").await?;
    workspace.replies(&root, 1).await?;
    workspace.quiet().await
}

#[tokio::test]
async fn a_clicker_is_told_although_slack_fails_for_a_moment() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.slack.inject(Fault::error("a_code_of_next_year").on("chat.postEphemeral").times(2));
    workspace.click(PETE, &root, "approve").await?;
    workspace.told(PETE).await?;
    // a permanent rejection is not retried
    workspace.ship("q").await?;
    workspace.receiver.outcomes(&[alert("q", "v2", "high")]).await?;
    let root = workspace.root("another", |root| root.visible_text().contains("`q`")).await?;
    workspace.slack.inject(Fault::error("user_not_in_channel").on("chat.postEphemeral"));
    workspace.click(PETE, &root, "approve").await?;
    let tries = |slack: &Slack| (slack.calls_of("chat.postEphemeral").len() >= 4).then_some(());
    workspace.slack.wait_for("one more try", SOON, tries).await?;
    tokio::time::sleep(Duration::from_millis(1_500)).await; // one more try would come a second later, by the real clock
    assert_eq!(workspace.slack.calls_of("chat.postEphemeral").len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_user_group_is_resolved_although_slack_fails_for_a_moment() -> Result<()> {
    let slack = slack()?;
    slack.inject(Fault::status(503).on("usergroups.users.list").times(2));
    let workspace = Workspace::with(slack, &[]).await?;
    let resolved = async || {
        let members = workspace.receiver.app.engine.store.group(GROUP).await.ok()??;
        (members == [NINA]).then_some(())
    };
    prompt_rollback_testkit::eventually("the group is known", SOON, resolved).await
}

#[tokio::test]
async fn a_picture_whose_sharing_was_answered_badly_is_shared_once() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(critical("p")).await?;
    workspace.slack.inject(Fault::html(502).applied().on("files.completeUploadExternal").times(1));
    workspace.receiver.clock.advance(5 * MINUTE);
    workspace.slack.clock().advance(5 * MINUTE);
    let shared = |slack: &Slack| slack.replies(&root).into_iter().find(|reply| !reply.files.is_empty());
    workspace.slack.wait_for("the draft", SLACK_SOON, shared).await?;
    workspace.quiet().await?;
    let shared = workspace.slack.replies(&root).iter().filter(|reply| !reply.files.is_empty()).count();
    assert_eq!((shared, workspace.slack.calls_of("files.completeUploadExternal").len()), (1, 1));
    Ok(())
}
