//! Turns a click in Slack into a decision, if the user may decide. Clicks over HTTP and over Socket Mode are both
//! handled here.
//!
//! Fails closed: a user who is not known as an approver may not decide. Uses Redis only; user groups are resolved in
//! advance.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::Instrument;

use super::coordinate;
use crate::config::Decider;
use crate::decision::outage::OutageAction;
use crate::decision::{
    Answer, Choice, Decide, Event, Incident, IncidentId, MarkKind, Marking, Steer, Steering, VersionName,
};
use crate::engine::{Engine, EngineError, Handled};
use crate::slack::payload::Click;
use crate::slack::render::{Button, SteerButton, action, read_mark};
use crate::store::StoreError;
use crate::store::receipt::{HandledRequest, Receipt};
use crate::trace::{self, TraceContext};
use crate::visible::is_hidden;

mod acknowledged;

pub use acknowledged::Acknowledged;

/// An acknowledged click that cannot be committed is retried for half a minute.
const TRIES: u32 = 15;
const RETRY: Duration = Duration::from_secs(2);
/// A person gets each refusal once per question within this time.
const REFUSAL_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Longest part of an incident's summary in the reason of a mark.
const MAX_SUMMARY: usize = 300;

/// The record of the incident has expired.
const GONE: &str = "This incident has expired.";

/// What a button stands for.
#[derive(Debug, Clone, Copy)]
enum ButtonAction {
    One(Choice),
    /// About all prompts of a coordinating incident.
    All(OutageAction),
    /// About the chosen version.
    Mark(MarkKind),
}

/// A message that only the user who clicked sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EphemeralReply {
    pub channel: String,
    pub thread: Option<String>,
    pub user: String,
    pub text: String,
}

/// Handles clicks.
#[derive(Debug)]
pub struct Clicks {
    engine: Arc<Engine>,
    deciders: BTreeMap<String, Decider>,
    /// Sends messages to the Slack worker. If it is full, they are dropped.
    replies: mpsc::Sender<EphemeralReply>,
    pub acknowledged: Acknowledged,
    /// The only workspace and app from which clicks count, if they are known.
    team: Option<String>,
    app: Option<String>,
}

impl Clicks {
    pub fn new(
        engine: Arc<Engine>,
        deciders: BTreeMap<String, Decider>,
        replies: mpsc::Sender<EphemeralReply>,
        acknowledged: Acknowledged,
    ) -> Self {
        Self { engine, deciders, replies, acknowledged, team: None, app: None }
    }

    /// Accepts clicks only from this workspace and this app, if given.
    #[must_use]
    pub fn only_from(self, team: Option<&str>, app: Option<&str>) -> Self {
        Self { team: team.map(str::to_owned), app: app.map(str::to_owned), ..self }
    }

    /// Whether the click is from this workspace and app: an app that is installed in several workspaces signs all their
    /// clicks with one secret, and user ids are unique only within a workspace.
    fn is_ours(&self, click: &Click) -> bool {
        let fits = |expected: &Option<String>, found: &Option<String>| expected.is_none() || expected == found;
        fits(&self.team, &click.team) && fits(&self.app, &click.app)
    }

    /// Handles one click; fails only if a retry may succeed.
    pub async fn handle(&self, click: &Click) -> Result<(), EngineError> {
        if !self.is_ours(click) {
            let Click { user, team, app, .. } = click;
            tracing::warn!(
                ?user,
                ?team,
                ?app,
                "a click from another workspace or app than slack.team_id and slack.app_id"
            );
            return Ok(());
        }
        if let Some(steer) = Steer::ALL.into_iter().find(|steer| action::steer(*steer) == click.action_id) {
            return self.steer(click, steer).await;
        }
        let is_mark = click.action_id == action::MARK;
        let (pressed, button) = match (is_mark, button_action(&click.action_id)) {
            (true, _) => read_mark(&click.value).map(|(kind, button)| (ButtonAction::Mark(kind), button)).unzip(),
            (false, Some(pressed)) => (Some(pressed), Button::decode(&click.value)),
            (false, None) => {
                tracing::info!(action = ?short(&click.action_id), "a click on an unknown button");
                return Ok(());
            }
        };
        let (Some(pressed), Some(button), true) =
            (pressed, button, is_plain(&click.user) && is_plain(&click.action_ts))
        else {
            tracing::warn!(action = ?short(&click.action_id), "a click on a message that is not from this app");
            return Ok(());
        };
        let store = &self.engine.store;
        let own = format!("click:{}:{}:{}", button.incident, click.user, click.action_ts);
        let to = button.to.as_ref().map_or("", VersionName::as_str);
        let what = match pressed {
            ButtonAction::Mark(kind) => kind.as_str(),
            ButtonAction::One(_) | ButtonAction::All(_) => &click.action_id,
        };
        let like = format!("double:{}:{}:{}:{what}:{to}", button.incident, button.question_number, click.user);
        let receipt = store.receipt(&own, &like);
        let refusal = match pressed {
            ButtonAction::One(choice) => self.decide(click, choice, &button, &receipt).await?,
            ButtonAction::All(outage_action) => self.decide_all(click, outage_action, &button, &receipt).await?,
            ButtonAction::Mark(kind) => self.mark(click, kind, &button, &receipt).await?,
        };
        if let Some(refusal) = refusal {
            self.refuse(click, &button, &refusal).await?;
        }
        Ok(())
    }

