//! What people ask for, through API, CLI and buttons.

use std::cmp::Ordering;

use super::super::event::{Activation, Choice, Decide, Register, Rollback, Share};
use super::super::flip::{Flip, FlipMode};
use super::super::incident::Incident;
use super::super::names::{IncidentId, VersionName};
use super::super::note::NoteKind;
use super::super::phase::{Pending, Phase, PhaseKind, Question};
use super::super::policy::Policy;
use super::super::serving::ActivatedBy;
use super::super::severity::{Action, Severity};
use super::super::soak::Earned;
use super::super::split::{Plan, Split};
use super::super::state::{Stray, Suppressed, VersionRecord};
use super::super::time::spoken;
use super::{Answer, Draft, Refusal, RefusalCode, canary, confirm, gradual, mark, measure};

type Result<T> = std::result::Result<T, Refusal>;

pub(super) fn must_be_known(draft: &Draft<'_>) -> Result<()> {
    if draft.state.versions.is_empty() && draft.served_text().is_none() {
        let prompt = &draft.snapshot.prompt;
        return Err(Refusal::new(RefusalCode::UnknownPrompt, format!("no prompt {prompt} is registered or active")));
    }
    Ok(())
}

/// `target` may be served again: known-good and not quarantined, or forced; never one that nobody registered.
fn must_be_allowed(draft: &Draft<'_>, target: &VersionName, force: bool) -> Result<()> {
    let Some(record) = draft.state.version(target) else {
        return Err(unknown_version(draft, target));
    };
    if force || record.is_target(draft.policy, draft.now) {
        return Ok(());
    }
    mark::must_not_be_bad(draft, target, force)?;
    let why = match (&record.quarantine, &record.fled) {
        (Some(_), _) => "was rolled back and is quarantined".to_owned(),
        (None, Some(fled)) => fled.spoken(draft.now),
        (None, None) => "is not known-good".to_owned(),
    };
    Err(Refusal::new(RefusalCode::NeedsForce, format!("{target} {why}: say force to serve it all the same")))
}

pub(super) fn unknown_version(draft: &Draft<'_>, version: &VersionName) -> Refusal {
    let prompt = &draft.snapshot.prompt;
    Refusal::new(
        RefusalCode::UnknownVersion,
        format!("{version} is not a registered version of {prompt}: register it first"),
    )
}

fn no_known_good(draft: &Draft<'_>, from: Option<&VersionName>) -> Refusal {
    let prompt = &draft.snapshot.prompt;
    let fled = draft.fled_text(from).map(|text| format!(" ({text})")).unwrap_or_default();
    let message =
        format!("{prompt} has no other known-good version{fled}: name a target_version, or mark one as known-good");
    Refusal::new(RefusalCode::NoKnownGood, message)
}

