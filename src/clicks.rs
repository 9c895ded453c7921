//! A click in Slack becomes a decision, if the clicker may decide. Both ways in, HTTP and Socket Mode, end here.
//!
//! Fail-closed: who is not known to be an approver is none. Touches Redis only; user groups are resolved beforehand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::Decider;
use crate::coordinate;
use crate::decision::outage::OutageAction;
use crate::decision::{
    Answer, Choice, Decide, Event, Incident, IncidentId, MarkKind, Marking, Refusal, RefusalCode, Steer, Steering,
    VersionName,
};
use crate::engine::{Engine, EngineError, Handled};
use crate::slack::payload::Click;
use crate::slack::render::{Button, SteerButton, action, read_mark};
use crate::store::StoreError;
use crate::store::receipt::{Before, Receipt};
use crate::visible::is_hidden;

/// A click that was acknowledged and can't be committed is tried for half a minute.
const TRIES: u32 = 15;
const RETRY: Duration = Duration::from_secs(2);
/// A refusal is told once to a person about a question.
const TOLD: Duration = Duration::from_secs(24 * 3_600);

/// Of an incident's summary in the reason of a mark.
const MAX_SUMMARY: usize = 300;

/// Of an incident whose record has expired.
const GONE: &str = "This incident is gone: it has expired.";

/// What a button stands for.
#[derive(Debug, Clone, Copy)]
enum Wish {
    One(Choice),
    /// About all prompts of a coordinating incident.
    All(OutageAction),
    /// About the version that was chosen.
    Mark(MarkKind),
}

/// Something to say to the clicker alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    pub channel: String,
    pub thread: Option<String>,
    pub user: String,
    pub text: String,
}

/// What clicks need.
#[derive(Debug)]
pub struct Clicks {
    engine: Arc<Engine>,
    deciders: BTreeMap<String, Decider>,
    /// To the worker that talks to Slack. Full: the clicker sees the thread change, or nothing.
    tells: mpsc::Sender<Tell>,
    /// The only workspace and the only app that clicks count from, if they are known.
    team: Option<String>,
    app: Option<String>,
}

impl Clicks {
    pub fn new(engine: Arc<Engine>, deciders: BTreeMap<String, Decider>, tells: mpsc::Sender<Tell>) -> Self {
        Self { engine, deciders, tells, team: None, app: None }
    }

    /// Takes clicks from this workspace and this app only, where they are given.
    #[must_use]
    pub fn only_from(self, team: Option<&str>, app: Option<&str>) -> Self {
        Self { team: team.map(str::to_owned), app: app.map(str::to_owned), ..self }
    }

    /// An app that is installed in several workspaces signs all their clicks with one secret, and an id of a user counts within
    /// a workspace.
    fn is_ours(&self, click: &Click) -> bool {
        let fits = |expected: &Option<String>, found: &Option<String>| expected.is_none() || expected == found;
        fits(&self.team, &click.team) && fits(&self.app, &click.app)
    }

