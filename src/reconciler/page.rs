//! Paging: an alert of our own through Alertmanager, so that it reaches people the way the team's alerts do.
//!
//! It is kept firing for as long as the incident pages, and ended when it does not any more. What Alertmanager has taken is
//! noted beside the incident: until then it is owed, and whoever has the next wake-up posts it again, also after a restart.

use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use super::drill;
use super::incidents::IncidentWorker;
use super::worker::{GONE, WorkResult, carry_out, rest};
use crate::alertmanager::client::{Alertmanagers, OwnAlert};
use crate::decision::{Incident, PhaseKind, RollbackFailure, Timestamp};
use crate::live::Current;
use crate::store::schedule::{Claim, End, LEASE, Work, WorkItem};
use crate::store::{Store, StoreError, rfc3339};

/// Pages kept side by side: an Alertmanager that hangs holds up no more than these.
const BATCH: usize = 128;

/// An alert ends by itself this long after it was last posted: we may have died.
const LASTS: Duration = Duration::from_secs(5 * 60);
const AGAIN: Duration = Duration::from_secs(60);
/// After a failure, when nobody has been paged yet; twice as long after each further one.
const RETRY: Duration = Duration::from_secs(15);
/// After so many failures [`LASTS`] has passed: a page that some of the Alertmanagers were not told the end of has ended.
const OUTLASTED: u32 = 6;

/// Field of the incident's progress: what Alertmanager has taken.
const PAGE: &str = "page";
/// How often it has failed in a row.
const TRIES: &str = "page_tries";

/// What Alertmanager is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedPage {
    Firing,
    /// One page, which ends by itself: nobody is expected to decide anything.
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

    /// The value of [`PAGE`] once it has been taken.
    fn as_str(self) -> &'static str {
        match self {
            WantedPage::Firing => "firing",
            WantedPage::Once => "once",
            WantedPage::Ended => "ended",
        }
    }

    /// Whether it still has to be posted.
    fn is_owed(self, taken: Option<&str>, incident: &Incident) -> bool {
        match (self, taken) {
            (WantedPage::Firing, _) => true, // again and again
            (WantedPage::Once, taken) => taken != Some(WantedPage::Once.as_str()),
            (WantedPage::Ended, Some(taken)) => taken == WantedPage::Firing.as_str(),
            // by a receiver that noted nothing
            (WantedPage::Ended, None) => incident.paged,
        }
    }

    fn wait_after(self, failures: u32) -> Duration {
        let longest = if self == WantedPage::Ended { LASTS } else { AGAIN };
        (RETRY * 2_u32.saturating_pow(failures.min(10).saturating_sub(1))).min(longest)
    }
}

/// Runs for as long as the process does.
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

/// Posts what is due once; tells how long until there may be more.
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
            let here = Timestamp(jiff::Timestamp::now().as_millisecond());
            keep(alertmanagers, &engine.store, claim, &incident, now, here).await?
        }
        WorkItem::Prompt(_) | WorkItem::WeeklyReport | WorkItem::Unknown(_) => None,
    };
    Ok((None, End::Done { rev: None, next }))
}

/// Makes Alertmanager's picture match `incident`; tells when to do so again. A failure is tried again for ever, never
/// given up: it must not take the incident's deadlines with it.
///
/// `here` is the time by this machine's clock, as Prometheus does it: Alertmanager takes a page that ends in its past for
/// resolved, and keeps one for as long as its end lies ahead. Redis' clock may be off after a failover.
async fn keep(
    alertmanagers: &Alertmanagers,
    store: &Store,
    claim: &Claim,
    incident: &Incident,
    now: Timestamp,
    here: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    if alertmanagers.is_empty() {
        return Ok(None);
    }
    let wanted = WantedPage::of(incident);
    let before = store.progress(claim).await?;
    if !wanted.is_owed(before.get(PAGE), incident) {
        return Ok(None);
    }
    // before it is posted: an answer may get lost, and then there is something to end
    let firing = wanted == WantedPage::Firing && before.get(PAGE) != Some(wanted.as_str());
    if firing && !store.note(claim, &[(PAGE, wanted.as_str())]).await? {
        return Ok(None); // another worker goes on
    }
    let ends_at = if wanted == WantedPage::Ended { here } else { here.plus(LASTS) };
    let answers = alertmanagers.post_each(&alert(incident, incident.opened_at.min(here), ends_at)).await;
    let any = answers.iter().any(|(_, answer)| answer.is_ok());
    let all = answers.iter().all(|(_, answer)| answer.is_ok());
    let failures = before.get(TRIES).and_then(|tries| tries.parse().ok()).unwrap_or(0_u32);
    // one of a cluster is enough to page, but each that shows a page must be told of its end
    let taken = all || any && (wanted != WantedPage::Ended || failures >= OUTLASTED);
    if taken {
        if failures > 0 || before.get(PAGE) != Some(wanted.as_str()) {
            store.note(claim, &[(PAGE, wanted.as_str()), (TRIES, "")]).await?;
        }
        return Ok((wanted == WantedPage::Firing).then(|| now.plus(AGAIN)));
    }
    let failures = failures.saturating_add(1);
    store.note(claim, &[(TRIES, &failures.to_string())]).await?;
    Ok(Some(now.plus(wanted.wait_after(failures))))
}

/// The page. It carries `bad_version`, not `version`: no rule about a version inhibits it or brings it back to us.
fn alert(incident: &Incident, starts_at: Timestamp, ends_at: Timestamp) -> OwnAlert {
    let Incident { prompt, version, decider, .. } = incident;
    let summary = match incident.phase.kind() {
        PhaseKind::Escalated if incident.failure() == Some(RollbackFailure::NotFollowed) => {
            format!("Prompt servers keep serving {prompt} {version} after its rollback")
        }
        PhaseKind::Escalated if incident.is_shipped() => {
            format!("What was shipped instead of {prompt} {version} did not help")
        }
        PhaseKind::Escalated => format!("The rollback of {prompt} {version} did not help"),
        PhaseKind::Unverified => format!("The rollback of {prompt} {version} could not be verified"),
        _ if incident.escalations == 0 => {
            format!("{prompt} {version} waits for {decider}, and Slack cannot notify them")
        }
        _ => format!("{decider} missed the deadline to decide about {prompt} {version}"),
    };
    let mut description = incident.summary().to_owned();
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
        labels: [
            ("alertname", "PromptRollbackEscalation"),
            ("severity", incident.severity.as_str()),
            ("prompt", prompt.as_str()),
            ("bad_version", version.as_str()),
            ("incident", &incident.id.0),
            ("decider", decider),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        annotations,
        starts_at: rfc3339(starts_at),
        ends_at: rfc3339(ends_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_rarely_and_a_page_at_least_each_minute() {
        let waits = |wanted: WantedPage| [1, 2, 3, 4, 6, 500].map(|failures| wanted.wait_after(failures).as_secs());
        assert_eq!(waits(WantedPage::Firing), [15, 30, 60, 60, 60, 60]);
        assert_eq!(waits(WantedPage::Once), [15, 30, 60, 60, 60, 60]);
        assert_eq!(waits(WantedPage::Ended), [15, 30, 60, 120, 300, 300]);
        let outlasted: Duration = (1..=OUTLASTED).map(|failures| WantedPage::Ended.wait_after(failures)).sum();
        assert!(outlasted >= LASTS);
    }
}
