//! Rollback targets: where a rollback may go without force.

use std::collections::HashMap;

use super::names::VersionName;
use super::policy::Policy;
use super::split::TrafficSplit;
use super::state::{PromptState, VersionRecord};
use super::time::Timestamp;

/// The possible rollback targets, from any version. Ranked once for all incidents of a prompt.
#[derive(Debug)]
pub struct Targets<'s> {
    split: Option<&'s TrafficSplit>,
    /// A pair of versions for which a split determines the target.
    certain: Option<[&'s VersionName; 2]>,
    /// The trusted versions, the most recently active first, each with the name of an alert that fires on it.
    proved: Vec<(&'s VersionName, Option<&'s str>)>,
}

impl PromptState {
    /// The target of a rollback from `from`; see [`Targets::from`].
    pub fn target(&self, from: Option<&VersionName>, policy: &Policy, now: Timestamp) -> Option<&VersionName> {
        self.targets(policy, now).from(from).next()
    }

    /// All versions that a rollback may go to without force.
    pub fn targets(&self, policy: &Policy, now: Timestamp) -> Targets<'_> {
        Targets::of(self, policy, now)
    }
}

impl<'s> Targets<'s> {
    pub fn of(state: &'s PromptState, policy: &Policy, now: Timestamp) -> Self {
        let mut trouble: HashMap<&VersionName, &str> = HashMap::new();
        for (version, alertname) in state.trouble(policy, now) {
            trouble.entry(version).or_insert(alertname);
        }
        let mut good: Vec<&VersionRecord> = state.versions.iter().filter(|v| v.is_target(policy, now)).collect();
        good.sort_by_key(|v| std::cmp::Reverse((v.last_active, v.known_since)));
        let proved = good.into_iter().map(|v| (&v.version, trouble.get(&v.version).copied())).collect();
        let split = state.split();
        // the version that traffic moves to, or came from; never the canary
        let certain = split.map(|split| match state.running_canary() {
            Some(_) => [&split.arriving, &split.leaving],
            None => [&split.leaving, &split.arriving],
        });
        Self { split, certain: certain.filter(|[_, to]| state.marked_bad(to).is_none()), proved }
    }

    /// The targets from `from`, the first choice first: the most recently active version without a firing alert. If
    /// alerts fire on all of them, the most recently active one.
    pub fn from<'a>(&'a self, from: Option<&'a VersionName>) -> impl Iterator<Item = &'s VersionName> + 'a {
        let fit = move |healthy: bool| {
            let ranked = self.proved(from).filter(move |(_, alert)| alert.is_none() == healthy);
            ranked.map(|(version, _)| version)
        };
        self.certain(from).into_iter().chain(fit(true)).chain(fit(false))
    }

    /// The versions that would be the target if no alert fired on them, each with the name of that alert.
    pub fn passed_over(&self, from: Option<&VersionName>) -> Vec<(&'s VersionName, &'s str)> {
        if self.certain(from).is_some() {
            return Vec::new();
        }
        let mut over = Vec::new();
        for (version, alert) in self.proved(from) {
            match alert {
                Some(alert) => over.push((version, alert)),
                None => return over,
            }
        }
        Vec::new() // all are equally unhealthy
    }

    fn certain(&self, from: Option<&VersionName>) -> Option<&'s VersionName> {
        self.certain.filter(|[leaves, _]| from == Some(*leaves)).map(|[_, to]| to)
    }

    fn proved<'a>(
        &'a self,
        from: Option<&'a VersionName>,
    ) -> impl Iterator<Item = (&'s VersionName, Option<&'s str>)> + 'a {
        // of two versions that share the traffic, only the determined one is a target, or a canary that is trusted
        let split = self.split.filter(|split| from.is_some_and(|from| split.has(from)));
        let is_canary = |split: &TrafficSplit, version: &VersionName| !split.is_rollback && split.arriving == *version;
        let other =
            move |version: &VersionName| split.is_none_or(|split| !split.has(version) || is_canary(split, version));
        self.proved.iter().copied().filter(move |(version, _)| Some(*version) != from && other(version))
    }
}
