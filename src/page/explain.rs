//! What would happen if alerts fired now.

use std::time::Duration;

use maud::{Markup, html};

use super::layout::headings;
use super::parts::{Text, Tone, badge, incident_link, left, seconds, time_of};
use crate::api::{ExplainView, ForeseenAlertView, ForeseenTargetView};
use crate::decision::{Outcome, Timestamp};

pub fn explained(view: &ExplainView) -> Markup {
    html! {
        section aria-labelledby="what-if" {
            h2 id="what-if" { "What would happen if" }
            p class="quiet" {
                "This table shows the result of the decision function on the current state. The receiver commits nothing. "
                @if view.rules == "prometheus" { "The rules are those of your Prometheus." }
                @else {
                    "The rules are the shipped ones" @if let Some(why) = &view.rules_fault { ": " (Text(why)) } "."
                }
            }
            @if view.dismissed > 0 {
                p {
                    (view.dismissed)
                    " alerts were dismissed: the receiver ignores their repeats until they resolve or get worse."
                }
            }
            @if view.alerts.is_empty() { p { "No alert rule is about a version with traffic, so no alert would have an effect." } } @else {
                table class="wide" {
                    caption class="hidden" { "For each version with traffic, each alert rule" }
                    (headings(&["If this fired now", "On", "It would", "Guards that hold"]))
                    tbody { @for alert in &view.alerts { (row(alert, view)) } }
                }
            }
            @if view.left_out > 0 { p class="quiet" { (view.left_out) " more rules are not shown." } }
        }
    }
}

fn row(alert: &ForeseenAlertView, view: &ExplainView) -> Markup {
    let tone = match Outcome::parse(&alert.outcome) {
        Some(Outcome::RolledBack) => Tone::Fine,
        Some(Outcome::Held) => Tone::Watch,
        Some(Outcome::Ignored | Outcome::Duplicate) => Tone::Off,
        Some(Outcome::IncidentOpened | Outcome::IncidentUpdated | Outcome::Resolved) | None => Tone::Info,
    };
    html! {
        tr {
            th scope="row" data-label="If this fired now" {
                (Text(&alert.alert))
                div class="quiet" {
                    @if let Some(severity) = &alert.severity { (Text(severity)) }
                    @if let Some(action) = &alert.action { ", " (Text(action)) }
                }
                @for remark in &alert.remarks { div class="quiet" { (Text(remark)) } }
            }
            td data-label="On" { code { (Text(&alert.version)) } " (" (alert.percent) " %)" }
            td data-label="It would" {
                (badge(tone, &alert.outcome)) " " (Text(&alert.text))
                @if let Some(to) = &alert.target { div { (target(to)) } }
                @if let Some(id) = &alert.incident { div { "In " (incident_link(id, "the open incident")) } }
                @if let Some(decider) = &alert.decider { div { "Asks " (Text(decider)) } }
                @if let Some(at) = &alert.deadline_at { div class="quiet" { (deadline(at, alert, view)) } }
            }
            td data-label="Guards that hold" {
                @if alert.guards.is_empty() { span class="quiet" { "none" } }
                @for guard in &alert.guards {
                    div {
                        code { (Text(&guard.reason)) } ": " (Text(&guard.detail))
                        @if let Some(seconds) = guard.left_seconds { ", " (left(Duration::from_secs(seconds))) }
                    }
                }
            }
        }
    }
}

/// When its incident next asks, escalates or ends. That of a new incident counts from the alert: a page may be open for hours.
fn deadline(at: &str, alert: &ForeseenAlertView, view: &ExplainView) -> Markup {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()));
    let within = moment(at).zip(moment(&view.at)).filter(|_| alert.incident.is_none());
    html! {
        @match within {
            Some((at, now)) => { "Within " (seconds(at.since(now).as_secs())) }
            None => { "By " (time_of(at)) }
        }
    }
}

fn target(target: &ForeseenTargetView) -> Markup {
    html! {
        "→ " code { (Text(&target.version)) }
        @if let Some(at) = &target.known_good_at { ", known-good since " (time_of(at)) }
        @else { ", not known-good" }
    }
}
