//! The output of `incidents`.

use super::{arrow, line, name};
use crate::api::{
    AlertView, AnyIncident, IncidentEvent, IncidentList, IncidentView, OutageMember, OutageView, SharedLabel,
};
use crate::cli::table::{Cell, clean, table, time};
use crate::decision::{PhaseKind, SwitchMode};
use crate::visible::shown_name;

pub fn incidents(list: &IncidentList, color: bool) -> String {
    if list.incidents.is_empty() {
        return "no incidents\n".into();
    }
    let mut out = incident_table(list.incidents.iter().map(any_row), color);
    if list.next.is_some() {
        out.push_str(super::MORE);
    }
    out
}

pub(super) fn incident_table(rows: impl Iterator<Item = [Cell; 8]>, color: bool) -> String {
    let headings = ["INCIDENT", "OPENED", "PHASE", "SEVERITY", "PROMPT", "VERSION", "TARGET", "SUMMARY"];
    table(headings, &rows.collect::<Vec<_>>(), color)
}

fn any_row(any: &AnyIncident) -> [Cell; 8] {
    match any {
        AnyIncident::OfPrompt(incident) => row(incident),
        AnyIncident::Outage(outage) => [
            Cell::new(&outage.id),
            Cell::time(Some(&outage.opened_at)),
            phase(&outage.phase, outage.closed_at.is_none()),
            Cell::new(&outage.severity),
            Cell::new("many prompts"),
            Cell::maybe(None),
            Cell::maybe(None),
            Cell::new(&outage.summary),
        ],
    }
}

pub(super) fn row(i: &IncidentView) -> [Cell; 8] {
    [
        Cell::new(&i.id),
        Cell::time(Some(&i.opened_at)),
        phase(&i.phase, i.closed_at.is_none()),
        Cell::new(&i.severity),
        Cell::new(&shown_name(&i.prompt)),
        Cell::new(&i.version),
        Cell::maybe(i.target.as_deref()),
        Cell::new(&i.summary),
    ]
}

fn phase(phase: &str, warns: bool) -> Cell {
    if warns { Cell::warning(phase) } else { Cell::new(phase) }
}

pub fn incident(any: &AnyIncident, color: bool) -> String {
    match any {
        AnyIncident::OfPrompt(incident) => of_prompt(incident, color),
        AnyIncident::Outage(outage) => self::outage(outage, color),
    }
}

fn of_prompt(i: &IncidentView, color: bool) -> String {
    let mut out = format!("{}\n", clean(&i.id));
    out.push_str(&line("prompt", &name(&i.prompt)));
    out.push_str(&line("version", &i.version));
    out.push_str(&line("rollback target", i.target.as_deref().unwrap_or("none")));
    for bad in &i.marked_bad {
        let text = format!("{} (marked as bad by {}: {})", bad.version, bad.operator, bad.reason);
        out.push_str(&line("not offered", &text));
    }
    out.push_str(&line("phase", &i.phase));
    out.push_str(&line("requested", &format!("{} ({})", i.action, i.severity)));
    let deadline = i.deadline.as_deref().map(|at| (at_deadline(&i.phase), at));
    out.push_str(&facts(&i.decider, &i.opened_at, deadline, i.closed_at.as_deref(), &i.summary));
    if let Some(guard) = &i.guard {
        out.push_str(&line("held by", &format!("{}: {}", guard.reason, guard.detail)));
    }
    if let Some(split) = &i.gradual {
        out.push_str(&line("gradual", &super::split(split)));
    }
    if let Some(switch) = &i.switch {
        let versions = arrow(Some(&switch.from), Some(&switch.to));
        let done = match SwitchMode::parse(&switch.mode) {
            Some(SwitchMode::Auto | SwitchMode::Approved | SwitchMode::Manual | SwitchMode::Gradual) => "rolled back",
            Some(SwitchMode::Shipped) => "replaced",
            None => "switched",
        };
        out.push_str(&line(done, &format!("{versions} at {} by {}", time(&switch.at), switch.operator)));
    }
    if let Some(alerts) = i.alerts.as_ref().filter(|alerts| !alerts.is_empty()) {
        out.push_str("\nalerts\n");
        for AlertView { alertname, severity, summary, .. } in alerts {
            out.push_str(&format!("  {}\n", clean(format!("{alertname}  {severity}  {summary}").trim_end())));
        }
    }
    out + &events(i.events.as_deref().unwrap_or_default(), color)
}

