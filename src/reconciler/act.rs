//! The acting worker: deadlines, observations, escalations.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ulid::Ulid;

use super::archive::Archive;
use super::prove::{Prover, Seen};
use super::{drill, page};
use crate::alertmanager::client::Alertmanagers;
use crate::decision::{Event, Incident, Promotion, PromptName, Timestamp};
use crate::engine::{Engine, EngineError};
use crate::live::Current;
use crate::store::schedule::{Claim, End, Finished, IDLE, LEASE, Work};
use crate::store::{Loaded, StoreError};

/// Wake-ups claimed at once.
const BATCH: usize = 32;
/// How often Alertmanager is asked what it still lists of an undecided incident.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// What acting takes.
#[derive(Debug)]
pub struct Actor {
    pub engine: Arc<Engine>,
    pub alertmanagers: Alertmanagers,
    pub prover: Prover,
    /// Where texts go that nothing needs; `None`: nowhere.
    pub archive: Option<Arc<Archive>>,
    /// Name of the label that holds the prompt.
    pub prompt_label: String,
}

impl Actor {
    /// Does what is due once; tells how long until there may be more.
    pub async fn tick(&self, token: &str) -> Result<Option<Duration>, StoreError> {
        let store = &self.engine.store;
        let claimed = store.claim(Work::Act, BATCH, LEASE, token).await?;
        let full = claimed.claims.len() == BATCH;
        if claimed.claims.is_empty() {
            return Ok(claimed.next);
        }
        let load = claimed.claims.iter().map(|claim| store.incident(&claim.incident));
        let incidents = join_all(load).await.into_iter().map(|incident| incident.ok().flatten()).collect::<Vec<_>>();
        let now = store.now().await?;
        let seen = self.prover.look(&incidents, now).await?;
        // side by side: an Alertmanager that hangs delays only what it hangs on
        let acts = claimed.claims.iter().map(|claim| self.act_on(claim, seen.as_ref(), now));
        for result in join_all(acts).await {
            result?;
        }
        Ok(if full { Some(Duration::ZERO) } else { claimed.next })
    }

