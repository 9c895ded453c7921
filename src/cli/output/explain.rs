//! The output of `explain`.

use std::time::Duration;

use super::{known_good, line, name};
use crate::api::{ExplainView, ForeseenAlertView, ForeseenGuardView, ForeseenTargetView};
use crate::cli::table::{clean, time};
use crate::decision::time::spoken;

pub fn explained(e: &ExplainView) -> String {
    let mut out = format!("{} at {}\n", name(&e.prompt), time(&e.at));
    let fault = e.rules_fault.as_deref().map(|fault| format!(" ({fault})")).unwrap_or_default();
    out.push_str(&line("alert rules", &format!("{}{fault}", e.rules)));
    if e.dismissed > 0 {
        let text = format!("alerts: {}; repeats are ignored until they resolve or get worse", e.dismissed);
        out.push_str(&line("dismissed", &text));
    }
    if e.alerts.is_empty() {
        out.push_str("\nno alert rule is about a version with traffic\n");
    }
    out.extend(e.alerts.iter().map(alert));
    if e.left_out > 0 {
        out.push_str(&format!("\n… and {} more rules; use --alert to show one\n", e.left_out));
    }
    out
}

fn alert(a: &ForeseenAlertView) -> String {
    let share = if a.percent < 100 { format!(" ({} % of the traffic)", a.percent) } else { String::new() };
    let mut out = format!("\n{}\n  would {}\n", clean(&format!("{} on {}{share}", a.alert, a.version)), clean(&a.text));
    if let (Some(action), Some(severity)) = (&a.action, &a.severity) {
        out.push_str(&line("requested", &format!("{action} ({severity})")));
    }
    out.extend(a.remarks.iter().map(|remark| line("note", remark)));
    out.push_str(&line("outcome", &format!("{} ({})", a.outcome, a.reason)));
    out.extend(a.target.iter().map(|target| line("rollback target", &self::target(target))));
    out.extend(a.guards.iter().map(guard));
    out.extend(a.incident.iter().map(|id| line("incident", id)));
    out.extend(a.decider.iter().map(|decider| line("decider", decider)));
    out
}

fn target(t: &ForeseenTargetView) -> String {
    match &t.known_good_at {
        Some(at) => format!("{}, {} since {}", t.version, known_good(t.known_good_by.as_deref()), time(at)),
        None => format!("{}, not known-good", t.version),
    }
}

fn guard(g: &ForeseenGuardView) -> String {
    let left = g.left_seconds.map(|left| format!(", {} left", spoken(Duration::from_secs(left)))).unwrap_or_default();
    line("held by", &format!("{}{left}: {}", g.reason, g.detail))
}
