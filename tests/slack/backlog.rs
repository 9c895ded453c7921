//! Much to tell at once. Slack's limits hold by the double's clock, which runs faster here, and so does our pace.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::alertmanager::payload;
use prompt_rollback::decision::event::Register;
use prompt_rollback::decision::{Activation, Event, PromptName, Share, VersionName};
use prompt_rollback::engine::Engine;
use prompt_rollback::live::Live;
use prompt_rollback::reconciler::slack::{self as announcing, Announcer, PACE};
use prompt_rollback::slack::client;
use prompt_rollback::store::{Clock, Store};
use prompt_rollback_testkit::slack::{Fault, Message, Slack};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::common::{Redis, alert, config, copy_prompt, critical, delivery, resolved};
use crate::kit::{INCIDENTS, ON_CALL, SLACK_SOON, env, slack};

/// The engine and the worker that tells, without the HTTP around them.
struct Office {
    slack: Slack,
    redis: Redis,
    engine: Arc<Engine>,
    worker: JoinHandle<()>,
}

impl Drop for Office {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Office {
    /// With a prompt `p` as everywhere, and time in Slack `times` as fast.
    async fn start(slack: Slack, times: u32, more: &[(&str, &str)]) -> Result<Self> {
        let redis = Redis::start()?;
        slack.clock().run_faster(times);
        let api = slack.api_url();
        let config = config(&redis.url(), &env(&slack, &api, more));
        let store = Store::new(&config.redis, Clock::default())?.announcing(true);
        let engine = Arc::new(Engine::new(store, config.policy()));
        let announcer = Announcer {
            engine: Arc::clone(&engine),
            slack: Arc::new(client::Slack::new(&config.slack)?.context("a token")?),
            deciders: config.deciders.clone(),
            incident_channel: config.slack.incident_channel.clone(),
            weekly: None,
            pace: PACE / times,
        };
        let announcer = Live::new(Arc::new(announcer)).part(|announcer| Some(Arc::clone(announcer)));
        let (_, tells) = mpsc::channel(1);
        let office = Self { slack, redis, engine, worker: tokio::spawn(announcing::run(announcer, tells)) };
        for version in ["v1", "v2"] {
            let version = VersionName::parse(version)?;
            let known_good = version.as_str() == "v1";
            let register =
                Register { version: version.clone(), content: None, contact: None, staged_at: None, known_good };
            office.happens("p", &Event::Register(register)).await?;
            let (share, operator) = (Share::All, "ci".to_owned());
            let activation = Activation { version, share, operator, force: false, reason: None };
            office.happens("p", &Event::Activate(activation)).await?;
        }
        Ok(office)
    }

    async fn happens(&self, prompt: &str, event: &Event) -> Result<()> {
        self.engine.handle(&PromptName::parse(prompt)?, event).await?;
        Ok(())
    }

    async fn fires(&self, prompt: &str, alert: Value) -> Result<()> {
        let config = config(&self.redis.url(), &[]);
        let delivered = payload::parse(delivery(&[alert]).as_bytes(), &config.labels, &self.engine.policy)?;
        let alerts = delivered.into_iter().filter_map(|delivered| match delivered {
            payload::Delivered::Alert(alert) => Some(*alert),
            _ => None,
        });
        self.happens(prompt, &Event::Alerts(alerts.collect())).await
    }

    /// Until nothing is left to tell. Looks rarely: to look costs much while there is much.
    async fn quiet(&self) -> Result<()> {
        loop {
            let mut left: Vec<String> = Vec::new();
            for set in ["{prompts}:due", "{prompts}:leased"] {
                left.extend(self.redis.cmd::<Vec<String>>(&["ZRANGE", set, "0", "-1"]).await?);
            }
            if left.iter().all(|member| !member.ends_with("|slack")) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn root_of(&self, prompt: &str) -> Option<Message> {
        let mut all = self.slack.roots(ON_CALL).into_iter();
        all.find(|root| root.visible_text().contains(&format!("`{prompt}`")))
    }
}

#[tokio::test]
async fn a_long_thread_gives_way_to_what_is_more_urgent_and_is_told_to_its_end() -> Result<()> {
    let office = Office::start(slack()?, 10, &[]).await?;
    copy_prompt(&office.redis, "p", &["urgent".to_owned()]).await?;
    office.slack.inject(Fault::status(503));
    let flapping = alert("p", "v2", "high");
    for _ in 0..12 {
        office.fires("p", flapping.clone()).await?;
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
    let mut builder = Slack::builder().paced(true).channel(INCIDENTS, "incidents");
    // held by the budget, yet no matter of many: each is told by itself
    let mut env = vec![("GUARDS__MAX_AUTO_ROLLBACKS".to_owned(), "0".to_owned())];
    for team in TEAMS {
        builder = builder.channel(&format!("C{team}"), &team.to_lowercase());
        env.push((format!("DECIDERS__{team}__CHANNEL"), format!("#{}", team.to_lowercase())));
    }
    let env: Vec<_> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let office = Office::start(builder.start()?, TIMES, &env).await?;
    let channel = |n: usize| format!("C{}", TEAMS[n % TEAMS.len()]);
    let prompts: Vec<String> = (0..MANY).map(|n| format!("prompt-{n:04}")).collect();
    copy_prompt(&office.redis, "p", &prompts).await?;
    for (n, prompt) in prompts.iter().enumerate() {
        let mut alert = critical(prompt);
        alert["labels"]["decider"] = TEAMS[n % TEAMS.len()].to_lowercase().into();
        office.fires(prompt, alert).await?;
    }
    tokio::time::timeout(6 * SLACK_SOON, office.quiet()).await.context("all is told")??;
    let channels: Vec<String> = (0..TEAMS.len()).map(channel).chain([INCIDENTS.to_owned()]).collect();

    // one root with one reply, and one overview, for each
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
            // the double's own limit, and what it lets through at once
            assert!(last - first < 63, "{} messages within a minute in {channel}", last - first + 1);
        }
        let took = at[at.len() - 1].duration_since(at[0])?.as_secs();
        eprintln!("{} messages to {channel} in {took} s of Slack's time, {refused} refused", at.len());
    }
    Ok(())
}
