//! Collects the facts that the guards check. The guards themselves, and their order: [`crate::guards`].

use std::time::Duration;

use super::transaction::Transaction;
use crate::guards::{Facts, HoldingGuard};
use crate::{
    Action, ActivatedBy, Alert, AlertRecord, Guard, Held, Incident, Policy, Serving, Severity, Timestamp, TrafficSplit,
    Verdict, VersionName,
};

impl Transaction<'_> {
    /// The guard that holds an automatic rollback of `from`.
    pub(super) fn guard(&self, from: &VersionName) -> Option<Held> {
        self.held(from, self.asked(from))
    }

    /// The guards that matter for `from`. The end of a canary needs no target and no budget.
    fn asked(&self, from: &VersionName) -> fn(Guard) -> bool {
        match self.state.is_trial(from) {
            true => |guard| guard.is_off() || matches!(guard, Guard::KeepsReturning | Guard::PredatesActivation),
            false => |_| true,
        }
    }

    /// The guard that would hold if automation were on.
    pub(super) fn guard_if_armed(&self, from: &VersionName) -> Option<Held> {
        self.held(from, |guard| !guard.is_off())
    }

    /// The guard that applies because automation is off, for this prompt or for all prompts.
    pub(super) fn switched_off(&self, from: &VersionName) -> Option<Held> {
        self.held(from, Guard::is_off)
    }

    pub(super) fn held(&self, from: &VersionName, asked: fn(Guard) -> bool) -> Option<Held> {
        self.facts(from).held(self.policy, asked)
    }

    /// All guards that hold what `alert` asks for. None if it asks for no rollback.
    pub(super) fn all_held(&self, alert: &Alert) -> Vec<HoldingGuard> {
        let version = &alert.version;
        if !self.acts_on(version, &AlertRecord::new(alert, self.now)) {
            return Vec::new();
        }
        let mut gradual = self.state.open_incidents().filter_map(Incident::gradual);
        let asked = match gradual.any(|split| split.leaving == *version) {
            true => |guard: Guard| guard.is_off() || guard == Guard::TargetUnhealthy,
            false => self.asked(version),
        };
        self.facts(version).holding(self.policy, asked).collect()
    }

    fn facts<'f>(&'f self, from: &'f VersionName) -> Facts<'f> {
        let target = self.state.target(Some(from), self.policy, self.now);
        let trouble = |target| match self.state.gradual_to(target) {
            Some(split) => self.target_risk(split),
            None => self.trouble_on(target),
        };
        let serving = self.state.serving.as_ref().filter(|serving| serving.version == *from);
        let by_rollback = serving.filter(|serving| serving.by == ActivatedBy::Rollback);
        let traffic_since = self.state.version(from).and_then(|record| record.traffic_since);
        // a canary with the smaller share that got all traffic has changed at that moment
        let canary = self.state.canary.as_ref().filter(|canary| canary.split.arriving == *from);
        let end = canary.filter(|canary| canary.split.major() != from).and_then(|canary| canary.end.as_ref());
        let was_minor = end.is_some_and(|end| end.promoted);
        let served_since = |serving: &Serving| traffic_since.filter(|_| !was_minor).unwrap_or(serving.since);
        // the base of a canary served alone before
        let base = self.state.running_canary().filter(|canary| canary.split.leaving == *from);
        Facts {
            from,
            paused: self.snapshot.paused.as_deref(),
            lapsed: self.state.lapsed.as_ref(),
            target,
            target_trouble: target.and_then(trouble),
            fled: self.fled_text(Some(from)),
            put_there: by_rollback.map(|serving| self.now.since(serving.since)),
            recent_auto: self.snapshot.recent_auto,
            outage_hold: self.snapshot.outage_hold.as_deref(),
            returns: self.state.version(from).and_then(|record| record.keeps_returning(self.now)),
            predates: self.predates(from),
            served_for: serving
                .map(served_since)
                .or_else(|| traffic_since.filter(|_| base.is_some()))
                .map(|since| self.now.since(since)),
            beside: self.state.split().filter(|split| split.has(from)).map(|split| split.other(from)),
        }
    }

    /// Why only a person may give more traffic to the target.
    pub(super) fn target_risk(&self, split: &TrafficSplit) -> Option<String> {
        let found_bad = || split.last.as_ref().is_some_and(|check| check.finding.verdict == Verdict::Unhealthy);
        let marked = || self.state.marked_bad(&split.arriving).map(|mark| format!("{} is {mark}", split.arriving));
        let fires = || self.fires_on(&split.arriving);
        let risk = self.trouble_on(&split.arriving).or_else(fires).or_else(marked);
        risk.or_else(|| split.paused.clone().filter(|_| found_bad()))
    }

    /// What fires on `version`, high or worse, in an incident of its own.
    pub(super) fn fires_on(&self, version: &VersionName) -> Option<String> {
        let about = |i: &&Incident| i.version == *version && i.switch.is_none();
        let alerts = self.state.open_incidents().filter(about).filter_map(Incident::worst);
        let alert = alerts.max_by_key(|alert| alert.severity).filter(|alert| alert.severity >= Severity::High)?;
        Some(format!("{} fires on {version} too", alert.alertname))
    }

    /// Whether `alert` takes the traffic from `version` without a person.
    pub(super) fn acts_on(&self, version: &VersionName, alert: &AlertRecord) -> bool {
        alert.action == Action::Rollback || (self.state.is_trial(version) && alert.severity >= Severity::High)
    }

    /// By how much all rollback alerts on `version` began before its activation, while that matters.
    fn predates(&self, version: &VersionName) -> Option<Duration> {
        if self.hears_inactive_alerts {
            // a known alert keeps its verdict even if a clock went back, and people are asked first
            let about = self.state.open_incidents().filter(|i| i.version == *version);
            let began = about.flat_map(|i| &i.alerts).filter_map(|alert| alert.began(self.now)).min();
            return Some(began.map_or(Duration::ZERO, |began| self.now.since(began)));
        }
        let incident = self.state.open_incidents().filter(|i| i.version == *version && i.switch.is_none()).last()?;
        let record = self.state.version(version)?;
        let since = record.traffic_since?;
        let unverifiable = !self.policy.verify && self.now.since(since) >= Policy::PREDATES;
        if unverifiable || incident.confirmed_at.is_some_and(|at| at >= since) {
            return None;
        }
        // an alert from long before the version was known cannot be about it: its start time is meaningless
        let oldest = record.known_since.minus(Policy::KNOWN_LATE);
        let before = |began: &Timestamp| (oldest..=since).contains(began);
        let urgent = incident.alerts.iter().filter(|alert| alert.firing && self.acts_on(version, alert));
        // of the latest alert, if all of them began before
        urgent.map(|alert| alert.began(self.now).filter(before).map(|began| since.since(began))).min()?
    }
}
