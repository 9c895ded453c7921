//! The state of a scene, and its waits.

use crate::DemoArgs;
use crate::report::DemoOutput;
use crate::stack::{LoggedProcess, PROMPT, Stack};
use crate::traffic::LoadGenerator;
use crate::versions::{DemoVersion, GOOD};
use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use jiff::Timestamp;
use prompt_rollback_testkit::slack::{Message, Slack};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Most waits take a moment; this is the limit on a busy machine.
pub const BUSY: Duration = Duration::from_secs(120);

/// Everything that runs, and the report.
pub struct Scene<'a> {
    pub args: &'a DemoArgs,
    pub report: &'a DemoOutput,
    pub stack: Stack,
    pub traffic: LoadGenerator,
}

impl<'a> Scene<'a> {
    /// Starts everything around this workspace, and lets the good version serve for a while.
    pub async fn set(args: &'a DemoArgs, slack: Slack, report: &'a DemoOutput) -> Result<Self> {
        report.step("starting Redis, the receiver, two prompt servers, Alertmanager and Prometheus");
        let stack = {
            let _waiting = report.screen.waiting("all parts to start");
            Stack::start(args, slack).await?
        };
        let traffic = LoadGenerator::start(&stack.servers, args.rps);
        let scene = Self { args, report, stack, traffic };
        scene.warm_up().await.map_err(|error| scene.blame(error))?;
        Ok(scene)
    }

    async fn warm_up(&self) -> Result<()> {
        let interval = self.args.profile.interval();
        let report = self.report;
        report.step(&format!(
            "config/ and alert-rules/ are used as shipped, except for two durations that are cut to {interval:?}:"
        ));
        report.step("how often baselines are recorded (5 min), and how long a quality drop must last (30 s)");
        // Prometheus takes up to 5 s before it first scrapes its targets
        self.wait("Prometheus to scrape all parts", BUSY, &[LoggedProcess::Prometheus], async || {
            self.stack.is_scraped().await
        })
        .await?;
        GOOD.register(&self.stack, true).await?;
        GOOD.activate(&self.stack).await?;
        self.wait("both servers to serve the good version", BUSY, &[LoggedProcess::Servers], async || {
            self.traffic.of(GOOD.name).iter().all(|(_, served)| served.answers > 0).then_some(())
        })
        .await?;
        let each = self.args.rps;
        report.step(&format!("{} is active and known-good; each server gets {each} requests a second", GOOD.name));

        // at least two scrapes; the random rest starts runs at different moments of the scrape interval
        let phase = interval.mul_f64(f64::from(Timestamp::now().subsec_nanosecond()) / 1e9);
        let waiting = self.report.screen.waiting("Prometheus to scrape the good version twice");
        sleep(interval * 2 + phase).await;
        drop(waiting);
        let failed: u64 = self.traffic.of(GOOD.name).iter().map(|(_, served)| served.failed).sum();
        ensure!(failed == 0, "{failed} requests failed while only {} was served", GOOD.name);
        Ok(())
    }

    /// Waits until `probe` returns something, and shows the wait. On failure, the error ends with these logs.
    pub async fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        logs: &[LoggedProcess],
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let _waiting = self.report.screen.waiting(what);
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = probe().await {
                return Ok(found);
            }
            if self.stack.ended().is_some() {
                bail!("the demo was waiting for {what}");
            }
            if Instant::now() > deadline {
                bail!("gave up waiting for {what} after {within:?}{}", self.stack.logs(logs));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for something in Slack; on failure, the error ends with the receiver's log.
    pub async fn wait_in_slack<T>(&self, what: &str, probe: impl Fn(&Slack) -> Option<T>) -> Result<T> {
        self.wait(what, BUSY, &[LoggedProcess::Receiver], async || probe(&self.stack.slack)).await
    }

    /// The error, after the part that has ended, if one has.
    pub fn blame(&self, error: Error) -> Error {
        match self.stack.ended() {
            Some(part) => anyhow!("{part} has ended: {error:#}{}", self.stack.logs(&[part])),
            None => error,
        }
    }

    /// Waits until no server serves `version` any more, and returns each server's last response by it.
    pub async fn no_longer_served(&self, version: &DemoVersion) -> Result<Vec<(&'static str, Timestamp)>> {
        let quiet = Duration::from_millis(1500);
        let last_served = || -> Vec<(&'static str, Timestamp)> {
            let all = self.traffic.of(version.name).into_iter();
            all.filter_map(|(name, served)| Some((name, served.last?))).collect()
        };
        let what = format!("every server to be back on {}", GOOD.name);
        self.wait(&what, BUSY, &[LoggedProcess::Servers, LoggedProcess::Receiver], async || {
            let good = self.traffic.of(GOOD.name);
            let latest = good.into_iter().map(|(_, served)| served.last).min().flatten()?;
            let servers = last_served();
            let quiet_since = |last: Timestamp| latest.duration_since(last).unsigned_abs() >= quiet && latest > last;
            servers.iter().all(|(_, last)| quiet_since(*last)).then_some(servers)
        })
        .await
    }

    /// Waits until a rule fires for `version`. Returns when it began, by Prometheus' clock.
    pub async fn fires(&self, rule: &str, version: &DemoVersion) -> Result<Timestamp> {
        let within = self.args.profile.interval() * 8 + BUSY;
        self.wait(&format!("{rule} to fire"), within, &[LoggedProcess::Prometheus], async || {
            let alerts = self.stack.prometheus.alerts().await.ok()?;
            let ours = alerts.iter().find(|alert| {
                let labels = &alert["labels"];
                alert["state"] == "firing" && labels["alertname"] == rule && labels["version"] == version.name
            })?;
            ours["activeAt"].as_str()?.parse().ok()
        })
        .await
    }

    /// When the rollback from `version` was committed: the id of the log entry is the time at which Redis ran the
    /// script.
    pub async fn committed_at(&self, version: &DemoVersion) -> Option<Timestamp> {
        let key = format!("{{prompts}}:log:{PROMPT}");
        let entries: Vec<(String, Vec<String>)> =
            self.stack.redis.cmd(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]).await.ok()?;
        let (id, fields) = entries.first()?;
        let field = |name: &str| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
        if (field("event"), field("from"), field("to")) != (Some("rollback"), Some(version.name), Some(GOOD.name)) {
            return None;
        }
        Timestamp::from_millisecond(id.split_once('-')?.0.parse().ok()?).ok()
    }

    /// The incident about `version`, as the API shows it.
    pub async fn incident(&self, version: &DemoVersion) -> Result<Value> {
        let incidents = self.stack.api("/api/incidents", None).await?.json()?;
        let mut incidents = incidents["incidents"].as_array().into_iter().flatten();
        let ours = incidents.find(|one| one["version"] == version.name);
        ours.cloned().with_context(|| format!("the receiver has no incident about {}", version.name))
    }

    /// The address of this thread on the page.
    pub fn link(&self, root: &Message) -> String {
        format!("{}/#{}/{}", self.stack.slack.url(), root.channel, root.ts)
    }
}
