//! The post-mortem draft that the receiver has written.

use crate::scene::Scene;
use crate::versions::DemoVersion;
use anyhow::{Context, Result};
use prompt_rollback_testkit::slack::{Message, Slack};

/// How many lines are shown, and their length.
const LINES: usize = 40;
const WIDTH: usize = 112;

/// Prints the beginning, and where the rest and the picture are: in this thread.
pub async fn show(scene: &Scene<'_>, version: &DemoVersion, thread: &Message) -> Result<()> {
    let shared = |slack: &Slack| slack.replies(thread).into_iter().find(|reply| !reply.files.is_empty());
    let shared = scene.wait_in_slack("the draft in the thread", shared).await?;

    let incident = scene.incident(version).await?;
    let id = incident["id"].as_str().context("an incident without an id")?;
    let text = scene.stack.api(&format!("/api/incidents/{id}/postmortem"), None).await?.text();
    // the picture is the last line, which is very long
    let lines = text.lines().filter(|line| !line.starts_with("[picture]: ")).flat_map(wrapped);
    let lines: Vec<String> = lines.collect();
    lines.iter().take(LINES).for_each(|line| scene.report.quote(line));
    scene.report.quote(&format!("… and {} more lines", lines.len().saturating_sub(LINES)));

    let files = scene.stack.slack.files().into_iter().filter(|file| shared.files.contains(&file.id));
    let titles: Vec<String> = files.map(|file| format!("\"{}\"", file.title)).collect();
    scene.report.invite(&format!("The complete draft is at the end of the thread, as {}:", titles.join(" and ")));
    scene.report.invite(&scene.link(thread));
    Ok(())
}

/// Wraps a line between words, if it is too long.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length > 0 && length + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            let gap = if length > 0 { " " } else { "" };
            lines[last] = format!("{}{gap}{word}", lines[last]);
        }
    }
    lines
}