pub(super) fn rollback(draft: &mut Draft<'_>, request: &Rollback) -> Result<Answer> {
    must_be_known(draft)?;
    let (policy, now) = (draft.policy, draft.now);
    // of two versions that share the traffic, the one under trial or on its way out
    let split = draft.state.split();
    let trial =
        split.map(|split| if draft.state.running_canary().is_some() { &split.arriving } else { &split.leaving });
    let named = request.from.as_ref().filter(|from| split.is_some_and(|split| split.has(from)));
    let served = named.or(trial).or(draft.serving()).or(in_trouble(draft, request)).cloned();
    if let Some(target) = request.target.as_ref().filter(|t| Some(*t) == served.as_ref()) {
        let from = draft.served_text();
        return Ok(Answer::Changed { from, to: target.clone(), incident: None, unchanged: true, mode: None });
    }
    if let Some(from) = request.from.as_ref().filter(|from| Some(*from) != served.as_ref()) {
        let now_served = draft.served_text().unwrap_or_else(|| "nothing".to_owned());
        return Err(Refusal::new(RefusalCode::Moved, format!("{from} is not active any more: {now_served} is")));
    }
    let target = match &request.target {
        Some(target) => {
            must_be_allowed(draft, target, request.force)?;
            target.clone()
        }
        None => {
            let recent = draft.state.last_rollback.map(|at| now.since(at)).filter(|ago| *ago < Policy::RECENT_ROLLBACK);
            if let (Some(ago), None) = (recent, &request.from) {
                let message =
                    format!("rolled back {} ago: name target_version or from_version to do it again", spoken(ago));
                return Err(Refusal::new(RefusalCode::RecentlyRolledBack, message));
            }
            draft
                .state
                .target(served.as_ref(), policy, now)
                .cloned()
                .ok_or_else(|| no_known_good(draft, served.as_ref()))?
        }
    };
    let from = served.as_ref().map(VersionName::to_string).or_else(|| draft.served_text());
    let incident = served.as_ref().map(|bad| incident_on(draft, bad, request));
    if request.gradual.is_some() {
        gradual::must_be_free(draft, incident.as_ref())?;
    }
    if served.is_none() || draft.state.split().is_some() {
        draft.must_have_text(&target, request.force)?; // nothing could wait for it
    }
    if let (Some(bad), Some(id)) = (&served, &incident) {
        let pending = Pending {
            by: FlipMode::Manual,
            from: bad.clone(),
            to: target.clone(),
            operator: request.operator.clone(),
            reason: request.reason.clone(),
            gradual: request.gradual.clone(),
            sure: false,
            at: now,
        };
        if let Some(answer) = confirm_first(draft, id, pending.clone(), request.force)? {
            return Ok(answer);
        }
        if request.gradual.is_some() {
            gradual::begin(draft, id, pending);
            return Ok(shared_or_changed(draft, id, from, target, FlipMode::Manual));
        }
        if let Some(incident) = draft.incident(id) {
            incident.decided_by = Some(request.operator.clone());
        }
    }
    draft.flip(served.as_ref(), &target, FlipMode::Manual, &request.operator, &request.reason, incident.as_ref());
    Ok(Answer::Changed { from, to: target, incident, unchanged: false, mode: Some(FlipMode::Manual) })
}

/// Without a version in `active`: the one that a rollback leaves, because an incident is open on it or it is named.
fn in_trouble<'d>(draft: &'d Draft<'_>, request: &Rollback) -> Option<&'d VersionName> {
    let troubled = |version: &VersionName| draft.state.open_incidents().any(|i| i.subject() == version);
    let named = |version| request.from.as_ref().map_or_else(|| troubled(version), |from| from == version);
    let mut kept = draft.state.lapsed.as_ref()?.versions.iter();
    kept.find(|version| named(version) && request.target.as_ref() != Some(*version))
}

/// Puts a person's rollback off until Prometheus has been asked, unless that is pointless or was overruled, and until the
/// target's text is in Redis.
fn confirm_first(draft: &mut Draft<'_>, id: &IncidentId, mut pending: Pending, force: bool) -> Result<Option<Answer>> {
    let policy = draft.policy;
    let has_text = draft.must_have_text(&pending.to, force).is_ok();
    let Some(incident) = draft.incident(id) else { return Ok(None) };
    if let Some(other) = incident.pending().filter(|other| other.by != FlipMode::Auto && !force) {
        let message = format!("{} asked for this just now: Prometheus is being asked first", other.operator);
        return Err(Refusal::new(RefusalCode::AlreadyDecided, message));
    }
    // after a rollback that failed, the checks have said how bad it is; what is on its way was confirmed when it began
    let known = matches!(incident.phase.kind(), PhaseKind::Escalated | PhaseKind::RollingBack);
    let overruled = force || incident.objection().is_some() || known;
    pending.sure = !policy.confirm || overruled;
    if pending.sure && has_text {
        return Ok(None);
    }
    let to = pending.to.clone();
    confirm::begin(draft, id, pending);
    Ok(Some(Answer::Confirming { incident: id.clone(), to }))
}

