//! A new version step by step: forward by itself while nothing speaks against it, back to nothing at the first alert.

use super::super::alert::AlertRecord;
use super::super::event::{Activation, Promotion, Share};
use super::super::flip::FlipMode;
use super::super::gates::closed;
use super::super::guards::Held;
use super::super::incident::Incident;
use super::super::names::{IncidentId, VersionName};
use super::super::serving::ActivatedBy;
use super::super::severity::{Action, Severity};
use super::super::split::{Canary, CanaryEnd, Plan, Split};
use super::super::trigger::Trigger;
use super::{Answer, Draft, LogEvent, Refusal, RefusalCode, gradual, measure};

type Result<T> = std::result::Result<T, Refusal>;

/// Gives the version a share of the traffic.
pub(super) fn start(draft: &mut Draft<'_>, request: &Activation) -> Result<Answer> {
    let now = draft.now;
    let version = &request.version;
    let running = draft.state.running_canary().filter(|canary| canary.split.arriving == *version).cloned();
    let plan = match (&request.share, &running) {
        (Share::Percent(0), Some(canary)) => return Ok(stop(draft, canary, &request.operator)),
        (Share::Percent(percent), _) => Plan::fixed(*percent).map_err(bad)?,
        (Share::Canary(plan), _) => plan.clone(),
        (Share::All, _) => return Err(bad("percent: all traffic is no share".to_owned())),
    };
    let overridden = measure::must_be_open(draft, version, false, request.force, request.reason.as_deref())?;
    // a fixed share of the same version may be changed; anything else waits for the end of what is under way
    let (id, base, started) = match running {
        Some(canary) if plan.holds.is_empty() => (canary.id, canary.split.leaving, canary.started),
        _ => {
            gradual::must_be_free(draft, None)?;
            let Some(base) = draft.serving().cloned() else {
                let message = format!("nothing is served yet that could share its traffic with {version}");
                return Err(Refusal::new(RefusalCode::Moved, message));
            };
            if base == *version {
                return Err(Refusal::new(RefusalCode::Moved, format!("{version} has all traffic already")));
            }
            (draft.next_id(), base, now)
        }
    };
    let reason = overridden.or_else(|| request.reason.clone()).unwrap_or_else(|| "canary".to_owned());
    let split = Split::begin(false, (base, version.clone()), plan, request.operator.clone(), reason, now);
    draft.state.canary = Some(Canary { id, split: split.clone(), started, end: None });
    draft.share(&split, ActivatedBy::Person, LogEvent::Canary, None);
    Ok(Answer::Shared { from: split.leaving.clone(), to: version.clone(), percent: split.percent(), incident: None })
}

fn bad(message: String) -> Refusal {
    Refusal::new(RefusalCode::BadStages, message)
}

/// A person takes the new version back; nothing is said against it.
fn stop(draft: &mut Draft<'_>, canary: &Canary, operator: &str) -> Answer {
    let (from, to) = (canary.split.arriving.clone(), canary.split.leaving.clone());
    draft.end_canary(&to, "canary stopped", operator);
    Answer::Changed { from: Some(from.to_string()), to, incident: None, unchanged: false, mode: None }
}

/// Why the canary may not move forward by itself.
fn obstacle(draft: &Draft<'_>, split: &Split) -> Option<String> {
    if let Some(held) = draft.switched_off(&split.arriving) {
        return Some(format!("automation is off: {}", held.detail));
    }
    if let Some(mark) = draft.state.marked_bad(&split.arriving) {
        return Some(format!("{} is {mark}", split.arriving));
    }
    let serious = |i: &&Incident| i.phase.is_undecided() && i.severity >= Severity::High && split.has(&i.version);
    if let Some(incident) = draft.state.open_incidents().find(serious) {
        return Some(format!("incident {} on {} waits for a decision", incident.id, incident.version));
    }
    let last = split.next_percent().is_none_or(|percent| percent == 100);
    let gate = || closed(draft.policy, &draft.state, &split.arriving, true, draft.now);
    last.then(gate).flatten().map(|gate| format!("gate {}: {}", gate.name, gate.text))
}

/// The stage is over.
pub(super) fn due(draft: &mut Draft<'_>, promotion: &Promotion) -> Answer {
    let now = draft.now;
    let obstacle = draft.state.running_canary().and_then(|canary| obstacle(draft, &canary.split));
    let Some(canary) = draft.state.canary.as_mut().filter(|canary| canary.end.is_none()) else { return Answer::Noted };
    let split = &mut canary.split;
    if split.since != promotion.since || split.next.is_none_or(|next| next > now) {
        return Answer::Noted;
    }
    if let Some(obstacle) = obstacle {
        split.paused = Some(obstacle);
        split.next = Some(now.plus(Split::CHECK_EVERY));
        return Answer::Noted;
    }
    if split.next_percent().is_some_and(|percent| percent < 100) {
        split.enter(split.stage + 1, now);
        let split = split.clone();
        draft.share(&split, ActivatedBy::Person, LogEvent::Canary, None);
        return Answer::Noted;
    }
    let (version, operator) = (split.arriving.clone(), split.operator.clone());
    draft.end_canary(&version, "canary finished", &operator);
    Answer::Noted
}

/// `version` is the one under trial, with a base to fall back to. Where that is marked as bad, an alert is handled as on
/// any version that serves.
pub(super) fn is_trial(draft: &Draft<'_>, version: &VersionName) -> bool {
    let split = draft.state.running_canary().map(|canary| &canary.split);
    split.is_some_and(|split| split.arriving == *version && draft.state.marked_bad(&split.leaving).is_none())
}

/// Whether `alert` takes traffic from `version` without a person.
pub(super) fn acts_on(draft: &Draft<'_>, version: &VersionName, alert: &AlertRecord) -> bool {
    alert.action == Action::Rollback || (is_trial(draft, version) && alert.severity >= Severity::High)
}

/// An alert on the new version, high or worse, ends its canary: it needs no approval, no known-good target, no budget.
pub(super) fn fails(
    draft: &mut Draft<'_>,
    id: &IncidentId,
    version: &VersionName,
    severity: Severity,
    reason: &str,
) -> Option<std::result::Result<(), Held>> {
    let split = &draft.state.running_canary()?.split;
    if !is_trial(draft, version) || severity < Severity::High {
        return None;
    }
    let base = split.leaving.clone();
    if let Some(held) = draft.guard(version) {
        return Some(Err(held));
    }
    let percent = split.percent();
    draft.flip(Some(version), &base, FlipMode::Auto, Trigger::SYSTEM, reason, Some(id));
    draft.automatic = None; // a canary's end is no sign of an outage
    if let Some(CanaryEnd { text, .. }) = draft.state.canary.as_mut().and_then(|canary| canary.end.as_mut()) {
        *text = format!("stopped at {percent} %: {reason}");
    }
    Some(Ok(()))
}

impl Draft<'_> {
    /// `version`, one side of the canary, gets all traffic.
    fn end_canary(&mut self, version: &VersionName, reason: &str, operator: &str) {
        let from = self.state.split().map(|split| split.other(version).to_string());
        self.activate(version, from, reason, operator, None);
    }
}
