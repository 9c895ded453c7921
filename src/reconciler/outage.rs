//! The outage worker, for many prompts that fail together: adds prompts that their commits report, carries out what
//! people decided about all of them, resumes automation when the budget has room again, and closes the incident when no
//! prompt waits any more.
//!
//! Level-triggered like all workers: any worker with the lease can continue where another one died. Changes to a prompt
//! go through the engine, and are recorded before they are made, so that each is made once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::Instrument;
use ulid::Ulid;

use super::worker::{rest, span, while_leased};
use crate::decision::outage::{Done, Member, Outage, needs_outage, rolled_back_before, room_at};
use crate::decision::{Answer, Event, Incident, IncidentId, PhaseKind, SwitchMode, Timestamp};
use crate::engine::{Engine, EngineError};
use crate::live::Current;
use crate::service::coordinate::update;
use crate::store::outage::{Coordinated, WriteOutcome};
use crate::store::schedule::{Claim, End, Finished, LEASE, Work};
use crate::store::{StoreError, fresh_ulid};
use crate::trace;
use crate::visible::shown;

mod execution;

/// Reports processed at once.
const BATCH: usize = 200;
/// Prompts changed at once, in much less time than a lease.
const EXECUTED_AT_ONCE: usize = 100;
/// Prompts changed at once if Prometheus is asked about each, per [`ASKING`].
const ASKS: usize = 10;
const ASKING: Duration = Duration::from_secs(1);
/// How often an open outage is processed, and how often automation retries a prompt.
const LOOK: Duration = Duration::from_secs(15);
const ROUNDS: u32 = 12;

/// What happened to one member.
struct MemberUpdate {
    incident: IncidentId,
    done: Option<Done>,
    tried: bool,
    /// The current state of its incident.
    now: Option<Incident>,
}

impl MemberUpdate {
    fn of(member: &Member) -> Self {
        Self { incident: member.incident.clone(), done: None, tried: false, now: None }
    }
}

#[derive(Debug)]
pub struct Coordinator {
    pub engine: Arc<Engine>,
}

impl Coordinator {
    /// Does what is due once. Returns how long until there may be more.
    pub async fn tick(&self, token: &str) -> Result<Option<Duration>, StoreError> {
        let store = &self.engine.store;
        let claimed = store.claim(Work::Outage, BATCH, LEASE, token).await?;
        let more = while_leased(store, &claimed.claims, self.coordinate(&claimed.claims, claimed.now)).await?;
        Ok(if claimed.full || more { Some(Duration::ZERO) } else { claimed.next })
    }

    /// Tells whether there may be more to do at once.
    async fn coordinate(&self, claims: &[Claim], now: Timestamp) -> Result<bool, StoreError> {
        let store = &self.engine.store;
        let load = claims.iter().map(|claim| async move {
            match claim.incident() {
                Some(id) => store.incident(id).await.map(|incident| Some((id, incident))),
                None => Ok(None),
            }
        });
        let loaded = join_all(load).await;
        let (mut reports, mut own) = (Vec::new(), Vec::new());
        for (claim, incident) in claims.iter().zip(loaded) {
            match incident {
                Ok(Some((_, Some(incident)))) => reports.push((claim, incident)),
                Ok(Some((id, None))) => own.push((claim, id)), // a coordinating incident, or gone
                Ok(None) => self.finish(claim, Ok(None)).await?,
                Err(error) => self.finish(claim, Err(error.into())).await?,
            }
        }
        if !reports.is_empty() {
            let incidents: Vec<_> = reports.iter().map(|(_, incident)| incident).collect();
            let span = trace::tasks(Work::Outage.as_str(), &incidents, now);
            let taken = self.take(&incidents).instrument(span).await;
            for (claim, _) in &reports {
                self.finish(claim, taken.as_ref().map(|()| None).map_err(Clone::clone)).await?;
            }
        }
        let more = !own.is_empty();
        for (claim, id) in own {
            let carry_on = async { self.finish(claim, self.carry_on(id).await).await };
            carry_on.instrument(span(claim)).await?;
        }
        Ok(more)
    }

    async fn finish(&self, claim: &Claim, next: Result<Option<Timestamp>, EngineError>) -> Result<(), StoreError> {
        let end = match next {
            Ok(next) => End::Done { rev: None, next },
            Err(EngineError::Contended) => End::Done { rev: None, next: Some(self.engine.store.now().await?) },
            Err(EngineError::Store(error)) => {
                tracing::warn!(incident = %claim.item, %error, "a coordinating incident failed");
                End::after(&error)
            }
        };
        if self.engine.store.finish(claim, None, end).await? == Finished::DeadLettered {
            tracing::error!(incident = %claim.item, "a coordinating incident failed too often: moved to the dead letters");
        }
        Ok(())
    }

