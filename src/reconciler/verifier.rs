//! The verifier: asks Prometheus about rollbacks that wait for it, and about those that are being verified.
//!
//! However many incidents are open, all replicas together send fewer than twenty queries a second: queries that every
//! check needs are sent once for all incidents of a tick, and the `verify` expressions of a rule are combined.

mod canary;
mod confirm;
mod measurements;
mod samples;
mod slots;

use std::sync::Arc;
use std::time::Duration;

pub use self::measurements::Measurements;

use self::confirm::provider;
use self::slots::SPARE;
use super::precheck::Precheck;
use crate::config::Labels;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::verification::{Traffic, Verification};
use crate::decision::{Checked, Event, Incident, PhaseKind, PromptName, Stepped, Timestamp, VersionName, soak};
use crate::elsewhere;
use crate::engine::{Engine, EngineError};
use crate::prometheus::client::{Prometheus, Series};
use crate::prometheus::exposure::{self, Recorded};
use crate::prometheus::question::{self, Verify};
use crate::prometheus::recheck;
use crate::store::StoreError;

/// What a series costs to evaluate, in bytes of JSON.
const SERIES: usize = 256;
/// What each of its points costs besides.
const POINT: usize = 32;

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
                Some(seen) => self.check(incident, seen, now).await.map(Event::Checked),
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
        let Some(verification) = incident.verification().filter(|_| incident.is_checked()) else { return false };
        let (enough, is_paged) = (self.engine.policy.verify_healthy, incident.phase.kind() == PhaseKind::Escalated);
        let ends = |check: &Checked| {
            recovers(verification, check, enough) || (!is_paged && escalates(verification, check, enough))
        };
        matches!(event, Some(Event::Checked(check)) if ends(check)) || (!is_paged && self.is_late(incident, now))
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
            None => match self.query_counters(prometheus, [&incident.prompt], split.since, now).await? {
                Some(Ok(series)) => {
                    let (labels, prompt) = (self.labels.clone(), incident.prompt.clone());
                    Some(stage(labels, prompt, series, split.since, split.arriving.clone()).await)
                }
                Some(Err(error)) => Some(Finding::new(Verdict::Unknown, error.to_string())),
                None => None,
            },
        };
        let stepped = |finding| Stepped { incident: incident.id.clone(), since: split.since, finding };
        Ok(finding.map(stepped))
    }

    /// One check of a rollback. `None`: no slot was free.
    async fn check(&self, incident: &Incident, seen: &Measurements, now: Timestamp) -> Option<Checked> {
        let (switch, verification) = (incident.switch.as_ref()?, incident.verification()?);
        let (traffic, errors) = match seen.counters(incident, now)? {
            Ok(recorded) => {
                let (recorded, labels, prompt) = (Arc::clone(recorded), self.labels.clone(), incident.prompt.clone());
                let (at, from, to) = (switch.at, switch.from.clone(), switch.to.clone());
                let least = question::healthy_below(incident);
                let size = recorded.points(&prompt) * POINT;
                elsewhere::run_sized(size, move || {
                    let counters = recorded.of(&labels, &prompt);
                    let traffic = counters.since(at, &from, &to);
                    let errors = exposure::judge(traffic.as_ref(), counters.limit(least, at, &to), at);
                    (traffic, errors)
                })
                .await
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
}

/// What these series cost to evaluate, in bytes of JSON.
fn cost<'a>(series: impl IntoIterator<Item = &'a Series>) -> usize {
    series.into_iter().map(|one| SERIES + one.points.len() * POINT).sum()
}

/// Judges `version` in the stage of a gradual rollback that began at `since`.
async fn stage(
    labels: Labels,
    prompt: PromptName,
    series: Vec<Series>,
    since: Timestamp,
    version: VersionName,
) -> Finding {
    elsewhere::run_sized(cost(&series), move || {
        let recorded = Recorded::new(&labels, series);
        let counters = recorded.of(&labels, &prompt);
        exposure::judge_stage(&counters, since, &version)
    })
    .await
}

/// Whether the rollback has recovered with this check. `enough`: that many in a row.
fn recovers(verification: &Verification, check: &Checked, enough: u32) -> bool {
    let follow = check.traffic.as_ref().is_some_and(Traffic::all_follow);
    check.finding.verdict == Verdict::Healthy && verification.healthy + 1 >= enough && follow
}

/// Whether people are paged with this check: after the deadline, checks decide that, and not the time.
fn escalates(verification: &Verification, check: &Checked, enough: u32) -> bool {
    let bad = check.finding.verdict == Verdict::Unhealthy && verification.unhealthy + 1 >= enough;
    let still = check.traffic.as_ref().is_some_and(|traffic| !traffic.still.is_empty());
    verification.late && (bad || still)
}

/// Later, other changes than the rollback may have happened.
const FIRST: Duration = Duration::from_secs(30);

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
    use crate::decision::verification::Instances;
    use crate::decision::{CommitId, IncidentId, Operator, Phase, Policy, Switch, SwitchMode};

    #[test]
    fn the_check_that_ends_the_wait_is_known_before_it_is_committed() {
        let all = || Traffic { following: 2, ..Traffic::default() };
        let still = || Traffic { still: Instances::of(vec!["a".to_owned()]), ..all() };
        for (late, healthy, unhealthy, verdict, traffic, ends) in [
            (false, 1, 0, Verdict::Healthy, Some(all()), (true, false)),
            (false, 0, 0, Verdict::Healthy, Some(all()), (false, false)),
            (false, 1, 0, Verdict::Healthy, None, (false, false)),
            (false, 1, 0, Verdict::Healthy, Some(still()), (false, false)),
            (false, 0, 5, Verdict::Unhealthy, Some(still()), (false, false)), // people are paged at the deadline
            (true, 1, 0, Verdict::Healthy, Some(all()), (true, false)),
            (true, 0, 0, Verdict::Unhealthy, Some(all()), (false, false)),
            (true, 0, 1, Verdict::Unhealthy, Some(all()), (false, true)),
            (true, 0, 0, Verdict::NoData, Some(still()), (false, true)),
            (true, 0, 0, Verdict::Unknown, None, (false, false)),
        ] {
            let start = Verification::starting(Timestamp(0), Duration::from_secs(5));
            let verification = Verification { late, healthy, unhealthy, ..start };
            let check = Checked {
                incident: IncidentId("I".to_owned()),
                switched_at: Timestamp(0),
                number: 7,
                finding: Finding::new(verdict, "found"),
                traffic,
                blame: None,
            };
            let found = (recovers(&verification, &check, 2), escalates(&verification, &check, 2));
            assert_eq!(found, ends, "{late} {healthy} {unhealthy} {check:?}");
        }
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
