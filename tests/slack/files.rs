//! The picture and the post-mortem draft, in the thread.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::decision::verification::{Instances, Traffic};
use prompt_rollback::decision::{Checked, Event, Finding, Incident, IncidentId, Verdict};
use prompt_rollback::notify::slack::MESSAGE_INTERVAL;
use prompt_rollback::postmortem::{IncidentMetric, Missing, SampleSeries, Samples, Unit};
use prompt_rollback::store::{Clock, Store};
use prompt_rollback_testkit::slack::Slack;

use super::kit::{SLACK_SOON, Workspace, slack};
use super::office::Office;
use crate::common::{config, critical};

#[tokio::test]
async fn the_thread_ends_with_a_picture_and_a_draft() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(critical("p")).await?;
    let id = workspace.incident().await?["id"].as_str().context("id")?.to_owned();
    let store = Store::new(&config(&workspace.redis.url(), &[]).redis, Clock::default())?;
    let points = (0..20).map(|i| (1_795_221_492_000 + i * 5_000, 0.07));
    let samples = Samples {
        label: "error ratio".to_owned(),
        unit: Unit::Ratio,
        threshold: Some(0.05),
        bad: SampleSeries::new("v2", points),
        ..Samples::default()
    };
    store.put_samples(&IncidentId(id.clone()), &IncidentMetric::Samples(Box::new(samples))).await?;
    ensure!(workspace.slack.files().is_empty(), "before the outcome is known");
    workspace.receiver.clock.advance(Duration::from_secs(301));
    let shared = workspace
        .slack
        .wait_for("the files", SLACK_SOON, |slack| {
            slack.replies(&root).into_iter().find(|reply| reply.files.len() == 2)
        })
        .await?;
    let files: Vec<_> = workspace.slack.files().into_iter().filter(|file| shared.files.contains(&file.id)).collect();
    let content = |end: &str| {
        let file = files.iter().find(|file| file.name.ends_with(end));
        file.and_then(|file| file.content.clone()).with_context(|| format!("a file {end}"))
    };
    ensure!(content(".png")?.starts_with(b"\x89PNG\r\n"), "no picture");
    let draft = String::from_utf8(content(".md")?.to_vec())?;
    ensure!(draft.starts_with("# Post-mortem: p v2\n") && draft.contains("How do we prevent"), "{draft}");
    // posted once, whatever else changes
    workspace.quiet().await?;
    ensure!(workspace.slack.calls_of("files.completeUploadExternal").len() == 1, "shared again");
    Ok(())
}

#[tokio::test]
async fn while_prometheus_is_away_the_thread_waits_for_what_it_measured() -> Result<()> {
    // nothing listens there
    let away = [("PROMETHEUS__URL", "http://127.0.0.1:1"), ("VERIFICATION__MAX", "5m")];
    let workspace = Workspace::with(slack()?, &away).await?;
    let root = workspace.thread(critical("p")).await?;
    workspace.receiver.clock.advance(Duration::from_secs(301));
    workspace.titled("Rolled back, not verified").await?;
    workspace.quiet().await?;
    ensure!(workspace.slack.files().is_empty(), "nothing to show yet");
    workspace.receiver.clock.advance(Duration::from_secs(601));
    let shared = |slack: &Slack| slack.replies(&root).into_iter().find(|reply| !reply.files.is_empty());
    workspace.slack.wait_for("the draft", SLACK_SOON, shared).await?;
    let files = workspace.slack.files();
    let draft = files.first().and_then(|file| file.content.clone()).context("content")?;
    ensure!(files.len() == 1 && String::from_utf8_lossy(&draft).contains("Not measured: Prometheus was unreachable."));
    Ok(())
}

#[tokio::test]
async fn without_the_scope_the_thread_is_complete_all_the_same() -> Result<()> {
    let workspace = Workspace::start().await?;
    workspace.slack.remove_scope("files:write");
    workspace.thread(critical("p")).await?;
    workspace.receiver.clock.advance(Duration::from_secs(301));
    workspace.titled("Rolled back, not verified").await?;
    workspace.quiet().await?;
    ensure!(workspace.slack.files().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_rollback_that_servers_follow_late_has_a_draft_about_its_recovery() -> Result<()> {
    let office =
        Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &[("PROMETHEUS__URL", "http://127.0.0.1:1")]).await?;
    office.fires("p", critical("p")).await?;
    let Incident { id, switch, .. } = office.incident("p").await?;
    let switched_at = switch.context("a rollback")?.at;
    let missing = Missing { missing: "it was not asked".to_owned(), switched_at: switched_at.0 };
    office.engine.store.put_samples(&id, &IncidentMetric::Missing(missing)).await?;
    let check = |number, still: &[&str]| {
        let still = Instances::of(still.iter().map(|name| (*name).to_owned()).collect());
        let traffic = Some(Traffic { following: 9, still, ..Traffic::default() });
        let finding = Finding::new(Verdict::Healthy, "error ratio 0.20 %");
        Event::Checked(Checked { incident: id.clone(), switched_at, number, finding, traffic, blame: None })
    };
    office.happens("p", &check(0, &["pod-7"])).await?;
    office.pass(Duration::from_secs(301)).await?;
    office.happens("p", &Event::Timer { incident: id.clone(), early: false }).await?;
    office.notify_all().await?;
    let drafts = || -> Vec<String> {
        let contents = office.slack.files().into_iter().filter_map(|file| file.content);
        contents.map(|content| String::from_utf8_lossy(&content).into_owned()).collect()
    };
    let open = drafts();
    ensure!(open.len() == 1 && open[0].contains("until they follow the rollback"), "{open:#?}");
    for number in 1..=2 {
        office.happens("p", &check(number, &[])).await?;
    }
    office.notify_all().await?;
    let all = drafts();
    ensure!(all.len() == 2 && all.iter().any(|draft| draft.contains("It recovered at")), "{all:#?}");
    Ok(())
}
