//! The verifier: asks Prometheus about rollbacks that wait for it, and about those that are being verified.
//!
//! However many incidents are open, all replicas together send fewer than twenty queries a second: queries that every
//! check needs are sent once for all incidents of a tick, and the `verify` expressions of a rule are combined.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{OptionFuture, join, join_all, join3};

use super::precheck::Precheck;
use super::sample;
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::verification::{Traffic, Verification};
use crate::decision::{
    Checked, Compared, Confirmed, Event, Evidence, Incident, Look, PhaseKind, PromptName, PromptState, Stepped,
    SwitchMode, Timestamp, TrafficSplit, VersionName, soak,
};
use crate::engine::{Engine, EngineError};
use crate::postmortem::{IncidentMetric, Missing};
use crate::prometheus::ab_test::Comparison;
use crate::prometheus::client::{Prometheus, PrometheusError, Series};
use crate::prometheus::comparison;
use crate::prometheus::exposure::{self, Recorded};
use crate::prometheus::question::{self, Verify};
use crate::prometheus::recheck;
use crate::prometheus::server::ScrapeTargets;
use crate::store::StoreError;
use crate::store::schedule::notify_priority;

/// Between two queries: fourteen a second, so that delayed queries do not make twenty in the next second.
const QUERY_INTERVAL: Duration = Duration::from_millis(70);
/// Between two queries about canaries: they take at most half of the slots.
const CANARY_INTERVAL: Duration = QUERY_INTERVAL.saturating_mul(2);
/// Longest wait for a slot, well below a lease; after it, the check is made later.
const PATIENCE: Duration = Duration::from_secs(8);
/// The counters of older rollbacks are queried by themselves: over a longer time, fewer points of each counter are read.
const RECENTLY: Duration = Duration::from_secs(600);

type QueryResult = Result<Vec<Series>, PrometheusError>;

/// The verifier.
#[derive(Debug)]
pub struct Verifier {
    pub engine: Arc<Engine>,
    pub prometheus: Option<Prometheus>,
    pub precheck: Option<Precheck>,
    pub labels: Labels,
    /// `gradual.abort_query`.
    pub abort_query: Option<String>,
}

/// Prometheus' answers about two versions.
#[derive(Debug)]
struct ComparisonData {
    spans: Vec<comparison::QueryRange>,
    answers: Vec<Vec<Series>>,
}

impl ComparisonData {
    fn requests_since(&self, labels: &Labels, version: &VersionName, since: Timestamp) -> f64 {
        comparison::requests_since(labels, &self.spans, &self.answers, version, since)
    }
}

/// The counters of some prompts since their rollbacks.
#[derive(Debug)]
struct CountersRead {
    prompts: BTreeSet<PromptName>,
    /// Whether they reach back to rollbacks that are older than [`RECENTLY`].
    old: bool,
    answer: Result<Recorded, PrometheusError>,
}

/// Prometheus' answers about all incidents that are checked together.
#[derive(Debug)]
pub struct Measurements {
    /// What is missing got no slot.
    counters: Vec<CountersRead>,
    /// Queried only soon after a switch.
    all_prompts: Option<[Vec<Series>; 3]>,
    /// The results of the `verify` expressions. One that is missing got no slot.
    verified: HashMap<String, QueryResult>,
}

impl Measurements {
    fn counters(&self, incident: &Incident, now: Timestamp) -> Option<&Result<Recorded, PrometheusError>> {
        let old = is_old(incident, now);
        let about = |read: &&CountersRead| read.old == old && read.prompts.contains(&incident.prompt);
        self.counters.iter().find(about).map(|read| &read.answer)
    }
}

impl Verifier {
    /// Whether a check of `incident` is due that needs the answers of [`look`](Self::look).
    pub fn checks(&self, incident: &Incident, now: Timestamp) -> bool {
        self.prometheus.is_some() && self.is_due(incident, now)
    }

    fn is_due(&self, incident: &Incident, now: Timestamp) -> bool {
        is_due(incident, self.is_late(incident, now), now)
    }

    fn is_late(&self, incident: &Incident, now: Timestamp) -> bool {
        incident.deadline().is_some_and(|deadline| deadline <= now) && self.still_lasts(incident, now).is_none()
    }

