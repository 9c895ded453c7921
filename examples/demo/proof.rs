//! The verification of a rollback, in figures.

use crate::scene::{BUSY, Scene};
use crate::stack::{LoggedProcess, PROMPT};
use crate::versions::{DemoVersion, GOOD};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// `verification.deadline` as shipped: the receiver has a result by then.
const DEADLINE: Duration = Duration::from_secs(300);

/// Waits until the receiver has confirmed that the rollback from `version` helped, and shows the measurements. `more`
/// comes last.
pub async fn show(scene: &Scene<'_>, version: &DemoVersion, more: &[(String, String)]) -> Result<()> {
    let incident = recovered(scene, version).await?;
    let verification = &incident["verification"];
    let at = |value: &Value| -> Result<Timestamp> { Ok(value.as_str().context("a time")?.parse()?) };
    let took = at(&incident["closed_at"])?.duration_since(at(&incident["flip"]["at"])?).as_secs_f64();
    let mut rows = vec![
        ("checks with Prometheus".to_owned(), verification["checks"].to_string()),
        ("result of the last check".to_owned(), found(verification).to_owned()),
        (
            format!("requests to {} since the rollback", GOOD.name),
            verification["traffic"]["target_requests"].to_string(),
        ),
        ("servers that follow".to_owned(), format!("{} of {}", following(scene, version), scene.stack.servers.len())),
    ];
    rows.extend_from_slice(more);
    scene.report.proof(&format!("Recovered: confirmed {took:.1} s after the rollback"), &rows);
    Ok(())
}

async fn recovered(scene: &Scene<'_>, version: &DemoVersion) -> Result<Value> {
    let waiting = scene.report.screen.waiting("the receiver to confirm the recovery with Prometheus");
    let logs = [LoggedProcess::Prometheus, LoggedProcess::Receiver];
    let started = Instant::now();
    loop {
        let incident = scene.incident(version).await?;
        let verification = &incident["verification"];
        match incident["phase"].as_str().unwrap_or_default() {
            "recovered" => return Ok(incident),
            "verifying" if started.elapsed() < DEADLINE + BUSY => {}
            phase => {
                let (name, found, logs) = (version.name, found(verification), scene.stack.logs(&logs));
                bail!("the rollback from {name} is {phase} instead of recovered; the last check: {found}{logs}");
            }
        }
        if let Some(part) = scene.stack.ended() {
            bail!("without {part}, the recovery cannot be confirmed");
        }
        if let Some(checks) = verification["checks"].as_u64().filter(|checks| *checks > 0) {
            waiting.say(format!("waiting for confirmation of the recovery; check {checks}: {}", found(verification)));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn found(verification: &Value) -> &str {
    verification["last"]["text"].as_str().unwrap_or("nothing yet")
}

/// How many servers' last answer came from the good version.
fn following(scene: &Scene<'_>, version: &DemoVersion) -> usize {
    let last = |version: &DemoVersion| scene.traffic.of(version.name).into_iter().map(|(_, served)| served.last);
    last(&GOOD).zip(last(version)).filter(|(good, bad)| good > bad).count()
}

/// The mean score of both versions' answers, for the table.
pub async fn scores(scene: &Scene<'_>, version: &DemoVersion) -> Result<Vec<(String, String)>> {
    let mut rows = Vec::new();
    for one in [version, &GOOD] {
        let of =
            |part: &str| format!("sum(prompt_quality_score_{part}{{prompt=\"{PROMPT}\",version=\"{}\"}})", one.name);
        let answer = scene.stack.prometheus.query(&format!("{} / {}", of("sum"), of("count"))).await?;
        let (_, score) = answer.first().with_context(|| format!("Prometheus has no scores of {}", one.name))?;
        rows.push((format!("mean score of {}", one.name), format!("{score:.2}")));
    }
    Ok(rows)
}
