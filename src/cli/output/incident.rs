//! What `incidents` prints.

use super::{arrow, line};
use crate::cli::table::{Cell, clean, table, time};
use crate::cli::views::{Incident, Incidents};

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
                Cell::new(&i.prompt),
                Cell::new(&i.version),
                Cell::maybe(i.target.as_deref()),
                Cell::maybe(i.summary.as_deref()),
            ]
        })
        .collect();
    table(["INCIDENT", "OPENED", "PHASE", "SEVERITY", "PROMPT", "VERSION", "TARGET", "SUMMARY"], &rows, color)
}

pub fn incident(i: &Incident, color: bool) -> String {
    let mut out = format!("{}\n", clean(&i.id));
    out.push_str(&line("prompt", &i.prompt));
    out.push_str(&line("version", &i.version));
    out.push_str(&line("rollback target", i.target.as_deref().unwrap_or("none")));
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

/// The name and state of an alert if it has them, else all of it: alerts are others' data.
fn alert_line(alert: &serde_json::Value) -> String {
    let text = |key: &str| alert[key].as_str();
    let Some(name) = text("alertname").or_else(|| text("name")) else {
        return alert.to_string();
    };
    [Some(name), text("status"), text("severity"), text("summary")].into_iter().flatten().collect::<Vec<_>>().join("  ")
}