/// The open incident on `bad`, or a new one that says who asked.
fn incident_on(draft: &mut Draft<'_>, bad: &VersionName, request: &Rollback) -> IncidentId {
    let Rollback { operator, reason, target, .. } = request;
    let now = draft.now;
    if let Some(incident) = draft.state.open_incident_on(bad) {
        return incident.id.clone();
    }
    let id = draft.next_id();
    let (prompt, decider) = (draft.snapshot.prompt.clone(), draft.policy.fallback_decider.clone());
    let mut incident = Incident {
        phase: Phase::AwaitingDecision(Question::default()),
        severity: Severity::High,
        action: Action::Rollback,
        time_limit: Action::Rollback.default_time_limit(),
        ..Incident::new(id.clone(), prompt, bad.clone(), decider, now)
    };
    incident.note(now, NoteKind::Opened, format!("{operator} asked for a rollback: {reason}"));
    if let Some(why) = draft.passed_over(bad).filter(|_| target.is_none()) {
        incident.note(now, NoteKind::Alert, why);
    }
    draft.state.incidents.push(incident);
    id
}

pub(super) fn activate(draft: &mut Draft<'_>, request: &Activation) -> Result<Answer> {
    must_be_known(draft)?;
    let version = &request.version;
    let Some(record) = draft.state.version(version) else {
        return Err(unknown_version(draft, version));
    };
    if record.quarantine.is_some() && !request.force {
        let message = format!("{version} was rolled back and is quarantined: say force to serve it all the same");
        return Err(Refusal::new(RefusalCode::NeedsForce, message));
    }
    let asked = match &request.share {
        Share::All => 100,
        Share::Percent(percent) => *percent,
        Share::Canary(plan) => plan.stages.first().copied().unwrap_or(100),
    };
    let gains = match asked.cmp(&draft.state.percent(version)) {
        Ordering::Greater => Some(version),
        Ordering::Equal => None,
        Ordering::Less => draft.state.split().map(|split| split.other(version)),
    };
    if let Some(gains) = gains {
        mark::must_not_be_bad(draft, gains, request.force)?;
    }
    if !draft.state.served().contains(version) {
        draft.must_have_text(version, request.force)?;
    }
    let from = draft.served_text();
    if request.share != Share::All {
        if let Some(record) = draft.state.version_mut(version) {
            record.quarantine = None;
        }
        return canary::start(draft, request);
    }
    let from = match draft.state.split() {
        Some(split) if split.has(version) => Some(split.other(version).to_string()),
        _ => from,
    };
    let unchanged = draft.serving() == Some(version) && draft.state.split().is_none();
    if !unchanged {
        let overridden = measure::must_be_open(draft, version, true, request.force, request.reason.as_deref())?;
        let why = overridden.or_else(|| request.reason.clone()).unwrap_or_else(|| "activated".to_owned());
        draft.activate(version, from.clone(), &why, &request.operator, None);
    }
    if let Some(record) = draft.state.version_mut(version) {
        record.quarantine = None;
    }
    if unchanged {
        // a person stands behind it now: no cooldown
        if let Some(serving) = draft.state.serving.as_mut().filter(|s| s.by == ActivatedBy::Rollback) {
            serving.by = ActivatedBy::Person;
        }
    }
    Ok(Answer::Changed { from, to: version.clone(), incident: None, unchanged, mode: None })
}

