//! The receiver's own metrics, with the prefix `prompt_rollback_`.

mod labels;
mod stored;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::decision::{
    AlertOutcome, Incident, Outcome, OutcomeReason, Phase, PhaseKind, RollbackFailure, Severity, Switch, SwitchMode,
    words,
};
use crate::store::schedule::Target;
use crate::store::{RedisFault, StoreError};
use labels::{
    AlertLabels, ArchiveLabels, BuildLabels, DeadlineLabels, KindLabel, NotificationLabels, ReasonLabel, ResultLabel,
    RollbackLabels, SlackLabels,
};

pub use labels::SpanResult;
pub use stored::ScrapeData;

words! {
    /// Why a request was not let in.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Denial {
        NoToken = "no_token",
        WrongToken = "wrong_token",
        /// A trusted proxy sent a user name that the receiver does not accept.
        WrongName = "wrong_name",
        NoCertificate = "no_certificate",
        /// It comes from elsewhere than this machine.
        NotLocal = "not_local",
        WrongSignature = "wrong_signature",
        /// The token is right, and may not do this.
        NotAllowed = "not_allowed",
        /// A browser sent it, and not from the receiver's own page.
        CrossSite = "cross_site",
    }
}

const PREFIX: &str = "prompt_rollback";

/// Metrics that were renamed, and their earlier names, which are emitted for one release. `slack_lag_seconds` is
/// `notification_lag_seconds{target="slack"}` now.
#[cfg(test)]
const RENAMED: [(&str, &str); 3] = [
    ("dead_letter_tasks", "parked"),
    ("decision_deadlines_total", "time_limits_total"),
    ("alert_to_rollback_seconds", "detection_to_flip_seconds"),
];

