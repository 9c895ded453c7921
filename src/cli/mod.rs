//! The command line. `init` writes a config; `serve`, `check`, `backup` and `restore-backup` read it; all other commands call
//! a running receiver.

use std::cmp::Reverse;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub mod args;
mod backup;
mod check;
mod client;
mod drill;
mod import;
mod init;
mod output;
mod probe;
pub mod stack;
mod table;

pub use args::Cli;

use crate::api;
use crate::app::{self, AppError, Signals};
use crate::config::{self, LoadedConfig, bare, decode};
use crate::decision::{MarkKind, PromptName};
use crate::http_client::{BaseUrl, OutgoingError};
use crate::store::StoreError;
use crate::tls;
use crate::visible::escape_hidden;
use args::{Command, ConfigFile, DecisionArg, Output, ReceiverArgs};
use check::StoreReport;
use client::{ApiClient, ClientError, Token, encode};
use stack::StackFiles;

/// Why a command failed.
enum CommandError {
    /// Refused or failed: exit code 1.
    Failed(String),
    /// Invalid command line or config: exit code 2.
    Misused(String),
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::NoAnswer(OutgoingError::Unreachable { reason, .. }) if reason.contains("UnknownIssuer") => {
                "\nhint: set --ca-file or PROMPT_ROLLBACK_CA_FILE to the authority that signed its certificate"
            }
            ClientError::NoAnswer(OutgoingError::Unreachable { .. }) => {
                "\nhint: is the receiver running there? set --url or PROMPT_ROLLBACK_URL"
            }
            ClientError::Refused { status, .. } if status.as_u16() == 401 => {
                "\nhint: give the receiver's server.api_token by --token-file, PROMPT_ROLLBACK_TOKEN_FILE or PROMPT_ROLLBACK_TOKEN"
            }
            _ => "",
        };
        Self::Failed(format!("{error}{hint}"))
    }
}

/// Runs the command that the arguments name.
///
/// The runtime is created here instead of in `main.rs`, which would compile every async function of the library again.
/// It has one thread: it only waits for Redis, and moving small work to other threads costs more than the work.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(cli));
    // a read of a file that hangs must not keep the process alive
    runtime.shutdown_background();
    code
}

/// Runs one command.
async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(file) => serve(&file).await,
        Command::Check {
            config,
            connect,
            alertmanager_config,
            receiver_url,
            alert_label,
            prometheus_config,
            prompt_job,
            format,
        } => {
            let receiver_url = receiver_url.map(|url| url.to_string());
            let files = StackFiles {
                alertmanager: alertmanager_config.as_deref(),
                receiver_url: receiver_url.as_deref(),
                alert_labels: &alert_label,
                prometheus: prometheus_config.as_deref(),
                prompt_jobs: &prompt_job,
            };
            check(&config, connect, &files, format.output).await
        }
        Command::Backup { file, config } => {
            let config = load(&config).map(|loaded| loaded.config);
            copied(async { backup::backup(&config?.redis, &file).await.map_err(CommandError::Failed) }, "saved").await
        }
        Command::RestoreBackup { file, config } => {
            let config = load(&config).map(|loaded| loaded.config);
            copied(async { backup::restore(&config?.redis, &file).await.map_err(CommandError::Failed) }, "restored")
                .await
        }
        Command::Init(args) => init::run(&args).and_then(|text| print(&text)),
        command => ask(command).await,
    };
    let (code, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CommandError::Failed(message)) => (1, message),
        Err(CommandError::Misused(message)) => (2, message),
    };
    // responses contain external text; the line breaks are the program's own
    for (at, line) in message.lines().enumerate() {
        let prefix = if at == 0 || code == 2 { "error: " } else { "" };
        // stderr may be closed
        let _ = writeln!(std::io::stderr(), "{prefix}{}", table::clean(line));
    }
    ExitCode::from(code)
}

fn load(file: &ConfigFile) -> Result<LoadedConfig, CommandError> {
    let config = LoadedConfig::load(file.config.as_deref(), config::environment());
    config.map_err(|error| CommandError::Misused(error.to_string()))
}

async fn serve(file: &ConfigFile) -> Result<(), CommandError> {
    let failure = |error| match error {
        AppError::Store(StoreError::Config(_)) => CommandError::Misused(error.to_string()),
        error => CommandError::Failed(error.to_string()),
    };
    // before everything else: a SIGHUP must not end the process
    let mut signals = Signals::listen().map_err(failure)?;
    let path = file.config.clone();
    let load = tokio::task::spawn_blocking(move || LoadedConfig::load(path.as_deref(), config::environment()));
    let settings = tokio::select! {
        settings = load => settings.map_err(|error| CommandError::Failed(error.to_string()))?,
        () = signals.ended() => return Ok(()), // the disk hangs
    };
    let settings = settings.map_err(|error| CommandError::Misused(error.to_string()))?;
    app::serve(&settings, signals).await.map_err(failure)
}

