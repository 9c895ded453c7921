//! Load → decide → commit: the only place where the store and the rules meet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::decision::{
    Alert, AlertOutcome, Answer, Commit, Decision, Event, IncidentId, Needs, Outcome, Policy, PromptName, Rehearsed,
    SwitchMode, Timestamp, Trace, decide, rehearse,
};
use crate::elsewhere;
use crate::events::{self, Happened};
use crate::metrics::Metrics;
use crate::store::receipt::{HandledRequest, Receipt};
use crate::store::schedule::IDLE;
use crate::store::{Committed, Loaded, RedisFault, Store, StoreError, fresh_ulid};
use crate::trace;

/// Attempts to load, decide and commit before giving up: each lost attempt means that another commit succeeded.
const ROUNDS: u32 = 12;
/// How often a commit whose reply was lost is repeated.
const ASK_AGAIN: u32 = 2;

/// Up to this many alerts of one event are decided on the serving thread, within milliseconds; more are decided on
/// another thread.
const AT_ONCE: usize = 256;

/// Why requests cannot be served, if they cannot.
pub type Readiness = Result<(), String>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("gave up after {ROUNDS} conflicting commits on this prompt")]
    Contended,
}

/// A handled event.
#[derive(Debug)]
pub struct Handled {
    pub answer: Answer,
    /// Redis TIME of the decision.
    pub now: Timestamp,
    /// The prompt's revision, if this wrote anything.
    pub rev: Option<i64>,
    /// The outcome of the same request if it was handled before; then nothing was done now.
    pub before: Option<HandledRequest>,
}

/// An event, by the time that its decision takes.
enum Given<'a> {
    Small(&'a Event),
    Large(Arc<Event>),
}

impl Given<'_> {
    fn event(&self) -> &Event {
        match self {
            Given::Small(event) => event,
            Given::Large(event) => event,
        }
    }
}

/// Engines with later settings share all but the policy with it.
#[derive(Debug, Clone)]
pub struct Engine {
    pub store: Store,
    pub policy: Policy,
    pub metrics: Arc<Metrics>,
    /// Notified after each commit that scheduled a task for soon.
    pub scheduled: Arc<Notify>,
    /// Notified after each commit that changed who is paged.
    pub paging: Arc<Notify>,
    /// Notified after each commit that woke notification targets.
    pub notifications_due: Arc<watch::Sender<()>>,
}

impl Engine {
    pub fn new(store: Store, policy: Policy) -> Self {
        let [scheduled, paging] = std::array::from_fn(|_| Arc::default());
        Self { store, policy, metrics: Arc::default(), scheduled, paging, notifications_due: Arc::default() }
    }

    /// The engine with other settings.
    pub fn reconfigured(&self, store: Store, policy: Policy) -> Self {
        Self { store, policy, ..self.clone() }
    }

    /// Loads the prompt.
    pub async fn load(&self, prompt: &PromptName) -> Result<Loaded, StoreError> {
        self.store.load(prompt, self.policy.budget_window, Needs::default()).await
    }

    /// Decides about `event` and commits the decision; repeats both while other commits come first.
    pub async fn handle(&self, prompt: &PromptName, event: &Event) -> Result<Handled, EngineError> {
        let handled = self.try_handle(prompt, Given::Small(event), None).await;
        self.counted(handled.inspect_err(|_| concerns(prompt, event, None, None)))
    }

    /// Like [`Engine::handle`], for an event that may be large, such as all alerts of a delivery: it is then decided on
    /// another thread.
    pub async fn handle_owned(&self, prompt: &PromptName, event: Event) -> Result<Handled, EngineError> {
        if size(&event) <= elsewhere::LARGE {
            return self.handle(prompt, &event).await;
        }
        let event = Arc::new(event);
        let _freed_elsewhere = elsewhere::Large::new(Some(Arc::clone(&event)), true);
        let handled = self.try_handle(prompt, Given::Large(event), None).await;
        self.counted(handled.inspect_err(|_| trace::concerns(Some(prompt.as_str()), None, None)))
    }

