//! The engine and the Slack worker, without HTTP around them: time is passed in, and the worker runs when a test says
//! so.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::alertmanager::payload;
use prompt_rollback::config::Config;
use prompt_rollback::decision::event::Register;
use prompt_rollback::decision::{Activation, Event, Incident, Operator, PromptName, TrafficShare, VersionName};
use prompt_rollback::engine::Engine;
use prompt_rollback::live::Live;
use prompt_rollback::notify::slack::{SlackNotifier, subscription};
use prompt_rollback::notify::{self, Notifier, Notifiers};
use prompt_rollback::slack::client;
use prompt_rollback::store::schedule::Target;
use prompt_rollback::store::{Clock, Store};
use prompt_rollback_testkit::slack::{Message, Slack};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::kit::{ON_CALL, SLACK_SOON, env};
use crate::common::kept::{SLACK, keys, until_none_waits};
use crate::common::{Redis, config, delivery};

pub struct Office {
    pub slack: Slack,
    pub redis: Redis,
    pub clock: Clock,
    pub engine: Arc<Engine>,
    notifier: Arc<SlackNotifier>,
    worker: Option<JoinHandle<()>>,
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abort();
        }
    }
}

fn notifier(engine: &Arc<Engine>, config: &Config, pace: Duration) -> Result<Arc<SlackNotifier>> {
    Ok(Arc::new(SlackNotifier {
        schedules: Vec::new(),
        engine: Arc::clone(engine),
        slack: Arc::new(client::Slack::new(&config.slack)?.context("a token")?),
        deciders: config.deciders.clone(),
        incident_channel: config.slack.incident_channel.clone(),
        weekly: None,
        message_interval: pace,
    }))
}

impl Office {
    /// With a prompt `p` as in the other tests.
    pub async fn start(slack: Slack, pace: Duration, more: &[(&str, &str)]) -> Result<Self> {
        let redis = Redis::start()?;
        let api = slack.api_url();
        let config = config(&redis.url(), &env(&slack, &api, more));
        let clock = Clock::default();
        let store = Store::new(&config.redis, clock.clone())?;
        let store = store.notifying(subscription(&config).into_iter().collect::<Vec<_>>());
        let engine = Arc::new(Engine::new(store, config.policy()));
        let notifier = notifier(&engine, &config, pace)?;
        let office = Self { slack, redis, clock, engine, notifier, worker: None };
        for version in ["v1", "v2"] {
            let version = VersionName::parse(version)?;
            let known_good = version.as_str() == "v1";
            let register =
                Register { version: version.clone(), content: None, contact: None, staged_at: None, known_good };
            office.happens("p", &Event::Register(register)).await?;
            let (share, operator) = (TrafficShare::All, Operator::recorded("ci"));
            let activation = Activation { version, share, operator, force: false, reason: None };
            office.happens("p", &Event::Activate(activation)).await?;
        }
        Ok(office)
    }

    /// Continues with another config, as after a restart: nothing is known about channels.
    pub fn reconfigure(&mut self, more: &[(&str, &str)]) -> Result<()> {
        let api = self.slack.api_url();
        let config = config(&self.redis.url(), &env(&self.slack, &api, more));
        self.notifier = notifier(&self.engine, &config, self.notifier.message_interval)?;
        Ok(())
    }

    /// Runs the worker in the background from now on.
    pub fn working(mut self) -> Self {
        let notifiers: Notifiers = Arc::new([Arc::clone(&self.notifier) as Arc<dyn Notifier>]);
        let notifiers = Live::new(notifiers).part(Arc::clone);
        self.worker = Some(tokio::spawn(notify::run(notifiers)));
        self
    }

    /// Runs due tasks once.
    pub async fn notify(&self) -> Result<()> {
        notify::tick(&*self.notifier, "office").await?;
        Ok(())
    }

    /// Lets time pass for the receiver and for Slack. Redis expires keys by its own time, so the test deletes them.
    pub async fn pass(&self, time: Duration) -> Result<()> {
        self.clock.advance(time);
        self.slack.clock().advance(time);
        let limits: Vec<String> = self.redis.cmd(&["KEYS", &keys().rate_limit("*")]).await?;
        for limit in limits {
            self.redis.cmd::<()>(&["DEL", &limit]).await?;
        }
        Ok(())
    }

    /// Runs tasks, with time in between, until nothing is pending.
    pub async fn notify_all(&self) -> Result<()> {
        for _ in 0..60 {
            self.notify().await?;
            if self.engine.store.notification_lag(Target::FIRST).await?.is_zero() && self.unsent().await?.is_empty() {
                return Ok(());
            }
            self.pass(Duration::from_secs(31)).await?;
        }
        anyhow::bail!("never told: {:?}", self.unsent().await?)
    }

    /// The pending Slack updates.
    pub async fn unsent(&self) -> Result<Vec<String>> {
        self.redis.cmd(&["ZRANGE", &keys().unsent(Target::FIRST), "0", "-1"]).await
    }

    pub async fn happens(&self, prompt: &str, event: &Event) -> Result<()> {
        self.engine.handle(&PromptName::parse(prompt)?, event).await?;
        Ok(())
    }

    pub async fn fires(&self, prompt: &str, alert: Value) -> Result<()> {
        let config = config(&self.redis.url(), &[]);
        let delivered = payload::parse(delivery(&[alert]).as_bytes(), &config.labels, &self.engine.policy)?;
        let alerts = delivered.alerts.into_iter().filter_map(|delivered| match delivered {
            payload::Delivered::Alert(alert) => Some(*alert),
            _ => None,
        });
        self.happens(prompt, &Event::Alerts(alerts.collect())).await
    }

    /// All incidents of `prompt`, the newest first.
    pub async fn incidents(&self, prompt: &str) -> Result<Vec<Incident>> {
        let all = self.engine.store.incidents(None, 1_000, false).await?.items;
        Ok(all.into_iter().filter(|incident| incident.prompt.as_str() == prompt).collect())
    }

    /// The newest one.
    pub async fn incident(&self, prompt: &str) -> Result<Incident> {
        self.incidents(prompt).await?.into_iter().next().with_context(|| format!("an incident of {prompt}"))
    }

    /// Until nothing is left to tell.
    pub async fn quiet(&self) -> Result<()> {
        until_none_waits(&self.redis, SLACK, 6 * SLACK_SOON).await
    }

    pub fn root_of(&self, prompt: &str) -> Option<Message> {
        let mut all = self.slack.roots(ON_CALL).into_iter();
        all.find(|root| root.visible_text().contains(&format!("Prompt*\n`{prompt}`")))
    }
}