async fn check(file: &ConfigFile, connect: bool, stack: &StackFiles<'_>, format: Output) -> Result<(), CommandError> {
    let LoadedConfig { config, renamed, .. } = load(file)?;
    let report = stack::review(stack, &config).map_err(CommandError::Misused)?;
    let StoreReport { mut probes, without_target } =
        if connect { probe::probe(&config).await } else { StoreReport::default() };
    if connect {
        probes.extend(check::probe_http(&config).await);
        probes.extend(probe::probe_slack(&config).await);
        probes.extend(probe::probe_schedules(&config).await);
        probes.extend(probe::probe_webhooks(&config).await);
        probes.extend(probe::probe_collector(&config).await);
        probes.extend(probe::probe_archive(&config));
    }
    let looked = !probes.is_empty() || !report.probes.is_empty();
    probes.extend(report.probes.iter().cloned());
    match format {
        Output::Json => {
            let mut result = check::json(&renamed, &probes, &without_target);
            if stack.alertmanager.is_some() {
                result["alertmanager"] = report.json();
            }
            print_json(&result)?;
        }
        Output::Text => {
            print("config: ok\n")?;
            for key in &renamed {
                print(&format!("warning: {key}\n"))?;
            }
            if looked {
                print(&check::table_of(&probes, color()))?;
            }
            if connect {
                print(&check::hints(&config, &without_target))?;
            }
            print(&report.text())?;
        }
    }
    match probes.iter().filter(|probe| probe.failed()).count() {
        0 => Ok(()),
        failed => Err(CommandError::Failed(format!("{failed} of {} checks failed", probes.len()))),
    }
}

/// Says how many keys were copied.
async fn copied(copy: impl Future<Output = Result<usize, CommandError>>, done: &str) -> Result<(), CommandError> {
    let keys = copy.await?;
    print(&format!("{keys} keys {done}\n"))
}

