//! What people may choose about an incident, a canary or an outage, and what they are asked before it takes effect.

use crate::decision::outage::{Member, Outage, OutageAction};
use crate::decision::{Action, Canary, Choice, Incident, MarkKind, PhaseKind, PromptName, Steer, VersionName};
use crate::visible::shown;

/// What is asked before a choice takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    pub title: String,
    pub text: String,
    pub yes: &'static str,
    pub no: &'static str,
    /// Whether it moves traffic.
    pub is_dangerous: bool,
}

/// A decision about an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<'a> {
    pub choice: Choice,
    pub label: String,
    /// The version that is served while the question is open.
    pub from: &'a VersionName,
    pub to: Option<&'a VersionName>,
    /// Whether it is the recommended one.
    pub is_first: bool,
    pub confirmation: Option<Confirmation>,
}

/// Other versions that a rollback may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherVersions<'a> {
    pub label: &'static str,
    pub from: &'a VersionName,
    pub versions: Vec<&'a VersionName>,
    pub confirmation: Confirmation,
}

/// Versions that may be marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks<'a> {
    pub label: &'static str,
    /// Each mark, what it is called, and the versions for it.
    pub groups: Vec<(MarkKind, &'static str, Vec<&'a VersionName>)>,
    pub confirmation: Confirmation,
}

/// What people may choose about an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered<'a> {
    Decision(Offer<'a>),
    OtherVersions(OtherVersions<'a>),
    Marks(Marks<'a>),
}

/// What the incident's phase allows, in the order in which it is shown. `is_split`: the prompt's traffic is known to be
/// split, so no gradual rollback can begin.
pub fn of_incident(incident: &Incident, is_split: bool) -> Vec<Offered<'_>> {
    let undecided = incident.phase.is_undecided();
    let phase = incident.phase.kind();
    let mut offered: Vec<Offered<'_>> = Vec::new();
    if incident.awaits_decision() && phase != PhaseKind::Confirming {
        let (way, others) = ways(incident);
        // for less urgent incidents, the first one is gradual
        let gently = incident.action == Action::Observe && !is_split;
        let at_once = way.map(|to| approve(incident, to, !gently));
        // a question about a canary: the traffic is split as well
        let is_possible = undecided && !is_split && !incident.asks_about_canary();
        let step_by_step = way.filter(|_| is_possible).map(|to| approve_gradual(incident, to, gently));
        let ways = if gently { [step_by_step, at_once] } else { [at_once, step_by_step] };
        let mut decisions: Vec<_> = ways.into_iter().flatten().collect();
        if undecided && phase != PhaseKind::Investigating {
            decisions.push(offer(incident, Choice::Investigate, "Investigate"));
        }
        decisions.push(offer(incident, Choice::Dismiss, "Dismiss"));
        offered.extend(decisions.into_iter().map(Offered::Decision));
        offered.extend(other_versions(incident, others).map(Offered::OtherVersions));
    }
    offered.extend(of_gradual(incident).into_iter().map(Offered::Decision));
    if let Some(split) = incident.gradual().filter(|split| split.paused.is_some()) {
        // neither of its two versions may be good enough
        let others = incident.choices.iter().filter(|to| !split.has(to)).collect();
        offered.extend(other_versions(incident, others).map(Offered::OtherVersions));
    }
    let reversible = [PhaseKind::Verifying, PhaseKind::Escalated, PhaseKind::Recovered, PhaseKind::Unverified];
    if !incident.is_shipped() && reversible.contains(&phase) {
        offered.extend(undo(incident).map(Offered::Decision));
    }
    let settled = matches!(phase, PhaseKind::Dismissed | PhaseKind::Resolved | PhaseKind::Superseded);
    if !settled && phase != PhaseKind::Confirming {
        offered.push(Offered::Marks(marks(incident)));
    }
    offered
}

/// The version for an approval, and the other versions that it may name.
fn ways(incident: &Incident) -> (Option<&VersionName>, Vec<&VersionName>) {
    if incident.waits_for_servers() {
        return (None, Vec::new()); // another rollback does not help
    }
    let possible = |version: &&VersionName| *version != incident.subject() && **version != incident.version;
    let way = incident.target.iter().chain(&incident.choices).find(possible);
    let others = incident.choices.iter().filter(|v| possible(v) && Some(*v) != way).collect();
    (way, others)
}

fn offer<'a>(incident: &'a Incident, choice: Choice, label: impl Into<String>) -> Offer<'a> {
    let from = incident.subject();
    Offer { choice, label: label.into(), from, to: None, is_first: false, confirmation: None }
}