pub(super) fn register(draft: &mut Draft<'_>, request: &Register) -> Result<Answer> {
    let (policy, now) = (draft.policy, draft.now);
    let stored = draft.snapshot.content.as_ref();
    if let Some(record) = draft.state.version(&request.version).filter(|r| r.registered) {
        fn differs<T: PartialEq>(given: &Option<T>, stored: Option<&T>) -> bool {
            matches!((given, stored), (Some(given), Some(stored)) if given != stored)
        }
        let fields: Vec<&str> = [
            ("content", differs(&request.content, stored) || archived_differs(record, request)),
            ("contact", differs(&request.contact, record.contact.as_ref())),
            ("staged_at", differs(&request.staged_at, record.staged_at.as_ref())),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect();
        if !fields.is_empty() {
            let message = format!(
                "{} is registered already with another {}: a version never changes",
                request.version,
                fields.join(" and ")
            );
            return Err(Refusal::new(RefusalCode::Differs, message));
        }
    }
    let record = draft.state.version_entry(&request.version, now);
    let created = !record.registered;
    record.registered = true;
    record.contact = record.contact.take().or_else(|| request.contact.clone());
    record.staged_at = record.staged_at.or(request.staged_at);
    // a person's word is worth more than time alone
    if request.known_good && record.known_good.is_none_or(|good| good.by == Earned::Time) {
        record.trust(now);
    }
    let known_good = record.known_good(policy, now).is_some();
    // what is safe in the archive stays there
    let archived = record.archived.as_ref().is_some_and(|archived| !archived.lost);
    if let Some(content) = request.content.as_ref().filter(|_| stored.is_none() && !archived) {
        record.has_content = true;
        record.archived = None;
        draft.content.push((request.version.clone(), Some(content.clone())));
    }
    draft.limit_versions(&request.version);
    Ok(Answer::Registered { created, known_good })
}

/// Another text than the one in the archive.
fn archived_differs(record: &VersionRecord, request: &Register) -> bool {
    matches!((&record.archived, &request.content), (Some(archived), Some(text)) if !archived.is_of(text))
}

/// A person answers an incident's question.
pub(super) fn choose(draft: &mut Draft<'_>, click: &Decide) -> Result<Answer> {
    let known = draft.incident(&click.incident).is_some();
    let snapshot = draft.snapshot;
    match (&snapshot.incident, known) {
        (_, true) => {}
        // closed, and so gone from the state: an undo or a refusal still needs it
        (Some(closed), false) => draft.state.incidents.push(closed.clone()),
        (None, false) => {
            let message = format!("no incident {}: it may have expired", click.incident);
            return Err(Refusal::new(RefusalCode::UnknownIncident, message));
        }
    }
    match click.choice {
        Choice::Approve => approve(draft, click, None),
        Choice::ApproveGradual
            if draft.incident(&click.incident).is_some_and(|i| i.phase.kind() == PhaseKind::RollingBack) =>
        {
            undecided(draft, click, |_| true)?;
            gradual::go_on(draft, &click.incident, &click.operator, click.force)
        }
        Choice::ApproveGradual => {
            gradual::must_be_free(draft, Some(&click.incident))?;
            let plan = draft.policy.gradual.clone();
            approve(draft, click, Some(plan))
        }
        Choice::Investigate => investigate(draft, click),
        Choice::Dismiss => dismiss(draft, click),
        Choice::Undo => undo(draft, click),
    }
}

/// The incident, if `still` says that it may be decided that way.
fn undecided<'d>(draft: &'d mut Draft<'_>, click: &Decide, still: fn(PhaseKind) -> bool) -> Result<&'d mut Incident> {
    let now = draft.now;
    let Some(incident) = draft.incident(&click.incident) else {
        return Err(Refusal::new(RefusalCode::UnknownIncident, format!("no incident {}", click.incident)));
    };
    if still(incident.phase.kind()) {
        if click.ask.is_some_and(|ask| ask != incident.ask) {
            let message = "the question has changed since: look at the message again".to_owned();
            return Err(Refusal::new(RefusalCode::Stale, message));
        }
        return Ok(incident);
    }
    let message = match (&incident.flip, &incident.decided_by) {
        (Some(flip), _) if incident.is_shipped() => {
            format!("{} replaced this with {} {} ago", flip.operator, flip.to, spoken(now.since(flip.at)))
        }
        (Some(flip), _) if incident.phase.kind() != PhaseKind::Dismissed => {
            format!("{} rolled this back to {} {} ago", flip.operator, flip.to, spoken(now.since(flip.at)))
        }
        _ if incident.phase.kind() == PhaseKind::Investigating => {
            let decided = incident.notes.iter().rev().find(|note| note.kind == NoteKind::Decided);
            format!("this is in hand already: {}", decided.map_or("someone investigates", |note| &note.text))
        }
        (_, Some(who)) => format!("{who} decided this already: {}", incident.phase),
        (_, None) => format!("this is closed already: {}", incident.phase),
    };
    Err(Refusal::new(RefusalCode::AlreadyDecided, message))
}

/// What became of a gradual rollback that began just now.
fn shared_or_changed(
    draft: &mut Draft<'_>,
    id: &IncidentId,
    from: Option<String>,
    to: VersionName,
    mode: FlipMode,
) -> Answer {
    let incident = Some(id.clone());
    match draft.incident(id).and_then(|incident| incident.gradual()) {
        Some(split) => Answer::Shared { from: split.leaving.clone(), to, percent: split.percent(), incident },
        None => Answer::Changed { from, to, incident, unchanged: false, mode: Some(mode) },
    }
}

fn approve(draft: &mut Draft<'_>, click: &Decide, plan: Option<Plan>) -> Result<Answer> {
    let (policy, now) = (draft.policy, draft.now);
    let incident = undecided(draft, click, |phase| {
        phase.is_undecided() || matches!(phase, PhaseKind::RollingBack | PhaseKind::Escalated)
    })?;
    // after a rollback that failed, the version rolled back to is what serves
    let (subject, flip) = (incident.subject().clone(), incident.flip.clone());
    let reason = incident.summary().to_owned();
    if let Some(flip) = flip {
        must_be_last_move(draft, &flip)?;
    }
    if !draft.has_traffic(&subject) {
        return Err(Refusal::new(RefusalCode::Moved, format!("{subject} is not active any more")));
    }
    let target = match &click.target {
        Some(target) => {
            must_be_allowed(draft, target, click.force)?;
            target.clone()
        }
        None => draft
            .state
            .target(Some(&subject), policy, now)
            .cloned()
            .ok_or_else(|| no_known_good(draft, Some(&subject)))?,
    };
    if target == subject {
        return Err(Refusal::new(RefusalCode::Moved, format!("{target} is active already")));
    }
    if draft.state.split().is_some() {
        draft.must_have_text(&target, click.force)?; // nothing could wait for it
    }
    let pending = Pending {
        by: FlipMode::Approved,
        from: subject,
        to: target.clone(),
        operator: click.operator.clone(),
        reason: reason.clone(),
        gradual: plan,
        sure: false,
        at: now,
    };
    if let Some(answer) = confirm_first(draft, &click.incident, pending.clone(), click.force)? {
        return Ok(answer);
    }
    if pending.gradual.is_some() {
        let from = Some(pending.from.to_string());
        gradual::begin(draft, &click.incident, pending);
        return Ok(shared_or_changed(draft, &click.incident, from, target, FlipMode::Approved));
    }
    if let Some(incident) = draft.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
    }
    let from = Some(pending.from.to_string());
    draft.flip(Some(&pending.from), &target, FlipMode::Approved, &click.operator, &reason, Some(&click.incident));
    let incident = Some(click.incident.clone());
    Ok(Answer::Changed { from, to: target, incident, unchanged: false, mode: Some(FlipMode::Approved) })
}

