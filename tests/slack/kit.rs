//! A workspace with people, and a receiver that notifies them.

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::slack::{Delivery, Interaction, Message, Slack};
use serde_json::{Value, json};

use crate::common::kept::{SLACK, until_none_waits};
use crate::common::{Receiver, Redis, World, eventually};

/// Channels accept a message a second, and tests share the machine.
pub const SLACK_SOON: Duration = Duration::from_secs(120);

/// Approvers of `on-call`: two by id, one as a member of the group.
pub const MAYA: &str = "U1";
pub const OMAR: &str = "U2";
pub const NINA: &str = "U3";
/// In the channel, but not an approver.
pub const PETE: &str = "U4";
pub const GROUP: &str = "S1";
pub const MENTION: &str = "<!subteam^S1>";

pub const ON_CALL: &str = "C1";
pub const INCIDENTS: &str = "C2";
/// Takes the place of another channel in the config.
pub const REPLACEMENT: &str = "C4";

pub struct Workspace {
    pub slack: Slack,
    pub world: World,
}

impl Deref for Workspace {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// The people and channels.
pub fn slack() -> Result<Slack> {
    Slack::builder()
        .user(MAYA, "maya", "Maya Lind")
        .user(OMAR, "omar", "Omar Haddad")
        .user(NINA, "nina", "Nina Roth")
        .user(PETE, "pete", "Pete Quill")
        .group(GROUP, "on-call", &[NINA])
        .channel(ON_CALL, "on-call")
        .channel(INCIDENTS, "incidents")
        .channel(REPLACEMENT, "replacement")
        .channel_with("C3", "old", |channel| channel.archived = true)
        .start()
}

/// The config for `slack`; later entries in `more` win.
pub fn env<'a>(slack: &'a Slack, api: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut env = vec![
        ("SLACK__BOT_TOKEN", slack.bot_token()),
        ("SLACK__SIGNING_SECRET", slack.signing_secret()),
        ("SLACK__API_URL", api),
        ("DECIDERS__ON_CALL__CHANNEL", "#on-call"),
        ("DECIDERS__ON_CALL__MENTION", MENTION),
        ("DECIDERS__ON_CALL__APPROVERS", "U1,U2,S1"),
    ];
    env.retain(|(key, _)| more.iter().all(|(other, _)| other != key));
    env.extend(more);
    env
}

impl Workspace {
    /// With a prompt `p` that has the rollback target `v1` and the active version `v2`.
    pub async fn start() -> Result<Self> {
        Self::with(slack()?, &[]).await
    }

    pub async fn with(slack: Slack, more: &[(&str, &str)]) -> Result<Self> {
        let redis = Redis::start()?;
        let api = slack.api_url();
        let receiver = Receiver::ready(&redis.receiver_url(), &env(&slack, &api, more)).await?;
        let workspace = Self { slack, world: World { redis, receiver } };
        workspace.take_clicks();
        workspace.ship("p").await?;
        Ok(workspace)
    }

    pub fn take_clicks(&self) {
        self.slack.set_request_url(format!("http://{}/slack/interactions", self.receiver.app.address));
    }

    /// One more replica, on the same Redis.
    pub async fn replica(&self, more: &[(&str, &str)]) -> Result<Receiver> {
        let api = self.slack.api_url();
        Receiver::ready(&self.redis.receiver_url(), &env(&self.slack, &api, more)).await
    }

    /// Ends the receiver like a crash, and starts another one after its leases have expired.
    pub async fn crash(&mut self) -> Result<()> {
        let next = self.replica(&[]).await?;
        std::mem::replace(&mut self.world.receiver, next).app.shutdown().await;
        self.world.receiver.clock.advance(Duration::from_secs(31));
        self.take_clicks();
        Ok(())
    }

    /// Delivers `alert` and waits for its thread.
    pub async fn thread(&self, alert: Value) -> Result<Message> {
        self.receiver.outcomes(&[alert]).await?;
        self.root("the thread's root", |_| true).await
    }

    /// Waits until the newest root in the decider's channel satisfies `is`.
    pub async fn root(&self, what: &str, is: impl Fn(&Message) -> bool) -> Result<Message> {
        self.root_in(ON_CALL, what, is).await
    }

    pub async fn root_in(&self, channel: &str, what: &str, is: impl Fn(&Message) -> bool) -> Result<Message> {
        let found = self.slack.wait_for(what, SLACK_SOON, |slack| slack.roots(channel).pop().filter(&is)).await;
        found.with_context(|| {
            format!("{:#?}", self.slack.roots(channel).iter().map(Message::visible_text).collect::<Vec<_>>())
        })
    }

    /// Waits until the newest root contains `title`.
    pub async fn titled(&self, title: &str) -> Result<Message> {
        self.root(&format!("a root that says {title}"), |root| root.visible_text().contains(title)).await
    }

    /// Waits for at least `count` replies, and returns their texts.
    pub async fn replies(&self, root: &Message, count: usize) -> Result<Vec<String>> {
        let texts = |slack: &Slack| slack.replies(root).iter().map(Message::visible_text).collect::<Vec<_>>();
        let found = self
            .slack
            .wait_for(&format!("{count} replies"), SLACK_SOON, |slack| Some(texts(slack)).filter(|r| r.len() >= count))
            .await;
        found.with_context(|| format!("{:#?}", texts(&self.slack)))
    }

    /// A click that must be acknowledged.
    pub async fn click(&self, user: &str, message: &Message, action: &str) -> Result<Delivery> {
        acknowledged(self.slack.click(user, message, action)).await
    }

    /// Waits until `user` gets an ephemeral message, and returns the last one.
    pub async fn told(&self, user: &str) -> Result<String> {
        let found =
            self.slack.wait_for("an ephemeral message", SLACK_SOON, |slack| slack.ephemeral(user).pop()).await?;
        Ok(found.text)
    }

    pub async fn serves(&self, version: &str) -> Result<()> {
        let active = self.active("p").await?;
        ensure!(active.as_deref() == Some(version), "{version} should be active, not {active:?}");
        Ok(())
    }

    /// The newest incident.
    pub async fn incident(&self) -> Result<Value> {
        Ok(self.get("/api/incidents").await?["incidents"][0].clone())
    }

    pub async fn phase(&self, phase: &str, within: Duration) -> Result<()> {
        eventually(&format!("the incident is {phase}"), within, async || {
            (self.incident().await.ok()?["phase"] == phase).then_some(())
        })
        .await
    }

    /// A decision through the API, for when Slack is unreachable.
    pub async fn decide(&self, decision: &str, operator: &str) -> Result<()> {
        let id = self.incident().await?["id"].as_str().unwrap_or_default().to_owned();
        let body = json!({"decision": decision, "operator": operator});
        let (status, answer) = self.post(&format!("/api/incidents/{id}/decide"), body).await?;
        ensure!(status == 200, "{decision}: {status} {answer}");
        Ok(())
    }

    /// Waits until no Slack task is due or in progress.
    pub async fn quiet(&self) -> Result<()> {
        until_none_waits(&self.redis, SLACK, SLACK_SOON).await
    }
}

pub async fn acknowledged(interaction: Interaction) -> Result<Delivery> {
    let delivery = interaction.send().await?;
    ensure!(delivery.acknowledged, "not acknowledged: {delivery:?}");
    Ok(delivery)
}

/// The buttons and menus, by action id.
pub fn buttons(message: &Message) -> Vec<String> {
    message.action_ids()
}