    async fn act_on(&self, claim: &Claim, seen: Option<&Seen>, now: Timestamp) -> Result<(), StoreError> {
        let acted = match (claim.prompt(), claim.drill()) {
            (Some(prompt), _) => self.act_on_prompt(prompt).await,
            (None, Some(id)) => {
                let next = drill::post(&self.engine, &self.alertmanagers, &self.prover.labels, &id, now).await?;
                Ok((None, End::Done { rev: None, next }))
            }
            (None, None) => self.act(claim, seen, now).await,
        };
        let (prompt, end) = match acted {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(incident = %claim.incident, %error, "a wake-up failed");
                let end = match &error {
                    EngineError::Store(error) => End::after(error),
                    EngineError::Contended => End::Failed,
                };
                (None, end)
            }
        };
        let finished = self.engine.store.finish(claim, prompt.as_ref(), end).await?;
        if finished == Finished::Parked {
            tracing::error!(incident = %claim.incident, "a wake-up failed too often and is parked");
        }
        Ok(())
    }

    /// What is due for a prompt itself: the next stage of its canary, and its texts.
    async fn act_on_prompt(&self, prompt: PromptName) -> Result<(Option<PromptName>, End), EngineError> {
        let engine = &self.engine;
        let load = || engine.load(&prompt);
        let loaded = load().await?;
        let running = |loaded: &Loaded| loaded.snapshot.state.running_canary().map(|canary| canary.split.clone());
        let state = &loaded.snapshot.state;
        let due = running(&loaded).filter(|split| split.wake().is_some_and(|at| at <= loaded.now));
        let mut asked: Vec<_> = state.to_measure().map(|record| record.version.clone()).collect();
        // the gate in front of the last stage
        let last = due.as_ref().filter(|split| split.next_percent().is_none_or(|percent| percent == 100));
        let wanted = last.filter(|_| engine.policy.gates.ab_test).map(|split| split.arriving.clone());
        asked.extend(wanted.filter(|version| !asked.contains(version)));
        let mut rev = None;
        for version in asked {
            let evidence = self.prover.measure(&prompt, state, &version, loaded.now).await;
            rev = engine.handle(&prompt, &Event::Measured { version, evidence }).await?.rev;
        }
        if let Some(split) = due {
            let event = Event::Promotion(Promotion { since: split.since });
            rev = engine.handle(&prompt, &event).await?.rev;
        }
        let loaded = load().await?;
        let tidied = self.tidy(&prompt, &loaded.snapshot.state, loaded.now).await?;
        let own = loaded.snapshot.state.next_wake();
        let next = [own, tidied.next].into_iter().flatten().min();
        Ok((Some(prompt), End::Done { rev: tidied.rev.or(rev), next }))
    }

    async fn act(
        &self,
        claim: &Claim,
        seen: Option<&Seen>,
        now: Timestamp,
    ) -> Result<(Option<PromptName>, End), EngineError> {
        let id = &claim.incident;
        let gone = End::Done { rev: None, next: None };
        let Some(incident) = self.engine.store.incident(id).await? else { return Ok((None, gone)) };
        let prompt = incident.prompt.clone();
        self.compare_with_listed(&incident).await?;
        self.bring_back_for(&incident, now).await?;
        self.prover.prove(&incident, seen, now).await?;
        let handled = self.engine.handle(&prompt, &Event::Timer { incident: id.clone() }).await?;
        let here = Timestamp(jiff::Timestamp::now().as_millisecond());
        let before = incident;
        let Some(incident) = self.engine.store.incident(id).await? else { return Ok((None, gone)) };
        self.engine.metrics.verified(&before, &incident);
        let next = [
            incident.next_wake(&self.engine.policy),
            page::keep(&self.alertmanagers, &self.engine.store, claim, &incident, handled.now, here).await?,
            self.next_listing(&incident, handled.now),
            self.prover.measure_later(&incident, handled.now).await?,
        ];
        let next = next.into_iter().flatten().min();
        Ok((Some(prompt), End::Done { rev: handled.rev, next }))
    }

    /// Ends alerts that Alertmanager does not list any more. It not answering is no reason to miss a deadline.
    async fn compare_with_listed(&self, incident: &Incident) -> Result<(), EngineError> {
        if self.alertmanagers.is_empty() || !incident.phase.is_undecided() || !incident.is_firing() {
            return Ok(());
        }
        match self.alertmanagers.fingerprints(&self.prompt_label, incident.prompt.as_str()).await {
            Ok(listed) => {
                let fingerprints = listed.into_iter().collect();
                let event = Event::Listed { incident: incident.id.clone(), fingerprints };
                self.engine.handle(&incident.prompt, &event).await?;
            }
            Err(error) => tracing::warn!(incident = %incident.id, %error, "can't tell which alerts still fire"),
        }
        Ok(())
    }

    fn next_listing(&self, incident: &Incident, now: Timestamp) -> Option<Timestamp> {
        let asks = !self.alertmanagers.is_empty() && incident.phase.is_undecided() && incident.is_firing();
        asks.then(|| now.plus(LIST_EVERY))
    }
}

/// Runs for as long as the process does. Several may: one that waits for Prometheus holds up no other.
pub async fn run(actors: Current<Arc<Actor>>) {
    let token = Ulid::generate().to_string();
    // nobody may have watched Redis' clock while no receiver ran; without Redis nothing is due either
    let _ = actors.get().engine.store.hurry().await;
    loop {
        let actor = actors.get();
        let wait = match actor.tick(&token).await {
            Ok(next) => next.unwrap_or(IDLE).min(IDLE),
            // health reports it; nothing is lost, the wake-ups wait in Redis
            Err(_) => IDLE,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = actor.engine.scheduled.notified() => {}
        }
    }
}