fn investigate(draft: &mut Draft<'_>, click: &Decide) -> Result<Answer> {
    let now = draft.now;
    let incident = undecided(draft, click, |phase| {
        matches!(phase, PhaseKind::Confirming | PhaseKind::Observing | PhaseKind::AwaitingDecision)
    })?;
    // asked again then; nothing escalates before
    incident.phase = Phase::Investigating { until: now.plus(incident.time_limit) };
    incident.ask += 1;
    incident.note(now, NoteKind::Decided, format!("{} investigates", click.operator));
    Ok(Answer::Decided(PhaseKind::Investigating))
}

fn dismiss(draft: &mut Draft<'_>, click: &Decide) -> Result<Answer> {
    let now = draft.now;
    let incident = undecided(draft, click, |phase| phase.is_undecided() || phase == PhaseKind::Escalated)?;
    incident.decided_by = Some(click.operator.clone());
    suppress(draft, &click.incident);
    if let Some(incident) = draft.incident(&click.incident) {
        incident.close(Phase::Dismissed, now, format!("{} dismissed this", click.operator));
    }
    Ok(Answer::Decided(PhaseKind::Dismissed))
}

/// Silences what fires now until it resolves or gets worse.
fn suppress(draft: &mut Draft<'_>, id: &IncidentId) {
    let now = draft.now;
    let Some(incident) = draft.state.incidents.iter().find(|incident| incident.id == *id) else { return };
    let version = &incident.version;
    // the record of a closed incident is not kept up to date; whether its alerts still fire is remembered apart
    let still = |fingerprint: &str| {
        let stray = |s: &Stray| s.version == *version && s.alert.fingerprint == fingerprint;
        incident.phase.is_open() || draft.state.strays.iter().any(stray)
    };
    let silenced: Vec<_> = incident
        .alerts
        .iter()
        .filter(|alert| alert.firing && still(&alert.fingerprint))
        .map(|alert| Suppressed {
            version: version.clone(),
            fingerprint: alert.fingerprint.clone(),
            severity: alert.severity,
            dismissed_at: Some(now),
            since: now,
        })
        .collect();
    let known = |s: &Suppressed| silenced.iter().any(|n| n.fingerprint == s.fingerprint && n.version == s.version);
    draft.state.suppressed.retain(|s| !known(s));
    draft.state.suppressed.extend(silenced);
}

