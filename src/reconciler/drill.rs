//! Drills: posts a drill's alert to every Alertmanager, until each has accepted it or the drill is over.

use std::time::Duration;

use crate::alertmanager::client::{Alertmanagers, OwnAlert};
use crate::alertmanager::payload::{DRILL_ALERT, DRILL_LABEL};
use crate::config::Labels;
use crate::decision::Timestamp;
use crate::engine::Engine;
use crate::store::DrillId;
use crate::store::drill::{Drill, DrillProgress};
use crate::store::{StoreError, rfc3339};
use crate::visible::shown;
use futures_util::StreamExt;

/// The alert ends automatically: after this time, an Alertmanager that delays the delivery of groups has sent it.
const LASTS: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(2);

/// Posts the alert. Returns when to do so again.
pub async fn post(
    engine: &Engine,
    alertmanagers: &Alertmanagers,
    labels: &Labels,
    id: &DrillId,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let store = &engine.store;
    let Some(drill) = store.drill(id).await? else { return Ok(None) };
    if now.since(drill.started) >= LASTS {
        return Ok(None);
    }
    let mut all = true;
    let drill_alert = alert(&drill, labels, alertmanagers);
    let mut posts = alertmanagers.post_each(&drill_alert);
    // noted one by one: an Alertmanager that is away delays nothing about the others
    while let Some((url, result)) = posts.next().await {
        let why = result.map_err(|error| error.to_string());
        all &= why.is_ok();
        let news = why
            .as_ref()
            .map_or_else(|why| DrillProgress::NotPosted { to: &url, why }, |()| DrillProgress::Posted(&url));
        store.note_drill(id, news).await?;
    }
    Ok((!all).then(|| now.plus(AGAIN)))
}

/// An alert with the labels of a critical rule, so that it is routed like a real one. Posting it again does not create
/// another alert.
fn alert(drill: &Drill, names: &Labels, alertmanagers: &Alertmanagers) -> OwnAlert {
    let Drill { id, version, .. } = drill;
    let (name, prompt) = (drill.prompt.name(), shown(&drill.prompt));
    let labels = [
        ("alertname", DRILL_ALERT),
        (DRILL_LABEL, id.as_str()),
        (&names.prompt, &*name),
        (&names.version, version.as_str()),
        ("severity", "critical"),
        ("action", "rollback"),
        ("decider", "system"),
        ("time_limit", "2m"),
    ];
    let summary = format!("DRILL, no action needed: prompt-rollback tests its alert path with {prompt} {version}");
    let description =
        "Nothing is rolled back and no action is needed. This alert resolves within two minutes.".to_owned();
    OwnAlert {
        labels: alertmanagers.labels(&labels),
        annotations: vec![("summary", summary), ("description", description)],
        starts_at: rfc3339(drill.started),
        ends_at: rfc3339(drill.started.plus(LASTS)),
    }
}
