//! Signed outgoing webhooks: the events of a prompt, in order.
//!
//! Commits store the events, so none is lost, and each has one id and one content. The worker with a prompt's claim
//! sends them in order, and stores its progress after each. An event that was being sent when the worker died is sent
//! again, with the same id.

pub mod client;
mod signature;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tracing::Span;

use super::notifier::{Acceptance, Notified, Notifier, NotifyTask, Shown};
use crate::config::{self, Config};
use crate::decision::Timestamp;
use crate::engine::Engine;
use crate::events::Heading;
use crate::store::StoreError;
use crate::store::schedule::{Claim, Shows, Subscription, Target};
use crate::trace::{self, TraceContext};
use client::{Untaken, WebhookClient};

/// Prompts whose events are sent at the same time.
const BATCH: usize = 8;
/// Events of a prompt under one claim: after these, other prompts have their turn.
const EVENTS: usize = 16;
/// Rejections after which an event is given up, so that it does not block later events for ever.
const REFUSALS: u32 = 10;
/// Longest wait between two attempts. The first wait is a second, and each doubles.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Fields of the progress: the position of the last finished event, and the failed attempts of the next one.
const SHOWN: &str = "shown";
const TRIES: &str = "tries";
const REFUSED: &str = "refused";

/// Label of a success, besides [`Untaken::KINDS`].
const OK: &str = "ok";
const GIVEN_UP: &str = "given_up";
const DROPPED: &str = "dropped";

/// All values of the metric label `result`.
pub fn results() -> impl Iterator<Item = &'static str> {
    Untaken::KINDS.into_iter().chain([OK, GIVEN_UP, DROPPED])
}

/// The target of `[webhooks.NAME]`, with its keys, wake-ups and metrics.
fn target(name: &str) -> Target {
    Target::named(&format!("webhook.{name}"))
}

pub fn subscriptions(config: &Config) -> impl Iterator<Item = Subscription> {
    config.webhooks.keys().map(|name| Subscription { target: target(name), shows: Shows::Events })
}

/// One webhook of the config.
#[derive(Debug)]
pub struct Webhook {
    engine: Arc<Engine>,
    target: Target,
    config: config::WebhookConfig,
    client: WebhookClient,
}

/// All webhooks of the config. An error names the key.
pub fn all(config: &Config, engine: &Arc<Engine>) -> Result<Vec<Webhook>, String> {
    let webhook = |(name, config): (&String, &config::WebhookConfig)| {
        let client = WebhookClient::new(config).map_err(|error| format!("webhooks.{name}: {error}"))?;
        let webhook = Webhook { engine: Arc::clone(engine), target: target(name), config: config.clone(), client };
        for result in results() {
            engine.metrics.notification_born(webhook.target, result);
        }
        Ok(webhook)
    };
    config.webhooks.iter().map(webhook).collect()
}

impl Notifier for Webhook {
    fn target(&self) -> Target {
        self.target
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn notify<'a>(&'a self, claims: &'a [Claim], now: Timestamp) -> BoxFuture<'a, Vec<NotifyTask<'a>>> {
        let task = |claim| NotifyTask { claim, notified: self.notify_claim(claim, now).boxed() };
        ready(claims.iter().map(task).collect()).boxed()
    }
}

/// The progress of one claim.
struct EventProgress<'a> {
    claim: &'a Claim,
    /// The position of the last event that is finished.
    shown: i64,
    tries: u32,
    refused: u32,
    answer: Acceptance,
}

impl Webhook {
    async fn notify_claim(&self, claim: &Claim, now: Timestamp) -> Notified {
        let mut sending = EventProgress { claim, shown: 0, tries: 0, refused: 0, answer: Acceptance::NotAsked };
        let shown = self.send_all(&mut sending, now).await;
        Notified { shown, acceptance: sending.answer }
    }

