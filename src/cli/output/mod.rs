//! The output of commands: values in, text out.

mod changes;
mod explain;
mod incident;
mod report;
#[cfg(test)]
mod tests;

pub use changes::{activated, decided, marked, paused, registered, reloaded, restored, rolled_back};
pub use explain::explained;
pub use incident::{incident, incidents};
pub use report::report;

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::api::{
    AnyPrompt, CanaryView, CoverageView, DeploymentLog, DeploymentView, GateView, GatesResponse, LogEntryView,
    OtherChange, PromptList, PromptSummary, PromptView, SplitView, VersionView,
};
use crate::cli::table::{Cell, clean, table, time};
use crate::decision::LogEvent;
use crate::decision::MarkKind;
use crate::decision::soak::Earned;
use crate::figures::Coverage;
use crate::visible::shown_name;
use incident::incident_table;

/// More hints would scroll the table out of sight.
const MAX_HINTS: usize = 20;

/// What ends a list that `--limit` has cut.
const MORE: &str = "… there are more; use --limit to show them\n";

pub fn prompts(list: &PromptList, color: bool) -> String {
    if list.prompts.is_empty() {
        return "no prompts\n".into();
    }
    let rows: Vec<_> = list.prompts.iter().map(row).collect();
    let headings = ["PROMPT", "ACTIVE", "ROLLBACK TARGET", "SOAK ENDS", "PAUSED", "COVERAGE", "OPEN INCIDENTS"];
    let mut out = table(headings, &rows, color);
    if list.next.is_some() {
        out.push_str(MORE);
    }
    for prompt in &list.prompts {
        if let AnyPrompt::Unreadable { prompt, error } = prompt {
            let _ = writeln!(out, "the record of {} cannot be read: {}", name(prompt), clean(error));
        }
    }
    let without = list.prompts.iter().filter_map(|prompt| match prompt {
        AnyPrompt::Row(p) if p.rollback_target.is_none() => Some(&**p),
        _ => None,
    });
    let without: Vec<&PromptSummary> = without.collect();
    if !without.is_empty() {
        out.push('\n');
        out.push_str(&without_target(&without));
    }
    out
}

fn row(prompt: &AnyPrompt) -> [Cell; 7] {
    let p = match prompt {
        AnyPrompt::Row(p) => p,
        // only its name is known
        AnyPrompt::Unreadable { prompt, .. } => {
            let mut cells: [Cell; 7] = std::array::from_fn(|_| Cell::maybe(None));
            (cells[0], cells[1]) = (Cell::new(&shown_name(prompt)), Cell::warning("cannot be read"));
            return cells;
        }
    };
    [
        Cell::new(&shown_name(&p.prompt)),
        Cell::maybe(p.active.as_deref()),
        p.rollback_target.as_deref().map_or(Cell::warning("none"), Cell::new),
        match (p.known_good, p.known_good_by.as_deref()) {
            (true, by) => Cell::new(&known_good(by)),
            (false, _) => Cell::time(p.soak_ends_at.as_deref().or(p.soak_limit_at.as_deref())),
        },
        if p.paused { Cell::warning("yes") } else { Cell::new("no") },
        coverage_cell(p.coverage.as_ref()),
        if p.open_incidents.is_empty() { Cell::maybe(None) } else { Cell::warning(&p.open_incidents.join(" ")) },
    ]
}

/// What the alert rules can judge, the signals with a problem last: `errors; p99: blind`.
fn coverage_text(coverage: &CoverageView) -> String {
    let signals = [("errors", &coverage.errors), ("p99", &coverage.p99), ("quality", &coverage.quality)];
    let (mut measured, mut problems) = (Vec::new(), Vec::new());
    for (signal, state) in signals.iter().filter_map(|(signal, state)| Some((*signal, state.as_deref()?))) {
        let problem = match Coverage::parse(state) {
            Some(Coverage::Measured) => {
                measured.push(signal);
                continue;
            }
            Some(Coverage::Blind) => "blind",
            Some(Coverage::TooLittle) => "too little traffic",
            Some(Coverage::Slow) => "slow scrapes (detection takes 2 to 5 minutes)",
            Some(Coverage::NoBaseline) => "no baseline yet",
            // of a newer receiver
            None => state,
        };
        problems.push(format!("{signal}: {problem}"));
    }
    let measured = Some(measured.join(", ")).filter(|text| !text.is_empty());
    measured.into_iter().chain(problems).collect::<Vec<_>>().join("; ")
}

