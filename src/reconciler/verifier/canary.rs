//! Measures canaries and gates: the new version against the one that it replaces.

use futures_util::future::{OptionFuture, join_all};

use super::{Verifier, cost};
use crate::config::Labels;
use crate::decision::{Compared, Evidence, Look, PromptName, PromptState, Timestamp, TrafficSplit, VersionName};
use crate::elsewhere;
use crate::prometheus::ab_test::Comparison;
use crate::prometheus::client::{Prometheus, PrometheusError, Series};
use crate::prometheus::comparison;
use crate::store::StoreError;

/// Prometheus' answers about two versions.
#[derive(Debug)]
struct ComparisonData {
    spans: Vec<comparison::QueryRange>,
    answers: Vec<Vec<Series>>,
}

/// Each may have a hundred thousand series: they are evaluated on another thread.
impl ComparisonData {
    async fn compared(
        self,
        labels: Labels,
        [new, old]: [VersionName; 2],
        stage: Timestamp,
        margin: f64,
    ) -> (Comparison, Self) {
        elsewhere::run_sized(cost(self.answers.iter().flatten()), move || {
            let measured = comparison::read(&labels, &self.spans, &self.answers, [&new, &old], stage);
            (Comparison::of(&measured, margin), self)
        })
        .await
    }

    async fn requests_since(self, labels: Labels, version: VersionName, since: Timestamp) -> f64 {
        elsewhere::run_sized(cost(self.answers.iter().flatten()), move || {
            comparison::requests_since(&labels, &self.spans, &self.answers, &version, since)
        })
        .await
    }
}