fn approve<'a>(incident: &'a Incident, to: &'a VersionName, is_first: bool) -> Offer<'a> {
    let text = format!("From {} back to {to}. {AT_ONCE}", incident.subject());
    let confirmation = Some(moving("Roll back", &incident.prompt, &text));
    Offer { to: Some(to), is_first, confirmation, ..offer(incident, Choice::Approve, "Approve rollback") }
}

fn approve_gradual<'a>(incident: &'a Incident, to: &'a VersionName, is_first: bool) -> Offer<'a> {
    let text = format!("From {} back to {to}, in stages.", incident.subject());
    let confirmation = Some(moving("Roll back", &incident.prompt, &text));
    Offer { to: Some(to), is_first, confirmation, ..offer(incident, Choice::ApproveGradual, "Approve gradually") }
}

fn other_versions<'a>(incident: &'a Incident, versions: Vec<&'a VersionName>) -> Option<OtherVersions<'a>> {
    let from = incident.subject();
    let confirmation =
        moving("Roll back", &incident.prompt, &format!("From {from} back to the version that you chose. {AT_ONCE}"));
    let label = "Roll back to another known-good version";
    (!versions.is_empty()).then_some(OtherVersions { label, from, versions, confirmation })
}

/// What may be done about a gradual rollback.
fn of_gradual(incident: &Incident) -> Vec<Offer<'_>> {
    let Some(split) = incident.gradual() else { return Vec::new() };
    let (onward, backward) = (!incident.is_marked_bad(&split.arriving), !incident.is_marked_bad(&split.leaving));
    let mut offers = Vec::new();
    if split.paused.is_some() && onward {
        let to = Some(&split.arriving);
        offers.push(Offer { to, ..offer(incident, Choice::ApproveGradual, "Continue") });
    }
    if onward {
        let text = format!("From {} back to {}, without further stages. {AT_ONCE}", split.leaving, split.arriving);
        let confirmation = Some(moving("Roll back", &incident.prompt, &text));
        let to = Some(&split.arriving);
        offers.push(Offer { to, is_first: true, confirmation, ..offer(incident, Choice::Approve, "Complete now") });
    }
    if backward {
        let text = format!("All traffic goes to {} again, although it is being rolled back. {AT_ONCE}", split.leaving);
        let confirmation = Some(moving("Stop the rollback of", &incident.prompt, &text));
        let label = format!("Back to {}", split.leaving);
        let (from, to) = (&split.arriving, Some(&split.leaving));
        offers.push(Offer { from, to, confirmation, ..offer(incident, Choice::Undo, label) });
    }
    offers
}

fn undo(incident: &Incident) -> Option<Offer<'_>> {
    let switch = incident.switch.as_ref().filter(|switch| !incident.is_marked_bad(&switch.from))?;
    let text = format!("From {} to {} again, although it was rolled back. {AT_ONCE}", switch.to, switch.from);
    let confirmation = Some(moving("Undo", &incident.prompt, &text));
    let label = format!("Undo (re-activate {})", switch.from);
    let (from, to) = (&switch.to, Some(&switch.from));
    Some(Offer { from, to, confirmation, ..offer(incident, Choice::Undo, label) })
}

