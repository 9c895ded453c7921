//! What speaks for giving a canary more traffic: an alert path that works, and what was measured of its version.

use std::time::Duration;

use super::policy::Policy;
use super::split::TrafficSplit;
use super::time::{Timestamp, spoken};

/// The last sign that alerts reach us: Prometheus evaluated our rules, and Alertmanager delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it arrived, by Redis TIME.
    pub heard_at: Timestamp,
    /// When the rules were evaluated, by the clock of Prometheus.
    pub evaluated_at: Timestamp,
}

/// What was found out for the end of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// `None`: there was none yet.
    pub heartbeat: Option<Heartbeat>,
    /// What Prometheus said of the versions, or why it said nothing; `None`: there is none to ask.
    pub compared: Option<Result<Compared, String>>,
}

/// The new version against the one before, by the time in which both had traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Of the new version, in the present stage.
    pub requests: u64,
    /// The figures that show beyond doubt that it is worse.
    pub harm: Option<String>,
    /// It is no worse, beyond doubt.
    pub no_worse: bool,
    pub text: String,
}

/// Why a stage may not end yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Too little is known. People are asked when this lasts.
    Unknown(String),
    /// People are asked at once.
    Harm(String),
}

/// Whether the stage may end, and the figures that say so.
pub(crate) fn judge(
    policy: &Policy,
    split: &TrafficSplit,
    look: &Look,
    now: Timestamp,
) -> Result<Option<String>, Obstacle> {
    let unknown = |text: String| Err(Obstacle::Unknown(text));
    // harm is news even where it is not known whether alerts arrive
    if let Some(Ok(Compared { harm: Some(figures), .. })) = &look.compared {
        return Err(Obstacle::Harm(format!("{} is worse: {figures}", split.arriving)));
    }
    let Some(heartbeat) = look.heartbeat else {
        return unknown("no heartbeat of the alert path has arrived yet".to_owned());
    };
    if heartbeat.heard_at > now.plus(Policy::CLOCK_STEP) {
        return unknown("no heartbeat of the alert path has arrived since Redis' clock went back".to_owned());
    }
    let silent = now.since(heartbeat.heard_at);
    if silent > Policy::HEARTBEAT {
        return unknown(format!("the last heartbeat of the alert path arrived {} ago", spoken(silent)));
    }
    // by the clock of Prometheus: a step of Redis' clock ends no stage
    let (watched, hold) = (heartbeat.evaluated_at.since(split.since), split.hold().unwrap_or(Duration::ZERO));
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
