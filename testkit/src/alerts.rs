//! Alerts, and their delivery as Alertmanager sends it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::{Answer, Http};

/// The outcome of an alert that rolled its prompt back.
pub const ROLLED_BACK: &str = "rolled_back{alert}";
/// The outcome of an alert that is known already.
pub const DUPLICATE: &str = "duplicate{duplicate}";

/// A firing alert with only the labels that no trigger can do without.
pub fn alert(prompt: &str, version: &str, severity: &str) -> Value {
    json!({
        "status": "firing",
        "labels": {"alertname": "PromptErrorRate", "prompt": prompt, "version": version, "severity": severity},
        "annotations": {"summary": format!("{version} fails"), "runbook_url": "https://runbooks.example/errors"},
        "startsAt": "2026-11-21T00:38:16.689818Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example/graph",
        "fingerprint": format!("{prompt} {version} {severity}"),
    })
}

/// A critical alert on `v2`: it rolls back to `v1` what [`ship`](crate::prompts::ship) has set up.
pub fn critical(prompt: &str) -> Value {
    alert(prompt, "v2", "critical")
}

/// It ends now.
pub fn resolved(mut alert: Value) -> Value {
    alert["status"] = json!("resolved");
    alert["endsAt"] = json!(jiff::Timestamp::now().to_string());
    alert
}

/// It fires anew, from now on.
pub fn again(mut alert: Value) -> Value {
    alert["startsAt"] = json!(jiff::Timestamp::now().to_string());
    alert
}

/// The body that Alertmanager sends.
pub fn delivery(alerts: &[Value]) -> String {
    json!({
        "receiver": "prompt-rollback", "status": "firing", "alerts": alerts, "groupLabels": {}, "commonLabels": {},
        "commonAnnotations": {}, "externalURL": "http://alertmanager.example", "version": "4", "groupKey": "{}",
        "truncatedAlerts": 0,
    })
    .to_string()
}

/// One delivery.
pub async fn deliver(http: &Http, alerts: &[Value]) -> Result<Answer> {
    http.post("/webhooks/alertmanager", delivery(alerts)).await
}

/// Delivers as Alertmanager does, again after each 503, until all alerts are taken; but in halves, because a busy machine may never
/// take as many within `server.request_timeout`. Returns the outcomes and the number of 503s. After a 503, what was committed all
/// the same is a duplicate.
pub async fn deliver_until_taken(http: &Http, alerts: &[Value]) -> Result<(Vec<String>, usize)> {
    const PATIENCE: Duration = Duration::from_secs(600);
    let deadline = Instant::now() + PATIENCE;
    let (mut left, mut taken, mut refused) = (vec![alerts], Vec::new(), 0);
    while let Some(part) = left.pop() {
        let answer = deliver(http, part).await?;
        if answer.status != 503 {
            taken.extend(outcomes(&answer)?);
            continue;
        }
        ensure!(Instant::now() < deadline, "not taken within {PATIENCE:?}: {}", answer.text());
        refused += 1;
        let (first, second) = part.split_at(part.len().div_ceil(2));
        left.extend([second, first].into_iter().filter(|half| !half.is_empty()));
        tokio::time::sleep(Duration::from_millis(20)).await; // the pause of a client between two tries
    }
    Ok((taken, refused))
}

/// `outcome` or `outcome{reason}` of each alert.
pub fn outcomes(answer: &Answer) -> Result<Vec<String>> {
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let body = answer.json()?;
    let results = body["results"].as_array().context("results")?;
    let text = |result: &Value| match (result["outcome"].as_str(), result["reason"].as_str()) {
        (Some(outcome), Some(reason)) => format!("{outcome}{{{reason}}}"),
        _ => format!("{result}"),
    };
    Ok(results.iter().map(text).collect())
}
