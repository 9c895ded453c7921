//! Prometheus' answers about all rollbacks that are checked together: what several checks need is queried once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all, join3};

use super::{SERIES, Verifier, is_new};
use crate::config::Labels;
use crate::decision::{Incident, PromptName, Timestamp};
use crate::elsewhere;
use crate::prometheus::client::{Prometheus, PrometheusError, QueryResult, Series};
use crate::prometheus::exposure::Recorded;
use crate::prometheus::question::{self, Verify};
use crate::prometheus::server::ScrapeTargets;
use crate::reconciler::split_query::SplitQuery;
use crate::store::StoreError;

/// The counters of rollbacks that are not older than this are queried together.
const RECENTLY: Duration = Duration::from_secs(600);

/// The counters of some prompts since their rollbacks.
#[derive(Debug)]
struct CountersRead {
    prompts: BTreeSet<PromptName>,
    age: AgeClass,
    answer: Result<Arc<Recorded>, PrometheusError>,
    /// The instances that may have gone.
    vanished: BTreeSet<String>,
}

impl CountersRead {
    /// An answer has up to a hundred thousand series: it is read on another thread.
    async fn of(
        labels: &Labels,
        prompts: BTreeSet<PromptName>,
        age: AgeClass,
        answer: QueryResult,
        now: Timestamp,
    ) -> Self {
        let read = |series: Vec<Series>| {
            let labels = labels.clone();
            elsewhere::run_sized(series.len() * SERIES, move || {
                let recorded = Recorded::new(&labels, series);
                let vanished = recorded.vanished(&labels, now);
                (Arc::new(recorded), vanished)
            })
        };
        match answer {
            Ok(series) => {
                let (recorded, vanished) = read(series).await;
                Self { prompts, age, answer: Ok(recorded), vanished }
            }
            Err(error) => Self { prompts, age, answer: Err(error), vanished: BTreeSet::new() },
        }
    }
}

/// Prometheus' answers about all incidents that are checked together.
#[derive(Debug)]
pub struct Measurements {
    /// What is missing got no slot.
    counters: Vec<CountersRead>,
    /// Queried only soon after a switch.
    pub(super) all_prompts: Option<[Vec<Series>; 3]>,
    /// The results of the `verify` expressions. One that is missing got no slot.
    pub(super) verified: HashMap<String, QueryResult>,
}

impl Measurements {
    pub(super) fn counters(
        &self,
        incident: &Incident,
        now: Timestamp,
    ) -> Option<&Result<Arc<Recorded>, PrometheusError>> {
        let age = AgeClass::of(incident, now)?;
        let about = |read: &&CountersRead| read.age == age && read.prompts.contains(&incident.prompt);
        self.counters.iter().find(about).map(|read| &read.answer)
    }
}

impl Verifier {
    /// Queries what the checks of all `due` need.
    pub async fn look(&self, due: &[&Incident], now: Timestamp) -> Result<Option<Measurements>, StoreError> {
        let Some(prometheus) = &self.prometheus else { return Ok(None) };
        let prompts = || due.iter().map(|incident| &incident.prompt);
        let mut counters = Vec::new();
        let ages: BTreeSet<AgeClass> = due.iter().filter_map(|incident| AgeClass::of(incident, now)).collect();
        for age in ages {
            let due = || due.iter().filter(|incident| AgeClass::of(incident, now) == Some(age));
            let oldest = due().filter_map(|incident| incident.switch.as_ref()).map(|switch| switch.at).min();
            let Some(oldest) = oldest else { continue };
            let mut parts = SplitQuery::of(due().map(|incident| incident.prompt.clone()).collect());
            while let Some(prompts) = parts.left.pop() {
                if let Some(answer) = self.query_counters(prometheus, &prompts, oldest, now).await? {
                    parts.answered(prompts, answer);
                }
            }
            for (prompts, answer) in parts.answers {
                counters.push(CountersRead::of(&self.labels, prompts, age, answer, now).await);
            }
        }
        if counters.is_empty() {
            return Ok(None);
        }
        self.look_for_vanished(prometheus, &mut counters).await?;
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

    /// Queries what exposure is computed from. `None`: no slot was free in time. The counters of one prompt are read at fewer points
    /// if the answer is too large. Several prompts are first asked about one by one.
    pub(super) async fn query_counters(
        &self,
        prometheus: &Prometheus,
        prompts: impl IntoIterator<Item = &PromptName>,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Result<Option<QueryResult>, StoreError> {
        let prompts: Vec<&PromptName> = prompts.into_iter().collect();
        let (queries, references) = question::counters(&self.labels, prompts.iter().copied(), oldest, now);
        let mut counters = None;
        for query in queries.iter().take(if prompts.len() == 1 { queries.len() } else { 1 }) {
            counters = self.query_rate_limited(prometheus, query).await?;
            if !matches!(counters, Some(Err(PrometheusError::TooLarge(_)))) {
                break;
            }
        }
        let mut all = match counters {
            Some(Ok(counters)) => counters,
            missing => return Ok(missing),
        };
        Ok(match self.query_rate_limited(prometheus, &references).await? {
            Some(Ok(references)) => {
                all.extend(references);
                Some(Ok(all))
            }
            missing => missing,
        })
    }

    /// Asks which of the instances that vanished Prometheus still tries to scrape: they may still serve anything.
    async fn look_for_vanished(
        &self,
        prometheus: &Prometheus,
        counters: &mut [CountersRead],
    ) -> Result<(), StoreError> {
        let vanished: BTreeSet<&str> = counters.iter().flat_map(|read| &read.vanished).map(String::as_str).collect();
        if vanished.is_empty() {
            return Ok(());
        }
        let query = ScrapeTargets::question(vanished);
        let targets = ScrapeTargets::read(self.query_rate_limited(prometheus, &query).await?);
        // nothing else has them yet
        let read = counters.iter_mut().filter_map(|read| Arc::get_mut(read.answer.as_mut().ok()?));
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
}

/// Rollbacks of one class differ at most twofold in age, beyond [`RECENTLY`]: the points of an answer are spread over the time
/// since the oldest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AgeClass(u32);

impl AgeClass {
    fn of(incident: &Incident, now: Timestamp) -> Option<Self> {
        incident.switch.as_ref().map(|switch| Self::since(switch.at, now))
    }

    fn since(switched: Timestamp, now: Timestamp) -> Self {
        let age = now.since(switched).as_secs().saturating_sub(1) / RECENTLY.as_secs();
        Self(age.checked_ilog2().map_or(0, |class| class + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollbacks_are_asked_about_together_only_with_those_of_about_their_age() {
        let now = Timestamp(10_000_000_000);
        let class = |seconds| AgeClass::since(now.minus(Duration::from_secs(seconds)), now);
        assert_eq!([0, 5, 600].map(class), [AgeClass(0); 3]);
        assert_eq!([601, 1_200].map(class), [AgeClass(1); 2]);
        assert_eq!([1_201, 2_400].map(class), [AgeClass(2); 2]);
        for (young, old) in [(1_200, 3_600), (900, 86_400), (86_400, 3 * 86_400)] {
            assert_ne!(class(young), class(old), "{young} {old}");
        }
    }
}
