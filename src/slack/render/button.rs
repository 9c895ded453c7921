//! What can be clicked, and what a click brings back.

use slack_morphism::prelude::{
    SlackActionBlockElement, SlackActionsBlock, SlackBlock, SlackBlockButtonElement, SlackBlockButtonStyle,
    SlackBlockChoiceItem, SlackBlockConfirmItem, SlackBlockPlainTextOnly, SlackBlockStaticSelectElement,
};

use super::text::{fit, literal};
use crate::decision::{Action, Incident, IncidentId, PhaseKind, PromptName, VersionName};

/// Action ids.
pub mod action {
    pub const APPROVE: &str = "approve";
    /// Step by step; of a paused one: go on.
    pub const APPROVE_GRADUAL: &str = "approve_gradual";
    pub const INVESTIGATE: &str = "investigate";
    pub const DISMISS: &str = "dismiss";
    pub const UNDO: &str = "undo";
    /// The menu: approve, to the version of the chosen option.
    pub const OTHER_VERSION: &str = "other_version";

    /// Approve, as one of many buttons of a message: their ids must differ.
    pub fn approve_one_of(at: usize) -> String {
        format!("{APPROVE}.{at}")
    }

    /// Of a button about all prompts of a coordinating incident.
    pub const fn all(bulk: crate::decision::mass::Bulk) -> &'static str {
        use crate::decision::mass::Bulk;
        match bulk {
            Bulk::RollBack => "all_roll_back",
            Bulk::Undo => "all_undo",
            Bulk::Hold => "all_hold",
            Bulk::Release => "all_release",
        }
    }
}

/// Slack's limit for the value of a menu's option, the tightest of all values.
const MAX_VALUE: usize = 150;
const MAX_OPTIONS: usize = 100;

/// What a button or an option stands for. Never a revision: a duplicate alert makes no click stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    pub incident: IncidentId,
    /// The version that serves; left out where two long names don't fit, since `ask` tells the question already.
    pub from: Option<VersionName>,
    /// The version to serve instead.
    pub to: Option<VersionName>,
    /// Which of the incident's questions is answered.
    pub ask: u32,
}

impl Button {
    /// `incident|ask|to|from`. None of these holds a `|`, nor what Slack escapes on the way back.
    pub fn encode(&self) -> String {
        let name = |version: &Option<VersionName>| version.as_ref().map_or(String::new(), VersionName::to_string);
        let (to, from) = (name(&self.to), name(&self.from));
        let full = format!("{}|{}|{to}|{from}", self.incident, self.ask);
        if full.len() <= MAX_VALUE { full } else { format!("{}|{}|{to}|", self.incident, self.ask) }
    }

    /// `None` for anything that [`Button::encode`] did not make.
    pub fn decode(value: &str) -> Option<Self> {
        let name = |text: &str| match text {
            "" => Some(None),
            text => VersionName::parse(text).ok().map(Some),
        };
        let [incident, ask, to, from] = value.splitn(4, '|').collect::<Vec<_>>().try_into().ok()?;
        let is_id = incident.len() == 26 && incident.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        let button = Self {
            incident: is_id.then(|| IncidentId(incident.to_owned()))?,
            ask: ask.parse().ok()?,
            to: name(to)?,
            from: name(from)?,
        };
        (button.encode() == value).then_some(button)
    }
}

/// The buttons that the incident's phase allows.
pub fn buttons(incident: &Incident) -> Option<SlackBlock> {
    let undecided = incident.phase.is_undecided();
    let mut elements = Vec::new();
    if (undecided && incident.phase.kind() != PhaseKind::Confirming) || incident.phase.kind() == PhaseKind::Escalated {
        let (way, others) = ways(incident);
        // what is not urgent goes step by step, if people follow the first button
        let gently = incident.action == Action::Observe;
        let at_once = way.map(|to| approve(incident, to, !gently));
        let step_by_step = way.filter(|_| undecided).map(|to| approve_gradual(incident, to, gently));
        if gently {
            elements.extend(step_by_step.into_iter().chain(at_once));
        } else {
            elements.extend(at_once.into_iter().chain(step_by_step));
        }
        if undecided && incident.phase.kind() != PhaseKind::Investigating {
            elements.push(button(incident, action::INVESTIGATE, "Investigate", None, None).into());
        }
        elements.push(button(incident, action::DISMISS, "Dismiss", None, None).into());
        elements.extend(menu(incident, &others));
    }
    if let Some(split) = incident.gradual().filter(|_| incident.phase.kind() == PhaseKind::RollingBack) {
        if split.paused.is_some() {
            elements.push(button(incident, action::APPROVE_GRADUAL, "Go on", None, Some(&split.arriving)).into());
        }
        let all = format!("From {} back to {}, without further steps.", split.leaving, split.arriving);
        let all = confirm("Roll back", &incident.prompt, &all);
        let now = button(incident, action::APPROVE, "All the way now", None, Some(&split.arriving));
        elements.push(now.with_style(SlackBlockButtonStyle::Primary).with_confirm(all).into());
        let back = fit(&format!("Back to {}", split.leaving), 75);
        let text = format!("All traffic to {} again, although it is being rolled back.", split.leaving);
        let sure = confirm("Stop the rollback of", &incident.prompt, &text);
        let back = button(incident, action::UNDO, &back, Some(&split.arriving), Some(&split.leaving));
        elements.push(back.with_confirm(sure).into());
    }
    if !incident.is_shipped()
        && matches!(
            incident.phase.kind(),
            PhaseKind::Verifying | PhaseKind::Escalated | PhaseKind::Recovered | PhaseKind::Unverified
        )
    {
        elements.extend(undo(incident));
    }
    (!elements.is_empty()).then(|| SlackActionsBlock::new(elements).into())
}

