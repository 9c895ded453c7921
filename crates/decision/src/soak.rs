//! Known-good versions and soaks: a version becomes known-good by serving long enough, alone or with the larger share,
//! and being healthy.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::{is_default, words};
use super::ids::IncidentId;
use super::policy::Policy;
use super::time::{Timestamp, spoken};

/// Since when, and why, a version may be an automatic rollback's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KnownGoodRecord", into = "KnownGoodRecord")]
pub struct KnownGood {
    pub at: Timestamp,
    pub by: Earned,
}

/// The form of older receivers, which knew only marks and time.
#[derive(Serialize, Deserialize)]
struct KnownGoodRecord {
    at: Timestamp,
    #[serde(default, skip_serializing_if = "is_default")]
    marked: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    evidence: bool,
}

impl From<KnownGoodRecord> for KnownGood {
    fn from(KnownGoodRecord { at, marked, evidence }: KnownGoodRecord) -> Self {
        let by = match (marked, evidence) {
            (true, _) => Earned::Mark,
            (false, true) => Earned::Evidence,
            (false, false) => Earned::Time,
        };
        Self { at, by }
    }
}

impl From<KnownGood> for KnownGoodRecord {
    fn from(KnownGood { at, by }: KnownGood) -> Self {
        Self { at, marked: by == Earned::Mark, evidence: by == Earned::Evidence }
    }
}

words! {
    /// Why a version is known-good.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Earned {
        /// A person marked it as good.
        Mark = "mark",
        /// It served enough requests, and no threshold of an error rule was exceeded.
        Evidence = "evidence",
        /// It served long enough, and too little or nothing was measured.
        Time = "time",
    }
}

impl Earned {
    /// Formats it for people.
    pub fn spoken(self) -> &'static str {
        match self {
            Earned::Mark => "known-good (mark)",
            Earned::Evidence => "known-good (evidence)",
            Earned::Time => "known-good by time only",
        }
    }
}

/// A version lost its traffic while an incident on it was undecided or an alert fired: it is not an automatic target
/// until a person marks it as good or it has soaked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fled {
    pub at: Timestamp,
    pub incident: IncidentId,
}

impl Fled {
    /// Completes the sentence "v1 …".
    pub fn spoken(&self, now: Timestamp) -> String {
        format!("lost its traffic {} ago while incident {} was open", spoken(now.since(self.at)), self.incident)
    }
}

/// A soak in progress. Its fields are part of the version's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Soak {
    /// Since when it has served, alone or with the larger share, with nothing against it.
    #[serde(rename = "soak_from")]
    pub from: Timestamp,
    /// `None`: an older receiver, which counts time alone, started it.
    #[serde(rename = "soak_watch", skip_serializing_if = "Option::is_none")]
    pub watch: Option<SoakWatch>,
}

/// How a soak is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoakWatch {
    /// When it was last checked: shows that a clock went back.
    pub seen: Timestamp,
    /// When it is checked next.
    pub next: Timestamp,
    /// The last answer of Prometheus, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// What Prometheus measured since a soak began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoakMeasurement {
    pub requests: u64,
    pub failed: u64,
    /// How long ago the threshold of an error rule was last exceeded, or a rule fired.
    pub exceeded: Option<Duration>,
}

impl SoakMeasurement {
    /// The thresholds of the shipped rules, applied to the whole soak: with few requests, no window of a rule holds
    /// enough of them.
    const FAILS_ABOVE_PERCENT: u64 = 2;
    const FAILURES: u64 = 3;

    /// Whether too many requests failed. With too few requests for any rule: whether most of them failed.
    fn fails(&self) -> bool {
        let many = self.failed >= Self::FAILURES && self.failed * 100 > self.requests * Self::FAILS_ABOVE_PERCENT;
        many || self.failed * 2 > self.requests
    }
}

/// The result of checking a soak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SoakVerdict {
    Earned(Earned),
    /// It continues, and this is missing.
    Wanting(Option<String>),
    /// It restarts: something contradicted at this moment.
    Anew(Timestamp, String),
}

