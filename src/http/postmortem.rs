//! `/api/incidents/{id}/postmortem`: the draft of what people may learn from an incident.

use hyper::StatusCode;

use super::Context;
use super::api::{incident_id, no_incident};
use super::reply::{Failure, Reply, reply};
use crate::decision::Timestamp;
use crate::postmortem::{Entry, Facts, draft};
use crate::store::LoggedChange;

/// Entries of the deployment log that are looked through, from the end of the incident backwards.
const MAX_LOG: usize = 200;
/// The log has Redis' own time: entries of a commit may be a little younger than what it decided.
const LATER: std::time::Duration = std::time::Duration::from_secs(60);

pub async fn postmortem(context: &Context, id: &str) -> Result<Reply, Failure> {
    let id = incident_id(id)?;
    let store = &context.engine.store;
    let incident = store.incident(&id).await?.ok_or_else(|| no_incident(&id))?;
    let good = incident.flip.as_ref().map(|flip| &flip.to).or(incident.target.as_ref());
    let versions: Vec<_> = std::iter::once(&incident.version).chain(good).collect();
    let mut contents = store.contents(&incident.prompt, &versions).await?.into_iter();
    let (bad, good) = (contents.next().flatten(), contents.next().flatten());
    let end = incident.closed_at.unwrap_or(incident.updated_at).plus(LATER);
    let log = store.log(&incident.prompt, Some(&end.0.to_string()), MAX_LOG).await?;
    let log: Vec<_> = log.items.iter().filter_map(entry).collect();
    let samples = store.samples(&id).await?;
    let verification_deadline = context.engine.policy.verification_deadline;
    // drawing and comparing take milliseconds, which others need not wait for
    let drafted = tokio::task::spawn_blocking(move || {
        draft(&Facts {
            incident: &incident,
            log: &log,
            samples: samples.as_ref(),
            verification: None,
            verification_deadline,
            bad_content: bad.as_deref(),
            good_content: good.as_deref(),
        })
    });
    let text = drafted.await.map_err(|_| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the draft can't be written: please report it")
    })?;
    Ok(reply(StatusCode::OK, "text/markdown; charset=utf-8", text))
}

/// An entry without a time can't be put in order.
fn entry(change: &LoggedChange) -> Option<Entry> {
    let field = |name: &str| {
        let found = change.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let at: jiff::Timestamp = field("at").parse().ok()?;
    Some(Entry {
        at: Timestamp(at.as_millisecond()),
        event: field("event"),
        from: field("from"),
        to: field("to"),
        operator: field("operator"),
        reason: field("reason"),
        incident: field("incident"),
    })
}
