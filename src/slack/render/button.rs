//! Buttons and menus, and their values in clicks.

use slack_morphism::prelude::{
    SlackActionBlockElement, SlackActionsBlock, SlackBlock, SlackBlockButtonElement, SlackBlockButtonStyle,
    SlackBlockChoiceItem, SlackBlockConfirmItem, SlackBlockOptionGroup, SlackBlockPlainTextOnly,
    SlackBlockStaticSelectElement,
};

use super::text::{fit, literal};
use crate::decision::{Canary, Choice, Incident, IncidentId, MarkKind, PromptName, Steer, VersionName};
use crate::wording::offers::{self, Confirmation, Marks, Offer, Offered, OtherVersions};

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
/// Slack's limits for a button's label and a dialog's title.
const MAX_LABEL: usize = 75;
const MAX_TITLE: usize = 100;

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
    let value = SteerButton { canary: canary.id.clone(), stage: canary.split.stage, prompt: prompt.clone() }.encode();
    let one = |(steer, label, confirmation): (Steer, &str, Option<Confirmation>)| {
        let button = SlackBlockButtonElement::new(plain(label)).with_action_id(action::steer(steer).into());
        confirmed(button.with_value(value.clone()), confirmation.as_ref()).into()
    };
    let elements: Vec<SlackActionBlockElement> = offers::of_canary(prompt, canary).into_iter().map(one).collect();
    (!elements.is_empty()).then(|| SlackActionsBlock::new(elements).into())
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
    let one = |offered: &Offered<'_>| match offered {
        Offered::Decision(offer) => button(incident, offer),
        Offered::OtherVersions(others) => menu(incident, others),
        Offered::Marks(marks) => menu_of_marks(incident, marks),
    };
    // a message is a function of the record alone, which does not say whether a canary is running
    let elements: Vec<_> = offers::of_incident(incident, false).iter().map(one).collect();
    (!elements.is_empty()).then(|| SlackActionsBlock::new(elements).into())
}

fn button(incident: &Incident, offer: &Offer<'_>) -> SlackActionBlockElement {
    let id = match offer.choice {
        Choice::Approve => action::APPROVE,
        Choice::ApproveGradual => action::APPROVE_GRADUAL,
        Choice::Investigate => action::INVESTIGATE,
        Choice::Dismiss => action::DISMISS,
        Choice::Undo => action::UNDO,
    };
    let button = SlackBlockButtonElement::new(plain(&fit(&offer.label, MAX_LABEL))).with_action_id(id.into());
    let button = button.with_value(value(incident, Some(offer.from), offer.to));
    let button = if offer.is_first { button.with_style(SlackBlockButtonStyle::Primary) } else { button };
    confirmed(button, offer.confirmation.as_ref()).into()
}

fn menu(incident: &Incident, others: &OtherVersions<'_>) -> SlackActionBlockElement {
    let option = |to: &&VersionName| {
        let value = value(incident, Some(others.from), Some(to));
        SlackBlockChoiceItem::new(plain(to.as_str()), value)
    };
    SlackBlockStaticSelectElement::new()
        .with_action_id(action::OTHER_VERSION.into())
        .with_placeholder(plain(others.label))
        .with_options(others.versions.iter().take(MAX_OPTIONS).map(option).collect())
        .with_confirm(dialog(&others.confirmation))
        .into()
}

fn menu_of_marks(incident: &Incident, marks: &Marks<'_>) -> SlackActionBlockElement {
    let group = |(kind, label, versions): &(MarkKind, &'static str, Vec<&VersionName>)| {
        let option = |version: &&VersionName| {
            SlackBlockChoiceItem::new(plain(version.as_str()), write_mark(*kind, incident, version))
        };
        let options: Vec<_> = versions.iter().take(MAX_OPTIONS).map(option).collect();
        (!options.is_empty()).then(|| SlackBlockOptionGroup::new(plain(label), options))
    };
    SlackBlockStaticSelectElement::new()
        .with_action_id(action::MARK.into())
        .with_placeholder(plain(marks.label))
        .with_option_groups(marks.groups.iter().filter_map(group).collect())
        .with_confirm(dialog(&marks.confirmation))
        .into()
}

pub(super) fn confirmed(
    button: SlackBlockButtonElement,
    confirmation: Option<&Confirmation>,
) -> SlackBlockButtonElement {
    match confirmation {
        Some(confirmation) => button.with_confirm(dialog(confirmation)),
        None => button,
    }
}

/// Slack's dialog before the click takes effect.
fn dialog(confirmation: &Confirmation) -> SlackBlockConfirmItem {
    let Confirmation { title, text, yes, no, is_dangerous } = confirmation;
    let text = literal(text.clone()).into();
    let dialog = SlackBlockConfirmItem::new(plain(&fit(title, MAX_TITLE)), text, plain(yes), plain(no));
    if *is_dangerous { dialog.with_style("danger".to_owned()) } else { dialog }
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

pub(super) fn plain(text: &str) -> SlackBlockPlainTextOnly {
    literal(text).into()
}
