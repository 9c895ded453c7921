//! Pages: alerts of the receiver itself, through Alertmanager, so that they reach people like the team's alerts.
//!
//! An alert is kept firing while the incident pages, and ended afterwards. The incident's progress records what
//! Alertmanager has accepted; anything else is posted again at the next wake-up, also after a restart. It also records
//! the alert's labels, because another label makes another alert.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ulid::Ulid;

use super::drill;
use super::incidents::IncidentWorker;
use super::worker::{GONE, WorkResult, carry_out, rest};
use crate::alertmanager::client::{Alertmanagers, OwnAlert};
use crate::decision::{Incident, Phase, PhaseKind, RollbackFailure, Timestamp, TrafficSplit};
use crate::live::Current;
use crate::store::schedule::{Claim, End, LEASE, Work, WorkItem};
use crate::store::{Store, StoreError, rfc3339};
use crate::trace;
use crate::visible::shown;
use crate::wording::change;

/// Pages posted concurrently: an Alertmanager that hangs delays no more than these.
const BATCH: usize = 128;

/// How long an alert lasts after it was last posted, because the receiver may have died.
const LASTS: Duration = Duration::from_secs(5 * 60);
const AGAIN: Duration = Duration::from_secs(60);
/// For how long a page about a closed incident waits until an Alertmanager is configured.
const CATCH_UP: Duration = Duration::from_secs(24 * 3_600);
/// The wait after a failure while no one was paged; it doubles with each further one.
const RETRY: Duration = Duration::from_secs(15);
/// After this many failures, [`LASTS`] has passed: a page whose end some Alertmanagers did not accept has ended.
const OUTLASTED: u32 = 6;

/// The progress field for what Alertmanager has accepted.
const PAGE: &str = "page";
/// The progress field for the labels of the alert that Alertmanager may show now.
const LABELS: &str = "page_labels";
/// The progress field for the number of failures in a row.
const TRIES: &str = "page_tries";

/// The wanted state of the alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedPage {
    Firing,
    /// A single page that ends automatically: no decision is expected.
    Once,
    Ended,
}

impl WantedPage {
    fn of(incident: &Incident) -> Self {
        match incident.pages() {
            true => WantedPage::Firing,
            false if incident.phase.kind() == PhaseKind::Unverified => WantedPage::Once,
            false => WantedPage::Ended,
        }
    }

    /// The value of [`PAGE`] once it was accepted.
    fn as_str(self) -> &'static str {
        match self {
            WantedPage::Firing => "firing",
            WantedPage::Once => "once",
            WantedPage::Ended => "ended",
        }
    }

    /// Whether it must still be posted.
    fn is_owed(self, taken: Option<&str>, incident: &Incident) -> bool {
        match (self, taken) {
            (WantedPage::Firing, _) => true, // posted again and again
            (WantedPage::Once, taken) => taken != Some(WantedPage::Once.as_str()),
            (WantedPage::Ended, Some(taken)) => taken == WantedPage::Firing.as_str(),
            // posted by a receiver that recorded nothing
            (WantedPage::Ended, None) => incident.paged,
        }
    }

    fn wait_after(self, failures: u32) -> Duration {
        let longest = if self == WantedPage::Ended { LASTS } else { AGAIN };
        (RETRY * 2_u32.saturating_pow(failures.min(10).saturating_sub(1))).min(longest)
    }
}

/// Runs while the process does.
pub async fn run(workers: Current<Arc<IncidentWorker>>) {
    let token = Ulid::generate().to_string();
    loop {
        let worker = workers.get();
        let wait = rest(tick(&worker, &token).await);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = worker.engine.paging.notified() => {}
        }
    }
}

/// Posts what is due once. Returns how long until there may be more.
async fn tick(worker: &IncidentWorker, token: &str) -> Result<Option<Duration>, StoreError> {
    let store = &worker.engine.store;
    let claimed = store.claim(Work::Page, BATCH, LEASE, token).await?;
    carry_out(store, &claimed, claimed.claims.iter().map(|claim| post(worker, claim, claimed.now))).await
}

async fn post(worker: &IncidentWorker, claim: &Claim, now: Timestamp) -> WorkResult {
    let IncidentWorker { engine, alertmanagers, .. } = worker;
    let next = match &claim.item {
        WorkItem::Drill(id) => drill::post(engine, alertmanagers, &worker.verifier.labels, id, now).await?,
        WorkItem::Incident(id) => {
            let Some(incident) = engine.store.incident(id).await? else { return Ok(GONE) };
            trace::follow(&incident, now);
            let here = Timestamp(jiff::Timestamp::now().as_millisecond());
            keep(alertmanagers, &engine.store, claim, &incident, now, here).await?
        }
        WorkItem::Prompt(_) | WorkItem::WeeklyReport | WorkItem::Unknown(_) => None,
    };
    Ok((None, End::Done { rev: None, next }))
}

