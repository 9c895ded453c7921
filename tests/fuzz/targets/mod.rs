//! Fuzz targets: one function for each kind of external bytes, which panics on a fault.
//!
//! Tests call them with the corpus and mutations of it, `fuzz/` with inputs from libFuzzer.

mod answers;
mod records;
mod told;

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use prompt_rollback::alertmanager::payload::{Delivered, parse};
use prompt_rollback::cli::stack::review_bytes;
use prompt_rollback::config::Config;
use prompt_rollback::decision::{Policy, PromptName, Timestamp, VersionName};
use prompt_rollback::slack::payload::{self, Interaction, SocketMessage};
use prompt_rollback::slack::render::Button;
use serde_json::value::RawValue;

pub use answers::answer;
pub use records::record;

static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);
static POLICY: LazyLock<Policy> = LazyLock::new(|| CONFIG.policy());

/// Later than all times in the corpus.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn prompt(name: &str) -> PromptName {
    PromptName::parse(name).expect("a name")
}

fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a name")
}

/// The body of a delivery, and the decisions and writes that it causes.
pub fn webhook(input: &[u8]) {
    let Ok(delivery) = parse(input, &CONFIG.labels, &POLICY) else { return };
    assert_eq!(parse(input, &CONFIG.labels, &POLICY).as_ref(), Ok(&delivery), "the same bytes mean the same");
    alone(input, &delivery.alerts);
    for one in delivery.alerts {
        let (Delivered::Alert(alert) | Delivered::Drill { alert, .. }) = one else { continue };
        let foreign = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}');
        assert!(
            !alert.prompt.as_str().contains(foreign) && !alert.version.as_str().contains(foreign),
            "leaves its slot"
        );
        told::alert(&alert);
    }
}

/// Each alert means the same alone, and beside items that are not alerts.
fn alone(input: &[u8], delivered: &[Delivered]) {
    let text = String::from_utf8_lossy(input);
    let Ok(body) = serde_json::from_str::<HashMap<String, &RawValue>>(&text) else { return };
    let alerts: Vec<&RawValue> = serde_json::from_str(body["alerts"].get()).expect("a list");
    for (alert, together) in alerts.iter().zip(delivered).take(4) {
        let url = match together {
            Delivered::Alert(alert) | Delivered::Drill { alert, .. } => alert.alertmanager_url.as_str(),
            Delivered::Ignored(_) | Delivered::Heartbeat { .. } => "",
        };
        let url = serde_json::Value::from(url);
        for beside in ["", "null,", "[[1e999]],", r#"{"status":"resolved","labels":{"prompt":"\ud800"}},"#] {
            let alone = format!(r#"{{"externalURL":{url},"alerts":[{beside}{}]}}"#, alert.get());
            let alone = parse(alone.as_bytes(), &CONFIG.labels, &POLICY).expect("a delivery");
            assert_eq!(alone.alerts.last(), Some(together), "beside {beside:?}");
        }
    }
    assert_eq!(alerts.len(), delivered.len());
}

/// An interaction over HTTP: two lines with the headers of the signature, then the body. No input has a valid
/// signature.
pub fn interaction(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut header = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (signature, timestamp) = (header(), header());
    let body = lines.next().unwrap_or_default();
    let secret = "8f742231b10e8888abcd99yyyzzz85a5".into();
    let start = &body[..body.len().min(100)]; // more of it makes the hash no harder
    assert!(!payload::verify(&secret, signature, timestamp, start), "a forgery");
    if let Ok(interaction) = payload::parse_form(body) {
        clicks(&interaction);
    }
}

/// A message of Socket Mode.
pub fn envelope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(SocketMessage::Delivery { interaction: Some(Ok(interaction)), .. }) = payload::parse_envelope(text) {
        clicks(&interaction);
    }
}

fn clicks(interaction: &Interaction) {
    let Interaction::Clicks(clicks) = interaction else { return };
    for click in clicks {
        assert!(!click.user.is_empty() && !click.action_id.is_empty() && !click.action_ts.is_empty());
        assert!(
            click.name == click.user || !click.name.contains(char::is_control),
            "breaks the line: {:?}",
            click.name
        );
        if let Some(button) = Button::decode(&click.value) {
            assert_eq!(button.encode(), click.value, "a button of ours");
        }
    }
}

/// A config file of Alertmanager or Prometheus.
pub fn stack(input: &[u8]) {
    let Some(patch) = review_bytes(input, &CONFIG) else { return };
    assert!(patch.is_empty() || patch.starts_with("--- /nonexistent/file.yml\n"), "{patch}");
}

/// A config file.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.contains("/dev/") || text.contains("/proc/") {
        return; // a `*_file` that never ends: the author of the config may wait for it
    }
    match Config::parse(text, Some(Path::new("/nowhere/prompt-rollback.toml")), std::iter::empty()) {
        Ok(config) => {
            let policy = config.policy();
            assert!(config.deciders.contains_key(&policy.fallback_decider), "nobody decides");
            assert!(format!("{config:?}").len() > 1_000);
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(error.to_string().starts_with("/nowhere/prompt-rollback.toml"), "{error}");
        }
    }
}
