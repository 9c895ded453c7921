//! Buttons and menus, and their values in clicks.

use slack_morphism::prelude::{
    SlackActionBlockElement, SlackActionsBlock, SlackBlock, SlackBlockButtonElement, SlackBlockButtonStyle,
    SlackBlockChoiceItem, SlackBlockConfirmItem, SlackBlockOptionGroup, SlackBlockPlainTextOnly,
    SlackBlockStaticSelectElement,
};

use super::text::{fit, literal};
use crate::decision::{Action, Canary, Incident, IncidentId, MarkKind, PhaseKind, PromptName, Steer, VersionName};
use crate::visible::shown;

/// Action ids.
pub mod action {
    pub const APPROVE: &str = "approve";
    /// Approve a gradual rollback, or continue a paused one.
    pub const APPROVE_GRADUAL: &str = "approve_gradual";
    pub const INVESTIGATE: &str = "investigate";
    pub const DISMISS: &str = "dismiss";
    pub const UNDO: &str = "undo";
    /// The menu that approves a rollback to the version of the chosen option.
    pub const OTHER_VERSION: &str = "other_version";
    /// The menu that marks the version of the chosen option.
    pub const MARK: &str = "mark";

    /// The button that steers a canary.
    pub const fn steer(steer: crate::decision::Steer) -> &'static str {
        use crate::decision::Steer;
        match steer {
            Steer::Pause => "canary_pause",
            Steer::Resume => "canary_resume",
            Steer::Skip => "canary_skip",
            Steer::Hold => "canary_hold",
            Steer::Promote => "canary_promote",
            Steer::Abort => "canary_abort",
        }
    }

    /// One of many Approve buttons in a message: their ids must differ.
    pub fn approve_one_of(at: usize) -> String {
        format!("{APPROVE}.{at}")
    }

    /// The button about all prompts of a coordinating incident.
    pub const fn all(bulk: crate::decision::outage::OutageAction) -> &'static str {
        use crate::decision::outage::OutageAction;
        match bulk {
            OutageAction::RollBack => "all_roll_back",
            OutageAction::Undo => "all_undo",
            OutageAction::Hold => "all_hold",
            OutageAction::Release => "all_release",
        }
    }
}

/// Slack's limit for the value of a menu's option, the lowest limit of all values.
const MAX_VALUE: usize = 150;
const MAX_OPTIONS: usize = 100;

/// The value of a button or an option. Never a revision: a duplicate alert invalidates no button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    pub incident: IncidentId,
    /// The served version; omitted if two long names do not fit, because `ask` identifies the question already.
    pub from: Option<VersionName>,
    /// The version to serve instead.
    pub to: Option<VersionName>,
    /// The number of the question that is answered.
    pub question_number: u32,
}

impl Button {
    /// Encodes as `incident|ask|to|from`. None of these contains `|`, or a character that Slack escapes in clicks.
    pub fn encode(&self) -> String {
        let name = |version: &Option<VersionName>| version.as_ref().map_or(String::new(), VersionName::to_string);
        let (to, from) = (name(&self.to), name(&self.from));
        let full = format!("{}|{}|{to}|{from}", self.incident, self.question_number);
        if full.len() <= MAX_VALUE { full } else { format!("{}|{}|{to}|", self.incident, self.question_number) }
    }

    /// Returns `None` for text that [`Button::encode`] did not create.
    pub fn decode(value: &str) -> Option<Self> {
        let name = |text: &str| match text {
            "" => Some(None),
            text => VersionName::parse(text).ok().map(Some),
        };
        let [incident, question_number, to, from] = value.splitn(4, '|').collect::<Vec<_>>().try_into().ok()?;
        let is_id = incident.len() == 26 && incident.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        let button = Self {
            incident: is_id.then(|| IncidentId(incident.to_owned()))?,
            question_number: question_number.parse().ok()?,
            to: name(to)?,
            from: name(from)?,
        };
        (button.encode() == value).then_some(button)
    }
}

