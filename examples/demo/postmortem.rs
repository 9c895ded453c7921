//! The draft of a post-mortem, which the receiver has written meanwhile.

use crate::scene::Scene;
use crate::versions::Version;
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::slack::{Message, Slack};

/// So much of it is shown.
const LINES: usize = 40;
/// Of a line, in characters.
const WIDTH: usize = 116;

/// Prints how it begins, and says where the rest and the picture are: in this thread.
pub async fn show(scene: &Scene<'_>, version: &Version, thread: &Message) -> Result<()> {
    let shared = |slack: &Slack| slack.replies(thread).into_iter().find(|reply| !reply.files.is_empty());
    let shared = scene.wait_in_slack("the draft in the thread", shared).await?;

    let incident = scene.incident(version).await?;
    let id = incident["id"].as_str().context("an incident without an id")?;
    let path = format!("/api/incidents/{id}/postmortem");
    let answer = scene.stack.receiver.http().get(&path).await?;
    ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
    let text = answer.text();
    // The picture comes last, as one long line.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("[picture]: ")).collect();
    for line in lines.iter().take(LINES) {
        scene.report.quote(&shortened(line));
    }
    scene.report.quote(&format!("… {} more lines", lines.len().saturating_sub(LINES)));

    let files = scene.stack.slack.files().into_iter().filter(|file| shared.files.contains(&file.id));
    let titles: Vec<String> = files.map(|file| format!("\"{}\"", file.title)).collect();
    scene.report.invite(&format!("All of it is at the end of its thread, as {}:", titles.join(" and ")));
    scene.report.invite(&scene.link(thread));
    Ok(())
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
