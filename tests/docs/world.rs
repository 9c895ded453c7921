//! A receiver, traffic, and a Prometheus with the shipped rules. Only the test delivers alerts.

use crate::e2e::server::PromptServer;
use anyhow::{Result, ensure};
use prompt_rollback_testkit::http::{Answer, Http, encode};
use prompt_rollback_testkit::shipped::{self, Source, Targets};
use prompt_rollback_testkit::{Alertmanager, Prometheus, Receiver, Redis, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a test waits for an automatic event: only a failing test waits this long.
pub const SOON: Duration = Duration::from_secs(120);
pub const OLDER: &str = "v1.8.2";
pub const GOOD: &str = "v1.9.0";
pub const BAD: &str = "v2.0.0";

pub struct World {
    pub prometheus: Prometheus,
    pub receiver: Receiver,
    pub redis: Redis,
    _server: PromptServer,
    _alertmanager: Alertmanager,
}

impl World {
    /// Each prompt serves a bad version with an open question; the version before it is known-good.
    pub async fn start(prompts: &[&str]) -> Result<Self> {
        let redis = Redis::start()?;
        let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
            .config(shipped::text("config/prompt-rollback.toml")?)
            .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
            .start()?;
        // only for its metrics
        let alertmanager = Alertmanager::builder("{route: {receiver: none}, receivers: [{name: none}]}").start()?;
        let server = PromptServer::start(&redis.prompt_server_url(), prompts, Source::Native).await?;
        let targets = Targets {
            receivers: vec![receiver.addr()],
            alertmanagers: vec![alertmanager.addr()],
            prompt_servers: vec![server.addr.clone()],
            prompts: prompts.iter().map(|prompt| (*prompt).to_owned()).collect(),
        };
        let prometheus = shipped::prometheus(&targets, Source::Native, Duration::from_secs(1))?.start()?;
        for prompt in prompts {
            server.misbehave(prompt, BAD, 0.03);
            for (version, known_good) in [(OLDER, true), (GOOD, true), (BAD, false)] {
                let path = format!("/api/prompts/{}", encode(prompt));
                post(
                    &receiver.http(),
                    &format!("{path}/versions"),
                    json!({ "version": version, "known_good": known_good }),
                )
                .await?;
                post(&receiver.http(), &format!("{path}/activate"), json!({ "version": version })).await?;
            }
        }
        let world = Self { prometheus, receiver, redis, _server: server, _alertmanager: alertmanager };
        let measured = format!("prompt_version:request_errors:ratio_rate5m{{version=\"{BAD}\"}}");
        eventually("all prompts are measured", SOON, async || {
            (world.prometheus.query(&measured).await.ok()?.len() == prompts.len()).then_some(())
        })
        .await?;
        for prompt in prompts {
            world.alert(prompt, "high").await?;
        }
        Ok(world)
    }

    /// Delivers an alert about the bad version, and returns its outcome.
    pub async fn alert(&self, prompt: &str, severity: &str) -> Result<Value> {
        let alert = json!({
            "status": "firing", "fingerprint": format!("{prompt} {severity}"), "startsAt": "2026-11-21T00:38:12.689Z",
            "labels": { "alertname": "PromptErrorRateHigh", "prompt": prompt, "version": BAD, "severity": severity },
            "annotations": { "summary": "it fails" },
        });
        let body = json!({ "version": "4", "status": "firing", "alerts": [alert] });
        let answer = post(&self.receiver.http(), "/webhooks/alertmanager", body).await?.json()?;
        Ok(answer["results"][0].clone())
    }

    /// Every possible metric: those that exist now, and those that rules record from a day of traffic.
    pub async fn metrics(&self) -> Result<BTreeSet<String>> {
        let answer = self.prometheus.http().get("/api/v1/label/__name__/values").await?.json()?;
        let mut names: BTreeSet<String> = serde_json::from_value(answer["data"].clone())?;
        for file in ["native", "baselines", "alerts", "self"] {
            let rules = shipped::text(&format!("alert-rules/{file}.yml"))?;
            names.extend(rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned));
        }
        // exist while an alert fires, and after a call of Slack or a webhook
        let called = ["prompt_rollback_slack_requests_total", "prompt_rollback_notifications_total"];
        names.extend(["ALERTS"].into_iter().chain(called).map(str::to_owned));
        Ok(names)
    }
}

async fn post(http: &Http, path: &str, body: Value) -> Result<Answer> {
    let answer = http.post_json(path, &body).await?;
    ensure!((200..300).contains(&answer.status), "POST {path}: {} {}", answer.status, answer.text());
    Ok(answer)
}

/// The metrics that a query names: all words with a prefix of prompt-rollback's, Prometheus' or Alertmanager's metrics.
pub fn metrics_of(query: &str) -> BTreeSet<&str> {
    let prefixes = ["prompt_", "prompt:", "prometheus_", "alertmanager_", "ALERTS", "up"];
    let code = query.split(['"', '\'']).step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':'))
        .filter(|word| match *word {
            "up" | "ALERTS" => true,
            word => prefixes[..4].iter().any(|prefix| word.starts_with(prefix)),
        })
        .collect()
}

#[test]
fn metrics_are_found_in_a_query() {
    let query =
        r#"sum by (prompt) (prompt_version:a:b{prompt="prompt_x", phase!='up'}) / prompt:c or up unless ALERTS"#;
    assert_eq!(metrics_of(query), BTreeSet::from(["prompt_version:a:b", "prompt:c", "up", "ALERTS"]));
}
