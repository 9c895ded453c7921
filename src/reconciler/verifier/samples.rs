//! The samples of an incident's metric, for its picture and its post-mortem. They are queried when the verification is
//! about to end and, if Prometheus is unreachable then, for a while afterwards.

use std::time::Duration;

use super::Verifier;
use super::slots::SPARE;
use crate::config::Labels;
use crate::decision::{Incident, NoteKind, PhaseKind, Timestamp, VersionName};
use crate::postmortem::{IncidentMetric, Missing, SampleSeries, Samples};
use crate::prometheus::client::{self, Prometheus, PrometheusError};
use crate::prometheus::question;
use crate::store::StoreError;
use crate::store::schedule::notify_priority;

/// The time shown before the first alert and, if the incident is long, after the switch.
const AROUND: Duration = Duration::from_secs(5 * 60);
/// The longest time shown: an alert may have begun long ago, but a picture of days shows nothing.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The time between two attempts, and how long they continue after the checks have ended: a restarting Prometheus
/// replays its log first.
const AGAIN: Duration = Duration::from_secs(15);
const GIVE_UP: Duration = Duration::from_secs(600);
/// Points of one line at most.
const POINTS: u64 = 300;

impl Verifier {
    /// Stores the samples before the commit that ends the checks, so that notifications about the end find them. False:
    /// Prometheus cannot be asked now.
    pub(super) async fn keep_samples(&self, incident: &Incident, until: Timestamp) -> Result<bool, StoreError> {
        let Some(prometheus) = &self.prometheus else {
            return self.keep_missing(incident, "prometheus.url is not set").await.map(|()| true);
        };
        // two queries, which must not delay checks
        if !self.acquire_within(SPARE).await? {
            return Ok(false);
        }
        let acquire = async || self.acquire().await.unwrap_or(false);
        match samples(prometheus, &self.labels, incident, until, acquire).await {
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
        let ended = ended(incident, self.engine.policy.verification_deadline);
        let (Some(ended), Some(switch)) = (ended, &incident.switch) else { return Ok(None) };
        let store = &self.engine.store;
        if store.samples(&incident.id).await?.is_some_and(|measured| measured.is_of(switch.at)) {
            return Ok(None);
        }
        if now < ended.plus(AGAIN) {
            return Ok(Some(ended.plus(AGAIN)));
        }
        if !self.keep_samples(incident, ended).await? {
            if now < ended.plus(GIVE_UP) {
                return Ok(Some(now.plus(AGAIN)));
            }
            self.keep_missing(incident, "Prometheus was unreachable").await?;
        }
        store.notify_again(&incident.id, notify_priority(incident)).await?;
        Ok(None)
    }
}

/// Waits for `acquire` before the second query.
async fn samples(
    prometheus: &Prometheus,
    labels: &Labels,
    incident: &Incident,
    until: Timestamp,
    acquire: impl AsyncFnOnce() -> bool,
) -> Result<Option<Samples>, PrometheusError> {
    let Some(switch) = &incident.switch else { return Ok(None) };
    let metric = question::metric(incident);
    let began =
        incident.alerts.iter().filter_map(|alert| alert.began(alert.first_seen)).min().unwrap_or(incident.opened_at);
    let (from, to) = shown(began.min(incident.opened_at), switch.at, until);
    let step = Duration::from_secs((to.since(from).as_secs() / POINTS).max(1));
    let expression = metric.expression(labels, &incident.prompt);
    let answer = prometheus.range(&expression, from, to, step).await?;
    let series = |version: &VersionName| -> Option<&client::Series> {
        answer.iter().find(|one| one.label(&labels.version) == version.as_str())
    };
    let line = |version: &VersionName| series(version).map(|one| drawn(version, one));
    let Some(bad) = line(&switch.from) else { return Ok(None) };
    let beyond = |(_, value): &&(Timestamp, f64)| metric.threshold.is_some_and(|threshold| *value > threshold);
    let first_bad = series(&switch.from).and_then(|one| one.points.iter().find(beyond)).map(|(at, _)| *at);
    // one at the very beginning is hardly the first
    let first_bad = first_bad.filter(|at| *at > from);
    let bad_responses = match first_bad.filter(|_| metric.is_errors()) {
        Some(_) if !acquire().await => {
            return Err(PrometheusError::NoAnswer("it is busy with other queries".to_owned()));
        }
        Some(first) => errors(prometheus, labels, incident, first, until).await?,
        None => None,
    };
    Ok(Some(Samples {
        expression,
        label: metric.label,
        unit: metric.unit,
        threshold: metric.threshold,
        step_ms: i64::try_from(step.as_millis()).unwrap_or(i64::MAX),
        bad,
        good: line(&switch.to),
        first_bad_at: first_bad.map(|at| at.0),
        bad_responses,
        switched_at: switch.at.0,
        is_shipped: incident.is_shipped(),
    }))
}

/// The time shown of an incident that `began` and whose checks ended at `until`. A long one is shown around its switch.
fn shown(began: Timestamp, switched: Timestamp, until: Timestamp) -> (Timestamp, Timestamp) {
    let from = began.minus(AROUND).max(until.min(switched.plus(AROUND)).minus(LONGEST));
    (from, until.min(from.plus(LONGEST)))
}

fn drawn(version: &VersionName, series: &client::Series) -> SampleSeries {
    SampleSeries::new(version.as_str(), series.points.iter().map(|(at, value)| (at.0, *value)))
}

/// When the checks of this rollback ended, if they have.
fn ended(incident: &Incident, deadline: Duration) -> Option<Timestamp> {
    let switch = incident.switch.as_ref().filter(|_| incident.verification().is_some())?;
    match incident.phase.kind() {
        PhaseKind::Recovered | PhaseKind::Unverified => incident.closed_at,
        PhaseKind::Escalated => {
            let escalated =
                incident.notes.iter().rfind(|note| note.kind == NoteKind::Escalated && note.at >= switch.at);
            Some(escalated.map_or(switch.at.plus(deadline), |note| note.at))
        }
        _ => None,
    }
}

/// Failed requests of the bad version since `first`: the sum of the minutes' counts.
async fn errors(
    prometheus: &Prometheus,
    labels: &Labels,
    incident: &Incident,
    first: Timestamp,
    now: Timestamp,
) -> Result<Option<f64>, PrometheusError> {
    const MINUTE: Duration = Duration::from_secs(60);
    /// Prometheus refuses more than 11,000 points.
    const MOST_MINUTES: u64 = 10_000;
    let Some(switch) = &incident.switch else { return Ok(None) };
    let query = question::errors_per_minute(labels, &incident.prompt, &switch.from);
    // the first minute includes what came before the first bad sample, and the last one ends now
    let minutes = now.since(first).as_secs().div_ceil(60).clamp(1, MOST_MINUTES);
    let from = now.minus(MINUTE * u32::try_from(minutes).unwrap_or(1));
    let answer = prometheus.range(&query, from.plus(MINUTE), now, MINUTE).await?;
    Ok(answer
        .first()
        .map(|one| one.points.iter().map(|(_, value)| value).filter(|v| v.is_finite()).sum::<f64>().round()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::note::Note;
    use crate::decision::verification::Verification;
    use crate::decision::{
        CommitId, IncidentId, Operator, Phase, Policy, PromptName, RollbackFailure, Switch, SwitchMode,
    };

    fn at(minute: i64) -> Timestamp {
        Timestamp(minute * 60_000)
    }

    #[test]
    fn the_switch_is_shown_and_what_led_to_it() {
        for (what, (began, switched, until), expected) in [
            ("a rollback that recovers soon", (100, 103, 108), (95, 108)),
            ("a decision after an hour", (100, 163, 168), (108, 168)),
            ("a decision after a day", (100, 1_540, 1_545), (1_485, 1_545)),
            ("too little traffic to verify within an hour", (100, 103, 163), (95, 155)),
            ("both", (100, 163, 223), (108, 168)),
        ] {
            let (from, to) = expected;
            assert_eq!(shown(at(began), at(switched), at(until)), (at(from), at(to)), "{what}");
        }
    }

    #[test]
    fn the_checks_of_a_late_escalation_ended_with_it() {
        let [prompt, version] = ["p", "v2"];
        let (prompt, version) = (PromptName::parse(prompt).expect("a name"), VersionName::parse(version).expect("v2"));
        let policy = Policy::default();
        let mut incident = Incident {
            phase: Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered },
            switch: Some(Switch {
                commit: CommitId::default(),
                at: at(103),
                decided_at: None,
                from: version.clone(),
                to: version.clone(),
                mode: SwitchMode::Auto,
                operator: Operator::SYSTEM,
                verification: Some(Verification::starting(at(103), policy.verify_every)),
            }),
            ..Incident::new(IncidentId("I".to_owned()), prompt, version, "on-call".to_owned(), at(100))
        };
        let ended = |incident: &Incident| ended(incident, policy.verification_deadline);
        assert_eq!(ended(&incident), Some(at(108)));
        let note = |minute| Note { seq: 0, at: at(minute), kind: NoteKind::Escalated, text: String::new() };
        incident.notes.push(note(101)); // about the question before the rollback
        assert_eq!(ended(&incident), Some(at(108)));
        incident.notes.push(note(143));
        assert_eq!(ended(&incident), Some(at(143)));
    }
}