    /// Handles a click on a canary's message: the fallback decider's approvers may steer it.
    async fn steer(&self, click: &Click, steer: Steer) -> Result<(), EngineError> {
        let Some(button) =
            SteerButton::decode(&click.value).filter(|_| is_plain(&click.user) && is_plain(&click.action_ts))
        else {
            tracing::warn!(action = click.action_id, "a click on a message that is not from this app");
            return Ok(());
        };
        let SteerButton { canary, stage, prompt } = &button;
        trace::concerns(Some(prompt.as_str()), None, Some(&canary.0));
        let own = format!("click:{canary}:{}:{}", click.user, click.action_ts);
        let like = format!("double:{canary}:{stage}:{}:{}", click.user, click.action_id);
        let receipt = self.engine.store.receipt(&own, &like);
        let decider = &self.engine.policy.fallback_decider;
        let refusal = if self.may_decide(decider, &click.user).await? {
            let (about, operator) = (Some((canary.clone(), *stage)), click.operator());
            let event = Event::Steer(Steering { steer, about, operator, force: false, reason: None });
            refused(self.engine.handle_once(prompt, &event, &receipt).await?)
        } else {
            Some(may_not(canary, decider, click))
        };
        if let Some(refusal) = refusal {
            let asked = Button { incident: canary.clone(), from: None, to: None, question_number: *stage };
            self.refuse(click, &asked, &refusal).await?;
        }
        Ok(())
    }

    /// `Some`: why nothing was done.
    async fn decide(
        &self,
        click: &Click,
        choice: Choice,
        button: &Button,
        receipt: &Receipt,
    ) -> Result<Option<String>, EngineError> {
        let incident = match self.permitted(click, button).await? {
            Ok(incident) => incident,
            Err(refusal) => return Ok(Some(refusal)),
        };
        let target: Option<VersionName> = match choice {
            Choice::Approve | Choice::ApproveGradual | Choice::Undo => button.to.clone(),
            Choice::Investigate | Choice::Dismiss => None,
        };
        let event = Event::Decide(Decide {
            incident: button.incident.clone(),
            choice,
            operator: click.operator(),
            target,
            force: false,
            question_number: (choice != Choice::Undo).then_some(button.question_number),
        });
        Ok(refused(self.engine.handle_once(&incident.prompt, &event, receipt).await?))
    }

    /// Like [`Clicks::decide`], about all prompts at once.
    async fn decide_all(
        &self,
        click: &Click,
        outage_action: OutageAction,
        button: &Button,
        receipt: &Receipt,
    ) -> Result<Option<String>, EngineError> {
        let Some(found) = self.engine.store.outage(&button.incident).await? else {
            return Ok(Some(GONE.to_owned()));
        };
        trace::concerns(None, None, Some(&button.incident.0));
        let decider = &found.outage.decider;
        if !self.may_decide(decider, &click.user).await? {
            return Ok(Some(may_not(&button.incident, decider, click)));
        }
        let (id, question_number) = (&button.incident, Some(button.question_number));
        let decided =
            coordinate::decide(&self.engine, id, outage_action, &click.operator(), question_number, Some(receipt))
                .await?;
        Ok(decided.and_then(Result::err).map(|refusal| refusal.message))
    }

    /// Like [`Clicks::decide`], about a version: a user who may decide about the incident may mark it.
    async fn mark(
        &self,
        click: &Click,
        kind: MarkKind,
        button: &Button,
        receipt: &Receipt,
    ) -> Result<Option<String>, EngineError> {
        let incident = match self.permitted(click, button).await? {
            Ok(incident) => incident,
            Err(refusal) => return Ok(Some(refusal)),
        };
        let Some(version) = button.to.clone() else { return Ok(None) };
        let Incident { id, version: about, .. } = &incident;
        let summary: String = incident.summary().chars().filter(|c| !is_hidden(*c)).take(MAX_SUMMARY).collect();
        let reason = match version == *about {
            true => format!("in the thread of incident {id}: {summary}"),
            false => format!("in the thread of incident {id} about {about}"),
        };
        let operator = click.operator();
        let marking = Marking { version, kind, reason, operator, incident: Some(id.clone()) };
        Ok(refused(self.engine.handle_once(&incident.prompt, &Event::Mark(marking), receipt).await?))
    }

    /// The incident of `button`, if the user may decide about it; otherwise the reason.
    async fn permitted(&self, click: &Click, button: &Button) -> Result<Result<Incident, String>, StoreError> {
        let Some(incident) = self.engine.store.incident(&button.incident).await? else {
            return Ok(Err(GONE.to_owned()));
        };
        let Incident { id, prompt, version, .. } = &incident;
        trace::concerns(Some(prompt.as_str()), Some(version.as_str()), Some(&id.0));
        if !self.may_decide(&incident.decider, &click.user).await? {
            return Ok(Err(may_not(&incident.id, &incident.decider, click)));
        }
        Ok(Ok(incident))
    }