/// Makes Alertmanager match `incident`, and returns when to do so again. A failure is retried for ever and never
/// becomes a dead letter: that would stop the incident's deadlines as well.
///
/// `here` is the time by the local clock, as for Prometheus: Alertmanager treats a page that ends in its past as
/// resolved, and keeps one until its end. Redis' clock may be wrong after a failover.
async fn keep(
    alertmanagers: &Alertmanagers,
    store: &Store,
    claim: &Claim,
    incident: &Incident,
    now: Timestamp,
    here: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let wanted = WantedPage::of(incident);
    let before = store.progress(claim).await?;
    if !wanted.is_owed(before.get(PAGE), incident) {
        return Ok(None);
    }
    if alertmanagers.is_empty() {
        // a reload, or another receiver, may have some
        let is_late = wanted != WantedPage::Firing && now.since(incident.updated_at) > CATCH_UP;
        return Ok((wanted != WantedPage::Ended && !is_late).then(|| now.plus(AGAIN)));
    }
    let ends_at = if wanted == WantedPage::Ended { here } else { here.plus(LASTS) };
    let mut page = alert(incident, alertmanagers, incident.opened_at.min(here), ends_at);
    let kept = before.get(LABELS).and_then(|kept| serde_json::from_str::<BTreeMap<String, String>>(kept).ok());
    if wanted == WantedPage::Ended {
        page.labels = kept.unwrap_or(page.labels);
    } else {
        let is_new = kept.as_ref() != Some(&page.labels);
        if let Some(labels) = kept.filter(|_| is_new) {
            // whether this is accepted or not, it ends after `LASTS`
            let earlier = OwnAlert { labels, ends_at: rfc3339(here), ..page.clone() };
            alertmanagers.post_each(&earlier).collect::<Vec<_>>().await;
        }
        // before it is posted: if the answer gets lost, there is a page to end
        let labels = serde_json::to_string(&page.labels).unwrap_or_default();
        let mut fields = vec![(LABELS, labels.as_str())];
        fields.extend((wanted == WantedPage::Firing).then_some((PAGE, wanted.as_str())));
        let is_noted = !is_new && (wanted == WantedPage::Once || before.get(PAGE) == Some(wanted.as_str()));
        if !is_noted && !store.note(claim, &fields).await? {
            return Ok(None); // another worker continues
        }
    }
    let answers: Vec<_> = alertmanagers.post_each(&page).collect().await;
    let any = answers.iter().any(|(_, answer)| answer.is_ok());
    let all = answers.iter().all(|(_, answer)| answer.is_ok());
    let failures = before.get(TRIES).and_then(|tries| tries.parse().ok()).unwrap_or(0_u32);
    // one Alertmanager of a cluster is enough to page, but each that shows a page must get its end
    let taken = all || any && (wanted != WantedPage::Ended || failures >= OUTLASTED);
    if taken {
        if failures > 0 || before.get(PAGE) != Some(wanted.as_str()) {
            let over = (wanted == WantedPage::Ended).then_some((LABELS, ""));
            let fields: Vec<_> = [(PAGE, wanted.as_str()), (TRIES, "")].into_iter().chain(over).collect();
            store.note(claim, &fields).await?;
        }
        return Ok((wanted == WantedPage::Firing).then(|| now.plus(AGAIN)));
    }
    let failures = failures.saturating_add(1);
    store.note(claim, &[(TRIES, &failures.to_string())]).await?;
    Ok(Some(now.plus(wanted.wait_after(failures))))
}

