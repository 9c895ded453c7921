//! The analysis of a canary's stage: whether the alert path works, and how the versions compare.

use std::time::Duration;

use super::policy::Policy;
use super::split::TrafficSplit;
use super::time::{Timestamp, spoken};

/// The latest evidence that the alert path works: Prometheus evaluated the rules, and Alertmanager delivered the alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it arrived, by Redis TIME.
    pub heard_at: Timestamp,
    /// When the rules were evaluated, by Prometheus' clock.
    pub evaluated_at: Timestamp,
    /// The last times of more than [`Policy::HEARTBEAT`] without one, by Prometheus' clock, oldest first.
    pub gaps: Vec<(Timestamp, Timestamp)>,
}

impl Heartbeat {
    /// The number of gaps that are remembered. If there are more, the oldest are taken for one.
    const GAPS: usize = 20;
    /// An evaluation this much earlier than the last one is not a repeat: Prometheus' clock was wrong before.
    const CLOCK_WAS_WRONG: Duration = Duration::from_secs(3_600);

    /// The heartbeat that follows `last`. `None`: a repeat, which proves nothing new.
    pub fn after(last: Option<Self>, heard_at: Timestamp, evaluated_at: Timestamp) -> Option<Self> {
        let (from, mut gaps) = match last {
            Some(last) if last.evaluated_at.since(evaluated_at) > Self::CLOCK_WAS_WRONG => {
                (Timestamp::default(), Vec::new())
            }
            Some(last) if evaluated_at <= last.evaluated_at => return None,
            Some(last) => (last.evaluated_at, last.gaps),
            None => (Timestamp::default(), Vec::new()),
        };
        if evaluated_at.since(from) > Policy::HEARTBEAT {
            gaps.push((from, evaluated_at));
        }
        while gaps.len() > Self::GAPS {
            let (from, _) = gaps.remove(0);
            gaps[0].0 = from;
        }
        Some(Self { heard_at, evaluated_at, gaps })
    }

    /// For how long since `since` the rules were evaluated and their alerts delivered.
    fn watched(&self, since: Timestamp) -> Duration {
        let missed = self.gaps.iter().map(|(from, to)| to.since(since.max(*from)));
        // by both clocks, so that a step of Redis' clock ends no stage, and neither does a clock of Prometheus that is ahead
        self.evaluated_at.min(self.heard_at).since(since).saturating_sub(missed.sum())
    }
}

/// What was measured at the end of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// `None` if no heartbeat has arrived yet.
    pub heartbeat: Option<Heartbeat>,
    /// How Prometheus compares the versions, or why it does not; `None` if no Prometheus is configured.
    pub compared: Option<Result<Compared, String>>,
}

/// The new version compared with the previous one, over the time in which both had traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Requests to the new version in the current stage.
    pub requests: u64,
    /// The figures, if they prove that the new version is worse.
    pub harm: Option<String>,
    /// Whether the new version is proved to be no worse.
    pub no_worse: bool,
    pub text: String,
}

/// Why a stage may not end yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Too little is known. People are asked if this lasts.
    Unknown(String),
    /// The new version does harm. People are asked at once.
    Harm(String),
}

/// Returns the figures if the stage may end, or what prevents it.
pub(crate) fn judge(
    policy: &Policy,
    split: &TrafficSplit,
    look: &Look,
    now: Timestamp,
) -> Result<Option<String>, Obstacle> {
    let unknown = |text: String| Err(Obstacle::Unknown(text));
    // harm is reported even if it is unknown whether alerts arrive
    if let Some(Ok(Compared { harm: Some(figures), .. })) = &look.compared {
        return Err(Obstacle::Harm(format!("{} is worse: {figures}", split.arriving)));
    }
    let Some(heartbeat) = &look.heartbeat else {
        return unknown("no heartbeat of the alert path has arrived yet".to_owned());
    };
    if heartbeat.heard_at > now.plus(Policy::CLOCK_STEP) {
        return unknown("no heartbeat of the alert path has arrived since Redis' clock went back".to_owned());
    }
    let silent = now.since(heartbeat.heard_at);
    if silent > Policy::HEARTBEAT {
        return unknown(format!("the last heartbeat of the alert path arrived {} ago", spoken(silent)));
    }
    let (watched, hold) = (heartbeat.watched(split.since), split.hold().unwrap_or(Duration::ZERO));
    if watched < hold {
        let text = format!("rules were evaluated for {} of {} of this stage", spoken(watched), spoken(hold));
        return unknown(text);
    }
    let compared = match &look.compared {
        None if policy.verify => return unknown("Prometheus was not queried".to_owned()),
        None => return Ok(None),
        Some(Err(why)) => return unknown(why.clone()),
        Some(Ok(compared)) => compared,
    };
    let last = split.next_percent().is_none_or(|percent| percent == 100);
    if last && !compared.no_worse {
        return unknown(compared.text.clone());
    }
    if compared.requests < Policy::CANARY_REQUESTS {
        let (requests, wanted) = (compared.requests, Policy::CANARY_REQUESTS);
        return unknown(format!("{requests} of {wanted} requests of {} in this stage", split.arriving));
    }
    Ok(Some(compared.text.clone()))
}
