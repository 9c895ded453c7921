//! Requests by people, through API, CLI and buttons.

use std::cmp::Ordering;

use super::answer::Answer;
use super::precondition::{
    must_be_allowed, must_be_free, must_be_known, must_be_open, must_be_seen, must_not_be_bad, no_known_good,
    unknown_version,
};
use super::transaction::{Cause, Transaction};
use super::{canary, confirm, gradual};
use crate::soak::Earned;
use crate::time::spoken;
use crate::{
    Action, ActivatedBy, Activation, Incident, IncidentId, NoteKind, OrRefusal, Pending, Phase, Policy, Question,
    Refusal, RefusalCode, Register, Rollback, Severity, SwitchMode, TrafficShare, VersionName, VersionRecord,
};

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
        must_be_free(tx, incident.as_ref())?;
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
        if let Some(answer) = confirm::ask_first(tx, id, pending.clone(), request.force)? {
            return Ok(answer);
        }
        if request.gradual.is_some() {
            gradual::begin(tx, id, pending);
            return Ok(gradual::begun(tx, id, from, target, SwitchMode::Manual));
        }
        if let Some(incident) = tx.incident(id) {
            incident.decided_by = Some(request.operator.clone());
        }
    }
    must_be_seen(tx, request.force)?;
    let cause = Cause { operator: &request.operator, reason: &request.reason, incident: incident.as_ref() };
    tx.switch(served.as_ref(), &target, SwitchMode::Manual, cause);
    Ok(Answer::Changed { from, to: target, incident, unchanged: false, mode: Some(SwitchMode::Manual) })
}

/// The version to roll back while `active` holds none: the one that the request names, or that has an open incident.
fn in_trouble<'d>(tx: &'d Transaction<'_>, request: &Rollback) -> Option<&'d VersionName> {
    let troubled = |version: &VersionName| tx.state.open_incidents().any(|i| i.subject() == version);
    let named = |version| request.from.as_ref().map_or_else(|| troubled(version), |from| from == version);
    let mut kept = tx.state.lapsed.as_ref()?.versions.iter();
    kept.find(|version| named(version) && request.target.as_ref() != Some(*version))
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
        must_not_be_bad(tx, gains, request.force)?;
    }
    if !tx.state.served().contains(version) {
        tx.must_have_content(version, request.force)?;
    }
    let from = tx.served_text();
    // a canary that begins with all traffic shares none
    let all = matches!(&request.share, TrafficShare::Canary(_) if asked == 100);
    if request.share != TrafficShare::All && !all {
        let answer = canary::start(tx, request)?;
        // later, so that its return counts
        if let Some(record) = tx.state.version_mut(version) {
            record.quarantine = None;
        }
        return Ok(answer);
    }
    let from = match tx.state.split() {
        Some(split) if split.has(version) => Some(split.other(version).to_string()),
        _ => from,
    };
    let unchanged = tx.serving() == Some(version) && tx.state.split().is_none();
    if !unchanged {
        let overridden = must_be_open(tx, version, true, request.force, request.reason.as_deref())?;
        let why = overridden.or_else(|| request.reason.clone()).unwrap_or_else(|| "activated".to_owned());
        tx.activate(version, from.clone(), Cause { operator: &request.operator, reason: &why, incident: None });
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
    let record = tx.version_entry(&request.version);
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
