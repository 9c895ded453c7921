//! The metrics that are read from Redis for each scrape.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::PREFIX;
use super::labels::{PhaseLabel, TargetLabel, WorkLabel};
use crate::decision::{PhaseKind, Timestamp};
use crate::store::VersionSeries;
use crate::store::schedule::Target;

/// What Redis holds for one scrape.
#[derive(Debug, Default)]
pub struct ScrapeData {
    pub series: Vec<VersionSeries>,
    /// Prompts beyond `metrics.max_prompts`.
    pub dropped: usize,
    pub phases: Vec<(String, i64)>,
    pub dead_letters: u64,
    pub paused: bool,
    /// By target: the age of the oldest pending update.
    pub notification_lag: Vec<(&'static str, Duration)>,
    /// By kind of work: how late the oldest wake-up is.
    pub work_lag: Vec<(&'static str, Duration)>,
    /// When the last heartbeat of the alert path arrived.
    pub heartbeat: Option<Timestamp>,
}

impl ScrapeData {
    /// Writes OpenMetrics text without its last line.
    pub fn encode(self, out: &mut impl fmt::Write) -> fmt::Result {
        text::encode_registry(out, &from_stored(self))
    }
}

/// The series of each version with traffic. They are written directly: a family would copy and hash each of them.
#[derive(Debug)]
struct Versions(Vec<VersionSeries>);

impl Collector for Versions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 for each version with traffic, with its rollback target";
        let mut info = encoder.encode_descriptor("active_version_info", help, None, MetricType::Gauge)?;
        for VersionSeries { prompt, version, previous, .. } in &self.0 {
            let name = prompt.name();
            let labels = [("prompt", &*name), ("version", version), ("previous", previous)];
            info.encode_family(&labels)?.encode_gauge(&1_i64)?;
        }
        let (name, help) = (
            "active_version_activated_timestamp_seconds",
            "First activation of each version with traffic, or when it was shipped again after a rollback of it, in seconds since 1970",
        );
        let mut activated = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for VersionSeries { prompt, version, activated: at, .. } in &self.0 {
            let name = prompt.name();
            let labels = [("prompt", &*name), ("version", version)];
            activated.encode_family(&labels)?.encode_gauge(&seconds(*at))?;
        }
        Ok(())
    }
}

fn from_stored(stored: ScrapeData) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let gauge = |value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        gauge
    };
    let phases = Family::<PhaseLabel, Gauge>::default();
    for phase in PhaseKind::ALL.into_iter().filter(|p| p.is_open()) {
        let count = stored.phases.iter().find(|(name, _)| name == phase.as_str()).map_or(0, |(_, count)| *count);
        phases.get_or_create(&PhaseLabel { phase: phase.as_str() }).set(count);
    }
    registry.register("incidents", "Open incidents, by phase", phases);
    registry.register_collector(Box::new(Versions(stored.series)));
    registry.register(
        "active_version_dropped",
        "Prompts without version series, because of metrics.max_prompts",
        gauge(i64::try_from(stored.dropped).unwrap_or(i64::MAX)),
    );
    let dead_letters = gauge(i64::try_from(stored.dead_letters).unwrap_or(i64::MAX));
    registry.register("dead_letter_tasks", "Tasks given up after repeated failure", dead_letters.clone());
    registry.register("parked", "Deprecated: use prompt_rollback_dead_letter_tasks", dead_letters);
    let slack_lag = Gauge::<f64, AtomicU64>::default();
    let first = Target::FIRST.name();
    let of_slack = stored.notification_lag.iter().find(|(target, _)| *target == first);
    slack_lag.set(of_slack.map_or(0.0, |(_, lag)| lag.as_secs_f64()));
    registry.register(
        "slack_lag_seconds",
        "Deprecated: use prompt_rollback_notification_lag_seconds of the target slack",
        slack_lag,
    );
    let notification_lag = Family::<TargetLabel, Gauge<f64, AtomicU64>>::default();
    // there without Slack too, as under its earlier name
    notification_lag.get_or_create(&TargetLabel { target: first }).set(0.0);
    for (target, lag) in stored.notification_lag {
        notification_lag.get_or_create(&TargetLabel { target }).set(lag.as_secs_f64());
    }
    registry.register(
        "notification_lag_seconds",
        "Age of the oldest update that a target does not show yet, 0 if there is none; dead letters do not count",
        notification_lag,
    );
    let work_lag = Family::<WorkLabel, Gauge<f64, AtomicU64>>::default();
    for (work, lag) in stored.work_lag {
        work_lag.get_or_create(&WorkLabel { work }).set(lag.as_secs_f64());
    }
    registry.register("work_lag_seconds", "How late the oldest task of each kind is, 0 if none is late", work_lag);
    let heartbeat = Gauge::<f64, AtomicU64>::default();
    heartbeat.set(stored.heartbeat.map_or(0.0, seconds));
    registry.register(
        "heartbeat_timestamp_seconds",
        "When any receiver last got the alert PromptRollbackHeartbeat, in seconds since 1970, 0 if none has",
        heartbeat,
    );
    registry.register("paused", "1 while automation is paused for all prompts", gauge(i64::from(stored.paused)));
    registry
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds fit 2^53 until the year 287396")]
fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1_000.0
}
