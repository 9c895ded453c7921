//! The post-mortem of an incident: a picture, and a draft.
//!
//! Pure: functions of the incident, the deployment log and the stored samples. The same facts give the same bytes.
//! External texts are shown literally, never read as markup: see [`text`].

pub mod chart;
mod diff;
mod draft;
mod lettering;
pub mod samples;
mod steps;
#[cfg(test)]
mod tests;
mod text;
mod timeline;

use std::time::Duration;

pub use draft::draft;
pub use samples::{IncidentMetric, Missing, SampleSeries, Samples, Unit};

use crate::decision::incident::Incident;
use crate::decision::note::{Note, NoteKind};
use crate::decision::{LogEvent, PhaseKind, SwitchMode, Timestamp};
use crate::deployed::DeploymentEntry;

/// The facts for a draft.
#[derive(Debug, Clone)]
pub struct PostmortemFacts<'a> {
    pub incident: &'a Incident,
    /// The prompt's deployment log around the incident, in any order.
    pub log: &'a [DeploymentEntry],
    /// Prometheus' samples, if it was asked.
    pub samples: Option<&'a Samples>,
    /// Why there are no samples, if that is known.
    pub unmeasured: Option<&'a str>,
    pub verification: Option<Verified>,
    /// How long after a switch its outcome must be known.
    pub verification_deadline: Duration,
    /// The contact of the version in trouble.
    pub contact: Option<&'a str>,
    /// The content of the version in trouble.
    pub bad_content: Option<&'a str>,
    /// The content of the version that was, or would be, rolled back to.
    pub good_content: Option<&'a str>,
}

/// What was measured after the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub checks: u32,
    /// Healthy checks in a row at the end.
    pub healthy_in_a_row: u32,
    /// The finding of the last check.
    pub finding: String,
    /// Instances that kept serving the bad version.
    pub still_served_by: Vec<String>,
    /// Since when users have been served well; unknown for older records.
    pub recovered_at: Option<Timestamp>,
}

/// The times of one commit in the log and in the notes differ by less.
const CLOSE: Duration = Duration::from_secs(1);

impl PostmortemFacts<'_> {
    fn recovered_at(&self) -> Option<Timestamp> {
        let closed_at = self.incident.closed_at.filter(|_| self.incident.phase.kind() == PhaseKind::Recovered)?;
        let measured = self.verification.as_ref().and_then(|verified| verified.recovered_at);
        Some(measured.map_or(closed_at, |at| at.min(closed_at))) // the counters have Prometheus' time
    }

    /// The first rollback, if the incident has another switch by now, or none: the record keeps only the latest.
    fn earlier_rollback(&self) -> Option<&Note> {
        let Incident { notes, switch, .. } = self.incident;
        let first = notes.iter().find(|note| note.kind == NoteKind::Switched)?;
        switch.as_ref().is_none_or(|switch| first.at < switch.at).then_some(first)
    }

    /// When the version in trouble lost its traffic. Unknown if it was replaced more than once.
    fn left_at(&self) -> Option<Timestamp> {
        let switch = self.incident.switch.as_ref().filter(|switch| switch.from == self.incident.version);
        let recorded = self.earlier_rollback().map(|note| note.at).or(switch.map(|switch| switch.at))?;
        // the rollback may have been one of the version that replaced it
        let logged = self.log.iter().filter(|entry| {
            let is_stage = [LogEvent::Canary, LogEvent::Gradual].iter().any(|stage| stage.as_str() == entry.event);
            entry.is_change()
                && !is_stage
                && entry.at >= self.incident.opened_at
                && entry.from == self.incident.version.as_str()
        });
        Some(logged.map(|entry| entry.at).min().filter(|at| at.plus(CLOSE) < recorded).unwrap_or(recorded))
    }

    /// When the rollback of `note` was decided. A gradual one was decided when it began, and ended later.
    fn begun_at(&self, note: &Note) -> Timestamp {
        let own = |entry: &&DeploymentEntry| {
            entry.event == LogEvent::Gradual.as_str() && entry.incident == self.incident.id.0 && entry.at <= note.at
        };
        let Some(began) = self.log.iter().filter(own).map(|entry| entry.at).min() else { return note.at };
        let is_of_it = |n: &&Note| n.kind == NoteKind::Decided && n.at <= began && began.since(n.at) < CLOSE;
        self.incident.notes.iter().rfind(is_of_it).map_or(began, |decided| decided.at)
    }

    /// Whether the system ended a canary: its traffic went back to its base, which need not be known-good.
    fn ended_canary(&self) -> bool {
        let automatic = self.incident.switch.as_ref().filter(|switch| switch.mode == SwitchMode::Auto);
        automatic.is_some_and(|switch| {
            let arrived = |entry: &&DeploymentEntry| {
                entry.is_change() && entry.to == switch.from.as_str() && entry.at <= switch.at
            };
            let last = self.log.iter().filter(arrived).max_by_key(|entry| entry.at);
            last.is_some_and(|entry| entry.event == LogEvent::Canary.as_str() && entry.from == switch.to.as_str())
        })
    }

    /// When the problem began, according to the alerts.
    fn alert_began(&self) -> Option<Timestamp> {
        self.incident.alerts.iter().filter_map(|alert| alert.starts_at).filter(|at| at.0 > 0).min()
    }
}
