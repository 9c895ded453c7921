//! The config names other channels while incidents are open, and questions pass to deciders with other channels.

use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback::decision::{Choice, Decide, Event, Operator};
use prompt_rollback::notify::slack::MESSAGE_INTERVAL;
use prompt_rollback_testkit::slack::{Fault, Message};

use super::kit::{INCIDENTS, MENTION, ON_CALL, REPLACEMENT, slack};
use super::office::Office;
use crate::common::alert;

const DECIDER: &str = "DECIDERS__ON_CALL__CHANNEL";
const PRODUCT: (&str, &str) = ("DECIDERS__PRODUCT_PM__CHANNEL", "#replacement");

/// An open incident, which Slack shows in the decider's channel and in the incident channel.
async fn shown() -> Result<Office> {
    let office = Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &[]).await?;
    office.fires("p", alert("p", "v2", "high")).await?;
    office.notify_all().await?;
    ensure!(office.slack.roots(ON_CALL).len() == 1 && office.slack.roots(INCIDENTS).len() == 1);
    Ok(office)
}

async fn choose(office: &Office, choice: Choice) -> Result<()> {
    let (incident, operator) = (office.incident("p").await?.id, Operator::recorded("maya"));
    let click = Decide { incident, choice, operator, target: None, force: false, question_number: None };
    office.happens("p", &Event::Decide(click)).await?;
    office.notify_all().await
}

fn texts(office: &Office, channel: &str) -> Vec<String> {
    office.slack.roots(channel).iter().map(Message::visible_text).collect()
}

/// A question that passes from `product-pm` to `on-call`. Another process continues, which knows no ids of channels.
async fn passed(more: &[(&str, &str)]) -> Result<Office> {
    let env = [&[PRODUCT], more].concat();
    let mut office = Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &env).await?;
    for (severity, decider) in [("medium", "product-pm"), ("high", "on-call")] {
        let mut alert = alert("p", "v2", severity);
        alert["labels"]["decider"] = decider.into();
        office.fires("p", alert).await?;
        office.notify_all().await?;
        office.reconfigure(&env)?;
    }
    ensure!(texts(&office, REPLACEMENT).len() == 1, "one thread");
    Ok(office)
}

/// The messages that call `on-call`.
fn calls(office: &Office, channel: &str) -> Vec<Message> {
    let all = office.slack.messages(channel).into_iter();
    all.filter(|message| message.visible_text().contains(MENTION)).collect()
}

#[tokio::test]
async fn a_question_that_passes_within_one_channel_stays_one_message() -> Result<()> {
    let office = passed(&[(DECIDER, "#replacement")]).await?; // where `product-pm` is asked, too
    office.pass(Duration::from_secs(301)).await?;
    let incident = office.incident("p").await?.id;
    office.happens("p", &Event::Timer { incident, early: false }).await?;
    office.notify_all().await?;
    let roots = office.slack.roots(REPLACEMENT);
    ensure!(roots.len() == 1, "{roots:?}");
    let loud = office.slack.replies(&roots[0]).into_iter().filter(|reply| reply.broadcast).count();
    ensure!(loud == 1, "{loud} calls");
    Ok(())
}

