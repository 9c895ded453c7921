//! `docs/reference/`: its pages say what the program has. `REFERENCE=write cargo test --test integration reference::`
//! regenerates the tables of metrics and commands.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, Args, Command, CommandFactory};
use prompt_rollback::alertmanager::payload::{self, Delivered};
use prompt_rollback::cli::Cli;
use prompt_rollback::cli::args::ReceiverArgs;
use prompt_rollback::config::{Config, format_prometheus_duration};
use prompt_rollback::decision::{
    Action, Alert, AlertOutcome, Outcome, OutcomeReason, Policy, PromptName, RefusalCode, Severity, Timestamp, Trigger,
};
use prompt_rollback::metrics::{Metrics, ScrapeData};
use prompt_rollback::notify::webhook;
use prompt_rollback::slack::client::SlackError;
use prompt_rollback::store::VersionSeries;
use prompt_rollback::store::schedule::{Target, Work};
use prompt_rollback_testkit::shipped;
use serde_json::{Map, Value, json};

/// Compares the parts of a page between `<!-- NAME -->` and `<!-- end of NAME -->` with what they should be.
fn generated(page: &str, parts: &[(&str, String)]) -> Result<()> {
    let path = format!("docs/reference/{page}.md");
    let text = shipped::text(&path)?;
    let mut made = text.clone();
    for (name, part) in parts {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = made.find(&begin).with_context(|| format!("{path}: no {begin}"))? + begin.len();
        let to = made.find(&end).with_context(|| format!("{path}: no {end}"))?;
        made.replace_range(from..to, &format!("\n{}\n\n", part.trim()));
    }
    if std::env::var_os("REFERENCE").is_some() {
        return Ok(std::fs::write(shipped::root().join(&path), &made)?);
    }
    ensure!(text == made, "{path} is out of date: run REFERENCE=write cargo test --test integration reference::");
    Ok(())
}

fn row<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> String {
    let cells = cells.into_iter().map(|cell| format!(" {} |", cell.as_ref().replace('|', r"\|")));
    cells.fold("|".to_owned(), |row, cell| row + &cell) + "\n"
}

fn head<const N: usize>(names: [&str; N]) -> String {
    format!("{}|{}\n", row(names), "---|".repeat(N))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Labels whose values are not listed.
const OPEN: [&str; 4] = ["prompt", "previous", "method", "version"];

struct Family {
    name: String,
    kind: String,
    help: String,
    /// The labels of its series with their values, in the order in which they were found.
    labels: Vec<(String, Vec<String>)>,
}

impl Family {
    fn all(text: &str) -> Result<Vec<Self>> {
        let mut families: Vec<Self> = Vec::new();
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                let help = help.trim_end_matches('.').to_owned();
                families.push(Self { name: name.to_owned(), kind: String::new(), help, labels: Vec::new() });
                continue;
            }
            let family = families.last_mut().context("no family")?;
            if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                kind.clone_into(&mut family.kind);
                continue;
            }
            // no value has a comma or a quote
            let (_, labels) = line.split_once('{').unwrap_or_default();
            for (label, value) in labels.split(',').filter_map(|one| one.split_once("=\"")) {
                let value = value.split('"').next().unwrap_or_default().to_owned();
                let known = family.labels.iter().position(|(name, _)| name == label);
                let at = known.unwrap_or(family.labels.len());
                if known.is_none() {
                    family.labels.push((label.to_owned(), Vec::new()));
                }
                if !family.labels[at].1.contains(&value) {
                    family.labels[at].1.push(value);
                }
            }
            if family.kind == "counter" && !family.name.ends_with("_total") {
                family.name += "_total";
            }
        }
        Ok(families)
    }

    fn unit(&self) -> &'static str {
        match &*self.name {
            name if name.ends_with("_timestamp_seconds") => "seconds since 1970",
            name if name.ends_with("_seconds") => "seconds",
            name if name.ends_with("_info") => "always 1",
            _ if self.help.starts_with("1 ") => "1 or 0",
            _ => "count",
        }
    }

    fn row(&self) -> String {
        let labels = self.labels.iter().map(|(label, values)| {
            let mut values: Vec<String> = values.iter().map(|value| code(value)).collect();
            match &**label {
                "le" => format!("buckets: {}", values.join(", ").replace('`', "")),
                "reason" if self.name.contains("_alerts_") => "`reason`: [list](alerts.md#reasons)".to_owned(),
                label if OPEN.contains(&label) => code(label),
                label => {
                    values.sort();
                    format!("`{label}`: {}", values.join(", "))
                }
            }
        });
        let labels = labels.collect::<Vec<_>>().join("<br>");
        row([&code(&self.name), &self.kind, self.unit(), &labels, &self.help])
    }
}