impl Soak {
    /// How often a soak is checked while it lasts, so that a clock that goes back costs it less than this.
    const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);
    /// How often Prometheus is asked afterwards; the interval then grows.
    const ASK_EVERY: Duration = Duration::from_secs(60);
    const ASK_OFTEN_FOR: Duration = Duration::from_secs(10 * 60);
    const ASK_LATER: Duration = Duration::from_secs(10 * 60);
    /// The maximal age of an answer of Prometheus.
    const ANSWERED: Duration = Duration::from_secs(15);

    pub fn begin(from: Timestamp, policy: &Policy, now: Timestamp) -> Self {
        let mut soak = Self { from, watch: None };
        soak.look(policy, now, None);
        soak
    }

    /// Whether time alone is not enough, so that Prometheus is asked at the end.
    pub fn wants_evidence(&self, policy: &Policy) -> bool {
        policy.verify && self.watch.is_some()
    }

    /// Whether the time of the soak is over.
    pub fn is_over(&self, policy: &Policy, now: Timestamp) -> bool {
        self.from.plus(policy.soak) <= now
    }

    /// When the version becomes known-good if nothing happens and nothing more is measured.
    pub fn ends(&self, policy: &Policy, now: Timestamp) -> Timestamp {
        let limit = self.wants_evidence(policy) && self.is_over(policy, now);
        self.from.plus(if limit { policy.soak_limit } else { policy.soak })
    }

    /// Records a check with the answer `last`.
    pub(crate) fn look(&mut self, policy: &Policy, now: Timestamp, last: Option<String>) {
        let over = self.from.plus(policy.soak);
        let next = if now < over {
            over.min(now.plus(Self::LOOK_EVERY))
        } else {
            let often = now < over.plus(Self::ASK_OFTEN_FOR);
            let next = now.plus(if often { Self::ASK_EVERY } else { Self::ASK_LATER });
            let limit = self.from.plus(policy.soak_limit);
            if now < limit { next.min(limit) } else { next }
        };
        self.watch = Some(SoakWatch { seen: now, next, last });
    }

    /// Judges the measurement. `None`: Prometheus was not asked, because none is configured or the soak is not over.
    pub(crate) fn verdict(
        &self,
        measured: Option<&Result<SoakMeasurement, String>>,
        policy: &Policy,
        now: Timestamp,
    ) -> SoakVerdict {
        if !self.is_over(policy, now) {
            return SoakVerdict::Wanting(None);
        }
        if !policy.verify {
            return SoakVerdict::Earned(Earned::Time);
        }
        let limit = now >= self.from.plus(policy.soak_limit);
        let missing = match measured {
            None => return SoakVerdict::Wanting(None),
            Some(Err(why)) => why.clone(),
            Some(Ok(measured)) => {
                if let Some(at) = measured.exceeded.map(|age| now.minus(age)).filter(|at| *at > self.from) {
                    let text =
                        format!("an alert fired or an error threshold was exceeded {} ago", spoken(now.since(at)));
                    return SoakVerdict::Anew(at.plus(Self::ANSWERED).min(now), text);
                }
                let SoakMeasurement { requests, failed, .. } = measured;
                if measured.fails() {
                    return SoakVerdict::Anew(now, format!("{failed} of {requests} requests failed"));
                }
                if *requests >= policy.soak_requests {
                    return SoakVerdict::Earned(Earned::Evidence);
                }
                format!("{requests} of {} requests measured", policy.soak_requests)
            }
        };
        if limit { SoakVerdict::Earned(Earned::Time) } else { SoakVerdict::Wanting(Some(missing)) }
    }

    /// Adjusts the soak after Redis' clock went back, so that it has lasted as long as at the last check.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        let seen = self.watch.as_ref().map_or(self.from, |watch| watch.seen);
        let back = seen.since(now);
        if back < Policy::CLOCK_STEP {
            return;
        }
        self.from = self.from.minus(back);
        if let Some(watch) = &mut self.watch {
            watch.seen = now;
            watch.next = watch.next.minus(back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_failures_are_those_of_a_row_or_most_of_a_few() {
        for (requests, failed, fails) in [
            (1_000, 20, false),
            (1_000, 21, true),
            (20, 2, false),
            (20, 3, true),
            (2, 1, false),
            (2, 2, true),
            (1, 1, true),
            (0, 0, false),
        ] {
            assert_eq!(SoakMeasurement { requests, failed, exceeded: None }.fails(), fails, "{failed} of {requests}");
        }
    }

    #[test]
    fn a_soak_is_measured_at_its_end_and_then_ever_more_rarely() {
        let policy = Policy { verify: true, ..Policy::default() };
        let start = Timestamp(1_800_000_000_000);
        let mut soak = Soak::begin(start, &policy, start);
        let mut asked = Vec::new();
        loop {
            let now = soak.watch.as_ref().expect("a watch").next;
            if soak.is_over(&policy, now) {
                asked.push(now.since(start).as_secs() / 60);
            }
            match soak.verdict(Some(&Err("no answer".to_owned())), &policy, now) {
                SoakVerdict::Wanting(last) => soak.look(&policy, now, last),
                verdict => break assert_eq!(verdict, SoakVerdict::Earned(Earned::Time)),
            }
        }
        assert_eq!(asked[..12], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 80]);
        assert_eq!(asked.last(), Some(&(24 * 60)));
        assert_eq!(asked.len(), 10 + 1 + 137);
    }
}