    /// When the stage, the checks or the wait for people of `incident` really end, if they only seem to be over because
    /// Redis' clock jumped.
    pub fn still_lasts(&self, incident: &Incident, now: Timestamp) -> Option<Timestamp> {
        let (since, due) = match incident.gradual() {
            Some(split) => (split.since, split.wake()?),
            None if incident.phase.kind() == PhaseKind::Verifying => {
                (incident.switch.as_ref()?.at, incident.deadline()?)
            }
            None => (incident.waits_since()?, incident.deadline()?),
        };
        self.engine.store.still_lasts(since, due, now)
    }

    /// Queries what the checks of all `due` need.
    pub async fn look(&self, due: &[&Incident], now: Timestamp) -> Result<Option<Measurements>, StoreError> {
        let Some(prometheus) = &self.prometheus else { return Ok(None) };
        let prompts = || due.iter().map(|incident| &incident.prompt);
        let mut counters = Vec::new();
        for old in [false, true] {
            let due = || due.iter().filter(|incident| is_old(incident, now) == old);
            let oldest = due().filter_map(|incident| incident.switch.as_ref()).map(|switch| switch.at).min();
            let Some(oldest) = oldest else { continue };
            let mut parts = Parts::of(due().map(|incident| incident.prompt.clone()).collect());
            while let Some(prompts) = parts.left.pop() {
                if let Some(answer) = self.query_counters(prometheus, &prompts, oldest, now).await? {
                    parts.answered(prompts, answer);
                }
            }
            counters.extend(parts.answers.into_iter().map(|(prompts, answer)| CountersRead {
                prompts,
                old,
                answer: answer.map(|series| Recorded::new(&self.labels, series)),
            }));
        }
        if counters.is_empty() {
            return Ok(None);
        }
        self.look_for_vanished(prometheus, &mut counters, now).await?;
        let blames = async {
            if !due.iter().any(|incident| is_new(incident, now)) {
                return Ok(None);
            }
            let [all, failing, own] = question::all_prompts(&self.labels, prompts());
            let ask = |query| self.query_rate_limited(prometheus, query);
            let (all, failing, own) = join3(ask(&all), ask(&failing), ask(&own)).await;
            Ok::<_, StoreError>(match (all?, failing?, own?) {
                (Some(Ok(all)), Some(Ok(failing)), Some(Ok(own))) => Some([all, failing, own]),
                _ => None,
            })
        };
        let (all_prompts, verified) = join(blames, self.verify_all(prometheus, due, &counters, now)).await;
        Ok(Some(Measurements { counters, all_prompts: all_prompts?, verified: verified? }))
    }

