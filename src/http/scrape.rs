//! `GET /metrics`.

use std::fmt;
use std::sync::Arc;

use hyper::StatusCode;

use super::context::Context;
use super::error::ApiError;
use super::exposition::Reading;
use super::reply::{Reply, ResponseBody, reply, reply_with};
use crate::engine::Engine;
use crate::metrics::{Metrics, ScrapeData};
use crate::store::StoreError;
use crate::store::schedule::Work;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// HEAD is answered without reading or formatting anything.
pub async fn metrics(context: &Context, head: bool) -> Result<Reply, ApiError> {
    if head {
        return Ok(reply(StatusCode::OK, CONTENT_TYPE, ""));
    }
    let (exposition, engine) = (Arc::clone(&context.exposition), Arc::clone(&context.engine));
    let max_prompts = context.max_prompts;
    // in a task of its own: a client that disconnects must not keep the others from a response
    let latest = tokio::spawn(async move {
        let read = async || stored(&engine, max_prompts).await;
        exposition.latest(&engine.metrics, read).await
    });
    let latest = latest.await.map_err(|_| ApiError::unavailable("metrics", "can't be read"))?;
    context.engine.metrics.event_streams(context.updates.open());
    let own = own_counters(&context.engine.metrics, latest.is_some());
    let mut own = own.map_err(|_| ApiError::unavailable("metrics", "can't be written"))?;
    let answer = match latest {
        Some(snapshot) => ResponseBody::Exposition(Reading::new(context.exposition.shared(own), &snapshot)),
        // the receiver's own counters show the cause, so they must be available now
        None => {
            own.push_str(Metrics::END);
            ResponseBody::whole(own)
        }
    };
    Ok(reply_with(StatusCode::OK, CONTENT_TYPE, answer))
}

/// Without a snapshot the receiver is not ready, whatever the health check has found: the alert rules take the versions
/// that a ready receiver lists for all that there are.
fn own_counters(metrics: &Metrics, has_snapshot: bool) -> Result<String, fmt::Error> {
    if !has_snapshot {
        metrics.ready(false);
    }
    let mut own = String::new();
    metrics.encode(&mut own)?;
    Ok(own)
}

async fn stored(engine: &Engine, max_prompts: usize) -> Result<ScrapeData, StoreError> {
    let store = &engine.store;
    let (series, dropped) = store.series(max_prompts).await?;
    let (phases, dead_letters) = store.counts().await?;
    let paused = store.paused_by(None).await?.is_some();
    let lags = store.notification_lags().await?;
    let notification_lag = lags.into_iter().map(|(target, lag)| (target.name(), lag)).collect();
    let work_lag = Work::OWN.map(Work::as_str).into_iter().zip(store.work_lag(&Work::OWN).await?).collect();
    let heartbeat = store.heartbeat().await?.map(|last| last.heard_at);
    Ok(ScrapeData { series, dropped, phases, dead_letters, paused, notification_lag, work_lag, heartbeat })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exposition::Exposition;
    use crate::store::RedisFault;

    #[tokio::test(start_paused = true)]
    async fn no_client_sees_a_ready_receiver_without_versions() {
        let (exposition, metrics) = (Exposition::default(), Metrics::new());
        for _ in 0..2 {
            let away = StoreError::Unavailable { kind: RedisFault::Connection, message: "away".to_owned() };
            metrics.ready(true); // by the health check
            let latest = exposition.latest(&metrics, async || Err(away)).await;
            let text = own_counters(&metrics, latest.is_some()).unwrap();
            assert!(text.contains("\nprompt_rollback_ready 0\n"), "{text}");
        }
    }
}