/// Both tables of metrics, and the names that are deprecated.
fn metrics() -> Result<[String; 3]> {
    let metrics = Metrics::new();
    for (severity, outcome) in Severity::ALL.into_iter().flat_map(|s| Outcome::ALL.map(|outcome| (s, outcome))) {
        OutcomeReason::all().for_each(|reason| metrics.alert(severity, &AlertOutcome::new(outcome, reason, None)));
    }
    for result in SlackError::KINDS.into_iter().chain(["ok"]) {
        metrics.slack_request("chat.postMessage", result);
        metrics.notification(Target::FIRST, result);
    }
    let webhook = Target::named("webhook.NAME");
    webhook::results().for_each(|result| metrics.notification(webhook, result));
    let series = VersionSeries {
        prompt: PromptName::parse("p")?,
        version: "v2".to_owned(),
        previous: "v1".to_owned(),
        activated: Timestamp(0),
    };
    let stored = ScrapeData {
        series: vec![series],
        notification_lag: vec![(webhook.name(), Duration::ZERO)],
        work_lag: Work::OWN.map(|work| (work.as_str(), Duration::ZERO)).into(),
        ..ScrapeData::default()
    };
    let (mut own, mut shared) = (String::new(), String::new());
    metrics.encode(&mut own)?;
    stored.encode(&mut shared)?;
    let mut deprecated = head(["deprecated name", "use"]);
    let mut table = |text: &str| -> Result<String> {
        let mut table = head(["metric", "type", "unit", "labels", "what it shows"]);
        for family in Family::all(text)? {
            ensure!(text.contains(&format!("\n{}", family.name)), "{} has no series here", family.name);
            match family.help.strip_prefix("Deprecated: use ") {
                Some(instead) => {
                    let (name, rest) = instead.split_once(' ').unwrap_or((instead, ""));
                    deprecated += &row([&code(&family.name), format!("{} {rest}", code(name)).trim_end()]);
                }
                None => table += &family.row(),
            }
        }
        Ok(table)
    };
    Ok([table(&own)?, table(&shared)?, deprecated])
}

#[test]
fn every_metric_is_listed() -> Result<()> {
    let [own, shared, deprecated] = metrics()?;
    generated("metrics", &[("receiver", own), ("redis", shared), ("deprecated", deprecated)])
}

/// Text without a note in brackets, such as `[default: 20]`, and the note.
fn note(text: &str, begin: &str) -> (String, Option<String>) {
    let found = text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(']')?)));
    match found {
        Some((before, (note, after))) => (format!("{}{after}", before.trim_end()), Some(note.to_owned())),
        None => (text.to_owned(), None),
    }
}

fn flag(arg: &Arg) -> String {
    let values: Vec<String> = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let name = match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {}", values.join(" ")),
        Some(long) => format!("--{long}"),
        None => values.join(" "),
    };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let (help, default) = note(&help, "[default: ");
    let (mut help, variable) = note(&help, "[env: ");
    let choices = arg.get_possible_values();
    if arg.get_action().takes_values() && !choices.is_empty() {
        let choices = choices.iter().map(|one| match one.get_help() {
            Some(help) => format!("`{}` ({help})", one.get_name()),
            None => code(one.get_name()),
        });
        write!(help, ": {}", choices.collect::<Vec<_>>().join(", ")).expect("a text");
    }
    let hidden = !arg.get_action().takes_values() || arg.is_hide_default_value_set();
    let default =
        arg.get_default_values().first().filter(|_| !hidden).map(|value| code(&value.to_string_lossy())).or(default);
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).or(variable);
    row([code(&name), help, default.unwrap_or_default(), variable.map(|name| code(&name)).unwrap_or_default()])
}

