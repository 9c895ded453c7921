//! Requests by people, through API, CLI and buttons.

use std::cmp::Ordering;

use super::super::event::{Activation, Choice, Decide, Register, Rollback, TrafficShare};
use super::super::incident::Incident;
use super::super::names::{IncidentId, VersionName};
use super::super::note::NoteKind;
use super::super::phase::{Pending, Phase, PhaseKind, Question};
use super::super::policy::Policy;
use super::super::serving::ActivatedBy;
use super::super::severity::{Action, Severity};
use super::super::soak::Earned;
use super::super::split::{Plan, TrafficSplit};
use super::super::state::{InactiveAlert, Silence, VersionRecord};
use super::super::switch::{Switch, SwitchMode};
use super::super::time::spoken;
use super::{Answer, Refusal, RefusalCode, Transaction, canary, confirm, gradual, mark, measure};

pub(super) type OrRefusal<T> = std::result::Result<T, Refusal>;

pub(super) fn must_be_known(tx: &Transaction<'_>) -> OrRefusal<()> {
    if tx.state.versions.is_empty() && tx.served_text().is_none() {
        let prompt = &tx.snapshot.prompt;
        return Err(Refusal::new(RefusalCode::UnknownPrompt, format!("no prompt {prompt} is registered or active")));
    }
    Ok(())
}

/// `target` may be served again instead of `from`: known-good and not quarantined, or what it would be without being named,
/// or forced; never one that nobody registered.
fn must_be_allowed(
    tx: &Transaction<'_>,
    from: Option<&VersionName>,
    target: &VersionName,
    force: bool,
) -> OrRefusal<()> {
    let Some(record) = tx.state.version(target) else {
        return Err(unknown_version(tx, target));
    };
    let named_or_not = || tx.state.target(from, tx.policy, tx.now) == Some(target);
    if force || record.is_target(tx.policy, tx.now) || named_or_not() {
        return Ok(());
    }
    mark::must_not_be_bad(tx, target, force)?;
    let why = match (&record.quarantine, &record.fled) {
        (Some(_), _) => "was rolled back and is quarantined".to_owned(),
        (None, Some(fled)) => fled.spoken(tx.now),
        (None, None) => "is not known-good".to_owned(),
    };
    Err(Refusal::new(RefusalCode::NeedsForce, format!("{target} {why}: use force to activate it anyway")))
}

pub(super) fn unknown_version(tx: &Transaction<'_>, version: &VersionName) -> Refusal {
    let prompt = &tx.snapshot.prompt;
    Refusal::new(
        RefusalCode::UnknownVersion,
        format!("{version} is not a registered version of {prompt}: register it first"),
    )
}

fn no_known_good(tx: &Transaction<'_>, from: Option<&VersionName>) -> Refusal {
    let prompt = &tx.snapshot.prompt;
    let fled = tx.fled_text(from).map(|text| format!(" ({text})")).unwrap_or_default();
    let message =
        format!("{prompt} has no other known-good version{fled}: name a target_version, or mark one as known-good");
    Refusal::new(RefusalCode::NoKnownGood, message)
}

