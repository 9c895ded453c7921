//! Canaries: a new version gets traffic in stages, and loses it at the first high or critical alert on it.

use std::time::Duration;

use super::answer::Answer;
use super::commit::LogEvent;
use super::precondition::{must_be_free, must_be_known, must_be_open, must_not_be_bad};
use super::question;
use super::transaction::{Cause, Transaction};
use crate::analysis::{self, Obstacle};
use crate::gates::closed;
use crate::split::CanaryEnd;
use crate::{
    ActivatedBy, Activation, Canary, CanaryPause, CanaryPolicy, CanaryWait, Check, Decide, Finding, Held, Incident,
    IncidentId, Operator, OrRefusal, PhaseKind, Plan, Promotion, Refusal, RefusalCode, Severity, Steer, Steering,
    Switch, SwitchMode, TrafficShare, TrafficSplit, Verdict, VersionName,
};

fn policy<'a>(tx: &Transaction<'a>) -> &'a CanaryPolicy {
    tx.policy.canary.of(&tx.snapshot.prompt)
}

/// Gives the version a share of the traffic.
pub(super) fn start(tx: &mut Transaction<'_>, request: &Activation) -> OrRefusal<Answer> {
    let now = tx.now;
    let version = &request.version;
    let running = tx.state.running_canary().filter(|canary| canary.split.arriving == *version).cloned();
    let plan = match (&request.share, &running) {
        (TrafficShare::Percent(0), Some(canary)) => return Ok(stop(tx, canary, &request.operator)),
        (TrafficShare::Percent(0), None) => {
            return Err(Refusal::new(
                RefusalCode::Moved,
                format!("percent 0 ends a canary, and none of {version} is under way"),
            ));
        }
        (TrafficShare::Percent(percent), _) => Plan::fixed(*percent).map_err(bad)?,
        (TrafficShare::Canary(plan), _) => plan.clone(),
        (TrafficShare::All, _) => {
            return Err(bad("percent: expected a share of the traffic, got all of it".to_owned()));
        }
    };
    let overridden = must_be_open(tx, version, false, request.force, request.reason.as_deref())?;
    // a fixed share of the same version may be changed; anything else must wait until the split ends
    let (id, base, started, soaked) = match running {
        Some(canary) if plan.holds.is_empty() => (canary.id, canary.split.leaving, canary.started, canary.soaked),
        _ => {
            must_be_free(tx, None)?;
            let Some(base) = tx.serving().cloned() else {
                let message = format!("no version is active that could share its traffic with {version}");
                return Err(Refusal::new(RefusalCode::Moved, message));
            };
            if base == *version {
                return Err(Refusal::new(RefusalCode::Moved, format!("{version} already has all traffic")));
            }
            (tx.next_id(), base, now, None)
        }
    };
    let reason = overridden.or_else(|| request.reason.clone()).unwrap_or_else(|| "canary".to_owned());
    let split = TrafficSplit::begin(false, (base, version.clone()), plan, request.operator.clone(), reason, now);
    question::close_about_canary(tx, "someone changed the share");
    let by_time = !policy(tx).analysis;
    tx.state.canary = Some(Canary { soaked, ..Canary::new(id, split.clone(), started, by_time) });
    tx.share(&split, ActivatedBy::Person, LogEvent::Canary, None);
    Ok(Answer::Shared { from: split.leaving.clone(), to: version.clone(), percent: split.percent(), incident: None })
}

fn bad(message: String) -> Refusal {
    Refusal::new(RefusalCode::BadStages, message)
}