fn flags<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let is_help = |arg: &&Arg| matches!(arg.get_action(), ArgAction::Help | ArgAction::Version);
    let rows: String = args.filter(|arg| !is_help(arg)).map(flag).collect();
    if rows.is_empty() { rows } else { head(["argument", "meaning", "default", "variable"]) + &rows + "\n" }
}

/// The commands, and the flags of all those that call a receiver.
fn commands() -> [String; 2] {
    let receiver = ReceiverArgs::augment_args(Command::new("receiver"));
    let is_shared = |arg: &Arg| receiver.get_arguments().any(|shared| shared.get_id() == arg.get_id());
    let mut program = Cli::command().disable_help_subcommand(true).term_width(0);
    program.build();
    let mut index = head(["command", "what it does"]);
    let mut pages = String::new();
    for command in program.get_subcommands() {
        let (name, about) = (command.get_name(), command.get_about().map(ToString::to_string).unwrap_or_default());
        index += &row([&format!("[`{name}`](#{name})"), &about]);
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let calls = command.get_arguments().any(|arg| arg.get_id() == "url");
        let own = flags(command.get_arguments().filter(|arg| !calls || !is_shared(arg)));
        let shared = if calls {
            "It also takes the [flags of commands that call a receiver](#calling-a-receiver).\n\n"
        } else {
            ""
        };
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        pages += &format!("## {name}\n\n{about}.\n\n```text\n{usage}\n```\n\n{own}{shared}```text\n{after}\n```\n\n");
    }
    [flags(receiver.get_arguments()), format!("{index}\n{pages}")]
}

#[test]
fn every_command_and_flag_is_listed() -> Result<()> {
    let [receiver, commands] = commands();
    generated("cli", &[("receiver", receiver), ("commands", commands)])
}

/// The rows of the table below a heading, without its head: the cells, without their escapes.
fn table(page: &str, heading: &str) -> Result<Vec<Vec<String>>> {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).with_context(|| format!("no {heading}"))?;
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.filter(|line| !line.starts_with("|---")).map(cells).collect();
    ensure!(rows.len() > 2, "{heading}: {rows:?}");
    Ok(rows)
}

/// What is between backquotes.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The receiver's reading of an alert with these labels and annotations, besides `prompt` and `version`.
fn read(annotations: &[&str], pairs: &[(&str, &str)]) -> Result<Delivered> {
    let mut labels: Map<String, Value> =
        Map::from_iter([("prompt".into(), "p".into()), ("version".into(), "v2".into())]);
    let mut notes = Map::new();
    for (name, value) in pairs {
        let map = if annotations.contains(name) { &mut notes } else { &mut labels };
        match *value {
            "missing" => drop(map.remove(*name)),
            value => drop(map.insert((*name).to_owned(), value.into())),
        }
    }
    let body = json!({"alerts": [{"status": "firing", "labels": labels, "annotations": notes}]}).to_string();
    let config = Config::load(None, std::iter::empty())?;
    Ok(payload::parse(body.as_bytes(), &config.labels, &Policy::default())?.alerts.remove(0))
}

fn taken(annotations: &[&str], pairs: &[(&str, &str)]) -> Result<Box<Alert>> {
    match read(annotations, pairs)? {
        Delivered::Alert(alert) => Ok(alert),
        other => anyhow::bail!("{pairs:?}: {other:?}"),
    }
}