/// The value of a button that steers a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteerButton {
    pub canary: IncidentId,
    pub stage: u32,
    pub prompt: PromptName,
}

impl SteerButton {
    /// Encodes as `canary|stage|prompt`.
    pub fn encode(&self) -> String {
        format!("{}|{}|{}", self.canary, self.stage, self.prompt)
    }

    /// Returns `None` for text that [`SteerButton::encode`] did not create.
    pub fn decode(value: &str) -> Option<Self> {
        let [canary, stage, prompt] = value.splitn(3, '|').collect::<Vec<_>>().try_into().ok()?;
        let canary = Button::decode(&format!("{canary}|0||"))?.incident;
        let button = Self { canary, stage: stage.parse().ok()?, prompt: PromptName::parse(prompt).ok()? };
        (button.encode() == value).then_some(button)
    }
}

/// The buttons that steer a running canary.
pub(super) fn steering(prompt: &PromptName, canary: &Canary) -> Option<SlackBlock> {
    if canary.end.is_some() {
        return None;
    }
    let split = &canary.split;
    let value = SteerButton { canary: canary.id.clone(), stage: split.stage, prompt: prompt.clone() }.encode();
    let one = |steer: Steer, label: &str| {
        let id = action::steer(steer).into();
        SlackBlockButtonElement::new(plain(label)).with_action_id(id).with_value(value.clone())
    };
    let mut elements: Vec<SlackActionBlockElement> = Vec::new();
    if split.next_percent().is_some() {
        elements.push(match canary.pause {
            Some(_) => one(Steer::Resume, "Resume").into(),
            None => one(Steer::Pause, "Pause").into(),
        });
        elements.push(one(Steer::Skip, "Next stage now").into());
        elements.push(one(Steer::Hold, "Hold here").into());
    }
    let promote = format!("{} gets all traffic now, regardless of the measurements.", split.arriving);
    elements.push(one(Steer::Promote, "Promote now").with_confirm(confirm("Promote", prompt, &promote)).into());
    let abort = format!("{} gets all traffic again.", split.leaving);
    elements.push(one(Steer::Abort, "Abort").with_confirm(confirm("Abort the canary of", prompt, &abort)).into());
    Some(SlackActionsBlock::new(elements).into())
}

pub(super) fn is_steering(actions: &SlackActionsBlock) -> bool {
    let steers = |element: &SlackActionBlockElement| match element {
        SlackActionBlockElement::Button(button) => {
            button.action_id.as_ref().is_some_and(|id| id.0.starts_with("canary_"))
        }
        _ => false,
    };
    actions.elements.iter().any(steers)
}

/// The value of an option in the menu of marks: the mark, and the version. The served version is omitted, so that it
/// fits.
fn write_mark(kind: MarkKind, incident: &Incident, version: &VersionName) -> String {
    format!("{}:{}", kind.as_str(), value(incident, None, Some(version)))
}

/// Returns `None` for text that [`write_mark`] did not create.
pub fn read_mark(value: &str) -> Option<(MarkKind, Button)> {
    let (word, button) = value.split_once(':')?;
    let kind = MarkKind::parse(word)?;
    Some((kind, Button::decode(button).filter(|button| button.to.is_some() && button.from.is_none())?))
}