    async fn may_decide(&self, name: &str, user: &str) -> Result<bool, StoreError> {
        let Some(decider) = self.deciders.get(name) else { return Ok(false) };
        if decider.approvers.iter().any(|approver| approver == user) {
            return Ok(true);
        }
        let groups = decider.approvers.iter().filter(|approver| is_group(approver)).cloned();
        for group in groups.chain(decider.approvers_url.as_ref().map(|_| schedule(name))) {
            let members = self.engine.store.group(&group).await?;
            if members.is_some_and(|members| members.iter().any(|member| member == user)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn say_lost(&self, click: &Click) {
        let Some(channel) = click.channel.clone() else { return };
        let text =
            "Your click had no effect: the receiver could not read or write its state. Please click again.".to_owned();
        let _ = self.replies.try_send(EphemeralReply {
            channel,
            thread: click.thread.clone(),
            user: click.user.clone(),
            text,
        });
    }

    /// Tells the user why, each reason once per question.
    async fn refuse(&self, click: &Click, button: &Button, text: &str) -> Result<(), StoreError> {
        let Some(channel) = click.channel.clone() else { return Ok(()) };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let Button { incident, question_number, .. } = button;
        let claim = format!("told:{incident}:{question_number}:{}:{:016x}", click.user, hasher.finish());
        if self.engine.store.claim_once(&claim, REFUSAL_TTL).await? {
            let reply = EphemeralReply {
                channel,
                thread: click.thread.clone(),
                user: click.user.clone(),
                text: text.to_owned(),
            };
            if self.replies.try_send(reply).is_err() {
                tracing::warn!(incident = %button.incident, "too many refusals at once: a user was not told of one");
            }
        }
        Ok(())
    }
}

/// Handles a click that is already acknowledged: retries during a fault, and answers the user if the fault lasts. `clicks` gives
/// those in force, if Slack is configured; `caller` is the trace that the request came with.
pub async fn handle_patiently(clicks: impl Fn() -> Option<Arc<Clicks>>, click: &Click, caller: Option<&TraceContext>) {
    let mut unfinished = Unfinished(Some(click));
    for attempt in 1..=TRIES {
        let Some(clicks) = clicks() else { break };
        let span = trace::click(caller);
        match clicks.handle(click).instrument(span.clone()).await {
            Ok(()) => break,
            Err(error) if attempt == TRIES => {
                let (user, action) = (&click.user, short(&click.action_id));
                span.in_scope(|| tracing::error!(%error, user, ?action, "a click is lost"));
                clicks.say_lost(click);
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
    unfinished.0 = None;
}

/// Logs a click whose handling is cut off: the receiver stops, or the request is gone.
struct Unfinished<'a>(Option<&'a Click>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(Click { user, action_id, .. }) = self.0 {
            tracing::error!(user, action = ?short(action_id), "a click was cut off: it may have had no effect");
        }
    }
}

/// Why nothing was done, now or when the same click came before.
fn refused(handled: Handled) -> Option<String> {
    match (handled.answer, handled.before) {
        (Answer::Refused(refusal), _) => Some(refusal.message),
        (_, Some(HandledRequest::Refused(why))) => Some(why),
        _ => None,
    }
}

/// Whether this is the Slack id of a user group (`S…`), not of a user.
pub fn is_group(approver: &str) -> bool {
    approver.starts_with('S')
}

/// What the people on call of this decider are stored as. A name with a colon is no id of a user group.
pub fn schedule(decider: &str) -> String {
    format!("schedule:{decider}")
}

fn may_not(incident: &IncidentId, decider: &str, click: &Click) -> String {
    let Click { user, action_id, .. } = click;
    tracing::warn!(%incident, user, action = action_id, "a click by someone who may not decide");
    format!(
        "Only approvers of {decider} may do this. Ask one of them, or change deciders.{decider}.approvers or its schedule."
    )
}

fn button_action(action_id: &str) -> Option<ButtonAction> {
    match action_id {
        action::APPROVE | action::OTHER_VERSION => Some(ButtonAction::One(Choice::Approve)),
        action::APPROVE_GRADUAL => Some(ButtonAction::One(Choice::ApproveGradual)),
        action::INVESTIGATE => Some(ButtonAction::One(Choice::Investigate)),
        action::DISMISS => Some(ButtonAction::One(Choice::Dismiss)),
        action::UNDO => Some(ButtonAction::One(Choice::Undo)),
        id if id.starts_with("approve.") => Some(ButtonAction::One(Choice::Approve)), // [`action::approve_one_of`]
        _ => OutageAction::ALL
            .into_iter()
            .find(|outage_action| action::all(*outage_action) == action_id)
            .map(ButtonAction::All),
    }
}

/// Whether it may become part of a key.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