    /// Like [`Engine::handle`], for a request that must be handled once, however often it is repeated and whatever
    /// reply gets lost.
    pub async fn handle_once(
        &self,
        prompt: &PromptName,
        event: &Event,
        receipt: &Receipt,
    ) -> Result<Handled, EngineError> {
        self.counted(self.try_handle(prompt, Given::Small(event), Some(receipt)).await)
    }

    fn counted(&self, result: Result<Handled, EngineError>) -> Result<Handled, EngineError> {
        if let Err(EngineError::Store(error)) = &result {
            self.metrics.redis_error(error);
        }
        result
    }

    /// What [`Engine::handle`] would answer now; writes nothing.
    pub async fn foresee(&self, prompt: &PromptName, event: &Event) -> Result<Answer, EngineError> {
        let mut loaded = self.load(prompt).await?;
        loaded.snapshot.fresh_ids = fresh_ids(event.may_open(), loaded.now);
        Ok(decide(&self.policy, &loaded.snapshot, event, loaded.now).answer)
    }

    async fn try_handle(
        &self,
        prompt: &PromptName,
        given: Given<'_>,
        receipt: Option<&Receipt>,
    ) -> Result<Handled, EngineError> {
        let event = given.event();
        for round in 0..ROUNDS {
            if round > 2 {
                tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
            }
            let master = self.store.master().await?;
            let loaded = self.store.load(prompt, self.policy.budget_window, event.needs()).await?;
            if let Some(receipt) = receipt
                && let Some(before) = self.store.handled_before(receipt, loaded.now).await?
            {
                self.store.wait_for_replicas(&master).await?;
                return Ok(Handled { answer: Answer::Noted, now: loaded.now, rev: None, before: Some(before) });
            }
            let (loaded, decision) = self.decide(loaded, &given).await;
            let outcome = match &decision.answer {
                Answer::Refused(refusal) => HandledRequest::Refused(refusal.message.clone()),
                _ => HandledRequest::Done,
            };
            let Some(mut commit) = decision.commit else {
                if event.is_relied_on() {
                    self.store.wait_for_replicas(&master).await?;
                }
                if let (Some(receipt), HandledRequest::Refused(why)) = (receipt, &outcome) {
                    // otherwise it is decided again
                    let _ = self.store.remember_refused(receipt, loaded.now, why).await;
                }
                concerns(prompt, event, Some(&decision.answer), None);
                return Ok(Handled { answer: decision.answer, now: loaded.now, rev: None, before: None });
            };
            let switch = finished(&commit, loaded.now).or_else(|| switch_mode(&decision.answer));
            let trace = trace::current(loaded.now);
            if let Some(trace) = trace.as_ref().filter(|_| event.is_request()) {
                commit.traced(trace);
            }
            let written = self.events(&given, &loaded, &decision.answer, &commit, trace.as_ref());
            match self.commit(&loaded, &commit, receipt.map(|receipt| (receipt, &outcome)), &written).await {
                Ok(Committed::Done { rev }) => {
                    concerns(prompt, event, Some(&decision.answer), Some(&commit));
                    // the worker looks by itself before any later one: a switch does not cost a claim as well
                    let soon = |at: Timestamp| at <= loaded.now.plus(IDLE);
                    if commit.wakes.iter().any(|wake| soon(wake.at)) || commit.canary.wake.is_some_and(soon) {
                        self.scheduled.notify_one();
                    }
                    if commit.incidents.iter().any(|write| write.incident.paged) {
                        self.paging.notify_one();
                    }
                    if !commit.incidents.is_empty() || commit.canary.changed || !written.is_empty() {
                        self.notifications_due.send_replace(());
                    }
                    for entry in commit.log.iter().filter(|entry| !entry.event.is_change()) {
                        let (version, operator) = (entry.to.as_deref().unwrap_or_default(), &entry.operator);
                        tracing::info!(
                            %prompt,
                            version,
                            event = entry.event.as_str(),
                            %operator,
                            reason = entry.reason,
                            "the possible rollback targets have changed"
                        );
                    }
                    for entry in commit.log.iter().filter(|entry| entry.event.is_change()) {
                        tracing::info!(
                            %prompt,
                            event = entry.event.as_str(),
                            from = entry.from.as_deref().unwrap_or_default(),
                            to = entry.to.as_deref().unwrap_or_default(),
                            operator = %entry.operator,
                            incident = entry.incident.as_ref().map_or("", |id| &id.0),
                            "the active version or its traffic has changed"
                        );
                    }
                    for write in &commit.incidents {
                        let id = &write.incident.id;
                        let before = loaded.snapshot.state.incidents.iter().find(|before| before.id == *id);
                        self.metrics.decision_deadline(before, &write.incident);
                    }
                    self.account(event, &decision.answer, switch, loaded.now);
                    return Ok(Handled { answer: decision.answer, now: loaded.now, rev: Some(rev), before: None });
                }
                Ok(Committed::Moved | Committed::BudgetSpent) => {}
                Err(error) => {
                    if let Some(mode) = switch {
                        self.metrics.rollback(mode, false);
                    }
                    return Err(error.into());
                }
            }
        }
        Err(EngineError::Contended)
    }