/// `own`: the answer to `canary.query`, if it was asked. An error of it hides nothing that was measured otherwise.
fn judged(comparison: &Comparison, requests: f64, own: Option<Result<Vec<Series>, String>>) -> Compared {
    let (mut no_worse, mut text) = comparison.is_no_worse();
    let own = own.map(|answer| match answer {
        Ok(answer) => comparison::read_own(&answer),
        Err(error) => Err(format!("canary.query: {error}")),
    });
    if let Some(Err(why)) = own {
        (no_worse, text) = (false, format!("{why}: {text}"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; never negative")]
    let requests = requests as u64;
    Compared { requests, harm: comparison.harm(), no_worse, text }
}

/// When the comparison of `version` with `other` begins, and when the stage did that durations are about: with their canary, or when
/// `version` got its traffic, if that was later. Before that it may have been another text. `None`: it never had traffic.
fn began(state: &PromptState, version: &VersionName, other: &VersionName) -> Option<(Timestamp, Timestamp)> {
    let record = state.version(version)?;
    let since = record.traffic_since.or(record.new_since())?;
    let canary = state.canary.as_ref().filter(|c| c.split.arriving == *version && c.split.leaving == *other);
    let canary = canary.filter(|canary| canary.end.is_none() || since <= canary.started);
    Some(
        canary.map_or((since, since), |canary| {
            (comparison::began(canary.started, canary.split.since), canary.split.since)
        }),
    )
}

impl Verifier {
    /// Whether `version` is better than the one that it would replace, over the time in which both had traffic.
    pub async fn measure(
        &self,
        prompt: &PromptName,
        state: &PromptState,
        version: &VersionName,
        now: Timestamp,
        rate_limited: bool,
    ) -> Evidence {
        let compared = self.compare(prompt, state, version, now, rate_limited).await;
        let (passed, text) = match compared {
            Ok((comparison, _)) => comparison.is_better(),
            Err(why) => (false, why),
        };
        Evidence { at: now, against: state.replaced_by(version).cloned(), passed, text }
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
        let requests = seen.requests_since(self.labels.clone(), split.arriving.clone(), split.since).await;
        let query = self.engine.policy.canary.of(prompt).query.as_ref().filter(|_| comparison.is_no_worse().0);
        let own = OptionFuture::from(query.map(|query| async move {
            let since = now.since(split.since);
            let query = comparison::own_query(query, prompt, [&split.arriving, &split.leaving], since);
            self.take_turn().await?;
            prometheus.instant(&query).await.map_err(|error| error.to_string())
        }));
        Ok(judged(&comparison, requests, own.await))
    }

    /// Asks about the slices of `span`, in parts if an answer is too large, as with very many instances. The turn of the first query is
    /// taken already.
    async fn ask_in_parts(
        &self,
        prometheus: &Prometheus,
        query: &str,
        span: comparison::QueryRange,
        rate_limited: bool,
    ) -> Result<Vec<(comparison::QueryRange, Vec<Series>)>, String> {
        let (mut left, mut answers, mut is_first) = (vec![span], Vec::new(), true);
        while let Some(span) = left.pop() {
            if rate_limited && !is_first {
                self.take_turn().await?;
            }
            is_first = false;
            let answer = prometheus.range(query, span.from, span.to, span.step).await;
            match (answer, span.halves()) {
                (Err(PrometheusError::TooLarge(_)), Some([first, second])) => left.extend([second, first]),
                (answer, _) => answers.push((span, answer.map_err(|error| error.to_string())?)),
            }
        }
        Ok(answers)
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
        let (began, stage) = began(state, version, other).ok_or("it has had no traffic yet")?;
        let query = comparison::query(&self.labels, prompt, [version, other]);
        let spans = comparison::spans(began, now);
        for _ in spans.iter().filter(|_| rate_limited) {
            self.take_turn().await?;
        }
        let ask = |span: &comparison::QueryRange| self.ask_in_parts(prometheus, &query, *span, rate_limited);
        let answers = join_all(spans.iter().map(ask)).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (spans, answers): (Vec<_>, Vec<_>) = answers.into_iter().flatten().unzip();
        let margin = f64::from(self.engine.policy.canary.of(prompt).margin) / 100.0;
        let (data, versions) = (ComparisonData { spans, answers }, [version.clone(), other.clone()]);
        Ok(data.compared(self.labels.clone(), versions, stage, margin).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::split::CanaryEnd;
    use crate::decision::{Canary, IncidentId, Operator, Plan, VersionRecord};
    use crate::prometheus::ab_test::{ComparisonSamples, Counts, Slice};

    #[test]
    fn a_version_that_was_shipped_again_is_compared_from_then_on() {
        let [v1, v2] = ["v1", "v2"].map(|name| VersionName::parse(name).expect("a version"));
        let at = |minutes: i64| Timestamp(minutes * 60_000);
        let mut state = PromptState::default();
        assert_eq!(began(&state, &v2, &v1), None);
        state.versions = vec![VersionRecord::new(v2.clone(), at(0))];
        assert_eq!(began(&state, &v2, &v1), None, "registered, and never served");
        let begins =
            |state: &PromptState, minutes| assert_eq!(began(state, &v2, &v1), Some((at(minutes), at(minutes))));
        // a canary at minute 10, which an alert ended
        let plan = Plan { stages: vec![50, 100], holds: Vec::new(), limit: None };
        let split = |now| {
            TrafficSplit::begin(false, (v1.clone(), v2.clone()), plan.clone(), Operator::SYSTEM, String::new(), now)
        };
        let canary = |now| Canary::new(IncidentId("I".to_owned()), split(now), now, false);
        let end = |at| Some(CanaryEnd { at, promoted: false, text: String::new() });
        state.versions[0].first_active = Some(at(10));
        state.canary = Some(Canary { end: end(at(20)), ..canary(at(10)) });
        begins(&state, 10);
        // a fix under the same name gets traffic, without a canary, and loses it
        (state.versions[0].shipped_again, state.versions[0].traffic_since) = (Some(at(500)), Some(at(500)));
        begins(&state, 500);
        state.versions[0].traffic_since = None;
        begins(&state, 500);
        // a rollback to it later
        state.versions[0].traffic_since = Some(at(900));
        begins(&state, 900);
        state.canary = Some(canary(at(950)));
        begins(&state, 950);
    }

    #[test]
    fn answers_about_many_servers_are_evaluated_on_another_thread() {
        let [v1, v2] = ["v1", "v2"].map(|name| VersionName::parse(name).expect("a version"));
        let labels = || crate::config::Config::default().labels;
        for (servers, expected) in [(10, false), (10_000, true)] {
            let one = Series { labels: [].into(), points: vec![(Timestamp(0), 1.0)] };
            let answer = vec![one; servers];
            let data = || ComparisonData { spans: Vec::new(), answers: vec![answer.clone()] };
            let compared = data().compared(labels(), [v2.clone(), v1.clone()], Timestamp(0), 0.01);
            let requests = data().requests_since(labels(), v2.clone(), Timestamp(0));
            let prompt = PromptName::parse("p").expect("a name");
            let stage = crate::reconciler::verifier::stage(labels(), prompt, answer, Timestamp(0), v2.clone());
            let found = [
                elsewhere::needs_another_thread(compared),
                elsewhere::needs_another_thread(requests),
                elsewhere::needs_another_thread(stage),
            ];
            assert_eq!(found, [expected; 3], "{servers} servers");
        }
    }

    #[test]
    fn an_error_of_canary_query_hides_neither_harm_nor_requests() {
        let slice = |new: f64, old: f64| Slice {
            new: Counts { all: 100.0, failed: 100.0 * new },
            old: Counts { all: 100.0, failed: 100.0 * old },
        };
        // quality is lower, but by less than what is tolerated
        let measured = ComparisonSamples {
            errors: vec![slice(0.0, 0.0); 100],
            quality: vec![slice(0.12, 0.1); 500],
            durations: None,
        };
        let comparison = Comparison::of(&measured, 0.01);
        let harm = comparison.harm();
        assert!(harm.is_some() && comparison.is_no_worse().0, "{comparison:?}");
        let one = |value| vec![Series { labels: [].into(), points: vec![(Timestamp(0), value)] }];
        for (own, no_worse, begins) in [
            (None, true, "success"),
            (Some(Ok(one(1.0))), true, "success"),
            (Some(Ok(one(0.0))), false, "canary.query reports that it is worse: success"),
            (Some(Err("Prometheus is away".to_owned())), false, "canary.query: Prometheus is away: success"),
        ] {
            let found = judged(&comparison, 612.0, own);
            assert_eq!((found.requests, &found.harm, found.no_worse), (612, &harm, no_worse), "{begins}");
            assert!(found.text.starts_with(begins), "{}", found.text);
        }
    }
}