    /// Adds or updates `incidents`; opens a coordinating incident if they require one.
    async fn take(&self, incidents: &[&Incident]) -> Result<(), EngineError> {
        let store = &self.engine.store;
        for _ in 0..ROUNDS {
            let now = store.now().await?;
            let open = match store.open_outage().await? {
                Some(id) => store.outage(&id).await?,
                None if incidents.iter().any(|incident| needs_outage(incident)) => Some(self.open(now).await?),
                None => None,
            };
            let Some(mut found) = open else { return Ok(()) }; // each has its own thread
            let places = found.places();
            for incident in incidents {
                match places.get(&incident.id) {
                    Some(at) => found.members[*at].follow(incident),
                    None if needs_outage(incident) => found.members.push(Member::new(incident, false, now)),
                    None => {}
                }
            }
            if !found.members_changed() || store.write_outage(&mut found, now).await? == WriteOutcome::Done {
                self.engine.notifications_due.send_replace(());
                return Ok(());
            }
        }
        Err(EngineError::Contended)
    }

    /// Opens a coordinating incident, with the rollbacks made before the guard tripped.
    async fn open(&self, now: Timestamp) -> Result<Coordinated, EngineError> {
        let Engine { store, policy, .. } = &*self.engine;
        let mut found = Coordinated::new(Outage::open(IncidentId(fresh_ulid(now)), policy, now));
        for (prompt, _) in store.automatic_since(now.minus(policy.budget_window)).await? {
            let Some(loaded) = unless_broken(self.engine.load(&prompt).await)? else {
                continue;
            };
            let state = loaded.snapshot.state;
            // a closed incident is no longer in the state
            let quarantined = state.versions.iter().filter_map(|version| version.quarantine.as_ref());
            let latest = quarantined.max_by_key(|quarantine| quarantine.at);
            let Some(id) = latest.and_then(|quarantine| quarantine.incident.clone()) else { continue };
            let Some(incident) = self.incident(&id).await? else { continue };
            if rolled_back_before(&incident, now, policy) {
                found.members.push(Member::new(&incident, true, now));
            }
        }
        Ok(found)
    }

    /// Does everything that is due for an open coordinating incident. Returns when to continue.
    async fn carry_on(&self, id: &IncidentId) -> Result<Option<Timestamp>, EngineError> {
        let Engine { store, policy, .. } = &*self.engine;
        let Some(mut found) = store.outage(id).await? else { return Ok(None) };
        if !found.outage.is_open() {
            return Ok(None);
        }
        let now = store.now().await?;
        let mut next = now.plus(LOOK);
        // prompts that were rolled back before do not report
        let before = found.members.iter().filter(|member| member.before && member.phase.is_open());
        let mut changes = Vec::new();
        for member in before {
            changes.push(MemberUpdate { now: self.incident(&member.incident).await?, ..MemberUpdate::of(member) });
        }
        changes.extend(self.hold(&found).await?);
        if let Some(execution) = found.outage.execution.clone() {
            let wait = if policy.confirm { store.acquire("mass", ASKING).await? } else { None };
            match wait {
                Some(wait) => next = now.plus(wait),
                None => {
                    let most = if policy.confirm { ASKS } else { EXECUTED_AT_ONCE };
                    let Some((asked, done)) = self.execute(found, &execution, most).await? else { return Ok(None) };
                    found = asked;
                    changes.extend(done);
                    next = now;
                }
            }
        }
        let (resumed, switched) = match self.resume(&found, now, &mut next).await? {
            None => (false, Vec::new()),
            Some(more) => {
                let switches = |change: &&MemberUpdate| !change.tried;
                let switched = more
                    .iter()
                    .filter(switches)
                    .filter_map(|change| Some(shown(&change.now.as_ref()?.prompt).into_owned()));
                let switched: Vec<String> = switched.collect();
                changes.extend(more);
                (true, switched)
            }
        };
        let written = update(&self.engine, found, |found, now| {
            let places = found.places();
            for change in &changes {
                let Some(at) = places.get(&change.incident) else { continue };
                let member = &mut found.members[*at];
                if let Some(incident) = &change.now {
                    member.follow(incident);
                }
                member.done = change.done.clone().or_else(|| member.done.take());
                member.tried = if change.tried { Some(now) } else { member.tried };
            }
            if resumed {
                found.outage.resume(&switched, policy, now);
            }
            found.outage.reassign(policy, now);
            found.outage.finish_execution(&found.members, now);
            found.outage.close_if_over(&found.members, now);
            Ok::<_, Infallible>(())
        });
        let open = written.await?.is_some_and(|(found, _)| found.outage.is_open());
        Ok(open.then_some(next))
    }

