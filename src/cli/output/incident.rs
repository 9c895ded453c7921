//! What `incidents` prints.

use super::{arrow, line};
use crate::cli::table::{Cell, clean, table, time};
use crate::cli::views::{Incident, Incidents, Member, SharedLabel};

pub fn incidents(list: &Incidents, color: bool) -> String {
    if list.incidents.is_empty() {
        return "no incidents\n".into();
    }
    let mut out = incident_table(&list.incidents, color);
    if list.next.is_some() {
        out.push_str("… there are more; show them with --limit\n");
    }
    out
}

pub(super) fn incident_table(incidents: &[Incident], color: bool) -> String {
    let rows: Vec<_> = incidents
        .iter()
        .map(|i| {
            [
                Cell::new(&i.id),
                Cell::time(Some(&i.opened_at)),
                if i.closed_at.is_none() { Cell::warning(&i.phase) } else { Cell::new(&i.phase) },
                Cell::new(&i.severity),
                Cell::new(i.prompt.as_deref().unwrap_or("many prompts")),
                Cell::maybe(i.version.as_deref()),
                Cell::maybe(i.target.as_deref()),
                Cell::maybe(i.summary.as_deref()),
            ]
        })
        .collect();
    table(["INCIDENT", "OPENED", "PHASE", "SEVERITY", "PROMPT", "VERSION", "TARGET", "SUMMARY"], &rows, color)
}

pub fn incident(i: &Incident, color: bool) -> String {
    let mut out = format!("{}\n", clean(&i.id));
    match &i.prompt {
        Some(prompt) => {
            out.push_str(&line("prompt", prompt));
            out.push_str(&line("version", i.version.as_deref().unwrap_or("none")));
            out.push_str(&line("rollback target", i.target.as_deref().unwrap_or("none")));
            for bad in &i.marked_bad {
                let text = format!("{} (marked as bad by {}: {})", bad.version, bad.operator, bad.reason);
                out.push_str(&line("never back to", &text));
            }
        }
        None => out.push_str(&line("prompts", &i.members.len().to_string())),
    }
    out.push_str(&line("phase", &i.phase));
    out.push_str(&line("asked for", &format!("{} ({})", i.action, i.severity)));
    let facts = [
        ("decider", i.decider.clone()),
        ("opened", Some(time(&i.opened_at))),
        ("decide by", i.deadline.as_deref().map(time)),
        ("closed", i.closed_at.as_deref().map(time)),
        ("summary", i.summary.clone()),
    ];
    for (name, value) in facts {
        out.push_str(&value.map(|value| line(name, &value)).unwrap_or_default());
    }
    if let Some(guard) = &i.guard {
        let detail = guard.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        out.push_str(&line("held by", &format!("{}{detail}", guard.reason)));
    }
    if let Some(split) = &i.gradual {
        out.push_str(&line("step by step", &super::split(split)));
    }
    if let Some(flip) = &i.flip {
        let versions = arrow(flip.from.as_deref(), flip.to.as_deref());
        let by = flip.operator.as_deref().or(flip.mode.as_deref()).map(|by| format!(" by {by}")).unwrap_or_default();
        out.push_str(&line("rolled back", &format!("{versions} at {}{by}", time(&flip.at))));
    }
    if let Some(hold) = &i.hold {
        out.push_str(&line("held back", &format!("by {} since {}", hold.by, time(&hold.at))));
    }
    let shared = |s: &SharedLabel| format!("{} {} ({})", s.label, s.value, s.prompts);
    if !i.shared.is_empty() {
        out.push_str(&line("they share", &i.shared.iter().map(shared).collect::<Vec<_>>().join(", ")));
    }
    if !i.members.is_empty() {
        out.push('\n');
        out.push_str(&members(&i.members, color));
    }
    if !i.alerts.is_empty() {
        out.push_str("\nalerts\n");
        for alert in &i.alerts {
            out.push_str(&format!("  {}\n", clean(&alert_line(alert))));
        }
    }
    if !i.events.is_empty() {
        let rows: Vec<_> =
            i.events.iter().map(|e| [Cell::time(Some(&e.at)), Cell::new(&e.kind), Cell::new(&e.text)]).collect();
        out.push('\n');
        out.push_str(&table(["AT", "EVENT", "WHAT HAPPENED"], &rows, color));
    }
    out
}

/// The prompts of an incident that coordinates many.
fn members(members: &[Member], color: bool) -> String {
    let rows: Vec<_> = members
        .iter()
        .map(|m| {
            let phase = if m.flipped_before { format!("{}, before", m.phase) } else { m.phase.clone() };
            let waits = matches!(m.phase.as_str(), "awaiting_decision" | "escalated");
            [
                Cell::new(&m.prompt),
                Cell::new(&arrow(Some(&m.version), m.target.as_deref())),
                if waits { Cell::warning(&phase) } else { Cell::new(&phase) },
                Cell::time(Some(&m.began)),
                Cell::new(&m.incident),
                Cell::maybe(m.failed.as_deref()),
            ]
        })
        .collect();
    table(["PROMPT", "ROLLBACK", "PHASE", "BEGAN", "INCIDENT", "NOT DONE BECAUSE"], &rows, color)
}

/// The name and state of an alert if it has them, else all of it: alerts are others' data.
fn alert_line(alert: &serde_json::Value) -> String {
    let text = |key: &str| alert[key].as_str();
    let Some(name) = text("alertname").or_else(|| text("name")) else {
        return alert.to_string();
    };
    [Some(name), text("status"), text("severity"), text("summary")].into_iter().flatten().collect::<Vec<_>>().join("  ")
}
