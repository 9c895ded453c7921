//! The incident worker: deadlines, observations and escalations.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tracing::Instrument;
use ulid::Ulid;

use super::archive::Archiver;
use super::verifier::{Measurements, Verifier};
use super::worker::{GONE, WorkResult, give_back, rest, span, while_leased};
use crate::alertmanager::client::Alertmanagers;
use crate::decision::{Event, Incident, IncidentId, PhaseKind, PromptName, Timestamp};
use crate::elsewhere::Large;
use crate::engine::{Engine, EngineError};
use crate::live::Current;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, IDLE, LEASE, Work, WorkItem};
use crate::trace;

/// Wake-ups claimed at once: their checks share queries.
const BATCH: usize = 128;
/// How often Alertmanager's list of alerts is compared for an undecided incident.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// The incident worker.
#[derive(Debug)]
pub struct IncidentWorker {
    pub engine: Arc<Engine>,
    pub alertmanagers: Alertmanagers,
    pub verifier: Verifier,
    pub archiver: Arc<Archiver>,
    /// Name of the label that holds the prompt.
    pub prompt_label: String,
}

impl IncidentWorker {
    /// Does what is due once. Returns how long until there may be more.
    pub async fn tick(&self, token: &str) -> Result<Option<Duration>, StoreError> {
        let store = &self.engine.store;
        let claimed = store.claim(Work::Incident, BATCH, LEASE, token).await?;
        if claimed.claims.is_empty() {
            return Ok(claimed.next);
        }
        while_leased(store, &claimed.claims, self.process_all(&claimed.claims)).await?;
        Ok(if claimed.full { Some(Duration::ZERO) } else { claimed.next })
    }

    async fn process_all(&self, claims: &[Claim]) -> Result<(), StoreError> {
        let store = &self.engine.store;
        let load = claims.iter().map(|claim| async move { store.incident(claim.incident()?).await.ok().flatten() });
        let incidents: Vec<_> = join_all(load).await;
        let now = store.now().await?;
        let checked = |incident: &Option<Incident>| incident.as_ref().is_some_and(|i| self.verifier.checks(i, now));
        let (checks, others): (Vec<_>, Vec<_>) =
            claims.iter().zip(&incidents).partition(|(_, incident)| checked(incident));
        // deadlines and other work do not wait for Prometheus
        let others = join_all(others.iter().map(|(claim, _)| self.process_claim(claim, None, now)));
        let checks = async {
            let due: Vec<&Incident> = checks.iter().filter_map(|(_, incident)| incident.as_ref()).collect();
            let span = trace::tasks("check", &due, now);
            let seen = self.verifier.look(&due, now).instrument(span).await?;
            // answers of Prometheus may have many parts
            let large = seen.is_some();
            let mut seen = Large::new(seen, large);
            let seen = seen.get().as_ref();
            Ok::<_, StoreError>(join_all(checks.iter().map(|(claim, _)| self.process_claim(claim, seen, now))).await)
        };
        let (others, checks) = join(others, checks).await;
        others.into_iter().chain(checks?).collect()
    }

    async fn process_claim(
        &self,
        claim: &Claim,
        seen: Option<&Measurements>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let process = async {
            let processed = match &claim.item {
                WorkItem::Incident(id) => self.process_incident(id, seen, now).await,
                WorkItem::Prompt(prompt) => self.process_prompt(&claim.item, prompt).await,
                WorkItem::Drill(_) => self.post_drill(&claim.item, now).await,
                WorkItem::WeeklyReport | WorkItem::Unknown(_) => Ok(GONE),
            };
            give_back(&self.engine.store, claim, processed).await
        };
        process.instrument(span(claim)).await
    }

    /// Measures what people wait for, and hands the next stage of a canary over to the canary worker.
    async fn process_prompt(&self, item: &WorkItem, prompt: &PromptName) -> WorkResult {
        let engine = &self.engine;
        let mut loaded = engine.load(prompt).await?;
        let asked: Vec<_> = loaded.snapshot.state.to_measure().map(|record| record.version.clone()).collect();
        for version in asked {
            let evidence = self.verifier.measure(prompt, &loaded.snapshot.state, &version, loaded.now, false).await;
            engine.handle(prompt, &Event::Measured { version, evidence }).await?;
            loaded = engine.load(prompt).await?;
        }
        engine.store.wake_by(Work::Canary, item, loaded.now).await?;
        // receivers of the previous release know no other set
        let next = loaded.snapshot.state.next_wake().map(|at| at.max(loaded.now.plus(LIST_EVERY)));
        Ok((None, End::Done { rev: None, next }))
    }

