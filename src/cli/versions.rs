//! Runs the commands that change which versions there are, and which of them is served.

use std::io::Read;
use std::path::Path;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::args::VersionCommand;
use super::client::{ApiClient, ClientError, encode};
use super::receiver::{body, connect, show};
use super::terminal::{CommandError, color};
use super::{import, output};
use crate::api;
use crate::config;
use crate::decision::{MarkKind, PromptName};

pub async fn run(command: VersionCommand) -> Result<(), CommandError> {
    match command {
        VersionCommand::Register {
            prompt,
            version,
            content_file,
            contact,
            staged_at,
            known_good,
            first,
            operator,
            receiver,
        } => {
            let content = content_file.as_deref().map(read_content).transpose()?;
            let staged_at = staged_at.map(|at| at.to_string());
            let body =
                body(&api::RegisterRequest { version: version.clone(), content, contact, staged_at, known_good });
            let (client, path) = (connect(&receiver)?, format!("/api/prompts/{}", encode(&prompt)));
            if !first {
                let answer = client.post(&format!("{path}/versions"), &body).await?;
                return show(&receiver, answer, &["created"], |registered| output::registered(&registered));
            }
            let known = known(&client, &path).await?;
            if let Some(active) = known["active"].as_str() {
                let prompt = PromptName::written(&prompt).map_or(prompt, |prompt| prompt.to_string());
                let answer = json!({ "prompt": prompt, "to_version": active, "unchanged": true });
                return show(&receiver, answer, &["to_version"], |switched| output::activated(&switched));
            }
            // another version was active: which one serves now is a decision
            if let Some(fault) = known["active_fault"].as_str() {
                return Err(CommandError::Failed(format!(
                    "{prompt} is not new: {fault}; serve a version with `prompt-rollback activate`"
                )));
            }
            client.post(&format!("{path}/versions"), &body).await?;
            let operator = operator.name();
            let body = self::body(&api::ActivateRequest { version, operator, ..api::ActivateRequest::default() });
            let answer = client.post(&format!("{path}/activate"), &body).await?;
            show(&receiver, answer, &["to_version"], |switched| output::activated(&switched))
        }
        VersionCommand::Import { pattern, known_good, dry_run, operator, receiver } => {
            let operator = operator.name();
            let body =
                body(&api::ImportRequest { pattern: Some(pattern), known_good, dry_run, operator, cursor: None });
            let answer = import::import(&connect(&receiver)?, body).await?;
            show(&receiver, answer, &["adopted", "known"], |imported| import::text(&imported, color()))
        }
        VersionCommand::Activate {
            prompt,
            version,
            canary,
            stages,
            hold,
            hold_limit,
            percent,
            force,
            reason,
            operator,
            receiver,
        } => {
            let (hold, operator) = (hold.map(api::HoldDurations::Each), operator.name());
            let body = body(&api::ActivateRequest {
                version,
                percent,
                canary,
                stages,
                hold,
                hold_limit,
                operator,
                reason,
                force,
            });
            let path = format!("/api/prompts/{}/activate", encode(&prompt));
            let answer = connect(&receiver)?.post(&path, &body).await?;
            show(&receiver, answer, &["to_version"], |switched| output::activated(&switched))
        }
        VersionCommand::Canary { prompt, action, force, reason, operator, receiver } => {
            let body = body(&api::SteerRequest {
                action,
                operator: operator.name(),
                reason,
                force,
                canary: None,
                stage: None,
            });
            let path = format!("/api/prompts/{}/canary", encode(&prompt));
            let answer = connect(&receiver)?.post(&path, &body).await?;
            show(&receiver, answer, &["to_version"], |switched| output::activated(&switched))
        }
        VersionCommand::Gates { prompt, version, receiver } => {
            let path = format!("/api/prompts/{}/gates?version={}", encode(&prompt), encode(&version));
            let answer = connect(&receiver)?.get(&path).await?;
            let open = answer["may_have_all_traffic"] == true;
            show(&receiver, answer, &["may_have_all_traffic"], |gates| output::gates(&gates, color()))?;
            if open { Ok(()) } else { Err(CommandError::Failed("an enabled gate is closed".to_owned())) }
        }
        VersionCommand::Rollback { prompt, to, from, reason, gradual, stages, hold, force, operator, receiver } => {
            let body = body(&api::RollbackRequest {
                prompt,
                target_version: to,
                from_version: from,
                reason,
                operator: operator.name(),
                strategy: gradual.then_some(api::Strategy::Gradual),
                stages,
                hold: hold.map(api::HoldDurations::Each),
                force,
            });
            let answer = connect(&receiver)?.post("/api/rollback", &body).await?;
            show(&receiver, answer, &["to_version"], |switched| output::rolled_back(&switched))
        }
        VersionCommand::Mark { prompt, version, bad, good: _, reason, operator, receiver } => {
            let mark = if bad { MarkKind::Bad } else { MarkKind::Good };
            let body =
                body(&api::MarkRequest { mark, reason: Some(reason), operator: operator.name(), incident: None });
            let path = format!("/api/prompts/{}/versions/{}/mark", encode(&prompt), encode(&version));
            let answer = connect(&receiver)?.post(&path, &body).await?;
            show(&receiver, answer, &["mark"], |marked| output::marked(&marked))
        }
        VersionCommand::Restore { prompt, version, receiver } => {
            let path = format!("/api/prompts/{}/versions/{}/restore", encode(&prompt), encode(&version));
            let answer = connect(&receiver)?.post(&path, &json!({})).await?;
            show(&receiver, answer, &["restored"], |restored| output::restored(&restored))
        }
    }
}

/// The prompt at this path; null if there is none.
async fn known(client: &ApiClient, path: &str) -> Result<Value, ClientError> {
    match client.get(path).await {
        Ok(prompt) => Ok(prompt),
        Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

fn read_content(path: &Path) -> Result<String, CommandError> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(config::MAX_FILE).read_to_string(&mut text).map(|_| text)
    } else {
        config::read_file(path)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| std::io::Error::other("expected UTF-8")))
    };
    text.map_err(|error| CommandError::Misused(format!("cannot read {}: {error}", path.display())))
}