pub(super) fn rollback(tx: &mut Transaction<'_>, request: &Rollback) -> OrRefusal<Answer> {
    must_be_known(tx)?;
    let (policy, now) = (tx.policy, tx.now);
    // of two versions that share the traffic: the canary, or the version that a gradual rollback leaves
    let split = tx.state.split();
    let trial = split.map(|split| if tx.state.running_canary().is_some() { &split.arriving } else { &split.leaving });
    let named = request.from.as_ref().filter(|from| split.is_some_and(|split| split.has(from)));
    // to a version that has only a share, it leads from the other one
    let beside = split.zip(request.target.as_ref()).filter(|(split, target)| split.has(target));
    let beside = beside.map(|(split, target)| split.other(target));
    let served = named.or(beside).or(trial).or(tx.serving()).or(in_trouble(tx, request)).cloned();
    if let Some(target) = request.target.as_ref().filter(|t| Some(*t) == served.as_ref()) {
        let from = tx.served_text();
        return Ok(Answer::Changed { from, to: target.clone(), incident: None, unchanged: true, mode: None });
    }
    if let Some(from) = request.from.as_ref().filter(|from| Some(*from) != served.as_ref()) {
        let now_served = tx.served_text().unwrap_or_else(|| "nothing".to_owned());
        return Err(Refusal::new(RefusalCode::Moved, format!("{from} is no longer active: {now_served} is")));
    }
    let target = match &request.target {
        Some(target) => {
            must_be_allowed(tx, served.as_ref(), target, request.force)?;
            target.clone()
        }
        None => {
            let recent = tx.state.last_rollback.map(|at| now.since(at)).filter(|ago| *ago < Policy::RECENT_ROLLBACK);
            if let (Some(ago), None) = (recent, &request.from) {
                let message =
                    format!("rolled back {} ago: name target_version or from_version to do it again", spoken(ago));
                return Err(Refusal::new(RefusalCode::RecentlyRolledBack, message));
            }
            tx.state.target(served.as_ref(), policy, now).cloned().ok_or_else(|| no_known_good(tx, served.as_ref()))?
        }
    };
    let from = served.as_ref().map(VersionName::to_string).or_else(|| tx.served_text());
    let incident = served.as_ref().map(|bad| incident_on(tx, bad, request));
    if request.gradual.is_some() {
        gradual::must_be_free(tx, incident.as_ref())?;
    }
    if served.is_none() || tx.state.split().is_some() {
        tx.must_have_content(&target, request.force)?; // an instant activation cannot wait for the content
    }
    if let (Some(bad), Some(id)) = (&served, &incident) {
        let pending = Pending {
            by: SwitchMode::Manual,
            from: bad.clone(),
            to: target.clone(),
            operator: request.operator.clone(),
            reason: request.reason.clone(),
            gradual: request.gradual.clone(),
            skip_confirmation: false,
            at: now,
        };
        if let Some(answer) = confirm_first(tx, id, pending.clone(), request.force)? {
            return Ok(answer);
        }
        if request.gradual.is_some() {
            gradual::begin(tx, id, pending);
            return Ok(shared_or_changed(tx, id, from, target, SwitchMode::Manual));
        }
        if let Some(incident) = tx.incident(id) {
            incident.decided_by = Some(request.operator.clone());
        }
    }
    tx.switch(served.as_ref(), &target, SwitchMode::Manual, &request.operator, &request.reason, incident.as_ref());
    Ok(Answer::Changed { from, to: target, incident, unchanged: false, mode: Some(SwitchMode::Manual) })
}

/// The version to roll back while `active` holds none: the one that the request names, or that has an open incident.
fn in_trouble<'d>(tx: &'d Transaction<'_>, request: &Rollback) -> Option<&'d VersionName> {
    let troubled = |version: &VersionName| tx.state.open_incidents().any(|i| i.subject() == version);
    let named = |version| request.from.as_ref().map_or_else(|| troubled(version), |from| from == version);
    let mut kept = tx.state.lapsed.as_ref()?.versions.iter();
    kept.find(|version| named(version) && request.target.as_ref() != Some(*version))
}

/// Postpones a person's rollback until Prometheus has answered, unless that is pointless or was overruled, and until
/// the target's content is in Redis.
fn confirm_first(
    tx: &mut Transaction<'_>,
    id: &IncidentId,
    mut pending: Pending,
    force: bool,
) -> OrRefusal<Option<Answer>> {
    let policy = tx.policy;
    let has_text = tx.must_have_content(&pending.to, force).is_ok();
    let of_canary = canary::asks(tx, id);
    let Some(incident) = tx.incident(id) else { return Ok(None) };
    if let Some(other) = incident.pending().filter(|other| other.by != SwitchMode::Auto && !force) {
        let message = format!("{} has just requested this: waiting for an answer from Prometheus", other.operator);
        return Err(Refusal::new(RefusalCode::AlreadyDecided, message));
    }
    // after a rollback that failed, the checks have said how bad it is, and those of a canary why it waits; what is on its way
    // was confirmed when it began
    let known = of_canary || matches!(incident.phase.kind(), PhaseKind::Escalated | PhaseKind::RollingBack);
    let overruled = force || incident.objection().is_some() || known;
    pending.skip_confirmation = !policy.confirm || overruled;
    if pending.skip_confirmation && has_text {
        return Ok(None);
    }
    let to = pending.to.clone();
    confirm::begin(tx, id, pending);
    Ok(Some(Answer::Confirming { incident: id.clone(), to }))
}