/// The commands that call a receiver.
async fn ask(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Serve(_)
        | Command::Check { .. }
        | Command::Backup { .. }
        | Command::RestoreBackup { .. }
        | Command::Init(_) => unreachable!("handled without a receiver"),
        Command::Register {
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
                return show(&receiver, answer, |registered| output::registered(&registered));
            }
            let known = known(&client, &path).await?;
            if let Some(active) = known["active"].as_str() {
                let prompt = PromptName::written(&prompt).map_or(prompt, |prompt| prompt.to_string());
                let answer = json!({ "prompt": prompt, "to_version": active, "unchanged": true });
                return show(&receiver, answer, |switched| output::activated(&switched));
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
            show(&receiver, answer, |switched| output::activated(&switched))
        }
        Command::Import { pattern, known_good, dry_run, operator, receiver } => {
            let operator = operator.name();
            let body =
                body(&api::ImportRequest { pattern: Some(pattern), known_good, dry_run, operator, cursor: None });
            let answer = import::import(&connect(&receiver)?, body).await?;
            show(&receiver, answer, |imported| import::text(&imported, color()))
        }
        Command::Activate {
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
            show(&receiver, answer, |switched| output::activated(&switched))
        }
        Command::Canary { prompt, action, force, reason, operator, receiver } => {
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
            show(&receiver, answer, |switched| output::activated(&switched))
        }
        Command::Gates { prompt, version, receiver } => {
            let path = format!("/api/prompts/{}/gates?version={}", encode(&prompt), encode(&version));
            let answer = connect(&receiver)?.get(&path).await?;
            let open = answer["may_have_all_traffic"] == true;
            show(&receiver, answer, |gates| output::gates(&gates, color()))?;
            if open { Ok(()) } else { Err(CommandError::Failed("an enabled gate is closed".to_owned())) }
        }
        Command::Rollback { prompt, to, from, reason, gradual, stages, hold, force, operator, receiver } => {
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
            show(&receiver, answer, |switched| output::rolled_back(&switched))
        }
        Command::Mark { prompt, version, bad, good: _, reason, operator, receiver } => {
            let mark = if bad { MarkKind::Bad } else { MarkKind::Good };
            let body =
                body(&api::MarkRequest { mark, reason: Some(reason), operator: operator.name(), incident: None });
            let path = format!("/api/prompts/{}/versions/{}/mark", encode(&prompt), encode(&version));
            let answer = connect(&receiver)?.post(&path, &body).await?;
            show(&receiver, answer, |marked| output::marked(&marked))
        }
        Command::Restore { prompt, version, receiver } => {
            let path = format!("/api/prompts/{}/versions/{}/restore", encode(&prompt), encode(&version));
            let answer = connect(&receiver)?.post(&path, &json!({})).await?;
            show(&receiver, answer, |restored| output::restored(&restored))
        }
        Command::Status { prompt: Some(prompt), receiver, .. } => {
            let answer = connect(&receiver)?.get(&format!("/api/prompts/{}", encode(&prompt))).await?;
            show(&receiver, answer, |prompt| output::prompt(&prompt, color()))
        }
        Command::Status { prompt: None, without_target, limit, receiver } => {
            let query = if without_target { "&without_target=true" } else { "" };
            let answer = connect(&receiver)?.list("/api/prompts", query, "prompts", limit).await?;
            show(&receiver, answer, |list| output::prompts(&list, color()))
        }
        Command::Explain { prompt, alert, receiver } => {
            let query = alert.map(|alert| format!("?alert={}", encode(&alert))).unwrap_or_default();
            let answer = connect(&receiver)?.get(&format!("/api/prompts/{}/explain{query}", encode(&prompt))).await?;
            show(&receiver, answer, |explained| output::explained(&explained))
        }
        Command::Log { prompt: Some(prompt), limit, receiver, .. } => {
            let path = format!("/api/prompts/{}/log", encode(&prompt));
            let answer = connect(&receiver)?.list(&path, "", "entries", limit.unwrap_or(LOG_ENTRIES)).await?;
            show(&receiver, answer, |log| output::log(&log, color()))
        }
        Command::Log { prompt: None, since, limit, receiver, .. } => {
            let query = format!("&since={}", encode(&since));
            let mut answer = connect(&receiver)?.list("/api/log", &query, "entries", u32::MAX).await?;
            let truncated = latest(&mut answer["entries"], limit);
            answer["truncated"] = Value::Bool(truncated);
            show(&receiver, answer, |log| output::log_of_all(&log, truncated, color()))
        }
        Command::Incidents { id: Some(id), receiver, .. } => {
            let answer = connect(&receiver)?.get(&format!("/api/incidents/{}", encode(&id))).await?;
            show(&receiver, answer, |incident| output::incident(&incident, color()))
        }
        Command::Incidents { id: None, open, limit, receiver } => {
            let query = if open { "&open=true" } else { "" };
            let answer = connect(&receiver)?.list("/api/incidents", query, "incidents", limit).await?;
            show(&receiver, answer, |list| output::incidents(&list, color()))
        }
        Command::Postmortem { incident, receiver } => {
            let draft = connect(&receiver)?.text(&format!("/api/incidents/{}/postmortem", encode(&incident))).await?;
            match receiver.format.output {
                Output::Json => print_json(&json!({ "incident": incident, "markdown": draft })),
                Output::Text => print(&draft.lines().map(|line| format!("{}\n", clean_line(line))).collect::<String>()),
            }
        }
        Command::Report { since, receiver } => {
            let answer = connect(&receiver)?.get(&format!("/api/report?since={}", encode(&since))).await?;
            show(&receiver, answer, |report| output::report(&report, color()))
        }
        Command::Decide { incident, decision, target, force, operator, receiver } => {
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
            show(&receiver, answer, |decided| output::decided(&decided))
        }
        Command::Drill { prompt, wait, operator, receiver } => {
            drill::run(&prompt, wait, operator.name(), &receiver).await
        }
        Command::Pause { prompt, reason, operator, receiver } => {
            let body = body(&api::PauseRequest { prompt, operator: operator.name(), reason });
            let client = connect(&receiver)?;
            let answer = client.post("/api/pause", &body).await?;
            if answer["paused"] != true {
                return Err(CommandError::Failed(format!("{} did not confirm the pause", receiver.url)));
            }
            let is_unknown = answer["unknown"] == true;
            show(&receiver, answer, |paused| output::paused(&paused))?;
            match body["prompt"].as_str().filter(|_| is_unknown) {
                Some(prompt) => Err(CommandError::Failed(format!(
                    "no version of {prompt} is registered or active: check its name with `prompt-rollback status`"
                ))),
                None => Ok(()),
            }
        }
        Command::Resume { prompt, operator, receiver } => {
            let body = body(&api::PauseRequest { prompt, operator: operator.name(), reason: None });
            let answer = connect(&receiver)?.post("/api/resume", &body).await?;
            show(&receiver, answer, |paused| output::paused(&paused))
        }
        Command::Reload { receiver } => {
            let answer = connect(&receiver)?.post("/-/reload", &json!({})).await?;
            show(&receiver, answer, |reloaded| output::reloaded(&reloaded))
        }
        Command::Healthcheck { receiver } => {
            let answer = connect(&receiver)?.text("/-/ready").await?;
            if answer != "ready" {
                let line = answer.lines().next().unwrap_or_default();
                let text = format!("{} is not a receiver: expected \"ready\", found {line:.200?}", receiver.url);
                return Err(CommandError::Failed(text));
            }
            match receiver.format.output {
                Output::Json => print_json(&json!({ "ready": true })),
                Output::Text => print(&format!("{}\n", table::clean(&answer))),
            }
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

/// Content may contain tabs.
fn clean_line(line: &str) -> String {
    line.split('\t').map(table::clean).collect::<Vec<_>>().join("\t")
}

/// Entries of one prompt's log that are shown by default.
const LOG_ENTRIES: u32 = 20;
const TOKEN: &str = "PROMPT_ROLLBACK_TOKEN";
/// Names the file with the token, for shells.
const TOKEN_FILE: &str = "PROMPT_ROLLBACK_TOKEN_FILE";

fn connect(receiver: &ReceiverArgs) -> Result<ApiClient, CommandError> {
    let roots = receiver.ca_file.as_deref().map(tls::trusted).transpose();
    let roots = roots.map_err(|error| CommandError::Misused(format!("--ca-file: {error}")))?;
    let url: BaseUrl = receiver.url.parse().map_err(|why| CommandError::Misused(format!("--url: {why}")))?;
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let by_variable = Token::new(&variable(TOKEN).unwrap_or_default().to_string_lossy());
    // arguments have priority over variables, and both over the one that is always set in the image
    let (token, from) =
        if receiver.token.is_none() { (by_variable, TOKEN) } else { (receiver.token.clone(), "--token") };
    let file = match &receiver.token_file {
        Some(path) => Some((path.clone(), "--token-file")),
        None if token.is_none() => variable(TOKEN_FILE).map(|path| (PathBuf::from(path), TOKEN_FILE)),
        None => None,
    };
    let (token, from) = match file {
        None => (token, from.to_owned()),
        Some((path, named)) => {
            let from = format!("{named}: {}", path.display());
            let text = config::read_file(&path).map_err(|error| error.to_string());
            let text = text.and_then(|bytes| Ok(decode(&bytes)?.to_owned()));
            let text = text.map_err(|why| CommandError::Misused(format!("{from}: {why}")))?;
            if bare(&text).is_empty() {
                return Err(CommandError::Misused(format!("{from}: expected a token, but the file is empty")));
            }
            (Token::new(&text), from)
        }
    };
    let token = token.header().map_err(|why| CommandError::Misused(format!("{from}: {why}")))?;
    Ok(ApiClient::new(url, token, roots)?)
}

/// A JSON object with the given arguments; the receiver chooses the rest. An empty argument counts as given: a script
/// whose variable is not set must not act on all prompts.
fn body<T: Serialize>(request: &T) -> Value {
    let mut body = serde_json::to_value(request).unwrap_or_default();
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !(value.is_null() || *value == false));
    }
    body
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

/// Prints the whole response for scripts, or a summary for people.
fn show<T: DeserializeOwned>(
    receiver: &ReceiverArgs,
    answer: Value,
    text: impl FnOnce(T) -> String,
) -> Result<(), CommandError> {
    match receiver.format.output {
        Output::Json => print_json(&answer),
        Output::Text => {
            let view = serde_json::from_value(answer).map_err(|error| {
                CommandError::Failed(format!("cannot parse the answer of {}: {error}", receiver.url))
            })?;
            print(&text(view))
        }
    }
}

fn print_json(value: &Value) -> Result<(), CommandError> {
    print(&format!("{value:#}\n"))
}

/// Responses contain external text, in JSON as well.
fn print(text: &str) -> Result<(), CommandError> {
    // a patch needs the lines of its file as they are, also with line breaks of Windows
    let text = text.split("\r\n").map(escape_hidden).collect::<Vec<_>>().join("\r\n");
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `status | head` closes the pipe
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::Failed(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
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

fn color() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
