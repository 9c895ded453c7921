//! Buttons that act. The script sends each to a route of the API, after the same question that Slack asks; without the
//! script they are hidden.

use std::borrow::Cow;

use maud::{Markup, html};
use serde_json::{Value, json};

use super::Viewer;
use super::parts::{segment, shown};
use crate::decision::outage::{Member, Outage, OutageAction};
use crate::decision::{Canary, Choice, Incident, MarkKind, PromptName, VersionName};
use crate::visible;
use crate::wording::offers::{self, Confirmation, Marks, Offer, Offered, OtherVersions};

/// A text that the person is asked for, besides the confirmation.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The field of the request that it becomes.
    field: &'static str,
    label: &'static str,
    is_required: bool,
}

/// A button.
struct Act {
    label: String,
    /// Names the button where its label alone does not.
    spoken: Option<String>,
    path: String,
    body: Value,
    confirmation: Option<Confirmation>,
    asked: Option<Asked>,
    is_first: bool,
}

impl Act {
    fn new(label: impl Into<String>, path: impl Into<String>, body: Value) -> Self {
        let (label, path) = (label.into(), path.into());
        Self { label, spoken: None, path, body, confirmation: None, asked: None, is_first: false }
    }

    fn button(&self) -> Markup {
        let question = self.confirmation.as_ref();
        let class = match (self.is_first, question.is_some_and(|question| question.is_dangerous)) {
            (true, _) => "act first",
            (false, true) => "act danger",
            (false, false) => "act",
        };
        html! {
            button type="button" class=(class)
                data-method="POST" data-path=(self.path) data-body=(self.body.to_string())
                aria-label=[self.spoken.as_deref().map(shown)]
                data-title=[question.map(|question| &question.title)]
                data-text=[question.map(|question| &question.text)]
                data-yes=[question.map(|question| question.yes)]
                data-no=[question.map(|question| question.no)]
                data-danger=[question.filter(|question| question.is_dangerous).map(|_| "true")]
                data-field=[self.asked.map(|asked| asked.field)]
                data-label=[self.asked.map(|asked| asked.label)]
                data-required=[self.asked.filter(|asked| asked.is_required).map(|_| "true")]
            { (shown(&self.label)) }
        }
    }
}

/// What the incident's phase allows, as in Slack. `is_split`: the prompt's traffic is split.
pub fn of_incident(incident: &Incident, is_split: bool, viewer: &Viewer) -> Markup {
    let offered = if viewer.may_decide { offers::of_incident(incident, is_split) } else { Vec::new() };
    html! {
        @if !offered.is_empty() {
            div class="acts" role="group" aria-label="Decide" {
                @for one in &offered {
                    @match one {
                        Offered::Decision(offer) => { (decision(incident, offer, viewer)) }
                        Offered::OtherVersions(others) => { (other_versions(incident, others, viewer)) }
                        Offered::Marks(marks) => { (of_marks(incident, marks, viewer)) }
                    }
                }
            }
        }
    }
}

fn decide_path(id: &str) -> String {
    format!("/api/incidents/{}/decide", segment(id))
}

fn word(choice: Choice) -> &'static str {
    match choice {
        Choice::Approve => "approve",
        Choice::ApproveGradual => "approve_gradual",
        Choice::Investigate => "investigate",
        Choice::Dismiss => "dismiss",
        Choice::Undo => "undo",
    }
}

fn decision(incident: &Incident, offer: &Offer<'_>, viewer: &Viewer) -> Markup {
    // an undo is about the switch, whatever was asked since
    let question = (offer.choice != Choice::Undo).then_some(incident.question_number);
    let body = decide_body(word(offer.choice), offer.to, question, viewer);
    let (confirmation, is_first) = (offer.confirmation.clone(), offer.is_first);
    Act { confirmation, is_first, ..Act::new(&offer.label, decide_path(&incident.id.0), body) }.button()
}