/// `switch` ended the canary, and is undone: the new version has again the share that it took away, and no more.
pub(super) fn restore(tx: &mut Transaction<'_>, switch: &Switch, click: &Decide) -> OrRefusal<Option<Answer>> {
    let (now, operator, incident) = (tx.now, &click.operator, &click.incident);
    let is_it = |canary: &&Canary| {
        let ended = canary.end.as_ref().is_some_and(|end| end.at == switch.at && !end.promoted);
        ended && canary.split.arriving == switch.from
    };
    let Some(mut canary) = tx.state.canary.as_ref().filter(is_it).cloned() else { return Ok(None) };
    must_be_free(tx, Some(incident))?;
    let base = &canary.split.leaving;
    if *base != switch.to {
        // the rollback took the traffic of the base as well
        must_not_be_bad(tx, base, click.force)?;
        tx.must_have_content(base, click.force)?;
        tx.put_in_service(base, ActivatedBy::Person, operator);
    }
    (canary.end, canary.waiting) = (None, None);
    canary.split.enter(canary.split.stage, now);
    if let Some(pause) = &canary.pause {
        (canary.split.paused, canary.split.next) = (Some(pause.to_string()), None);
    }
    let split = canary.split.clone();
    tx.state.canary = Some(canary);
    let undone = TrafficSplit { operator: operator.clone(), reason: "rollback undone".to_owned(), ..split.clone() };
    tx.share(&undone, ActivatedBy::Person, LogEvent::Canary, Some(incident));
    let (percent, incident) = (split.percent(), Some(incident.clone()));
    Ok(Some(Answer::Shared { from: split.leaving, to: split.arriving, percent, incident }))
}

/// A person takes the new version back; nothing is said against it.
fn stop(tx: &mut Transaction<'_>, canary: &Canary, operator: &Operator) -> Answer {
    let (from, to) = (canary.split.arriving.clone(), canary.split.leaving.clone());
    tx.end_canary(&to, Cause { operator, reason: "canary stopped", incident: None });
    Answer::Changed { from: Some(from.to_string()), to, incident: None, unchanged: false, mode: None }
}

/// Why the canary may not advance automatically, whatever was measured.
fn obstacle(tx: &Transaction<'_>, canary: &Canary) -> Option<String> {
    let split = &canary.split;
    if let Some(held) = tx.switched_off(&split.arriving) {
        return Some(format!("automation is off: {}", held.detail));
    }
    if let Some(mark) = tx.state.marked_bad(&split.arriving) {
        return Some(format!("{} is {mark}", split.arriving));
    }
    // an incident that waits for an answer of Prometheus is as good as decided
    let serious = |i: &&Incident| {
        let weighs = i.severity >= Severity::High || i.pending().is_some();
        i.awaits_decision() && weighs && split.has(i.subject())
    };
    if let Some(incident) = others(tx, canary).find(serious) {
        return Some(format!("incident {} on {} waits for a decision", incident.id, incident.version));
    }
    if let Some(incident) = others(tx, canary).find(|_| policy(tx).analysis) {
        return Some(format!("incident {} on {} is open", incident.id, incident.version));
    }
    let last = split.next_percent().is_none_or(|percent| percent == 100);
    let gate = || closed(tx.policy, &tx.state, &split.arriving, true, tx.now);
    last.then(gate).flatten().map(|gate| format!("gate {}: {}", gate.name, gate.text))
}

/// The open incidents but for the question about the canary itself.
fn others<'d>(tx: &'d Transaction<'_>, canary: &'d Canary) -> impl Iterator<Item = &'d Incident> {
    let own = canary.waiting.as_ref().and_then(|waiting| waiting.asked.as_ref());
    tx.state.open_incidents().filter(move |i| Some(&i.id) != own || !question::is_only_a_question(i))
}

