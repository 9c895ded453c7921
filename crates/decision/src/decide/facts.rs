//! Collects the facts that the guards check. The guards themselves, and their order: [`crate::guards`].

use std::time::Duration;

use super::transaction::Transaction;
use crate::guards::Facts;
use crate::{
    Action, ActivatedBy, AlertRecord, Guard, Held, Policy, Severity, Timestamp, TrafficSplit, Verdict, VersionName,
};

impl Transaction<'_> {
    /// The guard that keeps `from` from being rolled back without a person. The end of a canary needs no target, and no
    /// budget.
    pub(super) fn guard(&self, from: &VersionName) -> Option<Held> {
        match self.state.is_trial(from) {
            true => self.held(from, |guard| guard.is_off() || guard == Guard::PredatesActivation),
            false => self.held(from, |_| true),
        }
    }

    /// The guard that would hold if automation were switched on.
    pub(super) fn guard_if_armed(&self, from: &VersionName) -> Option<Held> {
        self.held(from, |guard| !guard.is_off())
    }

    /// Automation is off, for this prompt or for all.
    pub(super) fn switched_off(&self, from: &VersionName) -> Option<Held> {
        self.held(from, Guard::is_off)
    }

    pub(super) fn held(&self, from: &VersionName, asked: fn(Guard) -> bool) -> Option<Held> {
        let target = self.state.target(Some(from), self.policy, self.now);
        let trouble = |target| match self.state.gradual_to(target) {
            Some(split) => self.target_risk(split),
            None => self.trouble_on(target),
        };
        let serving = self.state.serving.as_ref().filter(|serving| serving.version == *from);
        let by_rollback = serving.filter(|serving| serving.by == ActivatedBy::Rollback);
        let traffic_since = self.state.version(from).and_then(|record| record.traffic_since);
        let facts = Facts {
            from,
            paused: self.snapshot.paused.as_deref(),
            lapsed: self.state.lapsed.as_ref(),
            target,
            target_trouble: target.and_then(trouble),
            fled: self.fled_text(Some(from)),
            put_there: by_rollback.map(|serving| self.now.since(serving.since)),
            recent_auto: self.snapshot.recent_auto,
            returns: self.state.version(from).and_then(|record| record.keeps_returning(self.now)),
            predates: self.predates(from),
            served_for: serving.map(|serving| self.now.since(traffic_since.unwrap_or(serving.since))),
            beside: self.state.split().filter(|split| split.has(from)).map(|split| split.other(from)),
        };
        facts.held(self.policy, asked)
    }

    /// Why only a person may give the target more.
    pub(super) fn target_risk(&self, split: &TrafficSplit) -> Option<String> {
        let found_bad = || split.last.as_ref().is_some_and(|check| check.finding.verdict == Verdict::Unhealthy);
        let marked = || self.state.marked_bad(&split.arriving).map(|mark| format!("{} is {mark}", split.arriving));
        self.trouble_on(&split.arriving).or_else(marked).or_else(|| split.paused.clone().filter(|_| found_bad()))
    }

    /// Whether `alert` takes traffic from `version` without a person.
    pub(super) fn acts_on(&self, version: &VersionName, alert: &AlertRecord) -> bool {
        alert.action == Action::Rollback || (self.state.is_trial(version) && alert.severity >= Severity::High)
    }

    /// By how much everything that asks for a rollback of `version` began before its activation, while that counts.
    fn predates(&self, version: &VersionName) -> Option<Duration> {
        if self.hears_inactive_alerts {
            // it was heard before, whatever a clock that went back may say, and people are asked first
            let about = self.state.open_incidents().filter(|i| i.version == *version);
            let began = about.flat_map(|i| &i.alerts).filter_map(|alert| alert.began(self.now)).min();
            return Some(began.map_or(Duration::ZERO, |began| self.now.since(began)));
        }
        let incident = self.state.open_incidents().filter(|i| i.version == *version && i.switch.is_none()).last()?;
        let record = self.state.version(version)?;
        let since = record.traffic_since?;
        let nobody_to_ask = !self.policy.verify && self.now.since(since) >= Policy::PREDATES;
        if nobody_to_ask || incident.confirmed_at.is_some_and(|at| at >= since) {
            return None;
        }
        // nothing can be wrong with a version long before anybody knows it: such a moment says nothing
        let oldest = record.known_since.minus(Policy::KNOWN_LATE);
        let before = |began: &Timestamp| (oldest..=since).contains(began);
        let urgent = incident.alerts.iter().filter(|alert| alert.firing && self.acts_on(version, alert));
        // of the latest one, if all of them began before
        urgent.map(|alert| alert.began(self.now).filter(before).map(|began| since.since(began))).min()?
    }
}