fn decide_body(decision: &str, target: Option<&VersionName>, question: Option<u32>, viewer: &Viewer) -> Value {
    let mut body = json!({ "decision": decision, "operator": viewer.name });
    if let Some(target) = target {
        body["target_version"] = target.as_str().into();
    }
    if let Some(question) = question {
        body["question"] = question.into();
    }
    body
}

fn other_versions(incident: &Incident, others: &OtherVersions<'_>, viewer: &Viewer) -> Markup {
    let one = |to: &VersionName| {
        let body = decide_body("approve", Some(to), Some(incident.question_number), viewer);
        let confirmation = Some(others.confirmation.clone());
        let spoken = Some(format!("Roll back to {to}"));
        Act { confirmation, spoken, ..Act::new(to.as_str(), decide_path(&incident.id.0), body) }.button()
    };
    html! {
        details class="act" data-key="other-versions" {
            summary { (others.label) }
            div class="acts" role="group" aria-label=(others.label) { @for to in &others.versions { (one(to)) } }
        }
    }
}

fn of_marks(incident: &Incident, marks: &Marks<'_>, viewer: &Viewer) -> Markup {
    let id = Some(incident.id.0.as_str());
    html! {
        details class="act" data-key="marks" {
            summary { (marks.label) }
            @for (kind, label, versions) in marks.groups.iter().filter(|(.., versions)| !versions.is_empty()) {
                p { (label) }
                div class="acts" role="group" aria-label=(label) {
                    @for version in versions {
                        @let spoken = format!("{label}: {version}");
                        (mark_as((version.as_str(), spoken), &incident.prompt, version, *kind, id, viewer))
                    }
                }
            }
        }
    }
}

/// A button with its label and the name that it has where the label alone says too little.
fn mark_as(
    (label, spoken): (&str, String),
    prompt: &PromptName,
    version: &VersionName,
    kind: MarkKind,
    incident: Option<&str>,
    viewer: &Viewer,
) -> Markup {
    let mut body = json!({ "mark": kind.as_str(), "operator": viewer.name });
    if let Some(incident) = incident {
        body["incident"] = incident.into();
    }
    let path = format!("/api/prompts/{}/versions/{}/mark", segment(prompt.as_str()), segment(version.as_str()));
    let asked = Some(Asked { field: "reason", label: "Why", is_required: true });
    Act {
        confirmation: Some(offers::marking(prompt, Some((version, kind)))),
        spoken: Some(spoken),
        asked,
        ..Act::new(label, path, body)
    }
    .button()
}

/// The marks for one version of a prompt.
pub fn of_version(prompt: &PromptName, version: &VersionName, marked: Option<MarkKind>, viewer: &Viewer) -> Markup {
    let kinds = [(MarkKind::Good, "Trust"), (MarkKind::Bad, "Never roll back to it")];
    html! {
        @if viewer.may_decide {
            @for (kind, label) in kinds.into_iter().filter(|(kind, _)| marked != Some(*kind)) {
                (mark_as((label, format!("{label}: {version}")), prompt, version, kind, None, viewer))
            }
        }
    }
}

/// Pauses automation, or resumes it; `None`: for all prompts. `still_off`: why nothing rolls back after that.
pub fn of_automation(
    prompt: Option<&PromptName>,
    is_paused: bool,
    still_off: Option<StillOff>,
    viewer: &Viewer,
) -> Markup {
    let mut body = json!({ "operator": viewer.name });
    if let Some(prompt) = prompt {
        body["prompt"] = prompt.as_str().into();
    }
    let about = prompt.map_or(Cow::Borrowed("all prompts"), visible::shown);
    let (label, path, text) = match is_paused {
        true => {
            let text = still_off.map_or("Critical alerts roll back automatically again.", StillOff::text);
            ("Resume automation", "/api/resume", text)
        }
        false => (
            "Pause automation",
            "/api/pause",
            "Until someone resumes automation, the receiver asks people instead of rolling back automatically.",
        ),
    };
    let confirmation = Confirmation {
        title: format!("{label} of {about}?"),
        text: text.to_owned(),
        yes: "Yes, do it",
        no: "Not now",
        is_dangerous: false,
    };
    let asked = (!is_paused).then_some(Asked { field: "reason", label: "Why (optional)", is_required: false });
    html! {
        @if viewer.may_decide && (prompt.is_some() || viewer.sees_all) {
            (Act { confirmation: Some(confirmation), asked, ..Act::new(label, path, body) }.button())
        }
    }
}