/// The buttons that the incident's phase allows.
pub fn buttons(incident: &Incident) -> Option<SlackBlock> {
    let undecided = incident.phase.is_undecided();
    let mut elements = Vec::new();
    if (undecided && incident.phase.kind() != PhaseKind::Confirming) || incident.phase.kind() == PhaseKind::Escalated {
        let (way, others) = ways(incident);
        // for less urgent incidents, the first button is gradual
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
        let (onward, backward) = (!incident.is_marked_bad(&split.arriving), !incident.is_marked_bad(&split.leaving));
        if split.paused.is_some() && onward {
            elements.push(button(incident, action::APPROVE_GRADUAL, "Continue", None, Some(&split.arriving)).into());
        }
        let all = format!("From {} back to {}, without further steps.", split.leaving, split.arriving);
        let all = confirm("Roll back", &incident.prompt, &all);
        let now = button(incident, action::APPROVE, "All the way now", None, Some(&split.arriving));
        if onward {
            elements.push(now.with_style(SlackBlockButtonStyle::Primary).with_confirm(all).into());
        }
        let back = fit(&format!("Back to {}", split.leaving), 75);
        let text = format!("All traffic goes to {} again, although it is being rolled back.", split.leaving);
        let confirmation = confirm("Stop the rollback of", &incident.prompt, &text);
        let back = button(incident, action::UNDO, &back, Some(&split.arriving), Some(&split.leaving));
        if backward {
            elements.push(back.with_confirm(confirmation).into());
        }
    }
    if !incident.is_shipped()
        && matches!(
            incident.phase.kind(),
            PhaseKind::Verifying | PhaseKind::Escalated | PhaseKind::Recovered | PhaseKind::Unverified
        )
    {
        elements.extend(undo(incident));
    }
    let phase = incident.phase.kind();
    let settled = matches!(phase, PhaseKind::Dismissed | PhaseKind::Resolved | PhaseKind::Superseded);
    if !settled && phase != PhaseKind::Confirming {
        elements.push(marks(incident));
    }
    (!elements.is_empty()).then(|| SlackActionsBlock::new(elements).into())
}

/// The served version while the question is open: after a failed rollback, the one rolled back to.
fn subject(incident: &Incident) -> &VersionName {
    incident.subject()
}

/// The version for Approve, and the other versions for the menu.
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

/// The menu that marks a version as never to be used again, or as trusted.
fn marks(incident: &Incident) -> SlackActionBlockElement {
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
    let group = |kind: MarkKind, label: &str, versions: Vec<&VersionName>| {
        let option = |version: &&VersionName| {
            SlackBlockChoiceItem::new(plain(version.as_str()), write_mark(kind, incident, version))
        };
        let options: Vec<_> = versions.iter().take(MAX_OPTIONS).map(option).collect();
        (!options.is_empty()).then(|| SlackBlockOptionGroup::new(plain(label), options))
    };
    let groups = [
        group(MarkKind::Bad, "Never roll back to this version", bad.collect()),
        group(MarkKind::Good, "Trust this version", good.collect()),
    ];
    let title = fit(&format!("Mark a version of {}?", shown(&incident.prompt)), 100);
    let text = "A mark moves no traffic. A version marked as bad is never a rollback target; a trusted version can be \
                one at once.";
    let confirm =
        SlackBlockConfirmItem::new(plain(&title), literal(text).into(), plain("Yes, mark it"), plain("Not now"));
    SlackBlockStaticSelectElement::new()
        .with_action_id(action::MARK.into())
        .with_placeholder(plain("Mark a version"))
        .with_option_groups(groups.into_iter().flatten().collect())
        .with_confirm(confirm)
        .into()
}

fn undo(incident: &Incident) -> Option<SlackActionBlockElement> {
    let switch = incident.switch.as_ref().filter(|switch| !incident.is_marked_bad(&switch.from))?;
    let label = fit(&format!("Undo (re-activate {})", switch.from), 75);
    let text = format!("From {} to {} again, although it was rolled back.", switch.to, switch.from);
    let button = button(incident, action::UNDO, &label, Some(&switch.to), Some(&switch.from)).with_confirm(confirm(
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
    Button {
        incident: incident.id.clone(),
        from: from.cloned(),
        to: to.cloned(),
        question_number: incident.question_number,
    }
    .encode()
}

/// Slack's dialog before the click takes effect.
fn confirm(what: &str, prompt: &PromptName, versions: &str) -> SlackBlockConfirmItem {
    let title = fit(&format!("{what} {}?", shown(prompt)), 100);
    let text = format!("{versions} All its prompt servers follow at once.");
    SlackBlockConfirmItem::new(plain(&title), literal(text).into(), plain("Yes, do it"), plain("Not now"))
        .with_style("danger".to_owned())
}

pub(super) fn plain(text: &str) -> SlackBlockPlainTextOnly {
    literal(text).into()
}