    /// Queries what exposure is computed from. `None`: no slot was free in time.
    async fn query_counters(
        &self,
        prometheus: &Prometheus,
        prompts: impl IntoIterator<Item = &PromptName>,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Result<Option<QueryResult>, StoreError> {
        let mut all = Vec::new();
        for query in question::counters(&self.labels, prompts, oldest, now) {
            match self.query_rate_limited(prometheus, &query).await? {
                Some(Ok(series)) => all.extend(series),
                missing => return Ok(missing),
            }
        }
        Ok(Some(Ok(all)))
    }

    /// Asks which of the instances that vanished Prometheus still tries to scrape: they may still serve anything.
    async fn look_for_vanished(
        &self,
        prometheus: &Prometheus,
        counters: &mut [CountersRead],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let read = || counters.iter().filter_map(|read| read.answer.as_ref().ok());
        let vanished: BTreeSet<String> = read().flat_map(|recorded| recorded.vanished(&self.labels, now)).collect();
        if vanished.is_empty() {
            return Ok(());
        }
        let query = ScrapeTargets::question(vanished.iter().map(String::as_str));
        let targets = ScrapeTargets::read(self.query_rate_limited(prometheus, &query).await?);
        let read = counters.iter_mut().filter_map(|read| read.answer.as_mut().ok());
        read.for_each(|recorded| recorded.know(targets.clone()));
        Ok(())
    }

    /// Evaluates the `verify` expressions of all `due`, those of one rule together.
    async fn verify_all(
        &self,
        prometheus: &Prometheus,
        due: &[&Incident],
        counters: &[CountersRead],
        now: Timestamp,
    ) -> Result<HashMap<String, QueryResult>, StoreError> {
        let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for incident in due {
            let Some(switch) = &incident.switch else { continue };
            for Verify { alertname, expression } in Verify::of(incident, &switch.to, now) {
                rules.entry(alertname).or_default().push(expression);
            }
        }
        let unreachable = counters.iter().find_map(|read| match &read.answer {
            Err(error @ PrometheusError::NoAnswer(_)) => Some(error),
            _ => None,
        });
        if let Some(error) = unreachable {
            // none of the other queries would be answered
            let all = rules.into_values().flatten();
            return Ok(all.map(|expression| (expression, Err(error.clone()))).collect());
        }
        let batches: Vec<_> = rules.values().flat_map(|expressions| question::batches(expressions)).collect();
        let answers = join_all(batches.iter().map(|batch| self.ask_together(prometheus, batch))).await;
        let mut verified = HashMap::new();
        for answered in answers {
            verified.extend(answered?);
        }
        Ok(verified)
    }

    /// Evaluates all of these at once; one by one if that fails, for example for an expression that returns a scalar.
    async fn ask_together(
        &self,
        prometheus: &Prometheus,
        expressions: &[String],
    ) -> Result<Vec<(String, QueryResult)>, StoreError> {
        if expressions.len() > 1 {
            let all: Vec<&str> = expressions.iter().map(String::as_str).collect();
            match self.verify_rate_limited(prometheus, &question::together(&all)).await? {
                None => return Ok(Vec::new()),
                Some(Ok(series)) => {
                    let each = question::apart(series, expressions.len());
                    return Ok(expressions.iter().cloned().zip(each.into_iter().map(Ok)).collect());
                }
                Some(Err(_)) => {}
            }
        }
        let asked =
            join_all(expressions.iter().map(|expression| self.verify_rate_limited(prometheus, expression))).await;
        let mut answers = Vec::new();
        for (expression, answer) in expressions.iter().zip(asked) {
            answers.extend(answer?.map(|answer| (expression.clone(), answer)));
        }
        Ok(answers)
    }

    /// Does the work for `incident` that needs an external answer.
    pub async fn verify(
        &self,
        incident: &Incident,
        seen: Option<&Measurements>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let event = match incident.phase.kind() {
            PhaseKind::Confirming => self.confirm(incident, now).await.map(Event::Confirmed),
            PhaseKind::RollingBack => self.may_resume(incident, now).await?.map(Event::Stepped),
            PhaseKind::AwaitingDecision => self.recheck(incident, now).await?,
            _ if self.is_due(incident, now) => match seen {
                Some(seen) => self.check(incident, seen, now).map(Event::Checked),
                None => None,
            },
            _ => None,
        };
        if self.ends_with(incident, event.as_ref(), now) {
            self.keep_samples(incident, now).await?; // now, or later if that fails
        }
        if let Some(event) = event {
            self.engine.handle(&incident.prompt, &event).await?;
        }
        Ok(())
    }

    /// Whether the checks of this incident end now, whatever the result.
    fn ends_with(&self, incident: &Incident, event: Option<&Event>, now: Timestamp) -> bool {
        let Some(verification) = incident.verification().filter(|_| incident.phase.kind() == PhaseKind::Verifying)
        else {
            return false;
        };
        let settles = |check: &Checked| {
            check.finding.verdict == Verdict::Healthy && check.traffic.as_ref().is_some_and(Traffic::all_follow)
        };
        let settled = matches!(event, Some(Event::Checked(check)) if settles(check))
            && verification.healthy + 1 >= self.engine.policy.verify_healthy;
        settled || self.is_late(incident, now)
    }

    /// Stores the samples before the commit that ends the checks, so that notifications about the end find them. False:
    /// Prometheus cannot be asked now.
    async fn keep_samples(&self, incident: &Incident, until: Timestamp) -> Result<bool, StoreError> {
        let Some(prometheus) = &self.prometheus else {
            return self.keep_missing(incident, "prometheus.url is not set").await.map(|()| true);
        };
        // two queries, which must not delay checks
        if !self.acquire_within(SPARE).await? {
            return Ok(false);
        }
        let acquire = async || self.acquire().await.unwrap_or(false);
        match sample::samples(prometheus, &self.labels, incident, until, acquire).await {
            Ok(Some(samples)) => {
                self.engine.store.put_samples(&incident.id, &IncidentMetric::Samples(Box::new(samples))).await?;
            }
            Ok(None) => self.keep_missing(incident, "Prometheus has no data for it").await?,
            Err(PrometheusError::Refused { status, message }) if status.is_client_error() => {
                // the same query would be rejected again
                self.keep_missing(incident, &format!("Prometheus rejected the query: {message}")).await?;
            }
            Err(error) => {
                tracing::warn!(incident = %incident.id, %error, "no picture of this incident yet");
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn keep_missing(&self, incident: &Incident, why: &str) -> Result<(), StoreError> {
        let Some(switch) = &incident.switch else { return Ok(()) };
        let missing = IncidentMetric::Missing(Missing { missing: why.to_owned(), switched_at: switch.at.0 });
        self.engine.store.put_samples(&incident.id, &missing).await
    }

    /// Queries what could not be queried when the checks ended. Returns when to try again.
    pub async fn measure_later(&self, incident: &Incident, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let ended = sample::ended(incident, self.engine.policy.verification_deadline);
        let (Some(ended), Some(switch)) = (ended, &incident.switch) else { return Ok(None) };
        let store = &self.engine.store;
        if store.samples(&incident.id).await?.is_some_and(|measured| measured.is_of(switch.at)) {
            return Ok(None);
        }
        if now < ended.plus(sample::AGAIN) {
            return Ok(Some(ended.plus(sample::AGAIN)));
        }
        if !self.keep_samples(incident, ended).await? {
            if now < ended.plus(sample::GIVE_UP) {
                return Ok(Some(now.plus(sample::AGAIN)));
            }
            self.keep_missing(incident, "Prometheus was unreachable").await?;
        }
        store.notify_again(&incident.id, notify_priority(incident)).await?;
        Ok(None)
    }

    /// Whether the version still fails, and whether its target would be better. People wait for this, so it takes no
    /// slots and sends all queries at once.
    async fn confirm(&self, incident: &Incident, now: Timestamp) -> Option<Confirmed> {
        let pending = incident.pending()?;
        if pending.skip_confirmation {
            let finding = Finding::new(Verdict::NoData, "Prometheus is not queried");
            return Some(Confirmed {
                incident: incident.id.clone(),
                at: pending.at,
                finding,
                blame: None,
                precheck: None,
            });
        }
        let precheck = self.precheck.as_ref().filter(|_| pending.by != SwitchMode::Auto);
        let precheck = OptionFuture::from(precheck.map(|b| b.test(&incident.prompt, &pending.to)));
        let asked = OptionFuture::from(self.prometheus.as_ref().map(|p| self.confirm_with(p, incident, now)));
        let (precheck, asked) = join(precheck, asked).await;
        let (finding, blame) =
            asked.flatten().unwrap_or_else(|| (Finding::new(Verdict::NoData, "prometheus.url is not set"), None));
        let precheck = precheck.and_then(Result::err);
        Some(Confirmed { incident: incident.id.clone(), at: pending.at, finding, blame, precheck })
    }

    async fn confirm_with(
        &self,
        prometheus: &Prometheus,
        incident: &Incident,
        now: Timestamp,
    ) -> Option<(Finding, Option<String>)> {
        let pending = incident.pending()?;
        let automatic = pending.by == SwitchMode::Auto;
        let ratios = question::ratios(&self.labels, [&incident.prompt]);
        let all_prompts = OptionFuture::from(automatic.then(|| self.all_prompts(prometheus, [&incident.prompt])));
        let (ratios, all_prompts) = join(prometheus.instant(&ratios), all_prompts).await;
        let ask = |version| self.ask_about(prometheus, incident, version, &ratios, now);
        let target = OptionFuture::from(automatic.then(|| ask(&pending.to)));
        let (finding, target) = join(ask(&pending.from), target).await;
        let target_fails = target.filter(|finding| finding.verdict == Verdict::Unhealthy);
        let blame = match target_fails {
            Some(finding) => Some(provider(&pending.to.to_string(), &finding.text)),
            None => self.others(incident, all_prompts.flatten().as_ref()),
        };
        Some((finding, blame))
    }

    /// Whether `version` is better than the one that it would replace, over the time in which both had traffic.
    pub async fn measure(
        &self,
        prompt: &PromptName,
        state: &PromptState,
        version: &VersionName,
        now: Timestamp,
    ) -> Evidence {
        let compared = self.compare(prompt, state, version, now, false).await;
        let (passed, text) = match compared {
            Ok((comparison, _)) => comparison.is_better(),
            Err(why) => (false, why),
        };
        Evidence { at: now, passed, text }
    }

    /// What must be known at the end of a canary's stage.
    pub async fn look_at_canary(
        &self,
        prompt: &PromptName,
        state: &PromptState,
        split: &TrafficSplit,
        now: Timestamp,
    ) -> Result<Look, StoreError> {
        let heartbeat = self.engine.store.heartbeat().await?;
        let compared = OptionFuture::from(self.prometheus.as_ref().map(|p| self.analyse(p, prompt, state, split, now)));
        Ok(Look { heartbeat, compared: compared.await })
    }

    async fn analyse(
        &self,
        prometheus: &Prometheus,
        prompt: &PromptName,
        state: &PromptState,
        split: &TrafficSplit,
        now: Timestamp,
    ) -> Result<Compared, String> {
        let (comparison, seen) = self.compare(prompt, state, &split.arriving, now, true).await?;
        let requests = seen.requests_since(&self.labels, &split.arriving, split.since);
        let harm = comparison.harm();
        let (mut no_worse, mut text) = comparison.is_no_worse();
        if let Some(query) = self.engine.policy.canary.of(prompt).query.as_ref().filter(|_| no_worse) {
            let since = now.since(split.since);
            let query = comparison::own_query(query, prompt, [&split.arriving, &split.leaving], since);
            self.take_turn().await?;
            let answer = prometheus.instant(&query).await.map_err(|error| error.to_string())?;
            if let Err(why) = comparison::read_own(&answer) {
                (no_worse, text) = (false, format!("{why}: {text}"));
            }
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; never negative")]
        Ok(Compared { requests: requests as u64, harm, no_worse, text })
    }

    /// `rate_limited`: no one waits for the result, so the queries wait for slots.
    async fn compare(
        &self,
        prompt: &PromptName,
        state: &PromptState,
        version: &VersionName,
        now: Timestamp,
        rate_limited: bool,
    ) -> Result<(Comparison, ComparisonData), String> {
        let prometheus = self.prometheus.as_ref().ok_or("prometheus.url is not set")?;
        let other = state.replaced_by(version).ok_or("there is no other version for comparison")?;
        let first = state.version(version).and_then(|record| record.first_active).ok_or("it has had no traffic yet")?;
        let canary = state.canary.as_ref().filter(|c| c.split.arriving == *version && c.split.leaving == *other);
        let (began, stage) = canary.map_or((first, first), |canary| (canary.started, canary.split.since));
        let query = comparison::query(&self.labels, prompt, [version, other]);
        let spans = comparison::spans(began, now);
        for _ in spans.iter().filter(|_| rate_limited) {
            self.take_turn().await?;
        }
        let ask = |span: &comparison::QueryRange| prometheus.range(&query, span.from, span.to, span.step);
        let answers = join_all(spans.iter().map(ask)).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let measured = comparison::read(&self.labels, &spans, &answers, [version, other], stage);
        Ok((
            Comparison::of(&measured, f64::from(self.engine.policy.canary.of(prompt).margin) / 100.0),
            ComparisonData { spans, answers },
        ))
    }

    /// How `version` has served since its soak began. `None`: Prometheus has no spare slot.
    pub async fn soaked(
        &self,
        prompt: &PromptName,
        version: &VersionName,
        since: Duration,
    ) -> Result<Option<Result<soak::SoakMeasurement, String>>, StoreError> {
        let Some(prometheus) = &self.prometheus else { return Ok(Some(Err("prometheus.url is not set".to_owned()))) };
        if !self.acquire_within(SPARE).await? {
            return Ok(None);
        }
        let answer = prometheus.instant(&question::soak(&self.labels, prompt, version, since)).await;
        Ok(Some(question::read_soak(&answer)))
    }

    /// Whether the requests since the version got traffic fail by themselves. `None`: not due, or no slot was free.
    async fn recheck(&self, incident: &Incident, now: Timestamp) -> Result<Option<Event>, StoreError> {
        let (Some(prometheus), Some(due)) = (&self.prometheus, incident.recheck()) else { return Ok(None) };
        if due.next > now {
            return Ok(None);
        }
        let query = recheck::question(&self.labels, &incident.prompt, &incident.version, now.since(due.since));
        let finding = match (query, recheck::threshold(incident)) {
            (_, None) => Finding::new(Verdict::Unknown, "the rule of the alert names no error threshold"),
            (None, _) => Finding::new(Verdict::NoData, "too early"),
            (Some(query), Some(threshold)) => match self.query_rate_limited(prometheus, &query).await? {
                Some(answer) => recheck::read(&answer, threshold),
                None => return Ok(None),
            },
        };
        Ok(Some(Event::Rechecked { incident: incident.id.clone(), since: due.since, finding }))
    }

    /// Whether a gradual rollback may continue. `None`: not due, or no slot was free.
    async fn may_resume(&self, incident: &Incident, now: Timestamp) -> Result<Option<Stepped>, StoreError> {
        let (Some(prometheus), Some(split)) = (&self.prometheus, incident.gradual()) else { return Ok(None) };
        if split.paused.is_some() || split.wake().is_none_or(|at| at > now) {
            return Ok(None);
        }
        let finding = match &self.abort_query {
            Some(query) => {
                let query = question::about(query, &incident.prompt, &split.arriving, now.since(split.since));
                self.query_rate_limited(prometheus, &query).await?.map(|answer| question::read_abort(&answer))
            }
            None => {
                let answer = self.query_counters(prometheus, [&incident.prompt], split.since, now).await?;
                answer.map(|answer| match answer {
                    Ok(series) => {
                        let recorded = Recorded::new(&self.labels, series);
                        let counters = recorded.of(&self.labels, &incident.prompt);
                        exposure::judge_stage(&counters, split.since, &split.arriving)
                    }
                    Err(error) => Finding::new(Verdict::Unknown, error.to_string()),
                })
            }
        };
        let stepped = |finding| Stepped { incident: incident.id.clone(), since: split.since, finding };
        Ok(finding.map(stepped))
    }

    /// One check of a rollback. `None`: no slot was free.
    fn check(&self, incident: &Incident, seen: &Measurements, now: Timestamp) -> Option<Checked> {
        let (switch, verification) = (incident.switch.as_ref()?, incident.verification()?);
        let (traffic, errors) = match seen.counters(incident, now)? {
            Ok(recorded) => {
                let counters = recorded.of(&self.labels, &incident.prompt);
                let traffic = counters.since(switch.at, &switch.from, &switch.to);
                let errors = exposure::judge(
                    traffic.as_ref(),
                    counters.limit(question::healthy_below(incident), switch.at, &switch.to),
                    switch.at,
                );
                (traffic, errors)
            }
            Err(error) => (None, Finding::new(Verdict::Unknown, error.to_string())),
        };
        let mut findings = vec![errors];
        for verify in Verify::of(incident, &switch.to, now) {
            findings.push(question::read_verify(&verify.alertname, seen.verified.get(&verify.expression)?));
        }
        let finding = Finding::all(findings);
        let blame = match finding.verdict {
            _ if !is_new(incident, now) => None,
            Verdict::Unhealthy => Some(provider(&switch.to.to_string(), &finding.text)),
            _ => self.others(incident, seen.all_prompts.as_ref()),
        };
        let (incident, number) = (incident.id.clone(), verification.checks);
        Some(Checked { incident, switched_at: switch.at, number, finding, traffic, blame })
    }

    /// The result of the alerts' own expressions for `version`, or its error ratio if they have none. Takes no slot.
    async fn ask_about(
        &self,
        prometheus: &Prometheus,
        incident: &Incident,
        version: &VersionName,
        ratios: &QueryResult,
        now: Timestamp,
    ) -> Finding {
        let ratio = |series: &Vec<Series>| question::ratio_of(&self.labels, series, &incident.prompt, version);
        let limit = question::healthy_below(incident);
        let errors = question::read_ratio(&ratios.as_ref().map(ratio).map_err(Clone::clone), limit);
        let verifies = Verify::of(incident, version, now);
        if verifies.is_empty() {
            return errors;
        }
        let answers = join_all(verifies.iter().map(|verify| prometheus.verify(&verify.expression))).await;
        let read = |(verify, answer): (&Verify, &QueryResult)| question::read_verify(&verify.alertname, answer);
        let verified = verifies.iter().zip(&answers).map(read).collect();
        let known = ratios.as_ref().is_ok_and(|series| ratio(series).is_some());
        question::all_measures(incident, verified, errors, known)
    }

    /// Answers to [`question::all_prompts`]; `None` if Prometheus does not answer.
    async fn all_prompts<'a>(
        &self,
        prometheus: &Prometheus,
        prompts: impl IntoIterator<Item = &'a PromptName>,
    ) -> Option<[Vec<Series>; 3]> {
        let [all, failing, own] = question::all_prompts(&self.labels, prompts);
        let answers = join3(prometheus.instant(&all), prometheus.instant(&failing), prometheus.instant(&own)).await;
        Some([answers.0.ok()?, answers.1.ok()?, answers.2.ok()?])
    }

    fn others(&self, incident: &Incident, all_prompts: Option<&[Vec<Series>; 3]>) -> Option<String> {
        let answers = all_prompts?.each_ref().map(Vec::as_slice);
        question::read_others(&self.labels, &incident.prompt, answers)
    }

    /// Queries as soon as a slot is free; slots are not saved up. `None`: no slot was free in time.
    async fn query_rate_limited(
        &self,
        prometheus: &Prometheus,
        query: &str,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(if self.acquire().await? { Some(prometheus.instant(query).await) } else { None })
    }

    async fn verify_rate_limited(
        &self,
        prometheus: &Prometheus,
        query: &str,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(if self.acquire().await? { Some(prometheus.verify(query).await) } else { None })
    }

    /// Waits for the turn of a query about a canary.
    async fn take_turn(&self) -> Result<(), String> {
        let taken = self.acquire_of("prometheus:canary", CANARY_INTERVAL, BETWEEN).await;
        match taken.map_err(|error| error.to_string())? && self.acquire().await.map_err(|error| error.to_string())? {
            true => Ok(()),
            false => Err(RATE_LIMITED.to_owned()),
        }
    }

    /// Waits for the next slot, which all replicas share. Returns false if it takes too long.
    async fn acquire(&self) -> Result<bool, StoreError> {
        self.acquire_within(PATIENCE).await
    }

    async fn acquire_within(&self, patience: Duration) -> Result<bool, StoreError> {
        self.acquire_of("prometheus", QUERY_INTERVAL, patience).await
    }

    async fn acquire_of(&self, slots: &str, every: Duration, patience: Duration) -> Result<bool, StoreError> {
        let patience = tokio::time::Instant::now() + patience;
        while let Some(wait) = self.engine.store.acquire(slots, every).await? {
            if tokio::time::Instant::now() + wait > patience {
                return Ok(false);
            }
            tokio::time::sleep(wait).await;
        }
        Ok(true)
    }
}

/// Longest wait for the turn of one query about a canary: as long as those of several receivers take.
const BETWEEN: Duration = Duration::from_secs(15);
const RATE_LIMITED: &str = "the Prometheus query limit is reached: the receiver will try again soon";
/// Longest wait of optional queries.
const SPARE: Duration = Duration::from_millis(500);
/// Later, other changes than the rollback may have happened.
const FIRST: Duration = Duration::from_secs(30);

fn provider(version: &str, text: &str) -> String {
    format!("{version} fails too ({text}): this looks like a provider outage")
}

/// Whether the rollback is older than [`RECENTLY`].
fn is_old(incident: &Incident, now: Timestamp) -> bool {
    incident.switch.as_ref().is_some_and(|switch| now.since(switch.at) > RECENTLY)
}

/// Prompts that one query is about, or several queries if the answer is too large.
struct Parts {
    left: Vec<BTreeSet<PromptName>>,
    answers: Vec<(BTreeSet<PromptName>, QueryResult)>,
}

impl Parts {
    fn of(prompts: BTreeSet<PromptName>) -> Self {
        Self { left: vec![prompts], answers: Vec::new() }
    }

    fn answered(&mut self, mut prompts: BTreeSet<PromptName>, answer: QueryResult) {
        let middle = prompts.iter().nth(prompts.len() / 2).filter(|_| prompts.len() > 1).cloned();
        match (&answer, middle) {
            (Err(PrometheusError::TooLarge(_)), Some(middle)) => {
                let rest = prompts.split_off(&middle);
                self.left.extend([rest, prompts]);
            }
            _ => self.answers.push((prompts, answer)),
        }
    }
}

/// Whether a check is due. After the deadline only a first check is: if Prometheus has no free slots, the end must not
/// wait for them.
fn is_due(incident: &Incident, late: bool, now: Timestamp) -> bool {
    let wanted = |v: &Verification| v.next <= now && !(late && v.checks > 0);
    incident.is_checked() && incident.verification().is_some_and(wanted)
}

/// Whether the switch is so recent, with nothing measured yet, that a check may show that the prompt was not the cause.
fn is_new(incident: &Incident, now: Timestamp) -> bool {
    let young = incident.switch.as_ref().is_some_and(|switch| now.since(switch.at) <= FIRST);
    young && incident.verification().is_some_and(|v| !v.blamed && v.healthy + v.unhealthy == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{CommitId, IncidentId, Operator, Phase, Policy, Switch};

    #[test]
    fn an_answer_that_is_too_large_is_asked_for_in_parts() {
        let prompt = |number: u32| PromptName::parse(&format!("p{number}")).expect("a name");
        let all: BTreeSet<_> = (0..128).map(prompt).collect();
        let mut parts = Parts::of(all.clone());
        while let Some(some) = parts.left.pop() {
            // the answer about p7 is too large by itself
            let too_large = some.len() > 20 || some.contains(&prompt(7));
            let answer =
                if too_large { Err(PrometheusError::TooLarge("too large".to_owned())) } else { Ok(Vec::new()) };
            parts.answered(some, answer);
        }
        let missing: Vec<_> =
            parts.answers.iter().filter(|(_, answer)| answer.is_err()).map(|(some, _)| some).collect();
        assert_eq!(missing, [&BTreeSet::from([prompt(7)])]);
        assert_eq!(parts.answers.iter().map(|(some, _)| some.len()).sum::<usize>(), 128, "each once");
        assert_eq!(parts.answers.iter().flat_map(|(some, _)| some.clone()).collect::<BTreeSet<_>>(), all);
    }

    #[test]
    fn after_the_deadline_only_a_first_look_is_due() {
        let now = Timestamp(1_000_000);
        let prompt = PromptName::parse("p").expect("a name");
        let version = VersionName::parse("v2").expect("a version");
        let id = IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned());
        let checked = |checks, deadline, next| Incident {
            phase: Phase::Verifying { until: Timestamp(deadline) },
            switch: Some(Switch {
                commit: CommitId::default(),
                at: now,
                decided_at: None,
                from: version.clone(),
                to: version.clone(),
                mode: SwitchMode::Auto,
                operator: Operator::SYSTEM,
                verification: Some(Verification {
                    checks,
                    next: Timestamp(next),
                    ..Verification::starting(now, Policy::default().verify_every)
                }),
            }),
            ..Incident::new(id.clone(), prompt.clone(), version.clone(), "on-call".to_owned(), now)
        };
        for (checks, deadline, next, due) in [
            (0, now.0 + 1, now.0, true),
            (3, now.0 + 1, now.0, true),
            (3, now.0 + 1, now.0 + 1, false),
            (3, now.0, now.0, false),
            (0, now.0, now.0, true),
        ] {
            assert_eq!(
                is_due(&checked(checks, deadline, next), deadline <= now.0, now),
                due,
                "{checks} {deadline} {next}"
            );
        }
        assert!(!is_due(&Incident { phase: Phase::Recovered, ..checked(3, now.0 + 1, now.0) }, false, now));
    }
}
