//! Known-good is earned by soaking: serving, alone or the larger share, while nothing speaks against the version.

use super::super::names::VersionName;
use super::Draft;

impl Draft<'_> {
    /// Starts and ends soaks as the state of the prompt now says. What has been earned by now stays.
    pub(super) fn settle_soaks(&mut self) {
        let (policy, now) = (self.policy, self.now);
        let soaking = self.serving().filter(|version| self.is_untroubled(version)).cloned();
        for record in &mut self.state.versions {
            let earned = record.known_good(policy, now);
            if soaking.as_ref() == Some(&record.version) {
                if earned.is_none() {
                    record.soak_from.get_or_insert(now);
                }
            } else if record.soak_from.take().is_some() {
                record.known_good = earned;
            }
        }
    }

    /// No incident of it is open and no alert of it fires, dismissed or not.
    fn is_untroubled(&self, version: &VersionName) -> bool {
        let dismissed = self
            .state
            .suppressed
            .iter()
            .any(|s| s.version == *version && self.now.since(s.since) < self.policy.forget_after);
        !dismissed && !self.state.open_incidents().any(|incident| incident.version == *version)
    }
}