/// What this process counts by itself.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    alerts: Family<AlertLabels, Counter>,
    truncated_alerts: Counter,
    refused_requests: Family<ReasonLabel, Counter>,
    rollbacks: Family<RollbackLabels, Counter>,
    webhook_seconds: Histogram,
    alert_to_rollback: Histogram,
    redis_errors: Family<KindLabel, Counter>,
    ready: Gauge,
    verifications: Family<ResultLabel, Counter>,
    propagation_seconds: Histogram,
    decision_deadlines: Family<DeadlineLabels, Counter>,
    stale_servers: Counter,
    archive: Family<ArchiveLabels, Counter>,
    archive_failing: Gauge,
    slack_requests: Family<SlackLabels, Counter>,
    notifications: Family<NotificationLabels, Counter>,
    reload_successful: Gauge,
    reloaded_at: Gauge<f64, AtomicU64>,
    trace_spans: Family<ResultLabel, Counter>,
    event_streams: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let alerts = Family::<AlertLabels, Counter>::default();
        let rollbacks = Family::<RollbackLabels, Counter>::default();
        // 0.25 ms … 4 s: the timeout of a request
        let webhook_seconds = Histogram::new([0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 4.0]);
        // from a scrape of 1 s to an Alertmanager that was away for minutes
        let alert_to_rollback = Histogram::new([0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0]);
        let redis_errors = Family::<KindLabel, Counter>::default();
        let ready = Gauge::default();
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("alerts", "Alerts received, by severity, outcome and reason", alerts.clone());
        let refused_requests = Family::<ReasonLabel, Counter>::default();
        for reason in Denial::ALL.map(Denial::as_str) {
            let _born = refused_requests.get_or_create(&ReasonLabel { reason });
        }
        registry.register(
            "refused_requests",
            "Requests refused by authentication, by reason",
            refused_requests.clone(),
        );
        let truncated_alerts = Counter::default();
        registry.register(
            "truncated_alerts",
            "Alerts that Alertmanager left out of its deliveries",
            truncated_alerts.clone(),
        );
        registry.register("rollbacks", "Rollbacks, by mode and by whether they were committed", rollbacks.clone());
        registry.register(
            "webhook_duration_seconds",
            "Time from the last byte of a webhook request to its response",
            webhook_seconds.clone(),
        );
        let help = "Time from an alert's startsAt to the commit of its automatic rollback";
        registry.register("alert_to_rollback_seconds", help, alert_to_rollback.clone());
        let help = "Deprecated: use prompt_rollback_alert_to_rollback_seconds";
        registry.register("detection_to_flip_seconds", help, alert_to_rollback.clone());
        registry.register("redis_errors", "Failed calls to Redis, by kind of error", redis_errors.clone());
        let help =
            "1 while Redis is reachable, accepts writes, and has the settings and permissions that the receiver needs";
        registry.register("ready", help, ready.clone());
        let verifications = Family::<ResultLabel, Counter>::default();
        for result in ["recovered", "escalated", "not_followed", "unverified"] {
            let _born = verifications.get_or_create(&ResultLabel { result });
        }
        let propagation_seconds = Histogram::new([1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0]);
        let stale_servers = Counter::default();
        let decision_deadlines = Family::<DeadlineLabels, Counter>::default();
        for severity in Severity::ALL.map(Severity::as_str) {
            for result in ["met", "missed"] {
                let _born = decision_deadlines.get_or_create(&DeadlineLabels { result, severity });
            }
        }
        let help = "Incidents, by severity and by whether they were decided within the time limit of their alert";
        registry.register("decision_deadlines", help, decision_deadlines.clone());
        let help = "Deprecated: use prompt_rollback_decision_deadlines_total";
        registry.register("time_limits", help, decision_deadlines.clone());
        registry.register("verifications", "Verified rollbacks, by result", verifications.clone());
        registry.register(
            "propagation_seconds",
            "Time from a rollback until the bad version was last seen to serve, for rollbacks that recovered",
            propagation_seconds.clone(),
        );
        registry.register(
            "stale_prompt_servers",
            "Prompt servers that still served the bad version more than 45 s after its rollback",
            stale_servers.clone(),
        );
        let archive = Family::<ArchiveLabels, Counter>::default();
        for operation in ["archive", "restore", "forget"] {
            for result in ["ok", "failed"] {
                let _born = archive.get_or_create(&ArchiveLabels { operation, result });
            }
        }
        let archive_failing = Gauge::default();
        registry.register(
            "archive_operations",
            "Versions whose content was archived, restored or deleted from the archive",
            archive.clone(),
        );
        registry.register(
            "archive_failing",
            "1 while the content archive fails: writing is retried, and content stays in Redis",
            archive_failing.clone(),
        );
        let slack_requests = Family::<SlackLabels, Counter>::default();
        registry.register("slack_requests", "Calls to Slack's Web API, by method and result", slack_requests.clone());
        let notifications = Family::<NotificationLabels, Counter>::default();
        registry.register(
            "notifications",
            "Attempts to notify a target, by result, and lost events; dropped counts each gap once",
            notifications.clone(),
        );
        let (reload_successful, reloaded_at) = (Gauge::default(), Gauge::<f64, AtomicU64>::default());
        registry.register(
            "config_last_reload_successful",
            "1 if the last reload of the config and of the files that it names succeeded",
            reload_successful.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "Time of the last successful reload, in seconds since 1970",
            reloaded_at.clone(),
        );
        let trace_spans = Family::<ResultLabel, Counter>::default();
        for result in [SpanResult::Exported, SpanResult::Failed, SpanResult::Dropped] {
            let _born = trace_spans.get_or_create(&ResultLabel { result: result.as_str() });
        }
        registry.register("trace_spans", "Spans for tracing.otlp_endpoint, by result", trace_spans.clone());
        let event_streams = Gauge::default();
        registry.register("event_streams", "Open pages that receive live updates (GET /events)", event_streams.clone());
        registry.register("build_info", "1, labelled with the version of this receiver", build);
        // a counter that is born above 0 is invisible to rate()
        for mode in SwitchMode::ALL.into_iter().filter(|mode| *mode != SwitchMode::Shipped) {
            for result in ["ok", "failed"] {
                let _born = rollbacks.get_or_create(&RollbackLabels { mode: mode.as_str(), result });
            }
        }
        for fault in RedisFault::ALL {
            let _born = redis_errors.get_or_create(&KindLabel { kind: fault.as_str() });
        }
        for severity in Severity::ALL.map(Severity::as_str) {
            for (outcome, reason) in [
                (Outcome::Ignored, OutcomeReason::InvalidName),
                (Outcome::Ignored, OutcomeReason::Malformed),
                (Outcome::Ignored, OutcomeReason::UnknownVersion),
                (Outcome::Held, OutcomeReason::BrokenState),
            ] {
                let (outcome, reason) = (outcome.as_str(), reason.as_str());
                let _born = alerts.get_or_create(&AlertLabels { severity, outcome, reason });
            }
        }
        Self {
            registry,
            alerts,
            truncated_alerts,
            refused_requests,
            rollbacks,
            webhook_seconds,
            alert_to_rollback,
            redis_errors,
            ready,
            verifications,
            propagation_seconds,
            stale_servers,
            archive,
            archive_failing,
            decision_deadlines,
            slack_requests,
            notifications,
            reload_successful,
            reloaded_at,
            trace_spans,
            event_streams,
        }
    }

    /// What became of so many spans.
    pub fn spans(&self, result: SpanResult, count: usize) {
        self.trace_spans.get_or_create(&ResultLabel { result: result.as_str() }).inc_by(count as u64);
    }

    /// The number of open streams of events.
    pub fn event_streams(&self, open: usize) {
        self.event_streams.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// The config was read and taken over.
    pub fn config_loaded(&self, at: SystemTime) {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.reloaded_at.set(since_epoch.as_secs_f64());
    }

    /// Records whether the last config that was read is in force.
    pub fn config_in_force(&self, yes: bool) {
        self.reload_successful.set(i64::from(yes));
    }

    pub fn alert(&self, severity: Severity, outcome: &AlertOutcome) {
        let (outcome, reason) = (outcome.outcome.as_str(), outcome.reason.as_str());
        let labels = AlertLabels { severity: severity.as_str(), outcome, reason };
        self.alerts.get_or_create(&labels).inc();
    }

    /// Counts a refused request.
    pub fn refused(&self, denial: Denial) {
        self.refused_requests.get_or_create(&ReasonLabel { reason: denial.as_str() }).inc();
    }

    /// Counts alerts that were left out of a delivery, whose sender may claim any number: Prometheus must see the next one.
    pub fn truncated(&self, count: u64) {
        const MOST: u64 = 1_000_000;
        self.truncated_alerts.inc_by(count.min(MOST));
    }

    pub fn rollback(&self, mode: SwitchMode, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.rollbacks.get_or_create(&RollbackLabels { mode: mode.as_str(), result }).inc();
    }

    pub fn webhook(&self, took: Duration) {
        self.webhook_seconds.observe(took.as_secs_f64());
    }

    pub fn alert_to_rollback(&self, took: Duration) {
        self.alert_to_rollback.observe(took.as_secs_f64());
    }

    /// Whether a decision came in time; nothing where none was made or missed, or where no alert set a time limit.
    pub fn decision_deadline(&self, before: Option<&Incident>, after: &Incident) {
        let waits = |incident: &Incident| match &incident.phase {
            Phase::Confirming(confirming) => confirming.before.is_undecided(),
            phase => phase.is_undecided(),
        };
        let escalated = |incident: &Incident| incident.phase.is_undecided() && incident.escalations > 0;
        let undecided = before.is_none_or(|before| waits(before) && before.escalations == 0);
        let in_time = |switch: &Switch| {
            let began = after.alerts.iter().filter_map(|alert| alert.began(switch.at)).min();
            switch.mode != SwitchMode::Auto || began.is_none_or(|began| switch.at.since(began) <= after.time_limit)
        };
        let result = match (&after.switch, after.phase.kind()) {
            _ if !undecided || after.alerts.is_empty() => return,
            (Some(switch), PhaseKind::Verifying) if !in_time(switch) => "missed",
            (Some(_), PhaseKind::Verifying) | (None, PhaseKind::RollingBack | PhaseKind::Dismissed) => "met",
            _ if escalated(after) => "missed",
            _ => return,
        };
        self.decision_deadlines.get_or_create(&DeadlineLabels { result, severity: after.severity.as_str() }).inc();
    }

    /// Counts the result of verifying a rollback.
    pub fn verified(&self, before: &Incident, after: &Incident) {
        let stale = |incident: &Incident| incident.verification().is_some_and(|v| v.stale);
        let (Some(switch), Some(verification)) = (&after.switch, after.verification()) else { return };
        if stale(after) && !stale(before) {
            let still = verification.traffic.as_ref().map_or(0, |traffic| traffic.still.count);
            self.stale_servers.inc_by(still as u64);
        }
        let result = match (before.phase.kind(), after.phase.kind()) {
            (PhaseKind::Verifying | PhaseKind::Escalated, PhaseKind::Recovered) => "recovered",
            (PhaseKind::Verifying, PhaseKind::Escalated) if after.failure() == Some(RollbackFailure::NotFollowed) => {
                "not_followed"
            }
            (PhaseKind::Verifying, PhaseKind::Escalated) => "escalated",
            (PhaseKind::Verifying, PhaseKind::Unverified) => "unverified",
            _ => return,
        };
        self.verifications.get_or_create(&ResultLabel { result }).inc();
        if let (PhaseKind::Recovered, Some(traffic)) = (after.phase.kind(), &verification.traffic) {
            let took = traffic.bad_last_seen.map_or(0.0, |at| at.since(switch.at).as_secs_f64());
            self.propagation_seconds.observe(took);
        }
    }

    pub fn redis_error(&self, error: &StoreError) {
        if let Some(fault) = error.kind() {
            self.redis_errors.get_or_create(&KindLabel { kind: fault.as_str() }).inc();
        }
    }

    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// `operation`: `archive`, `restore` or `forget`.
    pub fn archive(&self, operation: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.archive.get_or_create(&ArchiveLabels { operation, result }).inc();
        self.archive_failing.set(i64::from(!ok));
    }

    /// Resets the state for another archive; without an archive nothing can fail.
    pub fn archive_replaced(&self) {
        self.archive_failing.set(0);
    }

    pub fn slack_request(&self, method: &'static str, result: &'static str) {
        self.slack_requests.get_or_create(&SlackLabels { method, result }).inc();
    }

    /// Counts an attempt to notify a target.
    pub fn notification(&self, target: Target, result: &'static str) {
        self.notifications.get_or_create(&NotificationLabels { target: target.name(), result }).inc();
    }

    /// Starts counters of this kind at 0: a counter that starts above 0 is invisible to rate().
    pub fn notification_born(&self, target: Target, result: &'static str) {
        let _born = self.notifications.get_or_create(&NotificationLabels { target: target.name(), result });
    }

    /// The last line of an exposition.
    pub const END: &str = "# EOF\n";

    /// Writes this process' metrics as OpenMetrics text without its last line.
    pub fn encode(&self, out: &mut impl fmt::Write) -> fmt::Result {
        text::encode_registry(out, &self.registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