/// Why nothing rolls back automatically, besides a pause that someone may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StillOff {
    DryRun,
    /// Automation is paused for all prompts, and one prompt is resumed.
    PausedForAll,
}

impl StillOff {
    pub fn of(is_dry_run: bool, is_paused_for_all: bool) -> Option<Self> {
        match (is_dry_run, is_paused_for_all) {
            (true, _) => Some(StillOff::DryRun),
            (false, true) => Some(StillOff::PausedForAll),
            (false, false) => None,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            StillOff::DryRun => "Automatic rollbacks stay off: guards.mode is dry-run.",
            StillOff::PausedForAll => "Automatic rollbacks stay off: automation is paused for all prompts.",
        }
    }
}

/// A rollback while no incident asks for one. `canary`: the version of a canary, which the rollback ends.
pub fn of_serving(
    prompt: &PromptName,
    active: &VersionName,
    target: &VersionName,
    canary: Option<&VersionName>,
    viewer: &Viewer,
) -> Markup {
    let body = json!({
        "prompt": prompt.as_str(), "from_version": active.as_str(), "target_version": target.as_str(), "operator": viewer.name,
    });
    let ends = canary.map(|version| format!(" This ends the canary of {version}, too.")).unwrap_or_default();
    let text = format!("From {active} back to {target}.{ends} All prompt servers follow at once.");
    let asked = Some(Asked { field: "reason", label: "Why (optional)", is_required: false });
    let confirmation = Some(offers::moving("Roll back", prompt, &text));
    html! {
        @if viewer.may_decide {
            (Act { confirmation, asked, ..Act::new("Roll back", "/api/rollback", body) }.button())
        }
    }
}

/// What a running canary allows, as in Slack.
pub fn of_canary(prompt: &PromptName, canary: &Canary, viewer: &Viewer) -> Markup {
    let path = format!("/api/prompts/{}/canary", segment(prompt.as_str()));
    let offered = if viewer.may_deploy { offers::of_canary(prompt, canary) } else { Vec::new() };
    html! {
        @if !offered.is_empty() {
            div class="acts" role="group" aria-label="Steer the canary" {
                @for (steer, label, confirmation) in offered {
                    @let body = json!({
                        "action": steer.as_str(), "operator": viewer.name,
                        "canary": canary.id.0, "stage": canary.split.stage,
                    });
                    (Act { confirmation, ..Act::new(label, path.clone(), body) }.button())
                }
            }
        }
    }
}

/// What may be decided about all prompts of an outage, as in Slack.
pub fn of_outage(outage: &Outage, members: &[Member], viewer: &Viewer) -> Markup {
    let offered = if viewer.may_decide { offers::of_outage(outage, members) } else { Vec::new() };
    html! {
        @if !offered.is_empty() {
            div class="acts" role="group" aria-label="Decide for all prompts" {
                @for (action, label, confirmation) in offered {
                    @let word = match action {
                        OutageAction::RollBack => "approve",
                        OutageAction::Hold => "dismiss",
                        OutageAction::Undo => "undo",
                        OutageAction::Release => "release",
                    };
                    @let body = decide_body(word, None, Some(outage.question_number), viewer);
                    @let is_first = action == OutageAction::RollBack;
                    @let act = Act::new(label, decide_path(&outage.id.0), body);
                    (Act { confirmation: Some(confirmation), is_first, ..act }.button())
                }
            }
        }
    }
}