/// What the receiver took for a label or annotation.
fn value(alert: &Alert, name: &str) -> Result<String> {
    let Trigger { severity, action, decider, time_limit, .. } = &alert.trigger;
    Ok(match name {
        "severity" => severity.to_string(),
        "action" => action.to_string(),
        "decider" => decider.clone(),
        "time_limit" => format_prometheus_duration(*time_limit),
        "prompt" => alert.prompt.to_string(),
        "version" => alert.version.to_string(),
        "alertname" => alert.alertname.clone(),
        "model" => alert.group_labels.model.clone(),
        "provider" => alert.group_labels.provider.clone(),
        "group" => alert.group_labels.group.clone(),
        "summary" => alert.summary.clone(),
        "description" => alert.description.clone(),
        "value" => alert.value.clone(),
        "verify" => alert.verify.clone(),
        "runbook_url" => alert.runbook_url.clone(),
        "dashboard_url" => alert.dashboard_url.clone(),
        "metric" => alert.measure.metric.clone(),
        "metric_label" => alert.measure.label.clone(),
        "unit" => alert.measure.unit.clone(),
        "threshold" => alert.measure.threshold.clone(),
        "reference" => alert.measure.reference.clone(),
        other => anyhow::bail!("{other} is no field of an alert"),
    })
}

#[test]
fn the_labels_and_annotations_are_those_that_the_receiver_reads() -> Result<()> {
    let page = shipped::text("docs/reference/alerts.md")?;
    let (labels, annotations) = (table(&page, "Labels")?, table(&page, "Annotations")?);
    let names = |rows: &[Vec<String>]| {
        rows.iter().skip(1).flat_map(|row| words(&row[0])).map(str::to_owned).collect::<Vec<_>>()
    };
    let (label_names, annotation_names) = (names(&labels), names(&annotations));
    let notes: Vec<&str> = annotation_names.iter().map(String::as_str).collect();

    let source = shipped::text("src/alertmanager/payload.rs")?;
    let calls = ["written(\"", "annotation(\"", "shared(\"", "annotations.get(\""];
    let read_names = calls.iter().flat_map(|call| source.split(call).skip(1)).filter_map(|rest| rest.split('"').next());
    // from the config, and from constants
    let read_names = read_names.chain(["prompt", "version", payload::DRILL_LABEL, "evaluated_at"]);
    let documented: BTreeSet<&str> = label_names.iter().map(String::as_str).chain(notes.iter().copied()).collect();
    ensure!(documented == read_names.collect(), "{documented:?}");

    for row in &labels[1..] {
        for name in words(&row[0]) {
            let missing = read(&notes, &[(name, "missing")])?;
            let is_required =
                matches!(&missing, Delivered::Ignored(ignored) if ignored.why.reason == OutcomeReason::InvalidName);
            ensure!((row[1] == "yes") == is_required, "{name}: {missing:?}");
            // a default that depends on the other labels is in the tables below
            if let Delivered::Alert(alert) = missing
                && let [default] = words(&row[3])[..]
            {
                ensure!(value(&alert, name)? == default, "{name}: {}", value(&alert, name)?);
            }
        }
        let values = words(&row[2]);
        match words(&row[0])[0] {
            "severity" => {
                let aliases = Policy::default().severity_aliases.into_keys();
                let mut known = aliases.chain(Severity::ALL.map(|severity| severity.to_string()));
                ensure!(known.all(|word| values.contains(&&*word)), "{values:?}");
            }
            "action" => {
                ensure!(values.iter().copied().collect::<BTreeSet<_>>() == Action::ALL.map(Action::as_str).into())
            }
            _ => {}
        }
    }
    let long = "x".repeat(3_000);
    for row in labels[1..].iter().chain(&annotations[1..]) {
        let Ok(kept) = row.last().context("a cell")?.replace(',', "").parse::<usize>() else { continue };
        for name in words(&row[0]) {
            let read = value(&*taken(&notes, &[(name, &long)])?, name)?;
            ensure!(read == format!("{}…", &long[..kept]), "{name}: {} characters are kept", read.chars().count() - 1);
        }
    }
    Ok(())
}

