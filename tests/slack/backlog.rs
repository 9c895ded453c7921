//! Many notifications at once. Slack's limits follow the double's clock, which runs faster here, like the receiver's
//! rate limit.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::notify::slack::MESSAGE_INTERVAL;
use prompt_rollback_testkit::slack::{Fault, Message, Slack};

use super::kit::{INCIDENTS, ON_CALL, SLACK_SOON, slack};
use super::office::Office;
use crate::common::{again, alert, copy_prompt, critical, resolved};

/// A workspace whose time runs `times` as fast.
async fn fast(slack: Slack, times: u32, more: &[(&str, &str)]) -> Result<Office> {
    slack.clock().run_faster(times);
    Ok(Office::start(slack, MESSAGE_INTERVAL / times, more).await?.working())
}

#[tokio::test]
async fn a_long_thread_gives_way_to_what_is_more_urgent_and_is_told_to_its_end() -> Result<()> {
    let office = fast(slack()?, 10, &[]).await?;
    copy_prompt(&office.redis, "p", &["urgent".to_owned()]).await?;
    office.slack.inject(Fault::status(503));
    let flapping = alert("p", "v2", "high");
    for _ in 0..12 {
        office.fires("p", again(flapping.clone())).await?;
        office.fires("p", resolved(flapping.clone())).await?;
    }
    office.slack.heal();
    let replies = |slack: &Slack| slack.roots(ON_CALL).first().map(|root| slack.replies(root)).unwrap_or_default();
    let begun = |slack: &Slack| (!replies(slack).is_empty()).then_some(());
    office.slack.wait_for("the first replies", SLACK_SOON, begun).await?;
    office.fires("urgent", critical("urgent")).await?;
    let urgent = office.slack.wait_for("the urgent one", SLACK_SOON, |_| office.root_of("urgent")).await?;
    let all = |slack: &Slack| Some(replies(slack)).filter(|replies| replies.len() >= 23);
    let all = office.slack.wait_for("all replies", SLACK_SOON, all).await?;
    let before = all.iter().filter(|reply| reply.ts < urgent.ts).count();
    assert!((1..=17).contains(&before), "{before} replies went first");
    let said: Vec<_> = all.iter().map(Message::visible_text).collect();
    for (at, text) in said.iter().enumerate() {
        let expected = if at % 2 == 0 { "has ended" } else { "fires again" };
        assert!(text.contains(expected), "{at}: {said:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_thousand_incidents_at_once_are_all_told_at_slacks_rate() -> Result<()> {
    const MANY: usize = 1_000;
    const TIMES: u32 = 20;
    const TEAMS: [&str; 4] = ["T0", "T1", "T2", "T3"];
    let mut builder = Slack::builder().rate_limited(true).channel(INCIDENTS, "incidents");
    // held by the budget, but without a coordinating incident: each has its own thread
    let mut env = vec![("GUARDS__MAX_AUTO_ROLLBACKS".to_owned(), "0".to_owned())];
    for team in TEAMS {
        builder = builder.channel(&format!("C{team}"), &team.to_lowercase());
        env.push((format!("DECIDERS__{team}__CHANNEL"), format!("#{}", team.to_lowercase())));
    }
    let env: Vec<_> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let office = fast(builder.start()?, TIMES, &env).await?;
    let channel = |n: usize| format!("C{}", TEAMS[n % TEAMS.len()]);
    let prompts: Vec<String> = (0..MANY).map(|n| format!("prompt-{n:04}")).collect();
    copy_prompt(&office.redis, "p", &prompts).await?;
    for (n, prompt) in prompts.iter().enumerate() {
        let mut alert = critical(prompt);
        alert["labels"]["decider"] = TEAMS[n % TEAMS.len()].to_lowercase().into();
        office.fires(prompt, alert).await?;
    }
    office.quiet().await?;
    let channels: Vec<String> = (0..TEAMS.len()).map(channel).chain([INCIDENTS.to_owned()]).collect();

    // for each prompt one root with one reply, and one overview
    for of_all in [false, true] {
        let here = channels.iter().filter(|channel| (*channel == INCIDENTS) == of_all);
        let mut left: HashSet<String> = prompts.iter().map(|prompt| format!("`{prompt}`")).collect();
        for root in here.flat_map(|channel| office.slack.roots(channel)) {
            let text = root.visible_text();
            let name = text.split_whitespace().find(|word| left.contains(*word)).context("whose root is it")?;
            left.remove(name);
            assert_eq!(office.slack.replies(&root).len(), usize::from(!of_all), "{name}");
        }
        assert!(left.is_empty(), "{left:?}");
    }

    let calls = office.slack.calls_of("chat.postMessage");
    let refused = calls.iter().filter(|call| call.status == 429).count();
    assert!(refused * 100 <= calls.len(), "{refused} of {} were too fast", calls.len());
    for channel in &channels {
        let at: Vec<_> = calls
            .iter()
            .filter(|call| call.applied && call.result["channel"] == channel.as_str())
            .map(|call| call.at)
            .collect();
        let mut first = 0;
        for (last, now) in at.iter().enumerate() {
            while now.duration_since(at[first])? >= Duration::from_secs(60) {
                first += 1;
            }
            // the double's own limit, plus its burst
            assert!(last - first < 63, "{} messages within a minute in {channel}", last - first + 1);
        }
        let took = at[at.len() - 1].duration_since(at[0])?.as_secs();
        eprintln!("{} messages to {channel} in {took} s of Slack's time, {refused} refused", at.len());
    }
    Ok(())
}
