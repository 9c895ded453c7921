//! A rollback for quality or latency is verified with its alert's own reference, in a fresh namespace: the target can
//! be compared only with its own past.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::server::Behaviour;
use super::stack::{BAD, GOOD, Plan, Stack};

struct Story {
    prompt: &'static str,
    /// The rule that fires on the bad version.
    alertname: &'static str,
    bad: Behaviour,
    /// How the target behaves after the rollback, if that changes.
    lost: Option<Behaviour>,
}

fn stories() -> [Story; 6] {
    let usual = Behaviour::default();
    let [drop, worse] = [0.6, 0.79].map(|score| Behaviour { score, ..usual });
    // slower than the bounds that their rows count by: 0.3 and 0.15
    let [double, slower] = [0.4, 0.2].map(|seconds| Behaviour { seconds, ..usual });
    [
        ("quality", "PromptQualityDropHigh", drop, None),
        ("quality-of-new", "PromptQualityDropNewVersion", worse, None),
        ("latency", "PromptLatencyP99Doubled", double, None),
        ("latency-of-new", "PromptLatencyP99NewVersion", slower, None),
        // so slightly worse that its scores from before the rollback would hide it for most of a minute
        ("quality-lost", "PromptQualityDropHigh", drop, Some(worse)),
        ("latency-lost", "PromptLatencyP99Doubled", double, Some(slower)),
    ]
    .map(|(prompt, alertname, bad, lost)| Story { prompt, alertname, bad, lost })
}

async fn the_incident(stack: &Stack, prompt: &str) -> Option<Value> {
    stack.incidents(prompt).await.ok()?.pop()
}

/// The incident once `alertname` asks a person about it.
async fn asked(stack: &Stack, prompt: &str, alertname: &str) -> Result<Value> {
    let what = format!("{alertname} on {prompt}");
    stack
        .until(&what, async || {
            let incident = the_incident(stack, prompt).await?;
            let fires = incident["alerts"].as_array()?.iter().any(|alert| alert["alertname"] == alertname);
            (fires && incident["phase"] == "awaiting_decision").then_some(incident)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_verified_by_what_its_alert_compared_with() -> Result<()> {
    let prompts = stories().map(|story| story.prompt);
    let stack = Stack::start(Plan { prompts: &prompts, baselines_soon: true, ..Plan::default() }).await?;
    for prompt in prompts {
        stack.serve_good(prompt).await?;
    }
    for reference in ["prompt_version:quality_score:reference", "prompt_version:request_duration_seconds:p99_reference"]
    {
        let known = format!(r#"{reference}{{version="{GOOD}"}}"#);
        stack.until(&known, async || (stack.count(&known).await? == prompts.len()).then_some(())).await?;
    }
    for Story { prompt, bad, .. } in stories() {
        stack.ship(prompt, bad).await?;
    }
    for Story { prompt, alertname, lost, .. } in stories() {
        let incident = asked(&stack, prompt, alertname).await?;
        if let Some(behaviour) = lost {
            stack.server.behave(prompt, GOOD, behaviour);
        }
        let path = format!("/api/incidents/{}/decide", incident["id"].as_str().context("id")?);
        stack.post(&path, json!({ "decision": "approve", "operator": "alice" })).await?;
    }
    for Story { prompt, alertname, lost, .. } in stories() {
        stack.until_active(prompt, GOOD).await?;
        let by = format!("healthy by the verify expression of {alertname}");
        if lost.is_some() {
            let found = stack.until("it is found to be as bad", async || {
                let incident = the_incident(&stack, prompt).await?;
                let over = incident["phase"] != "verifying" || incident["verification"]["checks"].as_u64()? >= 6;
                let bad = incident["verification"]["last"]["verdict"] == "unhealthy";
                (over && bad || incident["phase"] == "recovered").then_some(incident)
            });
            let incident = found.await?;
            let text = incident["verification"]["last"]["text"].as_str().unwrap_or_default();
            ensure!(incident["phase"] != "recovered" && text.contains(&format!("not {by}")), "{incident:#}");
            continue;
        }
        let recovered = stack.until("recovered", async || {
            let incident = the_incident(&stack, prompt).await?;
            (incident["phase"] == "recovered").then_some(incident)
        });
        let incident = recovered.await.with_context(|| prompt.to_owned())?;
        let said = incident["events"].as_array().and_then(|events| events.last()?["text"].as_str()).unwrap_or_default();
        ensure!(said.contains("v1.9.0 is healthy") && said.contains(&by), "{incident:#}");
        ensure!(incident["flip"]["from"] == BAD && incident["flip"]["mode"] == "approved", "{incident:#}");
    }
    // none of this depends on a predecessor, or on the prompt's last day
    for rule in ["prompt_version:rollback_target:info", "prompt:quality_score:mean23h_offset1h"] {
        ensure!(stack.count(rule).await == Some(0), "{rule} is there");
    }
    Ok(())
}