/// The stage is over, if what was measured speaks for that.
pub(super) fn due(tx: &mut Transaction<'_>, promotion: &Promotion) -> Answer {
    let now = tx.now;
    let by_time = !policy(tx).analysis;
    let Some(canary) = tx.state.running_canary().cloned() else { return Answer::Noted };
    let split = &canary.split;
    if split.since != promotion.since || split.next.is_none_or(|next| next > now) {
        return Answer::Noted;
    }
    let judged = match &promotion.look {
        _ if by_time => Ok(None),
        Some(look) => analysis::judge(tx.policy, split, look, now),
        None => Err(Obstacle::Unknown("nothing was measured".to_owned())),
    };
    let obstacle = obstacle(tx, &canary);
    let asks = |i: &Incident| {
        use PhaseKind::{AwaitingDecision, Confirming, Investigating};
        i.pages() || matches!(i.phase.kind(), AwaitingDecision | Confirming | Investigating)
    };
    let asked = others(tx, &canary).any(asks);
    let waits = match (&judged, &obstacle) {
        // people are not asked about an incident that already asks them, or about automation that they turned off
        (Err(Obstacle::Harm(why)), None) => Some((why.clone(), Duration::ZERO)),
        // but harm is news to the person who turned automation off
        (Err(Obstacle::Harm(why)), Some(obstacle)) if !asked => Some((format!("{why}; {obstacle}"), Duration::ZERO)),
        (Err(Obstacle::Unknown(why)), None) => Some((why.clone(), split.plan.limit.unwrap_or(policy(tx).hold_limit))),
        (Err(Obstacle::Harm(why) | Obstacle::Unknown(why)), Some(obstacle)) => {
            Some((format!("{obstacle}; {why}"), Duration::MAX))
        }
        (Ok(_), Some(obstacle)) => Some((obstacle.clone(), Duration::MAX)),
        (Ok(_), None) => None,
    };
    let verdict = match &judged {
        Ok(Some(text)) => Some(Finding::new(Verdict::Healthy, text.clone())),
        Ok(None) => None,
        Err(Obstacle::Harm(text)) => Some(Finding::new(Verdict::Unhealthy, text.clone())),
        Err(Obstacle::Unknown(text)) => Some(Finding::new(Verdict::NoData, text.clone())),
    };
    let Some(canary) = tx.state.canary.as_mut() else { return Answer::Noted };
    canary.by_time = by_time;
    canary.split.last = verdict.map(|finding| Check { at: now, finding });
    if let Some((why, patience)) = waits {
        canary.split.paused = Some(why.clone());
        canary.split.next = Some(now.plus(TrafficSplit::CHECK_EVERY));
        let waiting = canary.waiting.get_or_insert(CanaryWait { since: now, ..CanaryWait::default() });
        // harm is news to people who were asked because too little was known
        let harm = matches!(judged, Err(Obstacle::Harm(_)));
        let is_news = waiting.asked.is_none() || (harm && !waiting.harm);
        if is_news && now.since(waiting.since) >= patience {
            waiting.harm = harm;
            question::close_about_canary(tx, &why);
            question::ask_about_canary(tx, &why);
        }
        return Answer::Noted;
    }
    let operator = canary.split.operator.clone();
    resume(tx, &operator, "canary finished");
    Answer::Noted
}

/// Starts the next stage.
fn resume(tx: &mut Transaction<'_>, operator: &Operator, last: &str) {
    let now = tx.now;
    question::close_about_canary(tx, "the canary has continued");
    let Some(canary) = tx.state.canary.as_mut() else { return };
    if canary.split.next_percent().is_some_and(|percent| percent < 100) {
        canary.split.enter(canary.split.stage + 1, now);
        (canary.waiting, canary.pause) = (None, None);
        let split = canary.split.clone();
        tx.share(&split, ActivatedBy::Person, LogEvent::Canary, None);
        return;
    }
    let version = canary.split.arriving.clone();
    tx.end_canary(&version, Cause { operator, reason: last, incident: None });
}

