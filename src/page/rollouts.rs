//! Canaries and gradual rollbacks, as stages with the evidence so far.

use std::time::Duration;

use maud::{Markup, html};

use super::layout::{NavItem, PageLayout, again, page};
use super::parts::{Text, Tone, badge, health, incident_link, incomplete, prompt_link, seconds, time, who};
use super::{Viewer, actions};
use crate::decision::{Canary, Incident, PromptName, TrafficSplit};
use crate::figures::Known;

/// Traffic that moves.
#[derive(Debug, Clone, Copy)]
pub enum RolloutRow<'a> {
    Canary(&'a PromptName, &'a Canary),
    /// The incident of a gradual rollback.
    Gradual(&'a Incident),
}

#[derive(Debug, Clone)]
pub struct Rollouts<'a> {
    pub rollouts: Vec<RolloutRow<'a>>,
    /// How many more there are.
    pub left_out: usize,
    /// How long before the request the order was read; `None` if it was read for it.
    pub age: Option<Duration>,
    pub known: &'a Known,
}

pub fn rollouts(view: &Rollouts<'_>, viewer: &Viewer) -> String {
    let main = html! {
        h1 { "Rollouts" }
        @if !view.rollouts.is_empty() { (incomplete(view.known)) }
        @if view.rollouts.is_empty() {
            p { "No canary or gradual rollback is in progress." }
            p { "Start a canary with " code { "prompt-rollback activate PROMPT VERSION --canary" } "." }
        }
        @for rollout in &view.rollouts {
            @match rollout {
                RolloutRow::Canary(prompt, of) => {
                    (canary(prompt, of, viewer))
                    (evidence(prompt, &of.split, view.known))
                }
                RolloutRow::Gradual(incident) => { (gradual(incident, view.known, viewer)) }
            }
        }
        @if view.left_out > 0 { p class="quiet" { (view.left_out) " more are not shown." } }
    };
    let again = again(view.known.is_awaited() && !view.rollouts.is_empty(), false);
    page(
        &PageLayout { title: "Rollouts", place: NavItem::Rollouts, about: None, now: None, again, age: view.age, main },
        Some(viewer),
    )
}

/// A canary with its buttons.
pub fn canary(prompt: &PromptName, canary: &Canary, viewer: &Viewer) -> Markup {
    let split = &canary.split;
    let heading = format!("canary-{}", canary.id.0);
    html! {
        section class="rollout" data-key=(canary.id.0) aria-labelledby=(heading) {
            h2 id=(heading) { "Canary: " (prompt_link(prompt.as_str())) " " code { (split.arriving.as_str()) } }
            p {
                (split.arriving.as_str()) " instead of " (split.leaving.as_str())
                ", by " (who(split.operator.as_str())) ", since " (time(canary.started)) "."
            }
            (steps(split))
            (waits(split))
            @if let Some(end) = &canary.end {
                p {
                    @if end.promoted { (badge(Tone::Fine, "finished")) } @else { (badge(Tone::Watch, "ended")) }
                    " " (time(end.at)) ": " (Text(&end.text))
                }
            } @else {
                @if let Some(pause) = &canary.pause {
                    p {
                        "Paused by " (who(pause.operator.as_str())) ", " (time(pause.at)) ", until someone resumes it."
                    }
                }
                @if let Some(asked) = canary.waiting.as_ref().and_then(|waiting| waiting.asked.as_ref()) {
                    p { (incident_link(&asked.0, "The receiver has asked people")) " about this stage." }
                }
                @if canary.by_time { p class="quiet" { "It advances on a timer only: canary.analysis is off." } }
            }
            (actions::of_canary(prompt, canary, viewer))
        }
    }
}

fn gradual(incident: &Incident, known: &Known, viewer: &Viewer) -> Markup {
    let Some(split) = incident.gradual() else { return html! {} };
    let heading = format!("gradual-{}", incident.id.0);
    html! {
        section class="rollout" data-key=(incident.id.0) aria-labelledby=(heading) {
            h2 id=(heading) {
                "Gradual rollback: " (prompt_link(incident.prompt.as_str())) " → " code { (split.arriving.as_str()) }
            }
            p {
                "From " (split.leaving.as_str())
                ", by " (who(split.operator.as_str())) ", since " (time(split.began)) ". "
                (incident_link(&incident.id.0, "Its incident"))
            }
            (steps(split))
            (waits(split))
            (actions::of_incident(incident, true, viewer))
        }
        (evidence(&incident.prompt, split, known))
    }
}

fn steps(split: &TrafficSplit) -> Markup {
    let current = split.stage as usize;
    let holds = &split.plan.holds;
    html! {
        ol class="stages" aria-label="Stages" {
            @for (at, percent) in split.plan.stages.iter().enumerate() {
                @let class = match at.cmp(&current) {
                    std::cmp::Ordering::Less => "done",
                    std::cmp::Ordering::Equal => "now",
                    std::cmp::Ordering::Greater => "later",
                };
                li class=(class) aria-current=[(at == current).then_some("step")] {
                    strong { (percent) " %" }
                    @if let Some(hold) = holds.get(at).or(holds.last()).filter(|_| at + 1 < split.plan.stages.len()) {
                        span class="quiet" { " for " (seconds(hold.as_secs())) }
                    }
                }
            }
        }
    }
}

fn waits(split: &TrafficSplit) -> Markup {
    html! {
        p {
            "This stage began " (time(split.since)) "."
            @match (&split.paused, split.next) {
                (Some(why), _) => { " It waits: " (Text(why)) "." }
                (None, Some(next)) => { " The next stage begins " (time(next)) "." }
                (None, None) => { " It lasts until someone changes it." }
            }
        }
        @if let Some(check) = &split.last {
            p {
                "Evidence so far, " (time(check.at)) ": "
                (Text(&check.finding.text)) " (" (check.finding.verdict.as_str()) ")."
            }
        }
    }
}

fn evidence(prompt: &PromptName, split: &TrafficSplit, known: &Known) -> Markup {
    html! {
        div class="evidence" {
            @for version in [&split.arriving, &split.leaving] {
                div class="health" {
                    code { (version.as_str()) } " " (health(known, prompt.as_str(), version.as_str()))
                }
            }
        }
    }
}
