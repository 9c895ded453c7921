//! Runs the commands that show what happens, decide about incidents, and operate the receiver.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::args::{DecisionArg, OperationCommand, Output, ReceiverArgs};
use super::client::encode;
use super::receiver::{body, connect, show};
use super::terminal::{CommandError, color, print, print_json};
use super::{drill, output, table};
use crate::api;

/// Entries of one prompt's log that are shown by default.
const LOG_ENTRIES: u32 = 20;

pub async fn run(command: OperationCommand) -> Result<(), CommandError> {
    match command {
        OperationCommand::Status { prompt: Some(prompt), receiver, .. } => {
            let answer = connect(&receiver)?.get(&format!("/api/prompts/{}", encode(&prompt))).await?;
            show(&receiver, answer, &["prompt", "active"], |prompt| output::prompt(&prompt, color()))
        }
        OperationCommand::Status { prompt: None, without_target, limit, receiver } => {
            let query = if without_target { "&without_target=true" } else { "" };
            let answer = connect(&receiver)?.list("/api/prompts", query, "prompts", limit).await?;
            show(&receiver, answer, &["prompts"], |list| output::prompts(&list, color()))
        }
        OperationCommand::Explain { prompt, alert, receiver } => {
            let query = alert.map(|alert| format!("?alert={}", encode(&alert))).unwrap_or_default();
            let answer = connect(&receiver)?.get(&format!("/api/prompts/{}/explain{query}", encode(&prompt))).await?;
            show(&receiver, answer, &["alerts"], |explained| output::explained(&explained))
        }
        OperationCommand::Log { prompt: Some(prompt), limit, receiver, .. } => {
            let path = format!("/api/prompts/{}/log", encode(&prompt));
            let answer = connect(&receiver)?.list(&path, "", "entries", limit.unwrap_or(LOG_ENTRIES)).await?;
            show(&receiver, answer, &["entries"], |log| output::log(&log, color()))
        }
        OperationCommand::Log { prompt: None, since, limit, receiver, .. } => {
            let query = format!("&since={}", encode(&since));
            let mut answer = connect(&receiver)?.list("/api/log", &query, "entries", u32::MAX).await?;
            let truncated = latest(&mut answer["entries"], limit);
            answer["truncated"] = Value::Bool(truncated);
            show(&receiver, answer, &["entries"], |log| output::log_of_all(&log, truncated, color()))
        }
        OperationCommand::Incidents { id: Some(id), receiver, .. } => {
            let answer = connect(&receiver)?.get(&format!("/api/incidents/{}", encode(&id))).await?;
            show(&receiver, answer, &["id", "phase"], |incident| output::incident(&incident, color()))
        }
        OperationCommand::Incidents { id: None, open, limit, receiver } => {
            let query = if open { "&open=true" } else { "" };
            let answer = connect(&receiver)?.list("/api/incidents", query, "incidents", limit).await?;
            show(&receiver, answer, &["incidents"], |list| output::incidents(&list, color()))
        }
        OperationCommand::Postmortem { incident, receiver } => {
            let draft = connect(&receiver)?.text(&format!("/api/incidents/{}/postmortem", encode(&incident))).await?;
            if !draft.starts_with("# ") {
                return Err(unrecognized(&receiver, "a post-mortem", &draft));
            }
            match receiver.format.output {
                Output::Json => print_json(&json!({ "incident": incident, "markdown": draft })),
                Output::Text => print(&draft.lines().map(|line| format!("{}\n", clean_line(line))).collect::<String>()),
            }
        }
        OperationCommand::Report { since, receiver } => {
            let answer = connect(&receiver)?.get(&format!("/api/report?since={}", encode(&since))).await?;
            show(&receiver, answer, &["cases"], |report| output::report(&report, color()))
        }
        OperationCommand::Decide { incident, decision, target, force, operator, receiver } => {
            let decision = match decision {
                DecisionArg::Approve => api::DecisionKind::Approve,
                DecisionArg::ApproveGradual => api::DecisionKind::ApproveGradual,
                DecisionArg::Investigate => api::DecisionKind::Investigate,
                DecisionArg::Dismiss => api::DecisionKind::Dismiss,
                DecisionArg::Undo => api::DecisionKind::Undo,
                DecisionArg::Release => api::DecisionKind::Release,
            };
            let operator = operator.name().unwrap_or_else(|| "cli".to_owned());
            let body = body(&api::DecideRequest { decision, operator, target_version: target, force, question: None });
            let path = format!("/api/incidents/{}/decide", encode(&incident));
            let answer = connect(&receiver)?.post(&path, &body).await?;
            show(&receiver, answer, &["success", "incident"], |decided| output::decided(&decided))
        }
        OperationCommand::Drill { prompt, wait, operator, receiver } => {
            drill::run(&prompt, wait, operator.name(), &receiver).await
        }
        OperationCommand::Pause { prompt, reason, operator, receiver } => {
            let body = body(&api::PauseRequest { prompt, operator: operator.name(), reason });
            let client = connect(&receiver)?;
            let answer = client.post("/api/pause", &body).await?;
            if answer["paused"] != true {
                return Err(CommandError::Failed(format!("{} did not confirm the pause", receiver.url)));
            }
            let is_unknown = answer["unknown"] == true;
            show(&receiver, answer, &["paused"], |paused| output::paused(&paused))?;
            match body["prompt"].as_str().filter(|_| is_unknown) {
                Some(prompt) => Err(CommandError::Failed(format!(
                    "no version of {prompt} is registered or active: check its name with `prompt-rollback status`"
                ))),
                None => Ok(()),
            }
        }
        OperationCommand::Resume { prompt, operator, receiver } => {
            let body = body(&api::PauseRequest { prompt, operator: operator.name(), reason: None });
            let answer = connect(&receiver)?.post("/api/resume", &body).await?;
            if answer["paused"] != false {
                return Err(CommandError::Failed(format!("{} did not confirm the resumption", receiver.url)));
            }
            show(&receiver, answer, &["paused"], |paused| output::paused(&paused))
        }
        OperationCommand::Reload { receiver } => {
            let answer = connect(&receiver)?.post("/-/reload", &json!({})).await?;
            show(&receiver, answer, &["changed"], |reloaded| output::reloaded(&reloaded))
        }
        OperationCommand::Healthcheck { receiver } => {
            let answer = connect(&receiver)?.text("/-/ready").await?;
            if answer != "ready" {
                return Err(unrecognized(&receiver, "\"ready\"", &answer));
            }
            match receiver.format.output {
                Output::Json => print_json(&json!({ "ready": true })),
                Output::Text => print(&format!("{}\n", table::clean(&answer))),
            }
        }
    }
}

/// The text of another server.
fn unrecognized(receiver: &ReceiverArgs, expected: &str, text: &str) -> CommandError {
    let line = text.lines().next().unwrap_or_default();
    CommandError::Failed(format!("{} is not a receiver: expected {expected}, found {line:.200?}", receiver.url))
}

/// Content may contain tabs.
fn clean_line(line: &str) -> String {
    line.split('\t').map(table::clean).collect::<Vec<_>>().join("\t")
}

/// Sorts entries of several logs, the latest first, and keeps at most `limit`. Returns whether it left some out.
fn latest(entries: &mut Value, limit: Option<u32>) -> bool {
    let Value::Array(entries) = entries else { return false };
    let at = |entry: &Value| entry["at"].as_str().unwrap_or_default().to_owned();
    entries.sort_by_cached_key(|entry| Reverse(at(entry)));
    let (all, most) = (entries.len(), limit.map_or(usize::MAX, |limit| limit as usize));
    entries.truncate(most);
    all > most
}