/// Versions that may be marked as never to be used again, or as trusted.
fn marks(incident: &Incident) -> Marks<'_> {
    let switch = incident.switch.iter().flat_map(|switch| [&switch.from, &switch.to]);
    let mut named: Vec<&VersionName> = vec![&incident.version];
    for version in switch.chain(&incident.target).chain(&incident.choices) {
        if !named.contains(&version) {
            named.push(version);
        }
    }
    let bad = named.into_iter().filter(|version| !incident.is_marked_bad(version));
    let marked = incident.never.iter().map(|never| &never.version).filter(|version| **version != incident.version);
    let good = std::iter::once(&incident.version).chain(marked);
    let groups = vec![
        (MarkKind::Bad, "Never roll back to this version", bad.collect()),
        (MarkKind::Good, "Trust this version", good.collect()),
    ];
    Marks { label: "Mark a version", groups, confirmation: marking(&incident.prompt, None) }
}

/// Asked before a version is marked; `None`: the message offers several.
pub fn marking(prompt: &PromptName, one: Option<(&VersionName, MarkKind)>) -> Confirmation {
    let title = match one {
        None => format!("Mark a version of {}?", shown(prompt)),
        Some((version, MarkKind::Bad)) => format!("Mark {version} of {} as bad?", shown(prompt)),
        Some((version, MarkKind::Good)) => format!("Trust {version} of {}?", shown(prompt)),
    };
    Confirmation {
        title,
        text: "A mark moves no traffic. A version marked as bad is never a rollback target; a trusted version can be \
               one at once."
            .to_owned(),
        yes: "Yes, mark it",
        no: "Not now",
        is_dangerous: false,
    }
}

const AT_ONCE: &str = "All prompt servers follow at once.";

/// Asked before traffic moves.
pub fn moving(what: &str, prompt: &PromptName, versions: &str) -> Confirmation {
    Confirmation {
        title: format!("{what} {}?", shown(prompt)),
        text: versions.to_owned(),
        yes: "Yes, do it",
        no: "Not now",
        is_dangerous: true,
    }
}

/// How a running canary may be steered, in the order in which it is shown.
pub fn of_canary(prompt: &PromptName, canary: &Canary) -> Vec<(Steer, &'static str, Option<Confirmation>)> {
    if canary.end.is_some() {
        return Vec::new();
    }
    let split = &canary.split;
    let mut offers = Vec::new();
    if split.next_percent().is_some() {
        offers.push(match canary.pause {
            Some(_) => (Steer::Resume, "Resume", None),
            None => (Steer::Pause, "Pause", None),
        });
        offers.push((Steer::Skip, "Next stage now", None));
        offers.push((Steer::Hold, "Hold here", None));
    }
    let promote = format!("{} gets all traffic now, regardless of the measurements. {AT_ONCE}", split.arriving);
    offers.push((Steer::Promote, "Promote now", Some(moving("Promote", prompt, &promote))));
    let abort = format!("{} gets all traffic again. {AT_ONCE}", split.leaving);
    offers.push((Steer::Abort, "Abort", Some(moving("Abort the canary of", prompt, &abort))));
    offers
}

/// What may be decided about all prompts of an outage.
pub fn of_outage(outage: &Outage, members: &[Member]) -> Vec<(OutageAction, &'static str, Confirmation)> {
    let waits = members.iter().filter(|member| member.waits()).count();
    let one = |action: OutageAction| {
        let (label, text) = match action {
            OutageAction::RollBack => {
                let what = if waits == 1 { "One prompt goes back to its" } else { "prompts go back to their" };
                let number = if waits == 1 { String::new() } else { format!("{waits} ") };
                ("Roll back all", format!("{number}{what} last known-good version."))
            }
            OutageAction::Undo => {
                ("Undo all", "The versions that were rolled back before are served again.".to_owned())
            }
            OutageAction::Hold => (
                "Hold all (provider outage)",
                "No automatic rollbacks and no escalations until the hold ends.".to_owned(),
            ),
            OutageAction::Release => ("End the hold", "Automation resumes, and missed deadlines escalate.".to_owned()),
        };
        let title = format!("{label}?");
        let is_dangerous = matches!(action, OutageAction::RollBack | OutageAction::Undo);
        let (yes, no) = ("Yes, do it", "Not now");
        (action, label, Confirmation { title, text, yes, no, is_dangerous })
    };
    outage.choices(members).into_iter().map(one).collect()
}
