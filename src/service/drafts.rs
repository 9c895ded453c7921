//! Post-mortem drafts, from the stored facts of an incident.

use crate::decision::{Incident, PhaseKind, PromptName, VersionName};
use crate::elsewhere;
use crate::engine::Engine;
use crate::postmortem::{IncidentMetric, PostmortemFacts, Verified, draft};
use crate::store::StoreError;

/// Entries of the deployment log that are read, from the end of the incident backwards.
const MAX_LOG: usize = 200;
/// The log uses Redis' own time: the entries of a commit may be a little later than its decision.
const LATER: std::time::Duration = std::time::Duration::from_secs(60);

/// Renders Markdown. Drawing and comparing take milliseconds, on another thread.
pub async fn postmortem(engine: &Engine, incident: Incident) -> Result<String, StoreError> {
    let store = &engine.store;
    let good = incident.switch.as_ref().map(|switch| &switch.to).or(incident.target.as_ref());
    let versions: Vec<_> = std::iter::once(&incident.version).chain(good).collect();
    let mut contents = store.contents(&incident.prompt, &versions).await?.into_iter();
    let (bad, good) = (contents.next().flatten(), contents.next().flatten());
    let end = incident.closed_at.unwrap_or(incident.updated_at).plus(LATER);
    let log = store.log_until(&incident.prompt, end, MAX_LOG).await?;
    let switch = incident.switch.as_ref().map(|switch| switch.at);
    let measured = store.samples(&incident.id).await?.filter(|measured| switch.is_some_and(|at| measured.is_of(at)));
    let contact = contact(engine, &incident.prompt, &incident.version).await?;
    let verification_deadline = engine.policy.verification_deadline;
    let drafted = elsewhere::try_run(move || {
        let (samples, unmeasured) = match &measured {
            Some(IncidentMetric::Samples(samples)) => (Some(&**samples), None),
            Some(IncidentMetric::Missing(missing)) => (None, Some(missing.missing.as_str())),
            None => (None, is_awaited(&incident).then_some("Prometheus is unreachable: the receiver will try again")),
        };
        draft(&PostmortemFacts {
            incident: &incident,
            log: &log,
            samples,
            unmeasured,
            verification: verified(&incident),
            verification_deadline,
            contact: contact.as_deref(),
            bad_content: bad.as_deref(),
            good_content: good.as_deref(),
        })
    });
    drafted.await.ok_or_else(|| StoreError::Broken {
        key: "the post-mortem".to_owned(),
        detail: "cannot be written: please report it".to_owned(),
    })
}

/// Whether the checks of its rollback have ended, so that their samples are stored or being queried.
pub fn is_awaited(incident: &Incident) -> bool {
    incident.verification().is_some()
        && matches!(incident.phase.kind(), PhaseKind::Recovered | PhaseKind::Escalated | PhaseKind::Unverified)
}

/// The contact of the version. The draft is useful without it.
async fn contact(engine: &Engine, prompt: &PromptName, version: &VersionName) -> Result<Option<String>, StoreError> {
    match engine.load(prompt).await {
        Ok(loaded) => Ok(loaded.snapshot.state.version(version).and_then(|record| record.contact.clone())),
        Err(error @ StoreError::Unavailable { .. }) => Err(error),
        Err(_) => Ok(None),
    }
}

fn verified(incident: &Incident) -> Option<Verified> {
    let verification = incident.verification()?;
    Some(Verified {
        checks: verification.checks,
        healthy_in_a_row: verification.healthy,
        finding: verification.last.as_ref().map(|check| check.finding.text.clone()).unwrap_or_default(),
        still_served_by: verification.traffic.as_ref().map(|traffic| traffic.still.names.clone()).unwrap_or_default(),
        recovered_at: verification.well_since(),
    })
}
