//! Pages, in a real Alertmanager: raised when a deadline is missed or the question cannot be shown, and ended when it
//! is decided.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::{Alertmanager, eventually};
use serde_json::Value;

use super::kit::{INCIDENTS, MAYA, Workspace, slack};
use crate::common::{SOON, alert, critical};

const QUIET_CONFIG: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// The alerts that page and fire.
async fn pages(alertmanager: &Alertmanager) -> Option<Vec<Value>> {
    let path = "/api/v2/alerts?filter=alertname%3DPromptRollbackEscalation";
    let answer = alertmanager.http().get(path).await.ok()?;
    answer.json().ok()?.as_array().cloned()
}

async fn page(alertmanager: &Alertmanager) -> Option<Value> {
    pages(alertmanager).await?.pop()
}

async fn raised(alertmanager: &Alertmanager) -> Result<Value> {
    eventually("a page", SOON, async || page(alertmanager).await).await
}

async fn ended(alertmanager: &Alertmanager) -> Result<()> {
    let none = async || page(alertmanager).await.is_none().then_some(());
    // Alertmanager's clock does not move with the test's: a page that has ended by the test's clock stays until
    // Alertmanager's clock gets there
    eventually("the page ends", 2 * SOON, none).await
}

async fn start(more: &[(&str, &str)]) -> Result<(Workspace, Alertmanager)> {
    let alertmanager = Alertmanager::builder(QUIET_CONFIG).start()?;
    let url = alertmanager.url();
    let mut env = vec![("ALERTMANAGER__URLS", url.as_str())];
    env.extend(more);
    Ok((Workspace::with(slack()?, &env).await?, alertmanager))
}

#[tokio::test]
async fn a_missed_deadline_pages_until_someone_decides() -> Result<()> {
    let (workspace, alertmanager) = start(&[]).await?;
    let mut soon = alert("p", "v2", "high");
    soon["labels"]["time_limit"] = "1m".into();
    let root = workspace.thread(soon).await?;
    workspace.receiver.clock.advance(Duration::from_secs(60));
    let fired = raised(&alertmanager).await?;
    let labels = fired["labels"].as_object().context("labels")?;
    let id = workspace.incident().await?["id"].clone();
    for (name, value) in [("prompt", "p"), ("bad_version", "v2"), ("severity", "high"), ("decider", "on-call")] {
        assert_eq!(labels[name], value, "{labels:?}");
    }
    assert_eq!((&labels["incident"], labels.get("version")), (&id, None), "no rule about a version inhibits it");
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await?;
    ended(&alertmanager).await
}

#[tokio::test]
async fn a_gradual_rollback_that_has_paused_pages_with_its_reason() -> Result<()> {
    let (workspace, alertmanager) = start(&[]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    workspace.decide("approve_gradual", "maya").await?;
    workspace.receiver.outcomes(&[alert("p", "v1", "critical")]).await?;
    let page = raised(&alertmanager).await?;
    let [summary, description] =
        ["summary", "description"].map(|name| page["annotations"][name].as_str().unwrap_or_default());
    assert_eq!(summary, "The gradual rollback of p v2 has paused");
    ensure!(description.contains("\nPaused: PromptErrorRate fires on v1"), "{description}");
    Ok(())
}

/// Alertmanager forgets an alert by itself only after five minutes.
#[tokio::test]
async fn a_page_ends_although_its_incident_has_another_severity_by_then() -> Result<()> {
    let (workspace, alertmanager) = start(&[]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    workspace.receiver.clock.advance(Duration::from_secs(300));
    ensure!(raised(&alertmanager).await?["labels"]["severity"] == "high");
    workspace.receiver.outcomes(&[critical("p")]).await?;
    workspace.serves("v1").await?;
    let none = async || page(&alertmanager).await.is_none().then_some(());
    eventually("the page ends", Duration::from_secs(60), none).await
}

#[tokio::test]
async fn a_page_about_a_higher_severity_replaces_the_one_before() -> Result<()> {
    let (workspace, alertmanager) = start(&[("GUARDS__MODE", "dry-run")]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    workspace.receiver.clock.advance(Duration::from_secs(300));
    ensure!(raised(&alertmanager).await?["labels"]["severity"] == "high");
    workspace.receiver.outcomes(&[critical("p")]).await?;
    workspace.receiver.clock.advance(Duration::from_secs(300));
    eventually("only the later page fires", Duration::from_secs(60), async || {
        let severities: Vec<Value> =
            pages(&alertmanager).await?.iter().map(|page| page["labels"]["severity"].clone()).collect();
        (severities == ["critical"]).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_page_is_posted_again_before_it_would_end() -> Result<()> {
    let (workspace, alertmanager) = start(&[]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    workspace.receiver.clock.advance(Duration::from_secs(300));
    let ends = |page: &Value| page["endsAt"].as_str().unwrap_or_default().to_owned();
    let mut before = ends(&raised(&alertmanager).await?);
    for _ in 0..3 {
        workspace.receiver.clock.advance(Duration::from_secs(61));
        before = eventually("it lasts longer", SOON, async || {
            let now = ends(&page(&alertmanager).await?);
            (now > before).then_some(now)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unusable_decider_channel_pages_and_the_fallback_says_why() -> Result<()> {
    let (workspace, alertmanager) = start(&[("DECIDERS__ON_CALL__CHANNEL", "#old")]).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    raised(&alertmanager).await?;
    let root = workspace.root_in(INCIDENTS, "a root in the fallback", |root| !root.action_ids().is_empty()).await?;
    let replies = workspace.replies(&root, 1).await?;
    assert!(replies[0].contains("Slack cannot show this in #old (the channel accepts no messages: is_archived)"));
    workspace.quiet().await?;
    assert_eq!(workspace.slack.replies(&root).len(), 1, "said once");
    workspace.click(MAYA, &root, "dismiss").await?;
    ended(&alertmanager).await
}

#[tokio::test]
async fn with_no_usable_channel_people_are_paged_and_retries_end() -> Result<()> {
    let more = [("DECIDERS__ON_CALL__CHANNEL", "#old"), ("SLACK__INCIDENT_CHANNEL", "#nowhere")];
    let (workspace, alertmanager) = start(&more).await?;
    workspace.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    let page = raised(&alertmanager).await?;
    let summary = page["annotations"]["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("p v2 waits for on-call"), "{summary}");
    workspace.settled(&[Work::Incident, Work::Page]).await?;
    workspace.quiet().await?;
    let tries = workspace.slack.calls_of("chat.postMessage").len();
    assert!(tries <= 3, "{tries} tries");
    workspace.decide("approve", "maya").await?;
    workspace.serves("v1").await?;
    ended(&alertmanager).await
}

#[tokio::test]
async fn a_page_starts_and_ends_at_once_with_redis_clock_an_hour_off() -> Result<()> {
    let hour = Duration::from_secs(3_600);
    for ahead in [false, true] {
        let (workspace, alertmanager) = start(&[]).await?;
        match ahead {
            true => workspace.receiver.clock.advance(hour),
            false => workspace.receiver.clock.go_back(hour),
        }
        let root = workspace.thread(alert("p", "v2", "high")).await?;
        workspace.receiver.clock.advance(Duration::from_secs(300));
        raised(&alertmanager).await.with_context(|| format!("ahead: {ahead}"))?;
        workspace.click(MAYA, &root, "approve").await?;
        workspace.serves("v1").await?;
        ended(&alertmanager).await.with_context(|| format!("ahead: {ahead}"))?;
    }
    Ok(())
}
