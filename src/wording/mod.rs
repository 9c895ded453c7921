//! What an incident is called and what people may choose, in the same words in Slack and on the page.

pub mod offers;

use std::cmp::Ordering;
use std::time::Duration;

use crate::decision::time::spoken;
use crate::decision::{Incident, PhaseKind, RollbackFailure, Switch, SwitchMode, Timestamp, TrafficSplit};

/// The state of an incident.
pub fn title(incident: &Incident) -> &'static str {
    match incident.phase.kind() {
        PhaseKind::Confirming if awaits_content(incident) => "Restoring content",
        PhaseKind::Confirming => "Asking Prometheus",
        PhaseKind::Observing => "Observing",
        PhaseKind::AwaitingDecision if incident.is_held_back() => "On hold",
        PhaseKind::AwaitingDecision if incident.is_overdue() => "Decision overdue",
        PhaseKind::AwaitingDecision => "Decision needed",
        PhaseKind::Investigating => "Under investigation",
        PhaseKind::RollingBack if incident.is_stuck() => "Gradual rollback paused",
        PhaseKind::RollingBack => "Rolling back gradually",
        PhaseKind::Verifying if incident.is_shipped() => "Another version shipped",
        PhaseKind::Verifying => "Rolled back",
        PhaseKind::Escalated if incident.failure() == Some(RollbackFailure::NotFollowed) => {
            if incident.is_shipped() {
                "Prompt servers do not follow the replacement"
            } else {
                "Prompt servers do not follow the rollback"
            }
        }
        PhaseKind::Escalated if incident.is_shipped() && incident.is_measured_bad() => {
            "Shipping another version did not help"
        }
        PhaseKind::Escalated if incident.is_shipped() => "Another version shipped, not verified",
        PhaseKind::Escalated => "Rollback did not help",
        PhaseKind::Recovered => "Recovered",
        PhaseKind::Unverified if incident.is_shipped() => "Another version shipped, not verified",
        PhaseKind::Unverified => "Rolled back, not verified",
        PhaseKind::Dismissed => "Dismissed",
        PhaseKind::Resolved => "Resolved",
        PhaseKind::Superseded => "Superseded",
    }
}

/// Whether its rollback waits for the content of its target, and not for Prometheus.
fn awaits_content(incident: &Incident) -> bool {
    incident.pending().is_some_and(|pending| pending.skip_confirmation)
}

/// When the current phase ends, or ended.
pub fn until(incident: &Incident) -> Option<(&'static str, Timestamp)> {
    let label = match incident.phase.kind() {
        PhaseKind::Confirming if awaits_content(incident) => "Content expected by",
        PhaseKind::Confirming => "Answer expected by",
        PhaseKind::Observing => "Observing until",
        PhaseKind::AwaitingDecision if incident.is_overdue() => "Overdue, escalated again",
        PhaseKind::AwaitingDecision => "Decide by",
        PhaseKind::Investigating => "Asking again",
        PhaseKind::RollingBack => {
            return incident.gradual().and_then(|split| split.next).map(|at| ("Next stage", at));
        }
        PhaseKind::Verifying => "Result expected by",
        PhaseKind::Escalated => "Next check",
        _ => return incident.closed_at.map(|at| ("Closed", at)),
    };
    incident.deadline().map(|at| (label, at))
}

/// The switch as a sentence without its end; `who` is its operator, as the reader shows names.
pub fn what_was_done(incident: &Incident, switch: &Switch, who: &str) -> String {
    let mut text = match switch.mode {
        SwitchMode::Auto => format!("Rolled back automatically from {} to {}", switch.from, switch.to),
        SwitchMode::Approved => format!("{who} approved: rolled back from {} to {}", switch.from, switch.to),
        SwitchMode::Manual => format!("{who} rolled back from {} to {}", switch.from, switch.to),
        SwitchMode::Gradual => format!("{who} rolled back gradually from {} to {}", switch.from, switch.to),
        SwitchMode::Shipped => format!("{who} replaced {} with {}", switch.from, switch.to),
    };
    if let Some(began) = began(incident, switch.at) {
        text.push_str(&format!(", {} after the first alert began", took(switch.at.since(began))));
    }
    text
}

/// What was done about the version in trouble: "after the …".
pub fn change(incident: &Incident) -> &'static str {
    if incident.is_shipped() { "replacement" } else { "rollback" }
}

/// When the problem began, according to the alerts; never after `by`.
pub fn began(incident: &Incident, by: Timestamp) -> Option<Timestamp> {
    incident.alerts.iter().filter_map(|alert| alert.began(by)).min()
}

/// `✓ 1 % → ▶ 5 % → 25 %`: the stages of a split. `shown` maps the percentage of the version that gains traffic.
pub fn stages(split: &TrafficSplit, shown: fn(u8) -> u8) -> String {
    let stage = |(at, percent): (usize, &u8)| {
        let mark = match at.cmp(&(split.stage as usize)) {
            Ordering::Less => "✓ ",
            Ordering::Equal => "▶ ",
            Ordering::Greater => "",
        };
        format!("{mark}{} %", shown(*percent))
    };
    split.plan.stages.iter().enumerate().map(stage).collect::<Vec<_>>().join(" → ")
}

/// How long something took, more precisely than [`spoken`].
pub fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => spoken(duration),
    }
}
