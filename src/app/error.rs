//! Why the receiver does not start, or has ended.

use std::net::SocketAddr;

use super::tasks::TaskEnded;
use crate::alertmanager::client::AlertmanagerError;
use crate::prometheus::client::PrometheusError;
use crate::slack::client::SlackError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen { key: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("slack: {0}")]
    Slack(#[from] SlackError),
    #[error(transparent)]
    Alertmanager(#[from] AlertmanagerError),
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    #[error("{0}")]
    Notifiers(String),
    #[error("registry.precheck_url: {0}")]
    Precheck(String),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Ended(#[from] TaskEnded),
    #[error("tracing.otlp_endpoint: {0}")]
    Tracing(String),
}