/// The open incident on `bad`, or a new one that names the requester.
fn incident_on(tx: &mut Transaction<'_>, bad: &VersionName, request: &Rollback) -> IncidentId {
    let Rollback { operator, reason, target, .. } = request;
    let now = tx.now;
    if let Some(incident) = tx.state.open_incident_on(bad) {
        return incident.id.clone();
    }
    let id = tx.next_id();
    let (prompt, decider) = (tx.snapshot.prompt.clone(), tx.policy.fallback_decider.clone());
    let mut incident = Incident {
        phase: Phase::AwaitingDecision(Question::default()),
        severity: Severity::High,
        action: Action::Rollback,
        time_limit: Action::Rollback.default_time_limit(),
        ..Incident::new(id.clone(), prompt, bad.clone(), decider, now)
    };
    incident.note(now, NoteKind::Opened, format!("{operator} requested a rollback: {reason}"));
    if let Some(why) = tx.passed_over(bad).filter(|_| target.is_none()) {
        incident.note(now, NoteKind::Alert, why);
    }
    tx.state.incidents.push(incident);
    id
}

pub(super) fn activate(tx: &mut Transaction<'_>, request: &Activation) -> OrRefusal<Answer> {
    must_be_known(tx)?;
    let version = &request.version;
    let Some(record) = tx.state.version(version) else {
        return Err(unknown_version(tx, version));
    };
    if record.quarantine.is_some() && !request.force {
        let message = format!("{version} was rolled back and is quarantined: use force to activate it anyway");
        return Err(Refusal::new(RefusalCode::NeedsForce, message));
    }
    let asked = match &request.share {
        TrafficShare::All => 100,
        TrafficShare::Percent(percent) => *percent,
        TrafficShare::Canary(plan) => plan.stages.first().copied().unwrap_or(100),
    };
    let gains = match asked.cmp(&tx.state.percent(version)) {
        Ordering::Greater => Some(version),
        Ordering::Equal => None,
        Ordering::Less => tx.state.split().map(|split| split.other(version)),
    };
    if let Some(gains) = gains {
        mark::must_not_be_bad(tx, gains, request.force)?;
    }
    if !tx.state.served().contains(version) {
        tx.must_have_content(version, request.force)?;
    }
    let from = tx.served_text();
    if request.share != TrafficShare::All {
        if let Some(record) = tx.state.version_mut(version) {
            record.quarantine = None;
        }
        return canary::start(tx, request);
    }
    let from = match tx.state.split() {
        Some(split) if split.has(version) => Some(split.other(version).to_string()),
        _ => from,
    };
    let unchanged = tx.serving() == Some(version) && tx.state.split().is_none();
    if !unchanged {
        let overridden = measure::must_be_open(tx, version, true, request.force, request.reason.as_deref())?;
        let why = overridden.or_else(|| request.reason.clone()).unwrap_or_else(|| "activated".to_owned());
        tx.activate(version, from.clone(), &why, &request.operator, None);
    }
    if let Some(record) = tx.state.version_mut(version) {
        record.quarantine = None;
    }
    if unchanged {
        // a person's activation ends the cooldown
        if let Some(serving) = tx.state.serving.as_mut().filter(|s| s.by == ActivatedBy::Rollback) {
            serving.by = ActivatedBy::Person;
        }
    }
    Ok(Answer::Changed { from, to: version.clone(), incident: None, unchanged, mode: None })
}