fn coverage_cell(coverage: Option<&CoverageView>) -> Cell {
    let Some(coverage) = coverage else { return Cell::maybe(None) };
    let states = [&coverage.errors, &coverage.p99, &coverage.quality].into_iter().flatten();
    let is_blind = states.filter_map(|state| Coverage::parse(state)).any(|state| state == Coverage::Blind);
    let text = coverage_text(coverage);
    if is_blind { Cell::warning(&text) } else { Cell::new(&text) }
}

/// The prompts that could not be rolled back, with a hint for each.
pub fn without_target(prompts: &[&PromptSummary]) -> String {
    let mut out = match prompts.len() {
        1 => "1 prompt has no version to roll back to:\n".to_owned(),
        many => format!("{many} prompts have no version to roll back to:\n"),
    };
    for prompt in prompts.iter().take(MAX_HINTS) {
        out.push_str(&format!("  {}: {}\n", name(&prompt.prompt), hint(prompt)));
    }
    if prompts.len() > MAX_HINTS {
        let more = prompts.len() - MAX_HINTS;
        out.push_str(&format!("  … and {more} more: prompt-rollback status --without-target\n"));
    }
    out
}

fn hint(prompt: &PromptSummary) -> String {
    let name = clean(&prompt.prompt);
    let mark =
        format!("mark an older version that you trust with `prompt-rollback register {name} VERSION --known-good`");
    let Some(active) = prompt.active.as_deref().map(clean) else {
        if let Some(fault) = &prompt.active_fault {
            return format!("{}: serve a version with `prompt-rollback activate {name} VERSION`", clean(fault));
        }
        return format!("nothing is active: start with `prompt-rollback activate {name} VERSION`");
    };
    if prompt.known_good {
        return format!(
            "{active} is known-good and will be the target once another version is active; to have one now, {mark}"
        );
    }
    let until = prompt.soak_ends_at.as_deref().or(prompt.soak_limit_at.as_deref());
    let until = until.map(|at| format!(" ({})", time(at))).unwrap_or_default();
    format!("{mark}, or wait until {active} has soaked{until} and serves as the target of the next version")
}

pub fn prompt(p: &PromptView, color: bool) -> String {
    let mut out = format!("{}\n", name(&p.prompt));
    let nothing = p.active_fault.as_ref().map_or_else(|| "nothing".to_owned(), |fault| format!("nothing: {fault}"));
    out.push_str(&line("active", p.active.as_deref().unwrap_or(&nothing)));
    if let Some(routing) = &p.routing {
        let share = |(version, percent): (&String, &Option<u8>)| {
            format!("{version} {} %", percent.map_or("?".to_owned(), |percent| percent.to_string()))
        };
        let shares: Vec<String> = routing.iter().map(share).collect();
        out.push_str(&line("traffic", &shares.join(", ")));
    }
    if let Some(canary) = &p.canary {
        out.push_str(&line("canary", &self::canary(canary)));
    }
    for placed in p.in_service.iter().filter(|placed| placed.since.is_some()) {
        out.push_str(&line("in service", &in_service(placed)));
    }
    for other in &p.also_changed.prompts {
        out.push_str(&line("also changed", &other_change(other)));
    }
    if p.also_changed.more > 0 {
        let least = if p.also_changed.at_least { "at least " } else { "" };
        out.push_str(&line("", &format!("and {least}{} more prompts within the hour", p.also_changed.more)));
    }
    out.push_str(&line("rollback target", p.rollback_target.as_deref().unwrap_or("none")));
    out.push_str(&line("paused", if p.paused { "yes" } else { "no" }));
    if let Some(coverage) = &p.coverage {
        out.push_str(&line("coverage", &coverage_text(coverage)));
    }
    if !p.versions.is_empty() {
        let rows: Vec<_> = p
            .versions
            .iter()
            .map(|v| {
                let state = state(v);
                [
                    Cell::new(&v.version),
                    if v.quarantined_at.is_some() || is_bad(v) { Cell::warning(&state) } else { Cell::new(&state) },
                    Cell::time(v.first_activated_at.as_deref()),
                    Cell::time(v.last_active_at.as_deref()),
                    Cell::new(match (&v.archived_at, v.has_content) {
                        (Some(_), true) => "archived",
                        (_, has_content) => ["no", "yes"][usize::from(has_content)],
                    }),
                    Cell::maybe(v.contact.as_deref()),
                ]
            })
            .collect();
        out.push('\n');
        out.push_str(&table(["VERSION", "STATE", "FIRST ACTIVE", "LAST ACTIVE", "TEXT", "CONTACT"], &rows, color));
    }
    out.push_str(&marks(&p.versions));
    if !p.incidents.is_empty() {
        out.push_str("\nopen incidents\n");
        out.push_str(&incident_table(p.incidents.iter().map(incident::row), color));
    }
    if p.rollback_target.is_none() {
        let active = p.versions.iter().find(|v| v.active);
        let row = PromptSummary {
            prompt: p.prompt.clone(),
            active: p.active.clone(),
            active_fault: p.active_fault.clone(),
            known_good: active.is_some_and(|v| v.known_good),
            soak_ends_at: active.and_then(|v| v.soak_ends_at.clone()),
            soak_limit_at: active.and_then(|v| v.soak_limit_at.clone()),
            ..PromptSummary::default()
        };
        out.push('\n');
        out.push_str(&without_target(&[&row]));
    }
    out
}