    async fn decide(&self, mut loaded: Loaded, given: &Given<'_>) -> (Loaded, Decision) {
        let decide_now = |policy: &Policy, loaded: &mut Loaded, event: &Event| {
            loaded.snapshot.fresh_ids = fresh_ids(event.may_open(), loaded.now);
            decide(policy, &loaded.snapshot, event, loaded.now)
        };
        match given {
            Given::Small(event) => {
                let decision = decide_now(&self.policy, &mut loaded, event);
                (loaded, decision)
            }
            Given::Large(event) => {
                let (policy, event) = (self.policy.clone(), Arc::clone(event));
                elsewhere::run_sized(size(&event), move || {
                    let decision = decide_now(&policy, &mut loaded, &event);
                    (loaded, decision)
                })
                .await
            }
        }
    }

    /// What each of `alerts` alone would do to the prompt as it was loaded; writes nothing. Several are decided on another
    /// thread, one by one, so that larger work does not wait for all of them.
    pub async fn rehearse(&self, mut loaded: Loaded, alerts: Vec<Alert>) -> Vec<Rehearsed> {
        let (several, mut all) = (alerts.len() > 1, Vec::with_capacity(alerts.len()));
        for alert in alerts {
            let policy = self.policy.clone();
            let rehearsed;
            (loaded, rehearsed) = elsewhere::run_if(several, move || {
                let rehearsed = rehearse_one(&policy, &mut loaded, &alert);
                (loaded, rehearsed)
            })
            .await;
            all.push(rehearsed);
        }
        all
    }

    /// What this commit is for targets that show it event by event, where there are any.
    fn events(
        &self,
        given: &Given<'_>,
        loaded: &Loaded,
        answer: &Answer,
        commit: &Commit,
        trace: Option<&Trace>,
    ) -> Vec<String> {
        if !self.store.keeps_events() {
            return Vec::new();
        }
        let (source, event) = (events::source(self.store.keys().namespace()), given.event());
        let (policy, before, now) = (&self.policy, &loaded.snapshot, loaded.now);
        events::of(&Happened { source: &source, policy, event, answer, before, commit, now, trace })
    }