pub(super) fn register(tx: &mut Transaction<'_>, request: &Register) -> OrRefusal<Answer> {
    let (policy, now) = (tx.policy, tx.now);
    let stored = tx.snapshot.content.as_ref();
    if let Some(record) = tx.state.version(&request.version).filter(|r| r.registered) {
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
                "{} is already registered with a different {}: versions are immutable",
                request.version,
                fields.join(" and ")
            );
            return Err(Refusal::new(RefusalCode::Differs, message));
        }
    }
    let record = tx.state.version_entry(&request.version, now);
    let created = !record.registered;
    record.registered = true;
    record.contact = record.contact.take().or_else(|| request.contact.clone());
    record.staged_at = record.staged_at.or(request.staged_at);
    // a person's word counts more than time alone
    if request.known_good && record.known_good.is_none_or(|good| good.by == Earned::Time) {
        record.trust(now);
    }
    let known_good = record.known_good(policy, now).is_some();
    // content that is safe in the archive stays there
    let archived = record.archived.as_ref().is_some_and(|archived| !archived.lost);
    if let Some(content) = request.content.as_ref().filter(|_| stored.is_none() && !archived) {
        record.has_content = true;
        record.archived = None;
        tx.content.push((request.version.clone(), Some(content.clone())));
    }
    tx.limit_versions(&request.version);
    Ok(Answer::Registered { created, known_good })
}

/// Whether the archive holds different content.
fn archived_differs(record: &VersionRecord, request: &Register) -> bool {
    matches!((&record.archived, &request.content), (Some(archived), Some(text)) if !archived.is_of(text))
}

/// A person answers an incident's question.
pub(super) fn choose(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let known = tx.incident(&click.incident).is_some();
    let snapshot = tx.snapshot;
    match (&snapshot.incident, known) {
        (_, true) => {}
        // a closed incident is no longer in the state, but an undo or a refusal needs it
        (Some(closed), false) => tx.state.incidents.push(closed.clone()),
        (None, false) => {
            let message = format!("no incident {}: it may have expired", click.incident);
            return Err(Refusal::new(RefusalCode::UnknownIncident, message));
        }
    }
    match click.choice {
        Choice::Approve => approve(tx, click, None),
        Choice::ApproveGradual
            if tx.incident(&click.incident).is_some_and(|i| i.phase.kind() == PhaseKind::RollingBack) =>
        {
            undecided(tx, click, |_| true)?;
            gradual::resume(tx, &click.incident, &click.operator, click.force)
        }
        Choice::ApproveGradual => {
            gradual::must_be_free(tx, Some(&click.incident))?;
            let plan = tx.policy.gradual.clone();
            approve(tx, click, Some(plan))
        }
        Choice::Investigate => investigate(tx, click),
        Choice::Dismiss => dismiss(tx, click),
        Choice::Undo => undo(tx, click),
    }
}

/// The incident, if `still` allows this decision in its phase.
fn undecided<'d>(
    tx: &'d mut Transaction<'_>,
    click: &Decide,
    still: fn(PhaseKind) -> bool,
) -> OrRefusal<&'d mut Incident> {
    let now = tx.now;
    let Some(incident) = tx.incident(&click.incident) else {
        return Err(Refusal::new(RefusalCode::UnknownIncident, format!("no incident {}", click.incident)));
    };
    if still(incident.phase.kind()) {
        if click.question_number.is_some_and(|question_number| question_number != incident.question_number) {
            let message = "the question has changed: check the message again".to_owned();
            return Err(Refusal::new(RefusalCode::Stale, message));
        }
        return Ok(incident);
    }
    let message = match (&incident.switch, &incident.decided_by) {
        (Some(switch), _) if incident.is_shipped() => {
            format!("{} replaced this with {} {} ago", switch.operator, switch.to, spoken(now.since(switch.at)))
        }
        (Some(switch), _) if incident.phase.kind() != PhaseKind::Dismissed => {
            format!("{} rolled this back to {} {} ago", switch.operator, switch.to, spoken(now.since(switch.at)))
        }
        _ if incident.phase.kind() == PhaseKind::Investigating => {
            let decided = incident.notes.iter().rev().find(|note| note.kind == NoteKind::Decided);
            format!("already under investigation: {}", decided.map_or("someone is investigating", |note| &note.text))
        }
        (_, Some(who)) => format!("{who} already decided this: {}", incident.phase),
        (_, None) => format!("this incident is already closed: {}", incident.phase),
    };
    Err(Refusal::new(RefusalCode::AlreadyDecided, message))
}