    /// Handles one click; fails only if it may succeed later.
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
        let (wish, button) = match (is_mark, wish(&click.action_id)) {
            (true, _) => read_mark(&click.value).map(|(kind, button)| (Wish::Mark(kind), button)).unzip(),
            (false, Some(wish)) => (Some(wish), Button::decode(&click.value)),
            (false, None) => {
                tracing::info!(action = ?short(&click.action_id), "a click on an unknown button");
                return Ok(());
            }
        };
        let (Some(wish), Some(button), true) = (wish, button, is_plain(&click.user) && is_plain(&click.action_ts))
        else {
            tracing::warn!(action = ?short(&click.action_id), "a click on a message that is not from this app");
            return Ok(());
        };
        let store = &self.engine.store;
        let own = format!("click:{}:{}:{}", button.incident, click.user, click.action_ts);
        let to = button.to.as_ref().map_or("", VersionName::as_str);
        let what = match wish {
            Wish::Mark(kind) => kind.as_str(),
            Wish::One(_) | Wish::All(_) => &click.action_id,
        };
        let like = format!("double:{}:{}:{}:{what}:{to}", button.incident, button.ask, click.user);
        let receipt = store.receipt(&own, &like);
        let refusal = match wish {
            Wish::One(choice) => self.decide(click, choice, &button, &receipt).await?,
            Wish::All(bulk) => self.decide_all(click, bulk, &button, &receipt).await?,
            Wish::Mark(kind) => self.mark(click, kind, &button, &receipt).await?,
        };
        if let Some(refusal) = refusal {
            self.refuse(click, &button, &refusal).await?;
        }
        Ok(())
    }

    /// A click on a canary's message: whoever decides where an alert names nobody may steer it.
    async fn steer(&self, click: &Click, steer: Steer) -> Result<(), EngineError> {
        let Some(button) =
            SteerButton::decode(&click.value).filter(|_| is_plain(&click.user) && is_plain(&click.action_ts))
        else {
            tracing::warn!(action = click.action_id, "a click on a message that is not from this app");
            return Ok(());
        };
        let SteerButton { canary, stage, prompt } = &button;
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
            let asked = Button { incident: canary.clone(), from: None, to: None, ask: *stage };
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
            Choice::Approve | Choice::ApproveGradual => button.to.clone(),
            _ => None,
        };
        let event = Event::Decide(Decide {
            incident: button.incident.clone(),
            choice,
            operator: click.operator(),
            target,
            force: false,
            ask: (choice != Choice::Undo).then_some(button.ask),
        });
        let handled = self.engine.handle_once(&incident.prompt, &event, receipt).await?;
        let did_it = incident.decided_by.as_ref() == Some(&click.operator());
        Ok(match &handled.answer {
            // clicked again: the first click did it
            Answer::Refused(Refusal { code: RefusalCode::AlreadyDecided, .. }) if did_it => None,
            _ if did_it && handled.before.is_some() => None,
            _ => refused(handled),
        })
    }

    /// As [`Clicks::decide`], about all prompts at once.
    async fn decide_all(
        &self,
        click: &Click,
        bulk: OutageAction,
        button: &Button,
        receipt: &Receipt,
    ) -> Result<Option<String>, EngineError> {
        let Some(found) = self.engine.store.mass(&button.incident).await? else {
            return Ok(Some(GONE.to_owned()));
        };
        let decider = &found.mass.decider;
        if !self.may_decide(decider, &click.user).await? {
            return Ok(Some(may_not(&button.incident, decider, click)));
        }
        let (id, ask) = (&button.incident, Some(button.ask));
        let decided = coordinate::decide(&self.engine, id, bulk, &click.operator(), ask, Some(receipt)).await?;
        Ok(decided.and_then(Result::err).map(|refusal| refusal.message))
    }

    /// As [`Clicks::decide`], about a version: whoever may decide about the incident may mark it.
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

    /// The incident of `button`, if the clicker may decide about it; why not, otherwise.
    async fn permitted(&self, click: &Click, button: &Button) -> Result<Result<Incident, String>, StoreError> {
        let Some(incident) = self.engine.store.incident(&button.incident).await? else {
            return Ok(Err(GONE.to_owned()));
        };
        if !self.may_decide(&incident.decider, &click.user).await? {
            return Ok(Err(may_not(&incident.id, &incident.decider, click)));
        }
        Ok(Ok(incident))
    }

    async fn may_decide(&self, decider: &str, user: &str) -> Result<bool, StoreError> {
        let Some(decider) = self.deciders.get(decider) else { return Ok(false) };
        if decider.approvers.iter().any(|approver| approver == user) {
            return Ok(true);
        }
        for group in decider.approvers.iter().filter(|approver| is_group(approver)) {
            let members = self.engine.store.group(group).await?;
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
        let _ = self.tells.try_send(Tell { channel, thread: click.thread.clone(), user: click.user.clone(), text });
    }

    /// Tells the clicker, once per question.
    async fn refuse(&self, click: &Click, button: &Button, text: &str) -> Result<(), StoreError> {
        let Some(channel) = click.channel.clone() else { return Ok(()) };
        let told = format!("told:{}:{}:{}:{}", button.incident, button.ask, click.user, text.len());
        if self.engine.store.once(&told, TOLD).await? {
            let tell = Tell { channel, thread: click.thread.clone(), user: click.user.clone(), text: text.to_owned() };
            if self.tells.try_send(tell).is_err() {
                tracing::warn!(incident = %button.incident, "too many refusals at once: a user was not told of one");
            }
        }
        Ok(())
    }
}

/// Handles a click that is acknowledged already: a fault is waited out, and if it lasts, the clicker is told. `clicks` gives
/// those in force, if Slack is configured.
pub async fn handle_patiently(clicks: impl Fn() -> Option<Arc<Clicks>>, click: &Click) {
    for attempt in 1..=TRIES {
        let Some(clicks) = clicks() else { return };
        match clicks.handle(click).await {
            Ok(()) => return,
            Err(error) if attempt == TRIES => {
                tracing::error!(%error, user = click.user, action = ?short(&click.action_id), "a click is lost");
                clicks.say_lost(click);
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Why nothing was done, now or when the same click came before.
fn refused(handled: Handled) -> Option<String> {
    match (handled.answer, handled.before) {
        (Answer::Refused(refusal), _) => Some(refusal.message),
        (_, Some(Before::Refused(why))) => Some(why),
        _ => None,
    }
}

/// A Slack id of a user group (`S…`), not of a user.
pub fn is_group(approver: &str) -> bool {
    approver.starts_with('S')
}

fn may_not(incident: &IncidentId, decider: &str, click: &Click) -> String {
    let Click { user, action_id, .. } = click;
    tracing::warn!(%incident, user, action = action_id, "a click by someone who may not decide");
    format!("Only approvers of {decider} may do this. Ask one of them, or change deciders.{decider}.approvers.")
}

fn wish(action_id: &str) -> Option<Wish> {
    match action_id {
        action::APPROVE | action::OTHER_VERSION => Some(Wish::One(Choice::Approve)),
        action::APPROVE_GRADUAL => Some(Wish::One(Choice::ApproveGradual)),
        action::INVESTIGATE => Some(Wish::One(Choice::Investigate)),
        action::DISMISS => Some(Wish::One(Choice::Dismiss)),
        action::UNDO => Some(Wish::One(Choice::Undo)),
        id if id.starts_with("approve.") => Some(Wish::One(Choice::Approve)), // [`action::approve_one_of`]
        _ => OutageAction::ALL.into_iter().find(|bulk| action::all(*bulk) == action_id).map(Wish::All),
    }
}

/// May become part of a key.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