/// The version that serves while the question is open: after a rollback that failed, the one rolled back to.
fn subject(incident: &Incident) -> &VersionName {
    incident.flip.as_ref().map_or(&incident.version, |flip| &flip.to)
}

/// Where Approve leads, and the other versions that the menu offers.
fn ways(incident: &Incident) -> (Option<&VersionName>, Vec<&VersionName>) {
    let possible = |version: &&VersionName| *version != subject(incident) && **version != incident.version;
    let way = incident.target.iter().chain(&incident.choices).find(possible);
    let others = incident.choices.iter().filter(|v| possible(v) && Some(*v) != way).take(MAX_OPTIONS).collect();
    (way, others)
}

fn approve(incident: &Incident, to: &VersionName, recommended: bool) -> SlackActionBlockElement {
    let text = format!("From {} back to {to}.", subject(incident));
    let button = button(incident, action::APPROVE, "Approve rollback", Some(subject(incident)), Some(to));
    styled(button.with_confirm(confirm("Roll back", &incident.prompt, &text)), recommended)
}

fn styled(button: SlackBlockButtonElement, recommended: bool) -> SlackActionBlockElement {
    if recommended { button.with_style(SlackBlockButtonStyle::Primary).into() } else { button.into() }
}

fn approve_gradual(incident: &Incident, to: &VersionName, recommended: bool) -> SlackActionBlockElement {
    let text = format!("From {} back to {to}, step by step.", subject(incident));
    let button = button(incident, action::APPROVE_GRADUAL, "Approve gradually", None, Some(to));
    styled(button.with_confirm(confirm("Roll back", &incident.prompt, &text)), recommended)
}

fn menu(incident: &Incident, versions: &[&VersionName]) -> Option<SlackActionBlockElement> {
    let option = |to: &&VersionName| {
        let value = value(incident, Some(subject(incident)), Some(to));
        SlackBlockChoiceItem::new(plain(to.as_str()), value)
    };
    let text = format!("From {} back to the version that you chose.", subject(incident));
    (!versions.is_empty()).then(|| {
        SlackBlockStaticSelectElement::new()
            .with_action_id(action::OTHER_VERSION.into())
            .with_placeholder(plain("Roll back to another known-good version"))
            .with_options(versions.iter().map(option).collect())
            .with_confirm(confirm("Roll back", &incident.prompt, &text))
            .into()
    })
}

fn undo(incident: &Incident) -> Option<SlackActionBlockElement> {
    let flip = incident.flip.as_ref()?;
    let label = fit(&format!("Undo (re-activate {})", flip.from), 75);
    let text = format!("From {} to {} again, although it was rolled back.", flip.to, flip.from);
    let button = button(incident, action::UNDO, &label, Some(&flip.to), Some(&flip.from)).with_confirm(confirm(
        "Undo",
        &incident.prompt,
        &text,
    ));
    Some(button.into())
}

fn button(
    incident: &Incident,
    action: &str,
    label: &str,
    from: Option<&VersionName>,
    to: Option<&VersionName>,
) -> SlackBlockButtonElement {
    let from = from.or(Some(subject(incident)));
    SlackBlockButtonElement::new(plain(label)).with_action_id(action.into()).with_value(value(incident, from, to))
}

fn value(incident: &Incident, from: Option<&VersionName>, to: Option<&VersionName>) -> String {
    Button { incident: incident.id.clone(), from: from.cloned(), to: to.cloned(), ask: incident.ask }.encode()
}

/// Slack's own dialog before the click counts.
fn confirm(what: &str, prompt: &PromptName, versions: &str) -> SlackBlockConfirmItem {
    let title = fit(&format!("{what} {prompt}?"), 100);
    let text = format!("{versions} All its prompt servers follow at once.");
    SlackBlockConfirmItem::new(plain(&title), literal(text).into(), plain("Yes, do it"), plain("Not now"))
        .with_style("danger".to_owned())
}

pub(super) fn plain(text: &str) -> SlackBlockPlainTextOnly {
    literal(text).into()
}
