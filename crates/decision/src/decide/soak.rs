//! Soaks: a version becomes known-good by serving, alone or with the larger share, while nothing contradicts.

use super::answer::Answer;
use super::commit::{LogEntry, LogEvent};
use super::question;
use super::transaction::Transaction;
use crate::soak::{Earned, KnownGood, Soak, SoakVerdict};
use crate::time::spoken;
use crate::{
    Incident, IncidentId, Operator, Phase, Policy, PromptState, SoakLook, Timestamp, VersionName, VersionRecord,
};

/// Handles a measurement of a soak.
pub(super) fn looked(tx: &mut Transaction<'_>, look: &SoakLook) -> Answer {
    let (policy, now) = (tx.policy, tx.now);
    let Some(record) = tx.state.version_mut(&look.version) else { return Answer::Noted };
    let Some(soak) = record.soak.as_mut().filter(|soak| soak.from == look.from) else { return Answer::Noted };
    let Some(watch) = soak.watch.as_ref().filter(|watch| watch.next <= now) else { return Answer::Noted };
    let before = watch.last.clone();
    match soak.verdict(look.measured.as_ref(), policy, now) {
        SoakVerdict::Wanting(missing) => soak.look(policy, now, missing.or(before)),
        SoakVerdict::Anew(from, why) => {
            soak.from = from;
            soak.look(policy, now, Some(format!("soak restarted: {why}")));
        }
        SoakVerdict::Earned(by) => {
            let (from, version) = (soak.from, look.version.clone());
            tx.earn(&version, KnownGood { at: now, by }, &text(by, from, before, policy, now));
        }
    }
    Answer::Noted
}

/// The log entry's text.
fn text(by: Earned, from: Timestamp, last: Option<String>, policy: &Policy, now: Timestamp) -> String {
    let served = format!("served for {}", spoken(now.since(from)));
    match (by, last) {
        (Earned::Mark | Earned::Evidence, _) => {
            format!(
                "known-good: {served}; Prometheus measured at least {} requests, and no error threshold was exceeded while it \
                 measured",
                policy.soak_requests
            )
        }
        (Earned::Time, Some(last)) if policy.verify => format!("known-good by time only: {served}, and {last}"),
        (Earned::Time, _) if policy.verify => format!("known-good by time only: {served}"),
        (Earned::Time, _) => format!("known-good by time only: {served}, and no Prometheus is configured"),
    }
}

