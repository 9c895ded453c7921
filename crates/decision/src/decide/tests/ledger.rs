//! An independent record of each version, apart from the state: whether people moved away from it, whether it is
//! trusted, and since when it has served with nothing against it. It shows whether an automatic rollback goes to the
//! right target.

use std::collections::BTreeMap;

use super::*;

#[derive(Clone, Default)]
pub(super) struct Ledger {
    /// The time that has really passed, whatever Redis' clock shows.
    pub elapsed: Duration,
    /// How much of the clock's time has not really passed yet.
    pub ahead: Duration,
    pages: BTreeMap<VersionName, Page>,
}

#[derive(Clone, Default)]
struct Page {
    /// Since when it has served, alone or with the larger share, with no incident open on it.
    untroubled: Option<Duration>,
    /// Since when it has served with the smaller share, as the base of a canary: that time does not count.
    suspended: Option<Duration>,
    /// Whether a person or a soak made it known-good, and people have not moved away from it since.
    good: bool,
    /// Whether an undo of its rollback restores that.
    kept: bool,
}

/// The question about a canary of which too little is known.
fn wants_only_figures(state: &PromptState, incident: &Incident) -> bool {
    let Some(canary) = state.running_canary() else { return false };
    let bad = canary.split.last.as_ref().is_some_and(|check| check.finding.verdict == Verdict::Unhealthy);
    let asked = canary.waiting.as_ref().and_then(|waiting| waiting.asked.as_ref()) == Some(&incident.id);
    asked && !bad && incident.alerts.is_empty() && incident.pending().is_none()
}

/// The versions that prompt servers may serve: without a version in the key, they keep theirs.
pub(super) fn have_traffic(state: &PromptState) -> Vec<VersionName> {
    let kept = state.lapsed.iter().flat_map(|lapsed| lapsed.versions.clone());
    state.served().into_iter().chain(kept).collect()
}

impl Ledger {
    /// The store is as it was `earlier`, and time has gone on.
    pub(super) fn rewind(&mut self, earlier: Self) {
        self.pages = earlier.pages;
    }

    pub(super) fn take(&mut self, policy: &Policy, before: &Snapshot, event: &Event, commit: &Commit) {
        let now = self.elapsed - self.ahead;
        let soaked: Vec<_> = commit.log.iter().filter(|entry| entry.event == LogEvent::Soaked).collect();
        for entry in &soaked {
            self.must_be_earned(policy, before, event, entry, now);
        }
        let rolled = commit.log.iter().find(|e| e.event == LogEvent::Rollback && e.operator == Operator::SYSTEM);
        // the end of a split goes to the side that a person chose
        let ends_split = |entry: &LogEntry| {
            let sides = [&entry.from, &entry.to].map(|side| side.as_deref().map(v));
            before.state.split().is_some_and(|split| sides.iter().flatten().filter(|side| split.has(side)).count() == 2)
        };
        if let Some(to) = rolled.filter(|entry| !ends_split(entry)).and_then(|entry| entry.to.as_deref()) {
            let vouched = self.page(&v(to)).good || soaked.iter().any(|entry| entry.to.as_deref() == Some(to));
            assert!(vouched, "P5: rolled back to {to}, which is not known-good");
        }
        for version in have_traffic(&before.state) {
            let lost = !have_traffic(&commit.state).contains(&version);
            let open = before
                .state
                .open_incidents()
                .any(|i| i.version == version && i.switch.is_none() && !wants_only_figures(&before.state, i));
            let is =
                |entry: &LogEntry| entry.event == LogEvent::Rollback && entry.from.as_deref() == Some(version.as_str());
            let rolled_back = commit.log.iter().any(is);
            if lost && (open || rolled_back) {
                let page = self.page(&version);
                page.kept = page.good && rolled_back;
                page.good = false;
            }
        }
        for record in &commit.state.versions {
            let was = before.state.version(&record.version).and_then(|record| record.known_good);
            if matches!(event, Event::Decide(Decide { choice: Choice::Undo, .. })) && record.known_good != was {
                let page = self.page(&record.version);
                page.good |= page.kept;
            }
            let vouches = |good: Earned| record.known_good.is_some_and(|is| is.by == good) && record.known_good != was;
            // a second mark in the same millisecond leaves the same record
            let name = Some(record.version.as_str());
            let is_mark = |entry: &LogEntry| entry.event == LogEvent::MarkGood && entry.to.as_deref() == name;
            let is_registered_as_good = matches!(
                event,
                Event::Register(Register { version, known_good: true, .. }) if *version == record.version
            );
            if vouches(Earned::Mark)
                || commit.log.iter().any(is_mark)
                || is_registered_as_good && record.known_good.is_some_and(|is| is.by == Earned::Mark)
                || soaked.iter().any(|entry| entry.to.as_deref() == Some(record.version.as_str()))
            {
                self.page(&record.version).good = true;
            }
            let serves = commit.state.serving.as_ref().is_some_and(|s| s.version == record.version);
            let open = commit.state.open_incidents().any(|i| i.version == record.version);
            let is_base = commit.state.running_canary().is_some_and(|c| c.split.leaving == record.version);
            let page = self.page(&record.version);
            if is_base && !serves && !open {
                page.suspended.get_or_insert(now);
                continue;
            }
            let without = page.suspended.take().map(|since| now - since).unwrap_or_default();
            page.untroubled = (serves && !open).then(|| page.untroubled.map_or(now, |since| since + without));
        }
    }

    fn page(&mut self, version: &VersionName) -> &mut Page {
        self.pages.entry(version.clone()).or_default()
    }

    /// It has served long enough, and Prometheus measured enough good requests, or nothing bad for a very long time.
    fn must_be_earned(&mut self, policy: &Policy, before: &Snapshot, event: &Event, entry: &LogEntry, now: Duration) {
        let version = v(entry.to.as_deref().expect("a soak is of a version"));
        let served = now - self.page(&version).untroubled.unwrap_or(now);
        let slack = Policy::CLOCK_STEP; // smaller steps of a clock are not noticed
        assert!(served + slack >= policy.soak, "{version} has served for {served:?} only");
        if !policy.verify {
            return;
        }
        let by_time = entry.reason.contains("by time only");
        let old = before.state.version(&version).and_then(|r| r.soak.as_ref()).is_some_and(|soak| soak.watch.is_none());
        if old {
            return assert!(by_time, "an older receiver asked for no evidence: {}", entry.reason);
        }
        let Event::Soak(look) = event else { panic!("known-good without a word of Prometheus: {event:?}") };
        match look.measured.as_ref().expect("Prometheus was asked") {
            Ok(measured) => {
                assert!(measured.failed < 3 || measured.failed * 100 <= measured.requests * 2, "{measured:?}");
                assert!(by_time == (measured.requests < policy.soak_requests), "{measured:?}: {}", entry.reason);
            }
            Err(_) => assert!(by_time, "{}", entry.reason),
        }
        assert!(!by_time || served + slack >= policy.soak_limit, "{version}: {served:?}");
    }
}
