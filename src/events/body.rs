//! The form of events: CloudEvents 1.0, JSON, structured mode.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Happened, Kind};
use crate::decision::{Incident, LogEntry, Operator, Routing, Timestamp, Trace};
use crate::trace::TraceContext;

/// Longest text written by people.
const LONGEST: usize = 2_000;

/// The fields that are read of a stored event; its text is sent unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Heading {
    pub id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    traceparent: String,
    #[serde(default)]
    tracestate: String,
}

impl Heading {
    pub fn of(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok()
    }

    /// The trace that it belongs to, if it says so.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::read(&self.traceparent, &self.tracestate)
    }

    /// `None` for one that only a later receiver knows.
    pub fn kind(&self) -> Option<Kind> {
        Kind::parse(&self.kind)
    }
}

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: &'a str,
    datacontenttype: &'static str,
    /// The extension for distributed tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    data: D,
}

impl<'a, D: Serialize> CloudEvent<'a, D> {
    fn new(source: &'a str, id: &'a str, kind: &str, time: &'a str, subject: Option<&'a str>, data: D) -> Self {
        let kind = format!("{}{kind}", Kind::PREFIX);
        let datacontenttype = "application/json";
        let (traceparent, tracestate) = (None, None);
        Self { specversion: "1.0", id, source, kind, subject, time, datacontenttype, traceparent, tracestate, data }
    }

    fn traced(self, trace: Option<&'a Trace>) -> Self {
        let tracestate = trace.map(|trace| trace.state.as_str()).filter(|state| !state.is_empty());
        Self { traceparent: trace.map(|trace| trace.parent.as_str()), tracestate, ..self }
    }

    #[allow(clippy::expect_used, reason = "texts and numbers always serialize")]
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event serializes")
    }
}

/// An event without meaning, to test whether a target accepts events. No commit creates it.
pub fn ping(source: &str, id: &str, now: Timestamp) -> String {
    let data = serde_json::json!({ "text": "prompt-rollback check --connect asks whether events are taken" });
    CloudEvent::new(source, id, "ping", &rfc3339(now), None, data).to_json()
}

/// The parts that differ between the events of a commit.
#[derive(Default)]
pub(super) struct EventDetails<'a> {
    pub text: String,
    pub incident: Option<&'a Incident>,
    pub entry: Option<&'a LogEntry>,
    pub operator: Option<&'a Operator>,
    pub mode: Option<&'static str>,
    pub decision: Option<&'static str>,
    pub guard: Option<&'static str>,
}

impl<'a> EventDetails<'a> {
    pub fn about(incident: &'a Incident, text: &str) -> Self {
        Self { text: text.to_owned(), incident: Some(incident), ..Self::default() }
    }
}

/// The events of a commit while they are built.
pub(super) struct Making<'a> {
    happened: &'a Happened<'a>,
    pub made: Vec<String>,
}

impl<'a> Making<'a> {
    pub fn new(happened: &'a Happened<'a>) -> Self {
        Self { happened, made: Vec::new() }
    }

    pub fn make(&mut self, kind: Kind, data: EventDetails<'_>) {
        let Happened { source, before, now, trace, .. } = *self.happened;
        let id = format!("{}-{}", before.commit.0, self.made.len() + 1);
        let written = self.written(data);
        let subject = Some(before.prompt.as_str());
        let time = rfc3339(now);
        let event = CloudEvent::new(source, &id, kind.as_str(), &time, subject, written).traced(trace);
        self.made.push(event.to_json());
    }

    fn written<'d>(&'d self, data: EventDetails<'d>) -> EventData<'d> {
        let Happened { policy, before, commit, .. } = *self.happened;
        let routing = match &commit.routing {
            Routing::Set(shares) => {
                Some(shares.iter().map(|(version, percent)| (version.as_str(), *percent)).collect())
            }
            Routing::Keep | Routing::Drop => None,
        };
        EventData {
            prompt: before.prompt.as_str(),
            text: short(&data.text),
            active: commit.state.serving.as_ref().map(|serving| serving.version.as_str()),
            routing: data.entry.and(routing),
            from: data.entry.and_then(|entry| entry.from.as_deref()),
            to: data.entry.and_then(|entry| entry.to.as_deref()),
            event: data.entry.map(|entry| entry.event.as_str()),
            mode: data.mode,
            decision: data.decision,
            guard: data.guard,
            operator: data.operator.map(Operator::as_str),
            incident: data.incident.map(About::from),
            automation: AutomationState {
                mode: if policy.dry_run { "dry-run" } else { "armed" },
                paused: before.paused.as_deref(),
            },
        }
    }
}

#[derive(Serialize)]
struct EventData<'a> {
    prompt: &'a str,
    /// One line for people.
    text: String,
    /// The version with all or most of the traffic after this commit.
    active: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<BTreeMap<&'a str, u8>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    /// The entry of the deployment log.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<About<'a>>,
    automation: AutomationState<'a>,
}

/// Whether automation is on.
#[derive(Serialize)]
struct AutomationState<'a> {
    mode: &'static str,
    /// Who paused it, and why.
    paused: Option<&'a str>,
}

/// An incident after the commit.
#[derive(Serialize)]
struct About<'a> {
    id: &'a str,
    version: &'a str,
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    choices: Vec<&'a str>,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    severity: &'static str,
    action: &'static str,
    decider: &'a str,
    opened_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
    summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    alertname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runbook_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboard_url: Option<&'a str>,
}

impl<'a> From<&'a Incident> for About<'a> {
    fn from(incident: &'a Incident) -> Self {
        let alert = incident.strongest();
        let url = |url: &'a str| Some(url).filter(|url| !url.is_empty());
        Self {
            id: &incident.id.0,
            version: incident.version.as_str(),
            target: incident.target.as_ref().map(|target| target.as_str()),
            choices: incident.choices.iter().map(|choice| choice.as_str()).collect(),
            phase: incident.phase.as_str(),
            failure: incident.failure().map(|failure| failure.as_str()),
            severity: incident.severity.as_str(),
            action: incident.action.as_str(),
            decider: &incident.decider,
            opened_at: rfc3339(incident.opened_at),
            deadline: incident.deadline().map(rfc3339),
            summary: short(incident.summary()),
            alertname: alert.map(|alert| alert.alertname.as_str()),
            runbook_url: alert.and_then(|alert| url(&alert.runbook_url)),
            dashboard_url: alert.and_then(|alert| url(&alert.dashboard_url)),
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(at.0).unwrap_or_default())
}