impl Transaction<'_> {
    /// Accounts for time since the last commit: the clock may have gone back, and soaks that need no evidence may be
    /// over.
    pub(super) fn pass_time(&mut self) {
        let now = self.now;
        self.state.rewind_activity(now); // before `known_since`, by which it sorts
        let ahead = self.state.written().filter(|at| at.since(now) >= Policy::CLOCK_STEP);
        ahead.for_each(|at| *at = now);
        self.state.versions.iter_mut().filter_map(|record| record.soak.as_mut()).for_each(|soak| soak.rewind(now));
        self.state.canary.iter_mut().filter(|canary| canary.end.is_none()).for_each(|canary| canary.rewind(now));
        self.earn_by_time();
    }

    /// Starts and ends soaks according to the state of the prompt. What was earned so far stays.
    pub(super) fn settle_soaks(&mut self) {
        self.earn_by_time();
        let (policy, now) = (self.policy, self.now);
        let serving = self.serving().cloned();
        let soaking = serving.and_then(|version| self.untroubled_since(&version).map(|since| (version, since)));
        let suspended = self.suspended().cloned();
        let PromptState { versions, canary, .. } = &mut self.state;
        let mut soaked = canary.as_mut().and_then(|canary| canary.soaked.take());
        for record in versions {
            match &soaking {
                Some((version, since)) if *version == record.version && record.must_soak() => {
                    let is_base = canary.as_ref().is_some_and(|canary| canary.split.leaving == *version);
                    let earlier = soaked.filter(|_| is_base).unwrap_or_default();
                    let from = record.soak.as_ref().map_or(since.minus(earlier), |soak| soak.from);
                    if record.soak.as_ref().is_none_or(|soak| soak.watch.is_none()) {
                        record.soak = Some(Soak::begin(from, policy, now));
                    }
                }
                _ => {
                    let soak = record.soak.take().filter(|_| suspended.as_ref() == Some(&record.version));
                    soaked = soak.map(|soak| now.since(soak.from)).or(soaked);
                }
            }
        }
        if let Some(canary) = canary {
            canary.soaked = soaked.filter(|_| suspended.is_some());
        }
        self.earn_by_time(); // it may have begun long ago, when an alert was forgotten
    }

    /// The base whose canary has the larger share, while nothing contradicts the base: what it has soaked is kept.
    fn suspended(&self) -> Option<&VersionName> {
        let base = &self.state.running_canary()?.split.leaving;
        (self.serving() != Some(base) && self.untroubled_since(base).is_some()).then_some(base)
    }

    fn earn_by_time(&mut self) {
        let (policy, now) = (self.policy, self.now);
        let earned = |record: &VersionRecord| {
            let from = record.soak.as_ref()?.from;
            Some((record.version.clone(), from, record.soaked(policy, now)?))
        };
        let earned: Vec<_> = self.state.versions.iter().filter_map(earned).collect();
        for (version, from, good) in earned {
            let text = text(good.by, from, None, policy, good.at);
            self.earn(&version, good, &text);
        }
    }

    /// Makes `version` known-good, and logs it.
    fn earn(&mut self, version: &VersionName, good: KnownGood, text: &str) {
        let Some(record) = self.state.version_mut(version) else { return };
        let mut reason = text.to_owned();
        if record.quarantine.is_some() {
            reason.push_str("; it is no longer quarantined");
        } else if let Some(fled) = &record.fled {
            reason.push_str(&format!(
                "; it can be a rollback target again, although its traffic was moved away while incident {}",
                fled.incident
            ));
        }
        record.earn(good);
        self.log.push(LogEntry {
            event: LogEvent::Soaked,
            from: None,
            to: Some(version.to_string()),
            reason,
            operator: Operator::SYSTEM,
            incident: None,
        });
    }

    /// Since when `version`, which serves, has had nothing against it: now, or since its last alert was forgotten,
    /// which no commit records. `None` while it has an open incident or a firing alert.
    fn untroubled_since(&self, version: &VersionName) -> Option<Timestamp> {
        if self.state.is_in_trouble(version) {
            return None;
        }
        let Some(lapsed) = self.state.lapses(version, self.policy) else { return Some(self.now) };
        if self.snapshot.state.is_in_trouble(version) {
            return (lapsed <= self.now).then_some(self.now); // until now
        }
        let serves = self.state.serving.as_ref().map_or(self.now, |serving| serving.since.min(self.now));
        (lapsed <= self.now).then(|| lapsed.max(serves))
    }

    /// The incident that `version` would leave behind by losing its traffic now: undecided, or failed, or one whose
    /// target it is although an alert fires on it.
    pub(super) fn left_with(&self, version: &VersionName) -> Option<IncidentId> {
        let fires = self.state.trouble_on(version, self.policy, self.now).is_some();
        let arriving = |i: &Incident| i.gradual().is_some_and(|split| split.arriving == *version);
        let speaks = |i: &Incident| i.is_left_by(version) && !question::wants_only_evidence(self, &i.id);
        let bad = |i: &Incident| {
            let found = i.verification().is_some_and(|found| found.unhealthy >= self.policy.verify_healthy);
            matches!(i.phase, Phase::Verifying { .. }) && i.subject() == version && found
        };
        let leaves = |i: &&Incident| speaks(i) || (fires && arriving(i)) || bad(i);
        self.state.open_incidents().find(leaves).map(|incident| incident.id.clone())
    }
}