    /// Sends the events of a prompt, in order.
    async fn send_all(&self, sending: &mut EventProgress<'_>, now: Timestamp) -> Result<Shown, StoreError> {
        let (store, claim) = (&self.engine.store, sending.claim);
        let Some(prompt) = claim.prompt() else { return Ok(Shown::All) };
        let progress = store.progress(claim).await?;
        let number = |field: &str| progress.get(field).and_then(|text| text.parse().ok());
        (sending.tries, sending.refused) = (number(TRIES).unwrap_or(0), number(REFUSED).unwrap_or(0));
        sending.shown = match progress.get(SHOWN).and_then(|place| place.parse().ok()) {
            Some(shown) => shown,
            // the first wake-up for this prompt, or the first since its progress expired
            None => match store.unsent_since(claim).await? {
                Some(since) => since.0 - 1,
                None => return Ok(Shown::All),
            },
        };
        if !store.note(claim, &[(SHOWN, &sending.shown.to_string())]).await? {
            return Ok(Shown::Lost);
        }
        let events = store.events(prompt, sending.shown, EVENTS).await?;
        if trace::is_exported() {
            let trace = |(place, body): &(i64, String)| Some((Heading::of(body)?.trace()?, Timestamp(*place)));
            let requests: Vec<(TraceContext, Timestamp)> = events.items.iter().filter_map(trace).collect();
            trace::follow_all(&Span::current(), &requests, now);
        }
        let mut incomplete = events.incomplete;
        for (place, body) in &events.items {
            // perhaps by a later receiver: an unreadable event was not requested here
            let wanted = Heading::of(body).filter(|heading| self.wants(heading));
            if let Some(heading) = wanted {
                if let Some(wait) = store.held(self.target.name()).await? {
                    return self.put_off(*place, wait).await;
                }
                if let Some(shown) = self.send(sending, &heading.id, *place, body).await? {
                    return Ok(shown);
                }
            }
            if std::mem::take(&mut incomplete) {
                self.engine.metrics.notification(self.target, DROPPED);
                tracing::error!(notifier = self.target.name(), %prompt, "events were dropped: too many were pending");
            }
            sending.shown = *place;
            let mut fields = vec![(SHOWN, place.to_string())];
            if sending.tries > 0 || sending.refused > 0 {
                (sending.tries, sending.refused) = (0, 0);
                fields.extend([(TRIES, String::new()), (REFUSED, String::new())]);
            }
            let fields: Vec<(&str, &str)> = fields.iter().map(|(field, value)| (*field, value.as_str())).collect();
            if !store.note(claim, &fields).await? {
                return Ok(Shown::Lost);
            }
        }
        let more = events.items.len() == EVENTS;
        Ok(if more { Shown::Part { next: now, since: Some(Timestamp(sending.shown)) } } else { Shown::All })
    }

    fn wants(&self, heading: &Heading) -> bool {
        heading.kind().map_or(self.config.events.is_empty(), |kind| self.config.wants(kind))
    }

    /// Sends one event. `None`: it is finished.
    async fn send(
        &self,
        sending: &mut EventProgress<'_>,
        id: &str,
        place: i64,
        body: &str,
    ) -> Result<Option<Shown>, StoreError> {
        let (store, metrics, target) = (&self.engine.store, &self.engine.metrics, self.target);
        // by the local clock, as the receiver checks the age of a signature
        let sent = self.client.send(id, body, jiff::Timestamp::now().as_second()).await;
        metrics.notification(target, sent.as_ref().err().map_or(OK, Untaken::kind));
        let Err(error) = sent else {
            sending.answer = Acceptance::Taken;
            return Ok(None);
        };
        let notifier = target.name();
        if let Untaken::RateLimited { retry_after } = error {
            sending.answer = Acceptance::Taken;
            store.hold(notifier, retry_after).await?;
            return self.put_off(place, retry_after).await.map(Some);
        }
        let (field, tries) = if error.is_refusal() {
            sending.answer = Acceptance::Taken; // it is reachable
            sending.refused += 1;
            (REFUSED, sending.refused)
        } else {
            if sending.answer == Acceptance::NotAsked {
                sending.answer = Acceptance::Untaken { place: store.now().await? };
            }
            sending.tries = sending.tries.saturating_add(1);
            (TRIES, sending.tries)
        };
        if error.is_refusal() && tries >= REFUSALS {
            metrics.notification(target, GIVEN_UP);
            tracing::error!(notifier, event = id, %error, tries, "gave up on a rejected event: later events continue");
            return Ok(None);
        }
        if tries == 1 {
            tracing::warn!(notifier, event = id, %error, "an event was not accepted: it will be sent again");
        }
        if !store.note(sending.claim, &[(field, &tries.to_string())]).await? {
            return Ok(Some(Shown::Lost));
        }
        let mut wait = backoff(tries);
        if let Untaken::Server { retry_after: Some(asked), .. } = error {
            // also for other prompts, and for a later event of this one
            store.hold(notifier, asked).await?;
            wait = wait.max(asked);
        }
        self.put_off(place, wait).await.map(Some)
    }

    /// Postpones the event at `place` and all after it.
    async fn put_off(&self, place: i64, wait: Duration) -> Result<Shown, StoreError> {
        let next = self.engine.store.now().await?.plus(wait);
        Ok(Shown::Part { next, since: Some(Timestamp(place)) })
    }
}

/// The wait after this many failed attempts: random between half of it and all of it, so that not all prompts retry at
/// once.
fn backoff(tries: u32) -> Duration {
    let longest = LONGEST_BACKOFF.min(Duration::from_secs(1 << tries.clamp(1, 7).saturating_sub(1)));
    let random = u32::try_from(RandomState::new().hash_one(tries) % 1_000).unwrap_or_default();
    longest / 2 + longest * random / 2_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        for (tries, longest) in [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            let waits: Vec<_> = (0..64).map(|_| backoff(tries)).collect();
            let longest = Duration::from_secs(longest);
            assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)), "{tries}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{tries}");
        }
    }
}
