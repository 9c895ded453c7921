//! The message about a canary, which is edited.

use slack_morphism::prelude::SlackBlock;

use super::button::steering;
use super::text::{Markup, escape, fit, who};
use super::{Message, aside, header, others};
use crate::decision::{Canary, PromptName};
use crate::visible::shown;
use crate::wording::stages;

/// The message of a canary whose end was not shown before the next one began.
pub fn canary_over(prompt: &PromptName) -> Message {
    let name = shown(prompt);
    let line = format!("Another canary of {name} has started: its message follows");
    let mut blocks: Vec<SlackBlock> = vec![header(&format!("↩ Canary ended: {name}"))];
    blocks.extend(others(line.clone()));
    Message { text: escape(&format!("Canary ended: {name}. {line}")), blocks }
}

pub fn canary(prompt: &PromptName, canary: &Canary) -> Message {
    let (split, name) = (&canary.split, shown(prompt));
    let (sign, title) = match &canary.end {
        None => ("🐤", "Canary"),
        Some(end) if end.promoted => ("✅", "Canary finished"),
        Some(_) => ("↩", "Canary ended"),
    };
    let mut stages = stages(split, |percent| percent);
    if canary.end.is_some() {
        stages = stages.replace("▶ ", "");
    }
    let mut line = format!("On {} instead of {}: {stages}", split.arriving, split.leaving);
    if let Some(end) = &canary.end {
        line.push_str(&format!(". {}", end.text));
    } else if let Some(why) = &split.paused {
        line.push_str(&format!(". Waiting: {why}"));
    } else if let Some(check) = &split.last {
        line.push_str(&format!(". {}", check.finding.text));
    }
    let mut blocks: Vec<SlackBlock> = vec![header(&format!("{sign} {title}: {name} {}", split.arriving))];
    blocks.extend(others(fit(&line, 1_000)));
    let mut small =
        vec![Markup::words("By ").code(&who(split.operator.as_str(), 100)).and(", since ").date(canary.started)];
    match (&canary.end, split.next) {
        (Some(end), _) => small.push(Markup::words("Ended ").date(end.at)),
        (None, Some(next)) => small.push(Markup::words("Next stage ").date(next)),
        (None, None) if canary.pause.is_some() => small.push(Markup::words("Paused until someone resumes it")),
        (None, None) => small.push(Markup::words("Unchanged until someone changes it")),
    }
    if canary.end.is_none() && canary.by_time {
        small.push(Markup::words("Advances on a timer only, because ").code("canary.analysis").and(" is off"));
    }
    blocks.extend(aside(small));
    blocks.extend(steering(prompt, canary));
    let text = escape(&format!("{title}: {name} {}. {}", split.arriving, fit(&line, 1_000)));
    Message { text, blocks }
}