fn outage(o: &OutageView, color: bool) -> String {
    let mut out = format!("{}\n", clean(&o.id));
    out.push_str(&line("prompts", &o.prompts.to_string()));
    out.push_str(&line("phase", &o.phase));
    out.push_str(&line("requested", &format!("{} ({})", o.action, o.severity)));
    out.push_str(&facts(&o.decider, &o.opened_at, None, o.closed_at.as_deref(), &o.summary));
    if let Some(hold) = &o.hold {
        out.push_str(&line("on hold", &format!("by {} since {}", hold.by, time(&hold.at))));
    }
    let shared = |s: &SharedLabel| format!("{} {} ({})", s.label, s.value, s.prompts);
    if !o.shared.is_empty() {
        out.push_str(&line("they share", &o.shared.iter().map(shared).collect::<Vec<_>>().join(", ")));
    }
    if let Some(members) = o.members.as_ref().filter(|members| !members.is_empty()) {
        out.push('\n');
        out.push_str(&self::members(members, color));
        if o.prompts > members.len() {
            out.push_str(&format!("… and {} more prompts\n", o.prompts - members.len()));
        }
    }
    out + &events(o.events.as_deref().unwrap_or_default(), color)
}

/// What happens at the deadline of a phase: people have to decide by it in one phase only.
fn at_deadline(phase: &str) -> &'static str {
    match PhaseKind::parse(phase) {
        Some(PhaseKind::AwaitingDecision) => "decide by",
        // Prometheus' answer, or the content of the target: the API does not say which
        Some(PhaseKind::Confirming) => "expected by",
        Some(PhaseKind::Observing) => "observing until",
        Some(PhaseKind::Investigating) => "asking again",
        Some(PhaseKind::Verifying) => "result due",
        Some(PhaseKind::Escalated) => "next check",
        Some(
            PhaseKind::RollingBack
            | PhaseKind::Recovered
            | PhaseKind::Unverified
            | PhaseKind::Dismissed
            | PhaseKind::Resolved
            | PhaseKind::Superseded,
        )
        | None => "next step",
    }
}

/// `deadline`: what happens then, and when.
fn facts(
    decider: &str,
    opened: &str,
    deadline: Option<(&'static str, &str)>,
    closed: Option<&str>,
    summary: &str,
) -> String {
    let (label, deadline) = deadline.unzip();
    let facts = [
        ("decider", Some(decider.to_owned())),
        ("opened", Some(time(opened))),
        (label.unwrap_or_default(), deadline.map(time)),
        ("closed", closed.map(time)),
        ("summary", Some(summary.to_owned())),
    ];
    facts.into_iter().filter_map(|(name, value)| Some(line(name, &value?))).collect()
}

fn events(events: &[IncidentEvent], color: bool) -> String {
    if events.is_empty() {
        return String::new();
    }
    let row = |e: &IncidentEvent| [Cell::time(Some(&e.at)), Cell::new(&e.kind), Cell::new(&e.text)];
    let rows: Vec<_> = events.iter().map(row).collect();
    format!("\n{}", table(["AT", "EVENT", "WHAT HAPPENED"], &rows, color))
}

fn members(members: &[OutageMember], color: bool) -> String {
    let rows: Vec<_> = members
        .iter()
        .map(|m| {
            let phase = if m.rolled_back_before { format!("{}, before", m.phase) } else { m.phase.clone() };
            let waits = matches!(PhaseKind::parse(&m.phase), Some(PhaseKind::AwaitingDecision | PhaseKind::Escalated));
            [
                Cell::new(&shown_name(&m.prompt)),
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