/// `v2 since … by ci (activate)`
fn in_service(p: &DeploymentView) -> String {
    let share = if p.percent < 100 { format!(" ({} %)", p.percent) } else { String::new() };
    let since = p.since.as_deref().map(|at| format!(" since {}", time(at))).unwrap_or_default();
    let by = p.operator.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    let event = p.event.as_deref().map(|event| format!(" ({event})")).unwrap_or_default();
    format!("{}{share}{since}{by}{event}", p.version)
}

/// `search v3 → v4 by ci at … (activate)`
fn other_change(o: &OtherChange) -> String {
    let versions = arrow(o.from.as_deref(), o.to.as_deref());
    let group = if o.same_group { ", same group" } else { "" };
    format!("{} {versions} by {} at {} ({}{group})", shown_name(&o.prompt), o.operator, time(&o.at), o.event)
}

/// The marks of the versions, with their reasons.
fn marks(versions: &[VersionView]) -> String {
    let line = |v: &VersionView| {
        let mark = v.mark.as_ref()?;
        let at = time(&mark.at);
        Some(format!(
            "  {}: {} since {at}, by {}: {}\n",
            clean(&v.version),
            clean(&mark.kind),
            clean(&mark.operator),
            clean(&mark.reason)
        ))
    };
    let lines: String = versions.iter().filter_map(line).collect();
    if lines.is_empty() { lines } else { format!("\nmarks\n{lines}") }
}

fn is_bad(v: &VersionView) -> bool {
    v.mark.as_ref().is_some_and(|mark| MarkKind::parse(&mark.kind) == Some(MarkKind::Bad))
}

fn state(v: &VersionView) -> String {
    let mut words = Vec::new();
    if v.active {
        words.push("active".to_owned());
    }
    if v.quarantined_at.is_some() {
        words.push("quarantined".to_owned());
    }
    if is_bad(v) {
        words.push("marked as bad".to_owned());
    }
    words.extend(v.left_with_incident.as_deref().map(|id| format!("not a target: incident {} was open", clean(id))));
    if v.known_good {
        words.push(known_good(v.known_good_by.as_deref()));
    } else {
        words.extend(soak(v));
    }
    if words.is_empty() { "registered".into() } else { words.join(", ") }
}

fn known_good(by: Option<&str>) -> String {
    match (by.and_then(Earned::parse), by) {
        (Some(earned), _) => earned.spoken().to_owned(),
        (None, Some(by)) => format!("known-good ({})", clean(by)),
        (None, None) => "known-good".to_owned(),
    }
}

/// The state of its soak: `soaks until …`, or what is missing.
fn soak(v: &VersionView) -> Option<String> {
    let note = v.soak_note.as_deref().map(|note| format!(" ({})", clean(note))).unwrap_or_default();
    match (&v.soak_ends_at, &v.soak_limit_at) {
        (Some(at), _) => Some(format!("soaks until {}{note}", time(at))),
        (None, Some(at)) => {
            Some(format!("soak time is over, waiting for evidence{note}, known-good by time only from {}", time(at)))
        }
        (None, None) => None,
    }
}

