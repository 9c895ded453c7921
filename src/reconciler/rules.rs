//! Reads the alert rules of Prometheus for requests, which never call Prometheus themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::incidents::IncidentWorker;
use crate::live::Current;
use crate::rules::{RuleRequests, Rules};

/// How long an answer is used again, so that many requests cost Prometheus little.
const KEPT: Duration = Duration::from_secs(5);

/// Runs while the process does.
pub async fn run(workers: Current<Arc<IncidentWorker>>, mut requests: RuleRequests) {
    let mut kept: Option<(Arc<IncidentWorker>, Instant, Rules)> = None;
    while let Some(waiting) = requests.next().await {
        let worker = workers.get();
        // a reload may have named another Prometheus
        kept = kept.filter(|(of, at, _)| Arc::ptr_eq(of, &worker) && at.elapsed() < KEPT);
        let rules = match &kept {
            Some((.., rules)) => rules.clone(),
            None => {
                let rules = read(&worker).await;
                kept = Some((worker, Instant::now(), rules.clone()));
                rules
            }
        };
        for answer in waiting {
            let _ = answer.send(rules.clone()); // the requester may be gone
        }
    }
}

async fn read(worker: &IncidentWorker) -> Rules {
    let Some(prometheus) = &worker.verifier.prometheus else { return Rules::shipped(None) };
    match prometheus.alert_rules().await {
        Ok(rules) => Rules::of_prometheus(rules),
        Err(error) => Rules::shipped(Some(error.to_string())),
    }
}