/// The answer about a gradual rollback that has just begun.
fn shared_or_changed(
    tx: &mut Transaction<'_>,
    id: &IncidentId,
    from: Option<String>,
    to: VersionName,
    mode: SwitchMode,
) -> Answer {
    let incident = Some(id.clone());
    match tx.incident(id).and_then(|incident| incident.gradual()) {
        Some(split) => Answer::Shared { from: split.leaving.clone(), to, percent: split.percent(), incident },
        None => Answer::Changed { from, to, incident, unchanged: false, mode: Some(mode) },
    }
}

fn approve(tx: &mut Transaction<'_>, click: &Decide, plan: Option<Plan>) -> OrRefusal<Answer> {
    let (policy, now) = (tx.policy, tx.now);
    let incident = undecided(tx, click, |phase| {
        phase.is_undecided() || matches!(phase, PhaseKind::RollingBack | PhaseKind::Escalated)
    })?;
    // after a failed rollback, the served version is the one rolled back to
    let (subject, switch) = (incident.subject().clone(), incident.switch.clone());
    let reason = incident.summary().to_owned();
    if let Some(switch) = switch {
        must_be_last_move(tx, &switch)?;
    }
    if !tx.has_traffic(&subject) {
        return Err(Refusal::new(RefusalCode::Moved, format!("{subject} is no longer active")));
    }
    let target = match &click.target {
        Some(target) => {
            must_be_allowed(tx, Some(&subject), target, click.force)?;
            target.clone()
        }
        None => {
            tx.state.target(Some(&subject), policy, now).cloned().ok_or_else(|| no_known_good(tx, Some(&subject)))?
        }
    };
    if target == subject {
        return Err(Refusal::new(RefusalCode::Moved, format!("{target} is already active")));
    }
    if tx.state.split().is_some() {
        tx.must_have_content(&target, click.force)?; // an instant rollback cannot wait for the content
    }
    let pending = Pending {
        by: SwitchMode::Approved,
        from: subject,
        to: target.clone(),
        operator: click.operator.clone(),
        reason: reason.clone(),
        gradual: plan,
        skip_confirmation: false,
        at: now,
    };
    if let Some(answer) = confirm_first(tx, &click.incident, pending.clone(), click.force)? {
        return Ok(answer);
    }
    if pending.gradual.is_some() {
        let from = Some(pending.from.to_string());
        gradual::begin(tx, &click.incident, pending);
        return Ok(shared_or_changed(tx, &click.incident, from, target, SwitchMode::Approved));
    }
    if let Some(incident) = tx.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
    }
    let from = Some(pending.from.to_string());
    tx.switch(Some(&pending.from), &target, SwitchMode::Approved, &click.operator, &reason, Some(&click.incident));
    let incident = Some(click.incident.clone());
    Ok(Answer::Changed { from, to: target, incident, unchanged: false, mode: Some(SwitchMode::Approved) })
}

fn investigate(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, |phase| {
        matches!(phase, PhaseKind::Confirming | PhaseKind::Observing | PhaseKind::AwaitingDecision)
    })?;
    // no escalation until the question is asked again
    incident.phase = Phase::Investigating { until: now.plus(incident.time_limit) };
    incident.question_number += 1;
    incident.note(now, NoteKind::Decided, format!("{} is investigating", click.operator));
    Ok(Answer::Decided(PhaseKind::Investigating))
}

fn dismiss(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, |phase| phase.is_undecided() || phase == PhaseKind::Escalated)?;
    incident.decided_by = Some(click.operator.clone());
    silence(tx, &click.incident);
    if let Some(incident) = tx.incident(&click.incident) {
        incident.close(Phase::Dismissed, now, format!("{} dismissed this", click.operator));
    }
    Ok(Answer::Decided(PhaseKind::Dismissed))
}