pub fn log(log: &DeploymentLog, color: bool) -> String {
    if log.entries.is_empty() {
        return "no deployments yet\n".into();
    }
    let rows: Vec<_> = log.entries.iter().map(log_entry).collect();
    let mut out = table(["AT", "EVENT", "FROM", "TO", "OPERATOR", "INCIDENT", "REASON"], &rows, color);
    if log.next.is_some() {
        out.push_str(MORE);
    }
    out
}

/// The log of all prompts.
pub fn log_of_all(log: &DeploymentLog, truncated: bool, color: bool) -> String {
    let row = |entry: &LogEntryView| {
        let [at, event, from, to, operator, incident, reason] = log_entry(entry);
        [at, Cell::new(&shown_name(&entry.prompt)), event, from, to, operator, incident, reason]
    };
    let rows: Vec<_> = log.entries.iter().map(row).collect();
    let mut out = match rows.as_slice() {
        [] => "no deployments since then\n".to_owned(),
        rows => table(["AT", "PROMPT", "EVENT", "FROM", "TO", "OPERATOR", "INCIDENT", "REASON"], rows, color),
    };
    if truncated {
        out.push_str(MORE);
    }
    for prompt in &log.unreadable {
        let _ = writeln!(out, "the log of {} cannot be read: its key holds the wrong type", name(prompt));
    }
    out
}

fn log_entry(e: &LogEntryView) -> [Cell; 7] {
    [
        Cell::time(e.at.as_deref()),
        match e.event.as_deref() {
            Some(event) if LogEvent::parse(event) == Some(LogEvent::Rollback) => Cell::warning(event),
            event => Cell::maybe(event),
        },
        Cell::maybe(e.from.as_deref()),
        Cell::maybe(e.to.as_deref()),
        Cell::maybe(e.operator.as_deref()),
        Cell::maybe(e.incident.as_deref()),
        Cell::maybe(e.reason.as_deref()),
    ]
}

/// `v1 → v2: 5 % on v2, next 25 % at …`
pub fn split(s: &SplitView) -> String {
    let mut text = share(s);
    if let Some(at) = &s.next_stage_at {
        let next = s.stages.iter().find(|percent| **percent > s.percent);
        let next = next.map_or_else(|| "next".to_owned(), |percent| format!("{percent} %"));
        text.push_str(&format!(", {next} at {}", time(at)));
    }
    if let Some(why) = &s.waits {
        text.push_str(&format!(", waiting: {}", clean(why)));
    }
    text
}

fn canary(c: &CanaryView) -> String {
    if let Some(end) = &c.end {
        return format!("{}, ended {}: {}", share(&c.split), time(&end.at), clean(&end.text));
    }
    let by_time = if c.analysis.as_deref() == Some("off") { ", on a timer only (canary.analysis is off)" } else { "" };
    split(&c.split) + by_time
}

fn share(s: &SplitView) -> String {
    format!("{}: {} % on {}", arrow(Some(&s.from), Some(&s.to)), s.percent, clean(&s.to))
}

pub fn gates(g: &GatesResponse, color: bool) -> String {
    let mut out = format!("{} {}\n", name(&g.prompt), clean(&g.version));
    if let Some(replaces) = &g.replaces {
        out.push_str(&line("instead of", replaces));
    }
    let row = |gate: &GateView| {
        let verdict = match (gate.on, gate.passed) {
            (_, true) => Cell::new("open"),
            (true, false) => Cell::warning("closed"),
            (false, false) => Cell::new("closed, but off"),
        };
        [Cell::new(&gate.gate), verdict, Cell::new(&gate.figures)]
    };
    let rows: Vec<_> = g.gates.iter().map(row).collect();
    out.push_str(&table(["GATE", "STATE", "FIGURES"], &rows, color));
    out
}

/// The name of a prompt, and its encoded form if that is another.
fn name(encoded: &str) -> String {
    match shown_name(encoded) {
        Cow::Borrowed(name) => clean(name),
        Cow::Owned(name) => format!("{name} ({encoded})"),
    }
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:<15}  {}\n", clean(value))
}

fn arrow(from: Option<&str>, to: Option<&str>) -> String {
    format!("{} → {}", version(from), version(to))
}

fn version(version: Option<&str>) -> String {
    version.map_or("nothing".into(), clean)
}