#[test]
fn severity_and_action_ask_for_what_the_table_says() -> Result<()> {
    let page = shipped::text("docs/reference/alerts.md")?;
    let rows = table(&page, "Defaults")?;
    let actions: Vec<&str> = rows[0][1..].iter().map(|cell| words(cell)[0]).collect();
    ensure!(actions.len() == Action::ALL.len() + 1 && rows.len() == Severity::ALL.len() + 2, "{rows:?}");
    for row in &rows[1..] {
        let severity = words(&row[0])[0];
        for (action, cell) in actions.iter().zip(&row[1..]) {
            let alert = taken(&[], &[("severity", severity), ("action", action)])?;
            let read = ["action", "decider", "time_limit"].map(|name| value(&alert, name));
            let read = read.into_iter().collect::<Result<Vec<_>>>()?;
            ensure!(words(cell) == read, "{severity} {action}: {read:?}");
        }
    }
    Ok(())
}

#[test]
fn unusual_values_are_handled_as_the_examples_say() -> Result<()> {
    let page = shipped::text("docs/reference/alerts.md")?;
    for row in &table(&page, "Examples")?[1..] {
        let pairs: Vec<_> = words(&row[0]).iter().filter_map(|pair| pair.split_once('=')).collect();
        let (mut found, remarks) = match read(&["grafana_state_reason", "evaluated_at"], &pairs)? {
            Delivered::Ignored(ignored) => (vec![format!("ignored{{{}}}", ignored.why.reason)], Vec::new()),
            Delivered::Heartbeat { .. } => (vec!["ignored{heartbeat}".to_owned()], Vec::new()),
            Delivered::Drill { .. } => (vec!["drill".to_owned()], Vec::new()),
            Delivered::Alert(alert) => {
                let taken = words(&row[1]).into_iter().filter_map(|pair| pair.split_once('='));
                let taken = taken.map(|(name, _)| Ok(format!("{name}={}", value(&alert, name)?)));
                (taken.collect::<Result<_>>()?, alert.trigger.remarks)
            }
        };
        found.extend(remarks);
        let expected: Vec<&str> = words(&row[1]).into_iter().chain(words(&row[2])).collect();
        ensure!(found == expected && !pairs.is_empty(), "{row:?}: {found:?}");
    }
    Ok(())
}

#[test]
fn every_reason_is_listed() -> Result<()> {
    let page = shipped::text("docs/reference/alerts.md")?;
    let rows = table(&page, "Reasons")?;
    let listed: Vec<&str> = rows[1..].iter().flat_map(|row| words(&row[0])).collect();
    let all: BTreeSet<&str> = OutcomeReason::all().map(OutcomeReason::as_str).collect();
    ensure!(
        listed.len() == all.len() && listed.into_iter().collect::<BTreeSet<_>>() == all,
        "not the reasons: {all:?}"
    );
    for outcome in rows[1..].iter().flat_map(|row| words(&row[1])) {
        ensure!(Outcome::parse(outcome).is_some(), "{outcome}");
    }
    Ok(())
}

#[test]
fn every_refusal_is_listed_with_its_status() -> Result<()> {
    let page = shipped::text("docs/reference/errors.md")?;
    let rows = table(&page, "Refusals")?;
    let mut listed = BTreeSet::new();
    for row in &rows[1..] {
        let code = words(&row[0]).first().copied().and_then(RefusalCode::parse).context("not a code")?;
        let status = match code {
            code if code.is_bad_input() => "400",
            code if code.is_not_found() => "404",
            _ => "409",
        };
        ensure!(row[1] == status, "{code} is answered with {status}");
        ensure!(listed.insert(code.as_str()), "{code} is listed twice");
    }
    let missing: Vec<&str> =
        RefusalCode::ALL.into_iter().map(RefusalCode::as_str).filter(|code| !listed.contains(code)).collect();
    ensure!(missing.is_empty(), "missing: {missing:?}");
    Ok(())
}