/// The page. It carries `bad_version` instead of `version`: no rule about a version inhibits it or routes it back to
/// the receiver.
fn alert(incident: &Incident, alertmanagers: &Alertmanagers, starts_at: Timestamp, ends_at: Timestamp) -> OwnAlert {
    let Incident { version, decider, .. } = incident;
    let prompt = shown(&incident.prompt);
    // while Prometheus is asked about an answer, the page goes on as before
    let phase = match &incident.phase {
        Phase::Confirming(confirming) => &confirming.before,
        phase => phase,
    };
    let summary = match phase {
        Phase::Escalated { reason: RollbackFailure::NotFollowed, .. } => {
            // after a second switch, not the version that the incident is about
            let kept = incident.switch.as_ref().map_or(version, |switch| &switch.from);
            format!("Prompt servers keep serving {prompt} {kept} after its {}", change(incident))
        }
        Phase::Escalated { .. } if incident.is_shipped() && incident.is_measured_bad() => {
            format!("The version that replaced {prompt} {version} did not help")
        }
        Phase::Escalated { .. } | Phase::Unverified if incident.is_shipped() => {
            format!("The version that replaced {prompt} {version} could not be verified")
        }
        Phase::Escalated { .. } => format!("The rollback of {prompt} {version} did not help"),
        Phase::Unverified => format!("The rollback of {prompt} {version} could not be verified"),
        Phase::Verifying { .. } if incident.is_shipped() => {
            format!("Another version replaced {prompt} {version}, and its health is not confirmed yet")
        }
        Phase::RollingBack(split) if split.paused.is_some() => {
            format!("The gradual rollback of {prompt} {version} has paused")
        }
        _ if incident.escalations == 0 => {
            format!("{prompt} {version} waits for {decider}, and Slack cannot notify them")
        }
        Phase::AwaitingDecision(question) if !question.overdue => {
            format!("{decider} must decide about {prompt} {version}")
        }
        _ => format!("{decider} missed the deadline to decide about {prompt} {version}"),
    };
    let mut description = incident.summary().to_owned();
    if let Phase::RollingBack(TrafficSplit { paused: Some(why), .. }) = phase {
        description.push_str("\nPaused: ");
        description.push_str(why);
    }
    if let Some(held) = &incident.held {
        description.push_str("\nNot rolled back automatically: ");
        description.push_str(&held.detail);
    }
    let mut annotations = vec![("summary", summary), ("description", description)];
    if let Some(alert) = incident.strongest() {
        let urls = [("runbook_url", &alert.runbook_url), ("dashboard_url", &alert.dashboard_url)];
        annotations.extend(urls.into_iter().filter(|(_, url)| !url.is_empty()).map(|(name, url)| (name, url.clone())));
    }
    OwnAlert {
        labels: alertmanagers.labels(&[
            ("alertname", "PromptRollbackEscalation"),
            ("severity", incident.severity.as_str()),
            ("prompt", &*incident.prompt.name()),
            ("bad_version", version.as_str()),
            ("incident", &incident.id.0),
            ("decider", decider),
        ]),
        annotations,
        starts_at: rfc3339(starts_at),
        ends_at: rfc3339(ends_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::verification::Verification;
    use crate::decision::{
        CommitId, Confirming, IncidentId, Operator, Pending, Plan, PromptName, Question, Switch, SwitchMode,
        VersionName,
    };

    const NOW: Timestamp = Timestamp(1_795_221_492_689);

    fn version(name: &str) -> VersionName {
        VersionName::parse(name).expect("a version")
    }

    /// Escalated once, in `phase`, after a switch of this kind.
    fn incident(phase: Phase, mode: Option<SwitchMode>) -> Incident {
        let switch = mode.map(|mode| Switch {
            commit: CommitId::default(),
            at: NOW,
            decided_at: None,
            from: version("v2"),
            to: version("v1"),
            mode,
            operator: Operator::recorded("maya"),
            verification: None,
        });
        let (id, prompt) = (IncidentId("I".to_owned()), PromptName::parse("p").expect("a name"));
        let incident = Incident::new(id, prompt, version("v2"), "on-call".to_owned(), NOW);
        Incident { phase, switch, escalations: 1, ..incident }
    }

    /// The page's summary and description.
    fn said(incident: &Incident) -> [String; 2] {
        let page = alert(incident, &Alertmanagers::default(), NOW, NOW);
        ["summary", "description"].map(|name| {
            page.annotations.iter().find(|(known, _)| *known == name).map(|(_, text)| text.clone()).unwrap_or_default()
        })
    }

    fn paused() -> Phase {
        let versions = (version("v2"), version("v1"));
        let plan = Plan { stages: vec![50, 100], holds: Vec::new(), limit: None };
        let mut split =
            TrafficSplit::begin(true, versions, plan, Operator::recorded("maya"), "requested".to_owned(), NOW);
        split.paused = Some("v1 is unhealthy: error ratio 12.00 %".to_owned());
        Phase::RollingBack(split)
    }

    #[test]
    fn a_page_says_why_people_are_paged() {
        let verifying = Phase::Verifying { until: NOW };
        let failed = |reason| Phase::Escalated { until: None, reason };
        let asked = Phase::AwaitingDecision(Question { overdue: true, ..Question::until(NOW) });
        for (phase, mode, expected) in [
            (asked, None, "on-call missed the deadline to decide about p v2"),
            (paused(), None, "The gradual rollback of p v2 has paused"),
            (
                verifying,
                Some(SwitchMode::Shipped),
                "Another version replaced p v2, and its health is not confirmed yet",
            ),
            (Phase::Unverified, Some(SwitchMode::Auto), "The rollback of p v2 could not be verified"),
            (Phase::Unverified, Some(SwitchMode::Shipped), "The version that replaced p v2 could not be verified"),
            (
                failed(RollbackFailure::NotRecovered),
                Some(SwitchMode::Shipped),
                "The version that replaced p v2 could not be verified",
            ),
            (
                failed(RollbackFailure::NotFollowed),
                Some(SwitchMode::Auto),
                "Prompt servers keep serving p v2 after its rollback",
            ),
        ] {
            let incident = incident(phase.clone(), mode);
            let raised = incident.pages() || phase.kind() == PhaseKind::Unverified;
            assert_eq!((raised, said(&incident)[0].as_str()), (true, expected), "{phase:?}");
            // asking Prometheus changes nothing about the reason
            let mut asking = incident.clone();
            let pending = Pending {
                by: SwitchMode::Approved,
                from: version("v1"),
                to: version("v0"),
                operator: Operator::recorded("maya"),
                reason: "requested".to_owned(),
                gradual: None,
                skip_confirmation: false,
                at: NOW,
            };
            asking.phase = Phase::Confirming(Box::new(Confirming { pending, until: NOW, before: phase }));
            assert_eq!(said(&asking)[0], expected);
        }
        let mut kept = incident(failed(RollbackFailure::NotFollowed), Some(SwitchMode::Shipped));
        assert_eq!(said(&kept)[0], "Prompt servers keep serving p v2 after its replacement");
        kept.switch.iter_mut().for_each(|switch| switch.from = version("v1"));
        assert_eq!(said(&kept)[0], "Prompt servers keep serving p v1 after its replacement");
        let mut measured = incident(failed(RollbackFailure::NotRecovered), Some(SwitchMode::Shipped));
        let verification = Verification::starting(NOW, Duration::from_secs(5));
        let verification = Verification { found_bad: Some("error ratio 7.00 %".to_owned()), ..verification };
        measured.switch.iter_mut().for_each(|switch| switch.verification = Some(verification.clone()));
        assert_eq!(said(&measured)[0], "The version that replaced p v2 did not help");
    }

    #[test]
    fn a_page_about_a_new_question_says_that_no_deadline_was_missed() {
        for (overdue, expected) in
            [(false, "on-call must decide about p v2"), (true, "on-call missed the deadline to decide about p v2")]
        {
            let question = Question { overdue, ..Question::until(NOW) };
            assert_eq!(said(&incident(Phase::AwaitingDecision(question), None))[0], expected);
        }
    }

    #[test]
    fn a_page_about_a_paused_rollback_gives_the_reason() {
        let [_, description] = said(&incident(paused(), None));
        assert_eq!(description, "\nPaused: v1 is unhealthy: error ratio 12.00 %");
    }

    #[test]
    fn retries_back_off_and_a_page_repeats_each_minute() {
        let waits = |wanted: WantedPage| [1, 2, 3, 4, 6, 500].map(|failures| wanted.wait_after(failures).as_secs());
        assert_eq!(waits(WantedPage::Firing), [15, 30, 60, 60, 60, 60]);
        assert_eq!(waits(WantedPage::Once), [15, 30, 60, 60, 60, 60]);
        assert_eq!(waits(WantedPage::Ended), [15, 30, 60, 120, 300, 300]);
        let outlasted: Duration = (1..=OUTLASTED).map(|failures| WantedPage::Ended.wait_after(failures)).sum();
        assert!(outlasted >= LASTS);
    }

    #[test]
    fn the_end_of_a_page_about_a_missed_deadline_gives_no_other_reason() {
        let Phase::RollingBack(mut split) = paused() else { unreachable!("a paused rollback is one") };
        split.paused = None;
        for ended in [
            incident(Phase::Verifying { until: NOW }, Some(SwitchMode::Approved)),
            incident(Phase::RollingBack(split), None),
        ] {
            assert_eq!(WantedPage::of(&ended), WantedPage::Ended);
            assert!(said(&ended)[0].contains("missed the deadline"), "{:?}", said(&ended));
        }
    }
}