#[tokio::test]
async fn a_decider_to_whom_a_question_passes_is_called_in_their_own_channel() -> Result<()> {
    let office = passed(&[]).await?;
    ensure!(office.slack.messages(ON_CALL).len() == 1, "{:?}", texts(&office, ON_CALL));
    let called = calls(&office, ON_CALL);
    ensure!(called.len() == 1 && called[0].visible_text().contains("Decide in the thread"), "{called:?}");
    ensure!(called[0].action_ids().is_empty(), "buttons are in the thread");
    // a missed deadline calls them there as well
    office.pass(Duration::from_secs(301)).await?;
    let incident = office.incident("p").await?.id;
    office.happens("p", &Event::Timer { incident, early: false }).await?;
    office.notify_all().await?;
    let replies = office.slack.replies(&called[0]);
    ensure!(replies.len() == 1 && replies[0].broadcast && replies[0].visible_text().contains(MENTION), "{replies:?}");
    choose(&office, Choice::Dismiss).await?;
    let shown = texts(&office, ON_CALL);
    ensure!(shown.len() == 1 && shown[0].contains("Dismissed") && !shown[0].contains(MENTION), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn a_message_to_a_decider_is_kept_although_they_lost_their_channel() -> Result<()> {
    let mut office = passed(&[]).await?;
    ensure!(calls(&office, ON_CALL).len() == 1, "{:?}", texts(&office, ON_CALL));
    office.reconfigure(&[PRODUCT, (DECIDER, "")])?;
    choose(&office, Choice::Dismiss).await?;
    let shown = texts(&office, ON_CALL);
    ensure!(shown.len() == 1 && shown[0].contains("Dismissed") && !shown[0].contains(MENTION), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn a_new_decider_without_a_channel_is_mentioned_below_the_overview() -> Result<()> {
    let office = passed(&[(DECIDER, "")]).await?;
    let (shown, called) = (texts(&office, INCIDENTS), calls(&office, INCIDENTS));
    ensure!(shown.len() == 1 && called.len() == 1 && called[0].broadcast, "{shown:?} {called:?}");
    Ok(())
}

#[tokio::test]
async fn people_are_paged_if_the_new_channel_accepts_no_messages() -> Result<()> {
    let office = passed(&[(DECIDER, "#old")]).await?;
    let incident = office.incident("p").await?;
    ensure!(incident.undeliverable && incident.pages(), "{incident:?}");
    Ok(())
}

#[tokio::test]
async fn a_thread_that_fell_back_and_was_deleted_is_one_message_again() -> Result<()> {
    let office = shown().await?;
    office.slack.inject(Fault::error("is_archived").in_channel(ON_CALL));
    choose(&office, Choice::Investigate).await?;
    let roots = office.slack.roots(INCIDENTS);
    ensure!(roots.len() == 1 && roots[0].visible_text().contains("Under investigation"), "{roots:?}");
    office.slack.delete(&roots[0]);
    choose(&office, Choice::Dismiss).await?;
    let again = texts(&office, INCIDENTS);
    ensure!(again.len() == 1 && again[0].contains("Dismissed"), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn a_thread_moves_to_the_channel_that_replaced_its_own() -> Result<()> {
    let mut office = shown().await?;
    office.slack.inject(Fault::error("is_archived").in_channel(ON_CALL));
    office.reconfigure(&[(DECIDER, "#replacement")])?;
    choose(&office, Choice::Investigate).await?;
    let moved = texts(&office, REPLACEMENT);
    ensure!(moved.len() == 1 && moved[0].contains("Under investigation"), "{moved:?}");
    ensure!(!office.incident("p").await?.undeliverable, "it is shown");
    Ok(())
}

#[tokio::test]
async fn an_overview_moves_to_the_channel_that_replaced_its_own() -> Result<()> {
    let mut office = shown().await?;
    office.slack.inject(Fault::error("is_archived").in_channel(INCIDENTS));
    office.reconfigure(&[("SLACK__INCIDENT_CHANNEL", "#replacement")])?;
    choose(&office, Choice::Investigate).await?;
    let moved = texts(&office, REPLACEMENT);
    ensure!(moved.len() == 1 && moved[0].contains("Under investigation"), "{moved:?}");
    Ok(())
}

#[tokio::test]
async fn people_are_paged_if_their_only_channel_takes_no_replies_any_more() -> Result<()> {
    let office = Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &[(DECIDER, "")]).await?;
    office.fires("p", alert("p", "v2", "medium")).await?;
    office.notify_all().await?;
    ensure!(office.slack.roots(INCIDENTS).len() == 1 && !office.incident("p").await?.pages());
    office.slack.inject(Fault::error("restricted_action").on("chat.postMessage").in_channel(INCIDENTS));
    office.fires("p", alert("p", "v2", "high")).await?;
    office.notify_all().await?;
    let incident = office.incident("p").await?;
    ensure!(incident.undeliverable && incident.pages(), "{incident:?}");
    Ok(())
}

#[tokio::test]
async fn an_overview_is_kept_although_its_decider_lost_their_channel() -> Result<()> {
    let mut office = shown().await?;
    office.reconfigure(&[(DECIDER, "")])?;
    choose(&office, Choice::Dismiss).await?;
    for channel in [ON_CALL, INCIDENTS] {
        let shown = texts(&office, channel);
        ensure!(shown.len() == 1 && shown[0].contains("Dismissed"), "{channel}: {shown:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_given_by_id_and_by_name_shows_one_message() -> Result<()> {
    let mut office = Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &[(DECIDER, INCIDENTS)]).await?;
    office.fires("p", alert("p", "v2", "high")).await?;
    office.notify_all().await?;
    // another process knows no ids
    office.reconfigure(&[(DECIDER, INCIDENTS)])?;
    choose(&office, Choice::Dismiss).await?;
    let shown = texts(&office, INCIDENTS);
    ensure!(shown.len() == 1 && shown[0].contains("Dismissed"), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn a_channel_given_with_and_without_its_sign_shows_one_message() -> Result<()> {
    let mut office = Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &[(DECIDER, "incidents")]).await?;
    office.fires("p", alert("p", "v2", "high")).await?;
    office.notify_all().await?;
    office.reconfigure(&[(DECIDER, "incidents")])?;
    choose(&office, Choice::Dismiss).await?;
    let shown = texts(&office, INCIDENTS);
    ensure!(shown.len() == 1 && shown[0].contains("Dismissed"), "{shown:?}");
    Ok(())
}