/// An incident takes back, or goes on from, only what it did itself.
fn must_be_last_move(draft: &Draft<'_>, flip: &Flip) -> Result<()> {
    if draft.state.is_last_move(flip) && draft.has_traffic(&flip.to) {
        return Ok(());
    }
    let serving = draft.served_text().map_or_else(|| "nothing is".to_owned(), |version| format!("{version} is"));
    let message = format!("what is served has changed since this rollback to {}: {serving} active now", flip.to);
    Err(Refusal::new(RefusalCode::Moved, message))
}

/// The rollback was a mistake: serve the version again and trust it as before.
fn undo(draft: &mut Draft<'_>, click: &Decide) -> Result<Answer> {
    let now = draft.now;
    let incident = undecided(draft, click, |phase| !matches!(phase, PhaseKind::Dismissed | PhaseKind::Superseded))?;
    if let Some(split) = incident.gradual().cloned() {
        mark::must_not_be_bad(draft, &split.leaving, click.force)?;
        return Ok(back(draft, click, &split));
    }
    let Some(flip) = incident.flip.clone().filter(|_| !incident.is_shipped()) else {
        return Err(Refusal::new(RefusalCode::AlreadyDecided, "nothing was rolled back here that could be undone"));
    };
    must_be_last_move(draft, &flip)?;
    mark::must_not_be_bad(draft, &flip.from, click.force)?;
    draft.must_have_text(&flip.from, click.force)?;
    let Some(record) = draft.state.version_mut(&flip.from) else {
        return Err(unknown_version(draft, &flip.from));
    };
    if let Some(quarantine) = record.quarantine.take() {
        record.known_good = record.known_good.or(quarantine.known_good);
    }
    suppress(draft, &click.incident);
    if let Some(incident) = draft.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
        let text = format!("{} undid the rollback: {} is served again", click.operator, flip.from);
        incident.close(Phase::Dismissed, now, text);
    }
    let from = draft.served_text();
    let incident = Some(click.incident.clone());
    draft.activate(&flip.from, from.clone(), "rollback undone", &click.operator, incident.clone());
    Ok(Answer::Changed { from, to: flip.from, incident, unchanged: false, mode: None })
}

/// All traffic back to the version that a gradual rollback was about to leave.
fn back(draft: &mut Draft<'_>, click: &Decide, split: &Split) -> Answer {
    let now = draft.now;
    let left_with = draft.left_with(&split.arriving); // as long as the incident is open
    suppress(draft, &click.incident);
    if let Some(incident) = draft.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
        let text = format!("{} ended the gradual rollback: {} has all traffic again", click.operator, split.leaving);
        incident.close(Phase::Dismissed, now, text);
    }
    let (from, incident) = (Some(split.arriving.to_string()), Some(click.incident.clone()));
    let reason = "gradual rollback undone";
    draft.activate(&split.leaving, from.clone(), reason, &click.operator, incident.clone());
    draft.retire_one(&split.arriving, Some(&split.leaving), None, left_with);
    Answer::Changed { from, to: split.leaving.clone(), incident, unchanged: false, mode: None }
}