    /// Commits; a commit whose reply was lost is repeated with the same id.
    async fn commit(
        &self,
        loaded: &Loaded,
        commit: &Commit,
        receipt: Option<(&Receipt, &HandledRequest)>,
        events: &[String],
    ) -> Result<Committed, StoreError> {
        let id = &loaded.snapshot.commit.0;
        let mut asked = 0;
        loop {
            match self.store.commit_once(id, loaded, commit, receipt, events).await {
                Err(StoreError::Unavailable {
                    kind: RedisFault::Connection | RedisFault::Timeout | RedisFault::Moved,
                    ..
                }) if asked < ASK_AGAIN => {
                    asked += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }

    fn account(&self, event: &Event, answer: &Answer, switch: Option<SwitchMode>, now: Timestamp) {
        if let Some(mode) = switch {
            self.metrics.rollback(mode, true);
        }
        if let (Event::Alerts(alerts), Answer::Alerts(outcomes)) = (event, answer) {
            let rolled_back = |outcome: &AlertOutcome| outcome.outcome == Outcome::RolledBack;
            let pairs = alerts.iter().zip(outcomes).filter(|(_, outcome)| rolled_back(outcome));
            // several alerts may ask for one switch: the first of them detected the problem
            if let Some(started) = pairs.filter_map(|(alert, _)| alert.began(now)).min() {
                self.metrics.alert_to_rollback(now.since(started));
            }
        }
    }
}

/// What `alert` alone would do to the prompt as it was loaded; writes nothing.
pub fn rehearse_one(policy: &Policy, loaded: &mut Loaded, alert: &Alert) -> Rehearsed {
    let may_open = Event::Alerts(vec![alert.clone()]).may_open();
    loaded.snapshot.fresh_ids = fresh_ids(may_open, loaded.now);
    rehearse(policy, &loaded.snapshot, alert, loaded.now)
}

/// The size of an event, by the time that its decision takes.
fn size(event: &Event) -> usize {
    match event {
        Event::Alerts(alerts) => alerts.len() * (elsewhere::LARGE / AT_ONCE),
        Event::Register(request) => request.content.as_ref().map_or(0, String::len),
        _ => 0,
    }
}

/// Says in the span of a delivery or a rollback what it came to be about. Other requests name it themselves.
fn concerns(prompt: &PromptName, event: &Event, answer: Option<&Answer>, commit: Option<&Commit>) {
    let incident = match answer {
        Some(Answer::Alerts(outcomes)) => outcomes.iter().find_map(|outcome| outcome.incident.as_ref()),
        Some(Answer::Changed { incident, .. } | Answer::Shared { incident, .. }) => incident.as_ref(),
        Some(Answer::Confirming { incident, .. }) => Some(incident),
        _ => None,
    };
    let written = commit.into_iter().flat_map(|commit| &commit.incidents).map(|write| &write.incident);
    let version = match event {
        Event::Alerts(alerts) => alerts.first().map(|alert| &alert.version),
        Event::Rollback(request) => {
            let of_incident = written.into_iter().find(|written| Some(&written.id) == incident);
            of_incident.map(|incident| &incident.version).or(request.from.as_ref())
        }
        _ => return,
    };
    trace::concerns(Some(prompt.as_str()), version.map(|version| version.as_str()), incident.map(|id| id.0.as_str()));
}

fn switch_mode(answer: &Answer) -> Option<SwitchMode> {
    match answer {
        Answer::Changed { mode, .. } => *mode,
        Answer::Alerts(outcomes) if outcomes.iter().any(|o| o.outcome == Outcome::RolledBack) => Some(SwitchMode::Auto),
        _ => None,
    }
}

/// How the rollback in this commit was decided.
fn finished(commit: &Commit, now: Timestamp) -> Option<SwitchMode> {
    let switches = commit.incidents.iter().filter_map(|write| write.incident.switch.as_ref());
    switches.filter(|switch| switch.at == now && switch.mode != SwitchMode::Shipped).map(|switch| switch.mode).next()
}

/// Ids for new incidents.
fn fresh_ids(many: usize, now: Timestamp) -> Vec<IncidentId> {
    (0..many).map(|_| IncidentId(fresh_ulid(now))).collect()
}