/// A person steers the canary, whatever was measured. Gates and marks require force, as for any activation.
pub(super) fn steer(tx: &mut Transaction<'_>, request: &Steering) -> OrRefusal<Answer> {
    must_be_known(tx)?;
    let now = tx.now;
    let Steering { steer, about, operator, force, reason } = request;
    let Some(canary) = tx.state.running_canary().cloned() else {
        return Err(Refusal::new(RefusalCode::Moved, "no canary is under way"));
    };
    if about.as_ref().is_some_and(|(id, stage)| *id != canary.id || *stage != canary.split.stage) {
        return Err(Refusal::new(RefusalCode::Stale, "the canary has moved on since then"));
    }
    let split = &canary.split;
    let (new, old) = (split.arriving.clone(), split.leaving.clone());
    if *steer == Steer::Abort {
        must_not_be_bad(tx, &old, *force)?;
        return Ok(stop(tx, &canary, operator));
    }
    let has_next_stage = split.next_percent().is_some();
    if !has_next_stage && *steer != Steer::Promote {
        let message = format!("{new} keeps {} % until someone changes it: it has no further stages", split.percent());
        return Err(Refusal::new(RefusalCode::NoNextStage, message));
    }
    let last = split.next_percent().is_none_or(|percent| percent == 100);
    match steer {
        Steer::Skip | Steer::Promote => {
            must_not_be_bad(tx, &new, *force)?;
            let all = last || *steer == Steer::Promote;
            let overridden = must_be_open(tx, &new, all, *force, reason.as_deref())?;
            if all {
                let why = overridden.or_else(|| reason.clone()).unwrap_or_else(|| "canary promoted".to_owned());
                let percent = split.percent();
                tx.end_canary(&new, Cause { operator, reason: &why, incident: None });
                let from = (percent < 100).then(|| old.to_string());
                return Ok(Answer::Changed { from, to: new, incident: None, unchanged: false, mode: None });
            }
            if let Some(canary) = tx.state.canary.as_mut() {
                canary.split.operator.clone_from(operator);
            }
            resume(tx, operator, "canary finished");
        }
        Steer::Pause | Steer::Resume | Steer::Hold => {
            if *steer == Steer::Hold {
                question::close_about_canary(tx, "its share is kept");
            }
            let Some(canary) = tx.state.canary.as_mut() else { return Ok(Answer::Noted) };
            let split = &mut canary.split;
            (canary.pause, split.paused) = (None, None);
            split.next = split.hold().map(|hold| split.since.plus(hold).max(now));
            match steer {
                Steer::Pause => {
                    let pause = CanaryPause { at: now, operator: operator.clone() };
                    (split.paused, split.next) = (Some(pause.to_string()), None);
                    canary.pause = Some(pause);
                }
                Steer::Hold => {
                    let percent = split.percent();
                    (split.plan.stages, split.plan.holds, split.stage) = (vec![percent], Vec::new(), 0);
                    (split.next, canary.waiting) = (None, None);
                }
                _ => {}
            }
        }
        Steer::Abort => {}
    }
    let split = tx.state.running_canary().map_or_else(|| canary.split.clone(), |canary| canary.split.clone());
    Ok(Answer::Shared { from: old, to: new, percent: split.percent(), incident: None })
}

/// Ends the canary on a high or critical alert on its new version. This needs no approval, no known-good target and no
/// budget.
pub(super) fn fails(
    tx: &mut Transaction<'_>,
    id: &IncidentId,
    version: &VersionName,
    severity: Severity,
    reason: &str,
) -> Option<Result<(), Held>> {
    let split = &tx.state.running_canary()?.split;
    if !tx.state.is_trial(version) || severity < Severity::High {
        return None;
    }
    let base = split.leaving.clone();
    let pending = tx.state.open_incidents().find(|incident| incident.id == *id).and_then(Incident::pending);
    if pending.is_some_and(|pending| pending.by != SwitchMode::Auto && pending.to != base) {
        return None; // a person has named another target
    }
    if let Some(held) = tx.guard(version) {
        return Some(Err(held));
    }
    let percent = split.percent();
    let cause = Cause { operator: &Operator::SYSTEM, reason, incident: Some(id) };
    tx.switch(Some(version), &base, SwitchMode::Auto, cause);
    tx.automatic = None; // the end of a canary is no evidence of an outage
    if let Some(CanaryEnd { text, .. }) = tx.state.canary.as_mut().and_then(|canary| canary.end.as_mut()) {
        *text = format!("stopped at {percent} %: {reason}");
    }
    Some(Ok(()))
}

impl Transaction<'_> {
    /// Gives all traffic to `version`, one side of the canary.
    fn end_canary(&mut self, version: &VersionName, cause: Cause<'_>) {
        let from = self.state.split().map(|split| split.other(version).to_string());
        let before = self.state.serving.clone().filter(|serving| serving.version == *version);
        self.activate(version, from, cause);
        // it had the larger share already
        self.state.serving = before.or(self.state.serving.take());
    }
}