/// Silences the alerts that fire now, until they resolve or get worse.
fn silence(tx: &mut Transaction<'_>, id: &IncidentId) {
    let now = tx.now;
    let Some(incident) = tx.state.incidents.iter().find(|incident| incident.id == *id) else { return };
    let version = &incident.version;
    // the record of a closed incident is not updated: whether its alerts still fire is stored separately
    let still = |fingerprint: &str| {
        let inactive = |s: &InactiveAlert| s.version == *version && s.alert.fingerprint == fingerprint;
        incident.phase.is_open() || tx.state.inactive_alerts.iter().any(inactive)
    };
    let silenced: Vec<_> = incident
        .alerts
        .iter()
        .filter(|alert| alert.firing && still(&alert.fingerprint))
        .map(|alert| Silence {
            version: version.clone(),
            fingerprint: alert.fingerprint.clone(),
            severity: alert.severity,
            dismissed_at: Some(now),
            starts_at: alert.starts_at,
            since: now,
        })
        .collect();
    let known = |s: &Silence| silenced.iter().any(|n| n.fingerprint == s.fingerprint && n.version == s.version);
    tx.state.silences.retain(|s| !known(s));
    tx.state.silences.extend(silenced);
}

/// Refuses to undo or continue a switch that another change followed.
fn must_be_last_move(tx: &Transaction<'_>, switch: &Switch) -> OrRefusal<()> {
    if tx.state.is_last_move(switch) && tx.has_traffic(&switch.to) {
        return Ok(());
    }
    let serving = tx.served_text().map_or_else(|| "nothing is".to_owned(), |version| format!("{version} is"));
    let message = format!("the active version has changed since this rollback to {}: {serving} active now", switch.to);
    Err(Refusal::new(RefusalCode::Moved, message))
}

/// The rollback was a mistake: serves the version again, and trusts it as before.
fn undo(tx: &mut Transaction<'_>, click: &Decide) -> OrRefusal<Answer> {
    let now = tx.now;
    let incident = undecided(tx, click, |phase| !matches!(phase, PhaseKind::Dismissed | PhaseKind::Superseded))?;
    if let Some(split) = incident.gradual().cloned() {
        mark::must_not_be_bad(tx, &split.leaving, click.force)?;
        return Ok(back(tx, click, &split));
    }
    let Some(switch) = incident.switch.clone().filter(|_| !incident.is_shipped()) else {
        return Err(Refusal::new(RefusalCode::AlreadyDecided, "this incident has no rollback to undo"));
    };
    must_be_last_move(tx, &switch)?;
    mark::must_not_be_bad(tx, &switch.from, click.force)?;
    tx.must_have_content(&switch.from, click.force)?;
    let Some(record) = tx.state.version_mut(&switch.from) else {
        return Err(unknown_version(tx, &switch.from));
    };
    if let Some(quarantine) = record.quarantine.take() {
        record.known_good = record.known_good.or(quarantine.known_good);
    }
    silence(tx, &click.incident);
    if let Some(incident) = tx.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
        let text = format!("{} undid the rollback: {} is served again", click.operator, switch.from);
        incident.close(Phase::Dismissed, now, text);
    }
    if let Some(answer) = canary::restore(tx, &switch, &click.operator, &click.incident)? {
        return Ok(answer);
    }
    let from = tx.served_text();
    let incident = Some(click.incident.clone());
    tx.activate(&switch.from, from.clone(), "rollback undone", &click.operator, incident.clone());
    Ok(Answer::Changed { from, to: switch.from, incident, unchanged: false, mode: None })
}

/// Returns all traffic to the version that a gradual rollback was leaving.
fn back(tx: &mut Transaction<'_>, click: &Decide, split: &TrafficSplit) -> Answer {
    let now = tx.now;
    let left_with = tx.left_with(&split.arriving); // while the incident is still open
    silence(tx, &click.incident);
    if let Some(incident) = tx.incident(&click.incident) {
        incident.decided_by = Some(click.operator.clone());
        let text = format!("{} ended the gradual rollback: {} has all traffic again", click.operator, split.leaving);
        incident.close(Phase::Dismissed, now, text);
    }
    let (from, incident) = (Some(split.arriving.to_string()), Some(click.incident.clone()));
    let reason = "gradual rollback undone";
    tx.activate(&split.leaving, from.clone(), reason, &click.operator, incident.clone());
    tx.retire_one(&split.arriving, Some(&split.leaving), None, left_with);
    Answer::Changed { from, to: split.leaving.clone(), incident, unchanged: false, mode: None }
}