    /// Puts each waiting member on hold, including those that joined later, or ends the hold.
    async fn hold(&self, found: &Coordinated) -> Result<Vec<MemberUpdate>, EngineError> {
        let by = found.outage.hold.as_ref().map(|hold| hold.by.clone());
        let follows = |m: &&Member| {
            let may = matches!(m.phase, PhaseKind::AwaitingDecision | PhaseKind::Confirming) || by.is_none();
            may && m.waits() && m.hold != by.is_some()
        };
        let mut changes = Vec::new();
        for member in found.members.iter().filter(follows).take(EXECUTED_AT_ONCE) {
            let event = Event::Hold { incident: member.incident.clone(), by: by.clone() };
            self.send(member, &event).await?;
            let now = self.incident(&member.incident).await?;
            changes.push(MemberUpdate { now, ..MemberUpdate::of(member) });
        }
        Ok(changes)
    }

    /// Lets incidents act that the budget held, the oldest first, if there is room. `None`: it is too early.
    async fn resume(
        &self,
        found: &Coordinated,
        now: Timestamp,
        next: &mut Timestamp,
    ) -> Result<Option<Vec<MemberUpdate>>, EngineError> {
        let Engine { store, policy, .. } = &*self.engine;
        let rested = |m: &&Member| m.has_rested(LOOK, now);
        let waiting = || found.members.iter().filter(|m| m.phase == PhaseKind::AwaitingDecision && !m.hold);
        if found.outage.hold.is_some() || found.outage.execution.is_some() || waiting().next().is_none() {
            return Ok(None);
        }
        if store.paused_by(None).await?.is_some() {
            return Ok(None);
        }
        let automatic = store.automatic_since(now.minus(policy.budget_window)).await?;
        let at: Vec<Timestamp> = automatic.iter().map(|(_, at)| *at).collect();
        let Some(room) = room_at(&at, policy, now) else { return Ok(None) };
        if room > now {
            *next = room.min(*next);
            return Ok(None);
        }
        let mut room = (policy.max_auto_rollbacks as usize).saturating_sub(at.len());
        let mut candidates: Vec<_> = waiting().filter(rested).collect();
        candidates.sort_by_key(|member| (member.tried, member.joined));
        let mut changes = Vec::new();
        for member in candidates.into_iter().take(EXECUTED_AT_ONCE) {
            if room == 0 {
                break;
            }
            let event = Event::Resume { incident: member.incident.clone() };
            let answer = self.send(member, &event).await?;
            let switched = matches!(answer, Some(Answer::Changed { mode: Some(SwitchMode::Auto), .. }));
            room -= usize::from(switched);
            let now = self.incident(&member.incident).await?;
            changes.push(MemberUpdate { tried: !switched, now, ..MemberUpdate::of(member) });
        }
        Ok(Some(changes))
    }

    /// Sends `event` through the engine. A lasting fault must not block the other members.
    async fn send(&self, member: &Member, event: &Event) -> Result<Option<Answer>, EngineError> {
        match self.engine.handle(&member.prompt, event).await {
            Ok(handled) => Ok(Some(handled.answer)),
            Err(EngineError::Store(error)) => Ok(unless_broken(Err(error))?),
            Err(EngineError::Contended) => Ok(None), // retried next time
        }
    }

    async fn incident(&self, id: &IncidentId) -> Result<Option<Incident>, StoreError> {
        Ok(unless_broken(self.engine.store.incident(id).await)?.flatten())
    }
}

/// Runs while the process does.
pub async fn run(engines: Current<Arc<Engine>>) {
    let token = Ulid::generate().to_string();
    let mut looked: Option<Instant> = None;
    loop {
        let coordinator = Coordinator { engine: engines.get() };
        if looked.is_none_or(|at| at.elapsed() >= LOOK) && coordinator.engine.store.forget_stray_hold().await.is_ok() {
            looked = Some(Instant::now());
        }
        tokio::time::sleep(rest(coordinator.tick(&token).await)).await;
    }
}

fn unless_broken<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Broken { .. } | StoreError::NewerRecord { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
