//! Known-good is earned by soaking: serving, alone or the larger share, while nothing speaks against the version.

use super::super::names::VersionName;
use super::super::time::Timestamp;
use super::Draft;

impl Draft<'_> {
    /// Starts and ends soaks as the state of the prompt now says. What has been earned by now stays.
    pub(super) fn settle_soaks(&mut self) {
        let (policy, now) = (self.policy, self.now);
        let serving = self.serving().cloned();
        let soaking = serving.and_then(|version| self.untroubled_since(&version).map(|since| (version, since)));
        for record in &mut self.state.versions {
            let earned = record.known_good(policy, now);
            match &soaking {
                Some((version, since)) if *version == record.version => {
                    if earned.is_none() {
                        record.soak_from.get_or_insert(*since);
                    }
                }
                _ => {
                    if record.soak_from.take().is_some() {
                        record.known_good = earned;
                    }
                }
            }
        }
    }

    /// Since when nothing speaks against `version`, as far as is known: now, or since a dismissed alert lapsed that ended
    /// without a word, which no commit notes. `None` while an incident of it is open or an alert of it fires.
    fn untroubled_since(&self, version: &VersionName) -> Option<Timestamp> {
        if self.state.open_incidents().any(|incident| incident.version == *version) {
            return None;
        }
        let dismissed = self.state.suppressed.iter().filter(|s| s.version == *version);
        let lapsed = dismissed.map(|s| s.since.plus(self.policy.forget_after)).max().unwrap_or(self.now);
        (lapsed <= self.now).then_some(lapsed)
    }
}