    /// Scheduled by an earlier receiver.
    async fn post_drill(&self, drill: &WorkItem, now: Timestamp) -> WorkResult {
        self.engine.store.wake_by(Work::Page, drill, now).await?;
        Ok(GONE)
    }

    async fn process_incident(&self, id: &IncidentId, seen: Option<&Measurements>, now: Timestamp) -> WorkResult {
        let store = &self.engine.store;
        let Some(incident) = store.incident(id).await? else { return Ok(GONE) };
        trace::follow(&incident, now);
        let prompt = incident.prompt.clone();
        self.compare_with_listed(&incident).await?;
        self.archiver.bring_back_for(&incident, now).await?;
        let lasts = self.verifier.still_lasts(&incident, now);
        if let (Some(next), PhaseKind::RollingBack) = (lasts, incident.phase.kind()) {
            return Ok((Some(prompt), End::Done { rev: None, next: Some(next) }));
        }
        self.verifier.verify(&incident, seen, now).await?;
        let (moment, rev) = match (lasts, incident.phase.kind()) {
            (Some(_), PhaseKind::Verifying) => (now, None), // the checks continue, and are not over yet
            _ => {
                let timer = Event::Timer { incident: id.clone(), early: lasts.is_some() };
                let handled = self.engine.handle(&prompt, &timer).await?;
                (handled.now, handled.rev)
            }
        };
        let before = incident;
        let Some(mut incident) = store.incident(id).await? else { return Ok(GONE) };
        self.engine.metrics.verified(&before, &incident);
        if incident.paged {
            // earlier receivers handled pages with this wake-up
            store.wake_unless_scheduled(Work::Page, &WorkItem::Incident(id.clone()), moment).await?;
        }
        let own = match lasts {
            Some(over) if incident.phase.kind() == PhaseKind::Verifying => {
                let soon = moment.plus(IDLE);
                Some(incident.verification().map_or(over, |verification| verification.next.max(soon).min(over)))
            }
            Some(over) => {
                incident.phase.postpone(over);
                incident.next_wake(&self.engine.policy)
            }
            None => incident.next_wake(&self.engine.policy),
        };
        let next = [own, self.next_listing(&incident, moment), self.verifier.measure_later(&incident, moment).await?];
        let next = next.into_iter().flatten().min();
        Ok((Some(prompt), End::Done { rev, next }))
    }

    /// Ends alerts that Alertmanager no longer lists. If it does not answer, deadlines continue.
    async fn compare_with_listed(&self, incident: &Incident) -> Result<(), EngineError> {
        if self.alertmanagers.is_empty() || !incident.phase.is_undecided() || !incident.is_firing() {
            return Ok(());
        }
        match self.alertmanagers.fingerprints(&self.prompt_label, &incident.prompt.name()).await {
            Ok(listed) => {
                let fingerprints = listed.into_iter().collect();
                let event = Event::Listed { incident: incident.id.clone(), fingerprints };
                self.engine.handle(&incident.prompt, &event).await?;
            }
            Err(error) => {
                tracing::warn!(incident = %incident.id, %error, "cannot determine which alerts are still firing")
            }
        }
        Ok(())
    }

    fn next_listing(&self, incident: &Incident, now: Timestamp) -> Option<Timestamp> {
        let asks = !self.alertmanagers.is_empty() && incident.phase.is_undecided() && incident.is_firing();
        asks.then(|| now.plus(LIST_EVERY))
    }
}

/// Runs while the process does. Several may run: one that waits for Prometheus does not delay the others.
pub async fn run(workers: Current<Arc<IncidentWorker>>) {
    let token = Ulid::generate().to_string();
    let mut hurried = false;
    loop {
        let worker = workers.get();
        // while no receiver ran, Redis' clock may have changed unnoticed
        hurried = hurried || !matches!(worker.engine.store.hurry().await, Err(StoreError::Unavailable { .. }));
        let wait = rest(worker.tick(&token).await);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = worker.engine.scheduled.notified() => {}
        }
    }
}
