//! Paging: an alert of our own through Alertmanager, so that it reaches people the way the team's alerts do.
//!
//! It is kept firing for as long as the incident pages, and ended when it does not any more. Posting is idempotent, so
//! nothing is recorded about it.

use std::time::Duration;

use crate::alertmanager::client::{Alertmanagers, OwnAlert};
use crate::decision::incident::Incident;
use crate::decision::{PhaseKind, Timestamp};
use crate::store::rfc3339;

/// An alert ends by itself this long after it was last posted: we may have died.
const LASTS: Duration = Duration::from_secs(5 * 60);
const AGAIN: Duration = Duration::from_secs(60);
/// After a failure: nobody has been paged yet.
const RETRY: Duration = Duration::from_secs(15);

/// Makes Alertmanager's picture match `incident`; tells when to do so again. A failure is tried again for ever, never
/// given up: it must not take the incident's deadlines with it.
///
/// `here` is the time by this machine's clock, as Prometheus does it: Alertmanager takes a page that ends in its past for
/// resolved, and keeps one for as long as its end lies ahead. Redis' clock may be off after a failover.
pub async fn keep(
    alertmanagers: &Alertmanagers,
    incident: &Incident,
    now: Timestamp,
    here: Timestamp,
) -> Option<Timestamp> {
    let pages = incident.pages();
    // one page, which ends by itself: nobody is expected to decide anything
    let unverified = incident.phase.kind() == PhaseKind::Unverified;
    if !(unverified || incident.paged) || alertmanagers.is_empty() {
        return None;
    }
    let ends_at = if pages || unverified { here.plus(LASTS) } else { here };
    match alertmanagers.post(&alert(incident, incident.opened_at.min(here), ends_at)).await {
        Ok(()) => pages.then(|| now.plus(AGAIN)),
        // an alert that could not be ended ends by itself soon
        Err(_) => pages.then(|| now.plus(RETRY)),
    }
}

/// The page. It carries `bad_version`, not `version`: no rule about a version inhibits it or brings it back to us.
fn alert(incident: &Incident, starts_at: Timestamp, ends_at: Timestamp) -> OwnAlert {
    let Incident { prompt, version, decider, .. } = incident;
    let summary = match incident.phase.kind() {
        PhaseKind::Escalated if incident.is_shipped() => {
            format!("What was shipped instead of {prompt} {version} did not help")
        }
        PhaseKind::Escalated => format!("The rollback of {prompt} {version} did not help"),
        PhaseKind::Unverified => format!("Nobody knows whether the rollback of {prompt} {version} helped"),
        _ if incident.escalations == 0 => format!("{prompt} {version} waits for {decider}, whom Slack does not tell"),
        _ => format!("{decider} has not decided about {prompt} {version} in time"),
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
