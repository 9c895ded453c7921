//! Changes of `active` and `routing` past the receiver.

use super::commit::{LogEvent, Routing};
use super::snapshot::Active;
use super::transaction::{Cause, Transaction};
use crate::{ActivatedBy, Operator, VersionName};

impl Transaction<'_> {
    /// Handles an `active` that someone SET by hand or from CI: it is followed, never overwritten.
    pub(super) fn notice_outside_change(&mut self) {
        let snapshot = self.snapshot;
        let actual = snapshot.active.version();
        let left = self.state.serving.as_ref().map(|s| s.version.clone());
        let shares = self.state.split().map(|split| split.routing()).unwrap_or_default();
        let as_left = |(at, (version, percent)): (usize, &(VersionName, u8))| {
            let found = snapshot.routing.get(at);
            found.is_some_and(|(field, text)| field == version.as_str() && text.parse() == Ok(*percent))
        };
        let tampered =
            !shares.is_empty() && (shares.len() != snapshot.routing.len() || !shares.iter().enumerate().all(as_left));
        if left.as_ref() == actual && tampered {
            // removing the split means: all traffic to the version in `active`
            let text = actual.map(VersionName::to_string);
            self.record(
                LogEvent::External,
                text.clone(),
                text,
                Cause {
                    operator: &Operator::EXTERNAL,
                    reason: "routing was changed outside of prompt-rollback",
                    incident: None,
                },
            );
            if let Some(version) = actual.cloned() {
                self.serve(&version, ActivatedBy::External, &Operator::EXTERNAL);
            }
            if !snapshot.routing.is_empty() {
                self.routing = Routing::Drop;
            }
        }
        let lapsed = || self.state.lapsed.as_ref().map(|lapsed| lapsed.holds.clone());
        let changed = match &snapshot.active {
            Active::Version(_) => left.as_ref() != actual,
            Active::Absent => left.is_some() || lapsed().is_some_and(|held| held.is_some()),
            Active::Foreign(text) => lapsed().flatten().as_ref() != Some(text),
        };
        if changed {
            let (to, reason) = match &snapshot.active {
                Active::Absent => (None, "active was deleted outside of prompt-rollback"),
                Active::Version(version) => (Some(version.to_string()), "active was set outside of prompt-rollback"),
                Active::Foreign(text) => (Some(text.clone()), "active was set to a value that is not a version"),
            };
            let from = left.as_ref().map(VersionName::to_string).or_else(|| lapsed().flatten());
            let cause = Cause { operator: &Operator::EXTERNAL, reason, incident: None };
            self.record(LogEvent::External, from, to.clone(), cause);
            match actual {
                Some(version) => self.serve(&version.clone(), ActivatedBy::External, &Operator::EXTERNAL),
                None => self.lapse(to),
            }
        }
        // a split continues only while `active` is one of its fields and the split is the recorded one
        let stale = !snapshot.routing.is_empty()
            && !snapshot.routing.iter().any(|(field, _)| actual.is_some_and(|v| v.as_str() == field));
        if stale || (left.as_ref() != actual && !shares.is_empty() && !snapshot.routing.is_empty()) {
            self.routing = Routing::Drop;
        }
    }
}
