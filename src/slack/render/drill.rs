//! The message about a drill. Notifies no one, and asks nothing.

use slack_morphism::prelude::SlackBlock;

use super::text::{Markup, escape, fit, who};
use super::{Message, aside, header, others, ours};
use crate::decision::{PromptName, Timestamp, VersionName};
use crate::visible::shown;

#[derive(Debug, Clone, Copy)]
pub struct DrillMessage<'a> {
    pub id: &'a str,
    pub prompt: &'a PromptName,
    pub version: &'a VersionName,
    pub operator: &'a str,
    pub started: Timestamp,
    /// Completes "a critical alert would …".
    pub dry_run: &'a str,
}

pub fn drill(drill: &DrillMessage<'_>) -> Message {
    let DrillMessage { id, prompt, version, operator, started, dry_run } = *drill;
    let prompt = shown(prompt);
    let title = format!("🧪 Drill: {prompt} {version}");
    let mut blocks: Vec<SlackBlock> = vec![header(&title)];
    blocks.push(ours(Markup::words("This is a drill. Nothing was changed, and no action is needed.")));
    let line = format!("A critical alert on {version} would {}.", fit(dry_run, 1_000));
    blocks.extend(others(line.clone()));
    let by = Markup::words("Started by ").code(&who(operator, 100)).and(", ").date(started);
    blocks.extend(aside(vec![by, Markup::words("Drill ").code(id)]));
    Message { text: escape(&format!("Drill, nothing was changed: {prompt} {version}. {line}")), blocks }
}
